//! ResourceQuota: a namespace's objects stay within what its quotas allow
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`).
//!
//! ```text
//!  object ─► evaluator: usage it adds ─► each quota that matches: used + added ≤ hard? ─► all charged in one transaction
//! ```
//! The charge is written to the quotas' status before the object is stored, on the condition that no quota changed meanwhile.
//! An object that is then not stored after all leaves usage too high until the quota controller counts again. A quota whose
//! status nobody has computed yet is counted here, from the cache.

mod evaluate;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use async_trait::async_trait;
use minik8s_api::{
    kinds::{GroupResource, Kind},
    status::Status,
};
use minik8s_clock::Clock;
use minik8s_store::{Condition, KeyValue, Operation as Write, Revision, Store, Txn, TxnResponse};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    Attributes, Operation, Plugin,
    pod_resources::{Resources, add, quantities},
};
use crate::cache::{Object, Objects, object};

/// Namespaces are charged one request at a time; so many at once.
const STRIPES: usize = 16;
/// How often a charge is tried anew when something else changed the quotas.
const MAX_ATTEMPTS: usize = 16;

/// See the module.
pub struct ResourceQuota {
    objects: Arc<dyn Objects>,
    store: Arc<dyn Store>,
    clock: Clock,
    quotas: GroupResource,
    stripes: [Mutex<()>; STRIPES],
}

/// A quota as it is known, and at which revision.
struct Quota {
    key: Arc<str>,
    kind: Arc<Kind>,
    revision: Revision,
    value: Value,
}

impl Quota {
    fn of(object: &Object) -> Quota {
        Quota {
            key: Arc::clone(object.key()),
            kind: Arc::clone(object.kind()),
            revision: object.revision(),
            value: object.value(),
        }
    }

    fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The quota as the store has it now; `None` if it is gone.
    fn refreshed(self, current: Option<KeyValue>) -> Option<Quota> {
        let current = current?;
        Some(Quota { revision: current.mod_revision, value: serde_json::from_slice(&current.value).ok()?, ..self })
    }
}

impl ResourceQuota {
    /// Quotas are read from `objects` and charged in `store`.
    pub fn new(objects: Arc<dyn Objects>, store: Arc<dyn Store>, clock: Clock) -> ResourceQuota {
        ResourceQuota {
            objects,
            store,
            clock,
            quotas: GroupResource::new("", "resourcequotas"),
            stripes: Default::default(),
        }
    }

