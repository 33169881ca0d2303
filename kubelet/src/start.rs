//! Starting a container: image, configuration, creation, start, post-start hook; each failure with its reason.
//!
//! (kubelet: `kuberuntime_container.go`, `startContainer`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use minik8s_client::EventType;
use minik8s_cri::{FileKind, NodeFs, parent, proto};

use crate::container_config::{
    Parts, Volumes, container_config, hosts_file, is_written_by_kubelet, log_directory, sandbox_config,
};
use crate::env::{self, Objects};
use crate::error::{Error, Result};
use crate::hooks::Hook;
use crate::images::ImageFailure;
use crate::kubelet::Kubelet;
use crate::log_rotation;
use crate::resources::Amount;
use crate::runtime::{RuntimePod, RuntimeState};
use crate::runtime_class::runtime_handler;
use crate::spec::{ContainerKind, PodExt as _};
use crate::status::StartFailure;
use crate::volumes::pod_directory;
use crate::worker::PodWorker;

/// How many dead containers of each name are kept, for `logs --previous` and the last state.
const DEAD_CONTAINERS_KEPT: usize = 1;

/// What a container is started from.
#[derive(Clone, Copy)]
pub(crate) struct StartRequest<'a> {
    pub pod: &'a Arc<Pod>,
    pub runtime: &'a RuntimePod,
    pub objects: &'a Objects,
    pub services: &'a BTreeMap<String, String>,
}

/// Why a container did not start, and when to try again where that is known.
type Failure = (StartFailure, Option<Timestamp>);

fn failure(reason: &str, message: impl Into<String>) -> Failure {
    (StartFailure { reason: reason.to_owned(), message: message.into() }, None)
}

/// Copies a file or a folder of a volume as it is now. What is mounted by a sub path does not follow its volume: on a real node
/// it is the mounted file that stays, while the volume has another in its place.
fn copy_part(fs: &dyn NodeFs, from: &str, to: &str) -> Result<()> {
    let metadata = fs.metadata(from)?;
    fs.remove_all(to)?;
    if metadata.kind == FileKind::Directory {
        fs.create_dir_all(to)?;
        for entry in fs.list(from)? {
            copy_part(fs, &format!("{from}/{}", entry.name), &format!("{to}/{}", entry.name))?;
        }
    } else {
        fs.create_dir_all(parent(to))?;
        fs.write(to, &fs.read(from)?)?;
    }
    fs.set_mode(to, metadata.mode)?;
    Ok(())
}

/// The container whose processes an ephemeral one asks to see.
fn target(request: StartRequest<'_>, name: &str) -> Result<Option<String>> {
    let mut ephemeral = request.pod.spec().ephemeral_containers.iter().flatten();
    let target = ephemeral.find(|container| container.name == name);
    let Some(target) = target.and_then(|container| container.target_container_name.as_deref()) else { return Ok(None) };
    match request.runtime.latest(target) {
        _ if target.is_empty() => Ok(None),
        Some(container) => Ok(Some(container.id.clone())),
        None => Err(Error::InvalidPod(format!("unable to find target container {target}"))),
    }
}

impl Kubelet {
    pub(crate) async fn start_container(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        request: StartRequest<'_>,
        volumes: &BTreeMap<String, String>,
        name: &str,
        kind: ContainerKind,
        attempt: u32,
    ) -> std::result::Result<(), Failure> {
        let pod = request.pod;
        let (Some((_, container)), Some(sandbox)) = (pod.container(name), request.runtime.sandbox()) else {
            return Err(failure("CreateContainerConfigError", "the pod has no sandbox"));
        };
        let reference = pod.container_reference(kind, name);
        let config = sandbox_config(pod, sandbox.attempt, &self.config.node_name, &self.dns());
        let objects = request.objects;
        let images = async {
            let image_volumes = self.ensure_image_volumes(pod, &container, objects, &config).await?;
            let image = (container.image.as_deref().unwrap_or_default(), container.image_pull_policy.as_deref());
            Ok((self.ensure_image(pod, image, &reference, objects, &config).await?, image_volumes))
        };
        let images: std::result::Result<_, ImageFailure> = images.await;
        let (image, image_volumes) = images.map_err(|error| {
            let message = format!("Error: {}", error.failure.reason);
            self.event(&reference, EventType::Warning, "Failed", message);
            (error.failure, error.retry_at)
        })?;
        let volumes = Volumes { paths: volumes, images: &image_volumes };
        let recursive = container.volume_mounts.iter().flatten().any(|mount| mount.recursive_read_only.is_some());
        let recursive = recursive && self.mounts_recursively_read_only(pod).await;
        let made = self.container_config(request, &container, attempt, (&image, volumes, recursive), &sandbox.ips);
        let made = made.map_err(|error| {
            self.event(&reference, EventType::Warning, "Failed", format!("Error: {error}"));
            failure("CreateContainerConfigError", error.to_string())
        })?;
        if kind != ContainerKind::Ephemeral {
            self.actuate_new(pod, &container).map_err(|error| {
                self.event(&reference, EventType::Warning, "Failed", format!("Error: {error}"));
                failure("CreateContainerConfigError", error.to_string())
            })?;
        }
        self.remove_dead_containers(request.runtime, name).await;
        let cri = &self.config.cri;
        let id = cri.create_container(&sandbox.id, made, config).await.map_err(|error| {
            self.event(&reference, EventType::Warning, "Failed", format!("Error: {}", error.message()));
            failure("CreateContainerError", error.message())
        })?;
        self.event(&reference, EventType::Normal, "Created", "Container created");
        cri.start_container(&id).await.map_err(|error| {
            self.event(&reference, EventType::Warning, "Failed", format!("Error: {}", error.message()));
            failure("RunContainerError", error.message())
        })?;
        self.event(&reference, EventType::Normal, "Started", "Container started");
        self.post_start(worker, pod, &container, &reference, &id, request.runtime).await
    }

