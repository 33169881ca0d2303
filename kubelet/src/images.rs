//! Images: whether a container's image is on the node, pulled by its policy, with a pause after failures.
//!
//! (kubelet: `images/image_manager.go`; events and reasons word for word.)

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use minik8s_client::{EventType, object_reference};
use minik8s_cri::{Code, Error as CriError, proto};
use serde::Deserialize;

use crate::env::Objects;
use crate::image_name;
use crate::kubelet::Kubelet;
use crate::spec::PodExt as _;
use crate::status::StartFailure;
use crate::words;

/// Why an image is not there, and when to try again if it is known.
pub(crate) struct ImageFailure {
    pub failure: StartFailure,
    pub retry_at: Option<Timestamp>,
}

impl ImageFailure {
    fn new(reason: &str, message: String) -> Self {
        Self { failure: StartFailure { reason: reason.to_owned(), message }, retry_at: None }
    }
}

impl Kubelet {
    /// The images of the volumes that the container mounts, by volume; each is brought to the node as its policy says.
    pub(crate) async fn ensure_image_volumes(
        &self,
        pod: &Pod,
        container: &Container,
        objects: &Objects,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<BTreeMap<String, proto::ImageSpec>, ImageFailure> {
        let mut images = BTreeMap::new();
        let reference = object_reference(pod);
        for volume in pod.spec().volumes.iter().flatten() {
            let is_mounted = container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
            let Some(source) = volume.image.as_ref().filter(|_| is_mounted) else {
                continue;
            };
            let named = source.reference.as_deref().unwrap_or_default();
            let policy = source.pull_policy.as_deref();
            let image = self.ensure_image(pod, (named, policy), &reference, objects, sandbox).await?;
            let spec = proto::ImageSpec {
                image: image.id,
                user_specified_image: named.to_owned(),
                ..proto::ImageSpec::default()
            };
            images.insert(volume.name.clone(), spec);
        }
        Ok(images)
    }

    /// Sees to it that an image, given by name and pull policy, is on the node; returns it.
    pub(crate) async fn ensure_image(
        &self,
        pod: &Pod,
        (named, policy): (&str, Option<&str>),
        reference: &ObjectReference,
        objects: &Objects,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<proto::Image, ImageFailure> {
        let quoted = words::quoted(named);
        let warn = |reason: &str, message: &str| self.event(reference, EventType::Warning, reason, message);
        let image = image_name::with_default_tag(named).map_err(|why| {
            let message =
                format!("Failed to apply default image tag {quoted}: couldn't parse image name {quoted}: {why}");
            warn("InspectFailed", &message);
            ImageFailure::new("InvalidImageName", message)
        })?;
        let spec = proto::ImageSpec {
            image: image.clone(),
            user_specified_image: named.to_owned(),
            ..proto::ImageSpec::default()
        };
        let present = self.config.cri.image_status(spec.clone()).await.map_err(|error| {
            let message = format!("Failed to inspect image {quoted}: {error}");
            warn("InspectFailed", &message);
            ImageFailure::new("ImageInspectError", message)
        })?;
        let default = if image.ends_with(":latest") { "Always" } else { "IfNotPresent" };
        match (policy.unwrap_or(default), present) {
            ("Never", None) => {
                let message = format!("Container image {quoted} is not present with pull policy of Never");
                warn("ErrImageNeverPull", &message);
                Err(ImageFailure::new("ErrImageNeverPull", message))
            }
            ("Never" | "IfNotPresent", Some(image)) => {
                let message =
                    format!("Container image {quoted} already present on machine and can be accessed by the pod");
                self.event(reference, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            _ => self.pull(pod, named, spec, reference, objects, sandbox).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        named: &str,
        spec: proto::ImageSpec,
        reference: &ObjectReference,
        objects: &Objects,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<proto::Image, ImageFailure> {
        let clock = &self.config.clock;
        let quoted = words::quoted(named);
        let key = format!("{}_{named}", pod.uid());
        let waiting = {
            let pulls = self.pulls.lock();
            let until = pulls.0.until_since_update(&key, clock.now());
            until.map(|until| (until, pulls.1.get(&key).cloned()))
        };
        if let Some((until, last)) = waiting {
            let message = format!("Back-off pulling image {quoted}");
            self.event(reference, EventType::Normal, "BackOff", &message);
            let message = match last {
                Some(last) => format!("{message}: ErrImagePull: {last}"),
                None => message,
            };
            let retry_at = Some(until);
            return Err(ImageFailure { retry_at, ..ImageFailure::new("ImagePullBackOff", message) });
        }
        self.event(reference, EventType::Normal, "Pulling", format!("Pulling image {quoted}"));
        let started = clock.monotonic();
        let auth = self.pull_secret(pod, &spec.image, reference, objects);
        let pulled = async {
            let image = self.config.cri.pull_image(spec.clone(), auth, Some(sandbox.clone())).await?;
            let resolved = proto::ImageSpec { image, ..proto::ImageSpec::default() };
            let missing = CriError::Incomplete { call: "ImageStatus", field: "image" };
            self.config.cri.image_status(resolved).await?.ok_or(missing)
        };
        match pulled.await {
            Ok(image) => {
                let mut pulls = self.pulls.lock();
                pulls.0.forget(&key);
                pulls.1.remove(&key);
                let took = words::milliseconds(clock.monotonic() - started);
                let size = image.size;
                let message = format!(
                    "Successfully pulled image {quoted} in {took} ({took} including waiting). Image size: {size} bytes."
                );
                self.event(reference, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            Err(error) => {
                let words = pull_error(&error);
                let message = format!("Failed to pull image {quoted}: {words}");
                self.event(reference, EventType::Warning, "Failed", message);
                let now = clock.now();
                let mut pulls = self.pulls.lock();
                pulls.0.next(&key, now, now);
                pulls.1.insert(key, words.clone());
                Err(ImageFailure::new("ErrImagePull", words))
            }
        }
    }

    /// The credentials for the image's registry among the pod's pull secrets.
    fn pull_secret(
        &self,
        pod: &Pod,
        image: &str,
        reference: &ObjectReference,
        objects: &Objects,
    ) -> Option<proto::AuthConfig> {
        let mut missing = Vec::new();
        let mut found = None;
        for named in pod.spec().image_pull_secrets.iter().flatten() {
            match objects.secrets.get(&named.name) {
                None => missing.push(named.name.as_str()),
                Some(secret) => found = found.or_else(|| credentials(secret, registry(image))),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.event(reference, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
        }
        found
    }
}

/// A code that says nothing is left out (`cri-client/pkg/remote_image.go`).
fn pull_error(error: &CriError) -> String {
    match error {
        CriError::Rpc { code: Code::Unknown, message } => message.clone(),
        other => other.to_string(),
    }
}

/// The registry an image comes from.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains('.') || first.contains(':') || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The credentials a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` holds for a registry.
fn credentials(secret: &Secret, registry: &str) -> Option<proto::AuthConfig> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Entry {
        username: String,
        password: String,
        auth: String,
        identitytoken: String,
    }
    #[derive(Deserialize)]
    struct Config {
        auths: BTreeMap<String, Entry>,
    }
    let data = secret.data.as_ref()?;
    let mut entries: BTreeMap<String, Entry> = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(json), _) => serde_json::from_slice::<Config>(&json.0).ok()?.auths,
        (None, Some(json)) => serde_json::from_slice(&json.0).ok()?,
        (None, None) => return None,
    };
    let host = |server: &str| {
        let server = server.trim_start_matches("https://").trim_start_matches("http://");
        match server.split('/').next().unwrap_or_default() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            host => host.to_owned(),
        }
    };
    let server = entries.keys().find(|server| host(server) == registry)?.clone();
    let entry = entries.remove(&server)?;
    Some(proto::AuthConfig {
        username: entry.username,
        password: entry.password,
        auth: entry.auth,
        identity_token: entry.identitytoken,
        server_address: server,
        registry_token: String::new(),
    })
}
