//! An APIService for each group and version that this server serves itself
//! (`kube-aggregator/pkg/controllers/autoregister`, `pkg/controlplane/controller/crdregistration`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use minik8s_api::kinds::Kinds;
use minik8s_api::status::{Status, StatusReason};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Aggregator, GROUP};
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::{Context, Target};

/// Says that the server keeps an APIService: [`ON_START`] or [`ALWAYS`].
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";
const ALWAYS: &str = "true";

/// When writes that failed are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Writes in flight at once; the store commits them together.
const PARALLEL_WRITES: usize = 32;

/// Group and version priorities of built-in groups; those with several versions have an entry each
/// (`pkg/controlplane/apiserver/aggregator.go`, `cmd/kube-apiserver/app/server.go`).
const PRIORITIES: [(&str, &str, i64, i64); 22] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 20),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("storagemigration.k8s.io", "v1", 15_800, 15),
];
/// Of groups that definitions bring.
const CUSTOM_PRIORITY: (i64, i64) = (1_000, 100);

/// The priorities of a group and version of this server.
pub(super) fn priorities(group: &str, version: &str) -> (i64, i64) {
    let own = PRIORITIES.iter().find(|own| (own.0, own.1) == (group, version));
    own.map_or(CUSTOM_PRIORITY, |own| (own.2, own.3))
}

/// The APIServices that this server's kinds want, by name: the spec, and how they are kept.
fn wanted(kinds: &Kinds) -> BTreeMap<String, (Value, &'static str)> {
    let mut wanted = BTreeMap::new();
    for group in kinds.groups().iter().filter(|group| group.name != GROUP) {
        for version in &group.versions {
            let (group_priority, version_priority) = priorities(&group.name, version);
            let custom = kinds.of_version(&group.name, version).all(|kind| kind.custom);
            let mut spec = json!({
                "version": version,
                "groupPriorityMinimum": group_priority,
                "versionPriority": version_priority,
            });
            if !group.name.is_empty() {
                spec["group"] = json!(group.name);
            }
            wanted.insert(format!("{version}.{}", group.name), (spec, if custom { ALWAYS } else { ON_START }));
        }
    }
    wanted
}

/// Keeps the APIServices of this server's kinds until `shutdown`. Those of built-in kinds are looked at once.
pub(super) async fn run(aggregator: Arc<Aggregator>, shutdown: CancellationToken) {
    let mut starting = true;
    loop {
        let (kinds, version) = (aggregator.registry.kinds(), aggregator.version());
        let done = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            done = aggregator.register(&kinds, starting) => done,
        };
        starting &= !done;
        let unchanged = || aggregator.version() == version && Arc::ptr_eq(&aggregator.registry.kinds(), &kinds);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = aggregator.wait(&unchanged, (!done).then_some(RETRY)) => {}
        }
    }
}

/// What becomes of one APIService.
enum Step {
    Create(Value),
    Update(String, Value),
    Delete(String),
}

impl Aggregator {
    fn version(&self) -> u64 {
        self.outgoing.objects().version(&self.resource)
    }

    /// Creates, mends and deletes; whether all of that was done.
    async fn register(&self, kinds: &Kinds, starting: bool) -> bool {
        let steps = self.steps(&wanted(kinds), starting);
        let done = stream::iter(steps).map(|step| self.take(step)).buffer_unordered(PARALLEL_WRITES);
        let done: Vec<Result<(), Status>> = done.collect().await;
        for status in done.iter().filter_map(|done| done.as_ref().err()) {
            tracing::warn!(message = status.message, "an APIService of this server could not be kept");
        }
        done.iter().all(Result::is_ok)
    }

    fn steps(&self, wanted: &BTreeMap<String, (Value, &'static str)>, starting: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        let present = self.outgoing.objects().list(&self.resource, None);
        for object in &present {
            let kept = match object.label(AUTOMANAGED) {
                Some(ALWAYS) => true,
                Some(ON_START) => starting,
                // Somebody else's.
                _ => false,
            };
            if !kept {
                continue;
            }
            match wanted.get(object.name()) {
                None => steps.push(Step::Delete(object.name().to_owned())),
                Some((spec, _)) if object.value()["spec"] != *spec => {
                    steps.push(Step::Update(object.name().to_owned(), spec.clone()));
                }
                Some(_) => {}
            }
        }
        for (name, (spec, how)) in wanted {
            let absent = !present.iter().any(|object| object.name() == name);
            if absent && (starting || *how == ALWAYS) {
                steps.push(Step::Create(json!({
                    "kind": "APIService",
                    "apiVersion": format!("{GROUP}/v1"),
                    "metadata": { "name": name, "labels": { AUTOMANAGED: how } },
                    "spec": spec,
                })));
            }
        }
        steps
    }

    fn target(&self, name: &str) -> Result<Target, Status> {
        self.registry.target(GROUP, "v1", "apiservices", "", name)
    }

    async fn take(&self, step: Step) -> Result<(), Status> {
        let (context, options) = (Context::internal(), WriteOptions::default());
        let done = match step {
            Step::Create(object) => {
                let target = self.target("")?;
                self.registry.create(&context, &target, object, &options).await.map(drop)
            }
            Step::Update(name, spec) => {
                let mut change = |object: &mut Value| {
                    object["spec"] = spec.clone();
                    Ok(())
                };
                self.registry.modify(&context, &self.target(&name)?, &options, &mut change).await.map(drop)
            }
            Step::Delete(name) => {
                self.registry.delete(&context, &self.target(&name)?, &DeleteOptions::default()).await.map(drop)
            }
        };
        match done {
            // Somebody was faster; what there is now is looked at again.
            Err(status) if matches!(status.reason, StatusReason::AlreadyExists | StatusReason::NotFound) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_version_has_a_priority_in_the_order_of_discovery() {
        let kinds = Kinds::built_in();
        let mut before = i64::MAX;
        for group in kinds.groups().iter().filter(|group| group.name != GROUP) {
            for version in &group.versions {
                assert_ne!(priorities(&group.name, version), CUSTOM_PRIORITY, "{}/{version}", group.name);
            }
            let (priority, _) = priorities(&group.name, &group.versions[0]);
            assert!(priority <= before, "{}", group.name);
            before = priority;
        }
        assert_eq!(
            wanted(&kinds)["v1."].0,
            json!({ "version": "v1", "groupPriorityMinimum": 18_000, "versionPriority": 1 })
        );
    }
}