    async fn post_start(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        container: &Container,
        reference: &ObjectReference,
        id: &str,
        runtime: &RuntimePod,
    ) -> std::result::Result<(), Failure> {
        let lifecycle = container.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = runtime.sandbox().and_then(|sandbox| sandbox.ips.first().cloned());
        match self.run_hook(Hook { handler, container, id, pod_ip: ip.as_deref() }).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(pod = pod.full_format(), container = container.name, error, "postStart hook failed");
                self.event(reference, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
                self.kill_container(worker, pod, id, &container.name, None).await;
                Err(failure("PostStartHookError", format!("PostStartHook failed: {error}")))
            }
        }
    }

    fn container_config(
        &self,
        request: StartRequest<'_>,
        container: &Container,
        attempt: u32,
        (image, volumes, recursive_read_only): (&proto::Image, Volumes<'_>, bool),
        sandbox_ips: &[String],
    ) -> Result<proto::ContainerConfig> {
        let pod = request.pod;
        let ips = if pod.is_host_network() { self.host_ips() } else { sandbox_ips.to_vec() };
        let fs = self.config.fs.as_ref();
        let sources = env::Sources {
            objects: request.objects,
            services: request.services,
            node: &self.node_view(ips.clone()),
            volumes: volumes.paths,
            fs,
        };
        let env = env::environment(pod, container, sources)?;
        let target = target(request, &container.name)?;
        let directory = pod_directory(pod.uid());
        let own = format!("{directory}/containers/{}", container.name);
        fs.create_dir_all(&own)?;
        fs.create_dir_all(&format!("{}/{}", log_directory(pod), container.name))?;
        let termination_log = format!("{own}/{}", self.config.random.suffix(8));
        fs.write(&termination_log, b"")?;
        fs.set_mode(&termination_log, 0o666)?;
        let hosts_file = if pod.is_host_network() {
            // Such a pod sees the host's own file.
            None
        } else {
            let path = format!("{directory}/etc-hosts");
            let text = hosts_file(pod, &ips, &self.config.node_name, &self.config.cluster_domain);
            fs.write(&path, text.as_bytes())?;
            Some(path)
        };
        let mut copies = BTreeMap::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let Some(part) = self.make_sub_path(volumes.paths, mount, &env)? else { continue };
            let source = pod.spec().volumes.iter().flatten().find(|source| source.name == mount.name);
            if source.is_some_and(is_written_by_kubelet) {
                let copy = format!("{directory}/volume-subpaths/{}/{}/{index}", mount.name, container.name);
                copy_part(fs, &part, &copy)?;
                copies.insert(mount.mount_path.clone(), copy);
            }
        }
        let image_user = image
            .uid
            .as_ref()
            .map(|uid| Ok(uid.value))
            .or_else(|| (!image.username.is_empty()).then(|| Err(image.username.clone())));
        let parts = Parts {
            attempt,
            image_ref: image.id.clone(),
            env,
            volumes,
            copies,
            recursive_read_only,
            hosts_file,
            termination_log,
            memory_capacity: Amount::parse(&self.config.capacity.memory)?.units(),
            image_user,
            target,
        };
        container_config(pod, container, parts)
    }

    async fn mounts_recursively_read_only(&self, pod: &Pod) -> bool {
        let handler = runtime_handler(&self.config.client, pod).await;
        handler.is_ok_and(|handler| self.runtime.lock().mounts_recursively_read_only(&handler))
    }

    /// Where a mount's sub path is on the node; one that is not there yet becomes a folder (`subpath.SafeMakeDir`).
    fn make_sub_path(
        &self,
        volumes: &BTreeMap<String, String>,
        mount: &k8s_openapi::api::core::v1::VolumeMount,
        env: &BTreeMap<String, String>,
    ) -> Result<Option<String>> {
        let expression = mount.sub_path_expr.as_ref().filter(|text| !text.is_empty());
        let sub_path = match (expression, &mount.sub_path) {
            (Some(expression), _) => env::expand(expression, env),
            (None, Some(path)) => path.clone(),
            (None, None) => return Ok(None),
        };
        let inside = !sub_path.is_empty() && !sub_path.split('/').any(|part| part == "..");
        let Some(volume) = volumes.get(&mount.name).filter(|_| inside) else { return Ok(None) };
        let part = format!("{volume}/{sub_path}");
        if !self.config.fs.exists(&part) {
            self.config.fs.create_dir_all(&part)?;
        }
        Ok(Some(part))
    }

    /// Removes what ended long ago, so that only the last life of a container is kept.
    async fn remove_dead_containers(&self, runtime: &RuntimePod, name: &str) {
        let dead = runtime.containers.iter().filter(|c| c.name == name && c.state == RuntimeState::Exited);
        for container in dead.skip(DEAD_CONTAINERS_KEPT) {
            if let Err(error) = self.config.cri.remove_container(&container.id).await {
                tracing::debug!(container = container.id, %error, "could not remove a dead container");
                continue;
            }
            if !container.log_path.is_empty()
                && let Err(error) = log_rotation::remove(self.config.fs.as_ref(), &container.log_path)
            {
                tracing::debug!(path = container.log_path, %error, "could not remove a log");
            }
        }
    }
}
