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
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(mut pod) = write.object.take() else {
            return Ok(());
        };
        if is_mirror(&pod) {
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
        if is_mirror(pod) {
            return check_mirror(write, pod);
        }
        match pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()) {
            None => Err(write.forbidden(format!(
                "no service account specified for pod {}/{}",
                write.namespace,
                write.error_name()
            ))),
            Some(name) => self.account(write, name).map(drop),
        }
    }
}
