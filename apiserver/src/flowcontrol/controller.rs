//! The objects that steer: their conditions, and those that must be there.
//!
//! | when | what |
//! |---|---|
//! | a FlowSchema or level changes | `status.conditions[Dangling]` of each FlowSchema says whether its level exists |
//! | every minute | objects of a new cluster that are gone come back; those that update themselves get their spec back |
//!
//! `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`, `pkg/registry/flowcontrol/{rest,ensurer}`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use minik8s_api::kinds::GroupResource;
use minik8s_api::status::{Status, StatusReason};
use minik8s_api::time;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{FLOW_SCHEMAS, GROUP, PRIORITY_LEVELS, schema};
use crate::bootstrap;
use crate::cache::{Object, Objects};
use crate::options::WriteOptions;
use crate::registry::patch::{Patch, PatchType};
use crate::registry::{Context, Registry, Target};

/// Who the conditions are written by.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Says whether an object's spec follows the server's version of it.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// How often the objects of a new cluster are looked after.
const ENSURE_EVERY: Duration = Duration::from_secs(60);
const EXEMPT: &str = "exempt";
const DANGLING: &str = "Dangling";

/// Looks after the objects. Writes FlowSchemas' status.
pub struct Controller {
    registry: Arc<Registry>,
}

impl Controller {
    /// A controller that writes through a registry.
    pub fn new(registry: Arc<Registry>) -> Controller {
        Controller { registry }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let clock = self.registry.clock().clone();
        let mut progress = self.registry.cache().progress();
        let mut ensure_at = clock.monotonic() + ENSURE_EVERY;
        let mut seen = None;
        loop {
            let versions = self.versions();
            if seen != Some(versions) {
                seen = Some(versions);
                self.sync().await;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = progress.changed() => if changed.is_err() { return },
                () = clock.sleep_until(ensure_at) => {
                    ensure_at = clock.monotonic() + ENSURE_EVERY;
                    self.ensure().await;
                }
            }
        }
    }

    fn cache(&self) -> &dyn Objects {
        &**self.registry.cache()
    }

    fn list(&self, resource: &str) -> Vec<Arc<Object>> {
        self.cache().list(&GroupResource::new(GROUP, resource), None)
    }

    fn versions(&self) -> [u64; 2] {
        [FLOW_SCHEMAS, PRIORITY_LEVELS].map(|resource| self.cache().version(&GroupResource::new(GROUP, resource)))
    }

    /// Brings the conditions of all FlowSchemas up to date.
    pub async fn sync(&self) {
        let levels = self.list(PRIORITY_LEVELS);
        let exists = |level: &str| levels.iter().any(|object| object.name() == level);
        let schemas = self.list(FLOW_SCHEMAS);
        let writes = schemas.iter().filter_map(|object| {
            let value = object.value();
            let level = schema::level_of(&value["spec"]);
            let condition = condition(&value, level, exists(level), &time::format(self.registry.clock().now()))?;
            Some(self.write(object.name().to_owned(), condition))
        });
        for written in join_all(writes.collect::<Vec<_>>()).await {
            match written {
                Err(status) if status.reason != StatusReason::NotFound => {
                    tracing::warn!(message = status.message, "the condition of a FlowSchema cannot be written");
                }
                _ => {}
            }
        }
    }

    async fn write(&self, name: String, condition: Value) -> Result<(), Status> {
        let target = self.registry.target(GROUP, "v1", FLOW_SCHEMAS, "", &name)?.subresource("status");
        let body = json!({
            "apiVersion": target.kind.api_version(),
            "kind": target.kind.kind,
            "metadata": { "name": name },
            "status": { "conditions": [condition] },
        });
        let options = WriteOptions { field_manager: Some(MANAGER.to_owned()), force: true, ..WriteOptions::default() };
        let patch = Patch { patch_type: PatchType::Apply, body, duplicates: Vec::new() };
        self.registry.patch(&Context::internal(), &target, &patch, &options).await.map(drop)
    }

    /// Puts back what a new cluster has.
    async fn ensure(&self) {
        for resource in [PRIORITY_LEVELS, FLOW_SCHEMAS] {
            for object in bootstrap::flow_control(resource) {
                if let Err(status) = self.ensure_one(resource, object).await {
                    tracing::warn!(resource, message = status.message, "an object cannot be looked after");
                }
            }
        }
    }

    async fn ensure_one(&self, resource: &str, object: Value) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let target: Target = self.registry.target(GROUP, "v1", resource, "", name)?;
        bootstrap::create_or_reconcile(&self.registry, &target, object).await
    }
}

/// The condition that a FlowSchema should have; `None` if it has it.
fn condition(object: &Value, level: &str, exists: bool, now: &str) -> Option<Value> {
    let (status, reason, what) =
        if exists { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {what}");
    let conditions = object["status"]["conditions"].as_array();
    let present = conditions.into_iter().flatten().find(|condition| condition["type"] == DANGLING);
    let same = present.is_some_and(|present| {
        present["status"] == status && present["reason"] == reason && present["message"] == message.as_str()
    });
    let since = present.filter(|present| present["status"] == status).map(|present| &present["lastTransitionTime"]);
    (!same).then(|| {
        json!({
            "type": DANGLING,
            "status": status,
            "lastTransitionTime": since.cloned().unwrap_or_else(|| Value::from(now)),
            "reason": reason,
            "message": message,
        })
    })
}

/// Gives an object that updates itself the spec that the server means it to have; says whether it had another.
pub fn reconcile(wanted: &Value, present: &mut Value) -> bool {
    let follows = match present["metadata"]["annotations"].get(AUTOUPDATE) {
        Some(follows) => follows == "true",
        // Nobody has changed it since it was made.
        None => present["metadata"]["generation"] == 1,
    };
    if !follows && !schema::is_mandatory(wanted) {
        return false;
    }
    let mut spec = wanted["spec"].clone();
    // How much the exempt level lends is the administrator's to say.
    if wanted["metadata"]["name"] == EXEMPT && present["spec"]["exempt"].is_object() {
        spec["exempt"] = present["spec"]["exempt"].clone();
    }
    let annotated = present["metadata"]["annotations"].get(AUTOUPDATE).is_some_and(|value| value == "true");
    if present["spec"] == spec && annotated {
        return false;
    }
    present["spec"] = spec;
    present["metadata"]["annotations"][AUTOUPDATE] = json!("true");
    true
}