    async fn charge(&self, write: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let listed = self.objects.list(&self.quotas, Some(write.namespace));
        if listed.is_empty() {
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        write.namespace.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        let _turn = self.stripes[stripe].lock().await;
        let mut quotas: Vec<Quota> = listed.iter().map(|quota| Quota::of(quota)).collect();
        for _ in 0..MAX_ATTEMPTS {
            let charged = self.check(write, object, &quotas)?;
            if charged.is_empty() || write.dry_run {
                return Ok(());
            }
            let conditions: Vec<Condition> = charged
                .iter()
                .map(|(quota, _)| Condition::ModRevision { key: Arc::clone(&quota.key), revision: quota.revision })
                .collect();
            let operations = charged
                .iter()
                .map(|(quota, value)| Write::Put {
                    key: Arc::clone(&quota.key),
                    value: object::encode(&quota.kind, value),
                    lease: None,
                })
                .collect();
            let charged: Vec<Arc<str>> = charged.into_iter().map(|(quota, _)| Arc::clone(&quota.key)).collect();
            match self.store.commit(Txn { conditions, operations }).await.map_err(Status::internal_error)? {
                TxnResponse::Committed { .. } => return Ok(()),
                TxnResponse::Conflict { current, .. } => {
                    for (key, current) in charged.into_iter().zip(current) {
                        let Some(at) = quotas.iter().position(|quota| quota.key == key) else {
                            continue;
                        };
                        let quota = quotas.swap_remove(at);
                        quotas.extend(quota.refreshed(current));
                    }
                    quotas.sort_by(|a, b| a.key.cmp(&b.key));
                }
            }
        }
        Err(Status::conflict(&self.quotas, "", "the quotas of the namespace keep changing; try again"))
    }

    /// The quotas that the object counts against, as they will be; refused if one would be exceeded (`CheckRequest`).
    fn check<'q>(
        &self,
        write: &Attributes<'_>,
        object: &Value,
        quotas: &'q [Quota],
    ) -> Result<Vec<(&'q Quota, Value)>, Status> {
        let resource = (write.group, write.resource);
        let mut counting = Vec::new();
        for quota in quotas {
            let spec = &quota.value["spec"];
            let hard = quantities(&spec["hard"]);
            let restricted = evaluate::matching(resource, hard.keys());
            if restricted.is_empty() || !evaluate::in_scope(resource, spec, object) {
                continue;
            }
            if write.resource == "pods"
                && let Err(why) = evaluate::constraints(&restricted, object)
            {
                return Err(write.forbidden(format!("failed quota: {}: {why}", quota.name())));
            }
            counting.push((quota, hard));
        }
        let mut added = evaluate::usage(resource, object, self.clock.now());
        if let Some(old) = write.old_object {
            let before = evaluate::usage(resource, old, self.clock.now());
            let negative = before.into_iter().map(|(name, quantity)| (name, -quantity)).collect();
            add(&mut added, &negative);
        }
        added.retain(|_, quantity| !quantity.is_zero());
        let mut charged = Vec::new();
        for (quota, hard) in counting {
            let requested: Resources = added
                .iter()
                .filter(|(name, _)| hard.contains_key(*name))
                .map(|(name, quantity)| (name.clone(), *quantity))
                .collect();
            if requested.is_empty() {
                continue;
            }
            let (mut value, used) = self.with_usage(quota, &hard);
            let mut after = used.clone();
            add(&mut after, &requested);
            let exceeded = |name: &&String| requested[*name].signum() > 0 && after[*name] > hard[*name];
            let names: Vec<&String> = requested.keys().filter(exceeded).collect();
            if !names.is_empty() {
                let shown = |from: &Resources| {
                    names
                        .iter()
                        .map(|name| format!("{name}={}", from.get(*name).map_or("0".to_owned(), ToString::to_string)))
                        .collect::<Vec<_>>()
                        .join(",")
                };
                let message = format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    quota.name(),
                    shown(&requested),
                    shown(&used),
                    shown(&hard)
                );
                return Err(write.forbidden(message));
            }
            value["status"]["used"] = json!(
                after
                    .iter()
                    .map(|(name, quantity)| (name.clone(), quantity.to_string()))
                    .collect::<std::collections::BTreeMap<_, _>>()
            );
            charged.push((quota, value));
        }
        Ok(charged)
    }

    /// A quota's present usage: its status, or counted where its status does not speak of its spec.
    fn with_usage(&self, quota: &Quota, hard: &Resources) -> (Value, Resources) {
        let mut value = quota.value.clone();
        let used = quantities(&value["status"]["used"]);
        if quantities(&value["status"]["hard"]) == *hard && hard.keys().all(|name| used.contains_key(name)) {
            return (value, used);
        }
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        let mut counted: Resources =
            hard.keys().map(|name| (name.clone(), minik8s_api::quantity::Quantity::default())).collect();
        for resource in evaluate::resources_of(hard.keys()) {
            for object in self.objects.list(&resource, Some(namespace)) {
                let object = object.value();
                let place = (resource.group.as_str(), resource.resource.as_str());
                if evaluate::in_scope(place, &value["spec"], &object) {
                    let mut usage = evaluate::usage(place, &object, self.clock.now());
                    usage.retain(|name, _| hard.contains_key(name));
                    add(&mut counted, &usage);
                }
            }
        }
        value["status"]["hard"] = value["spec"]["hard"].clone();
        (value, counted)
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        let counted_on_update = || matches!((write.group, write.resource), ("", "services" | "persistentvolumeclaims"));
        let whole = write.subresource.is_empty() && !write.namespace.is_empty();
        match write.operation {
            Operation::Create => whole,
            Operation::Update => (whole && counted_on_update()) || write.is_sub("", "pods", "resize"),
            _ => false,
        }
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        match &write.object {
            Some(object) => self.charge(write, object).await,
            None => Ok(()),
        }
    }
}
