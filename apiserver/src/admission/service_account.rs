//! ServiceAccount: every pod runs as an account, and finds its token in a volume
//! (`plugin/pkg/admission/serviceaccount/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use minik8s_clock::Random;
use serde_json::{Value, json};

use super::{Attributes, MIRROR_POD, Operation, Plugin, items, items_mut, push};
use crate::authz::node::References;
use crate::cache::{Object, Objects};
use crate::tokens::PROJECTED_EXPIRATION_SECONDS;

const DEFAULT_ACCOUNT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The annotation of an account whose pods may use its own secrets only.
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const SUFFIX_CHARACTERS: usize = 5;
/// Where client libraries look for the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// 0644, as every projected volume gets by default.
const DEFAULT_MODE: i64 = 420;

/// See the module.
pub struct ServiceAccount {
    objects: Arc<dyn Objects>,
    random: Random,
    accounts: GroupResource,
}

impl ServiceAccount {
    /// Accounts are read from `objects`, names of volumes drawn from `random`.
    pub fn new(objects: Arc<dyn Objects>, random: Random) -> ServiceAccount {
        ServiceAccount { objects, random, accounts: GroupResource::new("", "serviceaccounts") }
    }

    fn account(&self, write: &Attributes<'_>, name: &str) -> Result<Arc<Object>, Status> {
        let found = self.objects.get(&self.accounts, write.namespace, name);
        found.ok_or_else(|| {
            let namespace = write.namespace;
            write.forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ))
        })
    }

    /// Mounts the token where no container has mounted something else.
    fn mount_token(&self, pod: &mut Value) {
        let spec = &mut pod["spec"];
        let own = items(&spec["volumes"])
            .filter_map(|volume| volume["name"].as_str())
            .find(|name| name.starts_with(VOLUME_PREFIX))
            .map(str::to_owned);
        let has_volume = own.is_some();
        let volume = own.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", self.random.suffix(SUFFIX_CHARACTERS)));
        let mut mounted = false;
        for containers in ["initContainers", "containers"] {
            for container in items_mut(&mut spec[containers]) {
                if items(&container["volumeMounts"]).all(|mount| mount["mountPath"] != MOUNT_PATH) {
                    push(
                        &mut container["volumeMounts"],
                        json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }),
                    );
                    mounted = true;
                }
            }
        }
        if spec["initContainers"].is_null() {
            spec.as_object_mut().map(|spec| spec.remove("initContainers"));
        }
        if mounted && !has_volume {
            push(&mut spec["volumes"], token_volume(&volume));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": { "defaultMode": DEFAULT_MODE, "sources": [
            { "serviceAccountToken": { "expirationSeconds": PROJECTED_EXPIRATION_SECONDS, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [
                { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
            ] } },
        ] },
    })
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// A secret that a pod refers to and its account does not (`limitSecretReferences`).
fn strange_secret(pod: &Value, account: &Value, containers: &[(&str, &str)], all: bool) -> Option<String> {
    let name = account["metadata"]["name"].as_str().unwrap_or_default();
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let lists = |list: &str, secret: &Value| items(&account[list]).any(|own| own["name"] == *secret);
    let ends = format!("is not allowed because service account {name} does not reference that secret");
    let volumes =
        items(&pod["spec"]["volumes"]).filter(|_| all).filter_map(|volume| volume["secret"].get("secretName"));
    if let Some(secret) = volumes.into_iter().find(|secret| !lists("secrets", secret)) {
        return Some(format!("volume with secret.secretName=\"{}\" {ends}", text(secret)));
    }
    for (list, what) in containers {
        for container in items(&pod["spec"][*list]) {
            let own = text(&container["name"]);
            for variable in items(&container["env"]) {
                let Some(secret) = variable["valueFrom"]["secretKeyRef"].get("name") else { continue };
                if !lists("secrets", secret) {
                    let (variable, secret) = (text(&variable["name"]), text(secret));
                    return Some(format!(
                        "{what} {own} with envVar {variable} referencing secret.secretName=\"{secret}\" {ends}"
                    ));
                }
            }
            let mut sources = items(&container["envFrom"]).filter_map(|source| source["secretRef"].get("name"));
            if let Some(secret) = sources.find(|secret| !lists("secrets", secret)) {
                return Some(format!(
                    "{what} {own} with envFrom referencing secret.secretName=\"{}\" {ends}",
                    text(secret)
                ));
            }
        }
    }
    let mut pulls = items(&pod["spec"]["imagePullSecrets"]).filter(|_| all).enumerate();
    let (index, secret) = pulls.find(|(_, secret)| !lists("imagePullSecrets", &secret["name"]))?;
    Some(format!(
        "imagePullSecrets[{index}].name=\"{}\" is not allowed because service account {name} does not reference that \
         imagePullSecret",
        text(&secret["name"])
    ))
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR_POD).is_some()
}

fn check_mirror(write: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let references = References::of(pod);
    if !references.service_account.is_empty() {
        return Err(write.forbidden("a mirror pod may not reference service accounts"));
    }
    if !references.secrets.is_empty() {
        return Err(write.forbidden("a mirror pod may not reference secrets"));
    }
    let tokens = items(&pod["spec"]["volumes"])
        .flat_map(|volume| items(&volume["projected"]["sources"]))
        .any(|source| source["serviceAccountToken"].is_object());
    if tokens {
        Err(write.forbidden("a mirror pod may not use ServiceAccountToken volume projections"))
    } else {
        Ok(())
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is("", "pods")
            || write.operation == Operation::Update && write.is_sub("", "pods", "ephemeralcontainers")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(mut pod) = write.object.take() else {
            return Ok(());
        };
        if is_mirror(&pod) || write.operation != Operation::Create {
            write.object = Some(pod);
            return Ok(());
        }
        let named = |field: &str| pod["spec"][field].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let name = named("serviceAccountName")
            .or_else(|| named("serviceAccount"))
            .unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
        let account = self.account(write, &name)?;
        let account = account.parsed();
        // The second is the field's old name, which old clients still read.
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let automount = pod["spec"]["automountServiceAccountToken"]
            .as_bool()
            .or_else(|| account["automountServiceAccountToken"].as_bool());
        if automount.unwrap_or(true) {
            self.mount_token(&mut pod);
        }
        if items(&pod["spec"]["imagePullSecrets"]).next().is_none()
            && items(&account["imagePullSecrets"]).next().is_some()
        {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        write.object = Some(pod);
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = &write.object else {
            return Ok(());
        };
        let creates = write.operation == Operation::Create;
        if is_mirror(pod) && creates {
            return check_mirror(write, pod);
        }
        let account = match pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()) {
            None => Err(write.forbidden(format!(
                "no service account specified for pod {}/{}",
                write.namespace,
                write.error_name()
            ))),
            Some(name) => self.account(write, name),
        }?;
        let enforced = account.meta().annotations.get(ENFORCE_MOUNTABLE).is_some_and(|value| is_true(value));
        let containers: &[_] = match creates {
            true => &[("initContainers", "init container"), ("containers", "container")],
            false => &[("ephemeralContainers", "ephemeral container")],
        };
        match strange_secret(pod, account.parsed(), containers, creates).filter(|_| enforced) {
            Some(words) => Err(write.forbidden(words)),
            None => Ok(()),
        }
    }
}
