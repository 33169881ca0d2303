//! A ResourceQuota's status tells how much of it is used.
//!
//! Watches ResourceQuotas, Pods, Services, PersistentVolumeClaims, and the metadata of whatever else a quota counts; owns
//! `status.hard` and, beside the API server's admission, which charges what it lets in, `status.used`.
//! (Kubernetes: `pkg/controller/resourcequota/resource_quota_controller.go`.)
//!
//! Admission charges quotas as objects come, so that only their going brings a recount at once. What was charged and then
//! not stored after all comes to light in the recount that follows every charge.

mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::PostParams;
use minik8s_client::{Client, Event, Informer, Lister, ObjectMetadata, Watched, WorkQueue, is_conflict, is_not_found};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::usage::{Counted, Resources, add, count, counted};
use crate::discovery::deletable;
use crate::manager::{Context, Reconciler};
use crate::pods;

/// A recount follows a charge after this time.
const RECOUNT: Duration = Duration::from_secs(5);
/// What was charged is seen in the caches here after this time at the latest, or never.
const SETTLED: Duration = Duration::from_secs(1);
/// How long the first list of a resource that a quota counts may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Group and plural.
type Place = (String, String);

/// See the module.
#[derive(Clone)]
pub struct ResourceQuotaController {
    client: Client,
    quotas: Lister<ResourceQuota>,
    pods: Lister<Pod>,
    services: Lister<Service>,
    claims: Lister<PersistentVolumeClaim>,
    /// Informers on what quotas count by number alone, by group and plural: begun when a quota first asks.
    others: Arc<Mutex<BTreeMap<Place, Informer<ObjectMetadata>>>>,
    /// When each quota was last charged, by the monotonic clock.
    charges: Arc<Mutex<BTreeMap<String, Duration>>>,
    /// Ends those informers with the controller.
    stop: CancellationToken,
    _stop: Arc<DropGuard>,
    queue: WorkQueue<String>,
}

impl ResourceQuotaController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let quotas: Informer<ResourceQuota> = context.informers.informer();
        let pods: Informer<Pod> = context.informers.informer();
        let services: Informer<Service> = context.informers.informer();
        let claims: Informer<PersistentVolumeClaim> = context.informers.informer();
        let stop = CancellationToken::new();
        let controller = Self {
            client: context.client.clone(),
            quotas: quotas.lister(),
            pods: pods.lister(),
            services: services.lister(),
            claims: claims.lister(),
            others: Arc::default(),
            charges: Arc::default(),
            _stop: Arc::new(stop.clone().drop_guard()),
            stop,
            queue: WorkQueue::new(context.client.clock().clone()),
        };
        let (queue, charges, clock) =
            (controller.queue.clone(), Arc::clone(&controller.charges), context.client.clock().clone());
        quotas.on_event(move |event| match event {
            Event::Added(quota) => queue.add(key(quota)),
            Event::Updated { old, new } => {
                let (before, after) = (used(old), used(new));
                if !within(&after, &before) {
                    charges.lock().insert(key(new), clock.monotonic());
                }
                if old.spec != new.spec {
                    queue.add(key(new));
                } else if old.status != new.status {
                    queue.add_after(key(new), RECOUNT);
                }
            }
            Event::Deleted(quota) => drop(charges.lock().remove(&key(quota))),
        });
        let ended = |pod: &Pod| matches!(pods::phase(pod), "Succeeded" | "Failed");
        controller.follow(&pods, move |old, new| {
            !ended(old) && ended(new) || old.spec != new.spec || usage::other_resources(old, new)
        });
        controller.follow(&services, |old, new| old.spec != new.spec);
        controller.follow(&claims, |old, new| old.spec != new.spec);
        controller
    }

    /// Counts again when an object goes, or changes in what `matters`.
    fn follow<K: Watched>(&self, informer: &Informer<K>, matters: impl Fn(&K, &K) -> bool + Send + Sync + 'static) {
        let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
        informer.on_event(move |event| {
            let counts = match event {
                Event::Added(_) => false,
                Event::Updated { old, new } => matters(old, new),
                Event::Deleted(_) => true,
            };
            if counts {
                let namespace = event.object().object_meta().namespace.clone().unwrap_or_default();
                quotas.list_namespace(&namespace).iter().for_each(|quota| queue.add(key(quota)));
            }
        });
    }

    /// How many objects of a resource a namespace has; `None` where there is no such resource.
    async fn objects(&self, namespace: &str, plural: &str, group: &str) -> Result<Option<usize>, kube::Error> {
        let place = (group.to_owned(), plural.to_owned());
        let known = self.others.lock().get(&place).cloned();
        let informer = match known {
            Some(informer) => informer,
            None => {
                let served = deletable(self.client.kube()).await?;
                let found = served.resources.into_iter().find(|found| found.plural == plural && found.group() == group);
                let Some(resource) = found else { return Ok(None) };
                let informer = Informer::metadata(self.client.clone(), resource.path(None));
                let informer = self.others.lock().entry(place).or_insert(informer).clone();
                self.follow(&informer, |_, _| false);
                informer.start(self.stop.clone());
                informer
            }
        };
        if self.client.clock().timeout(LIST_TIMEOUT, informer.wait_synced()).await.is_err() {
            return Err(kube::Error::Service(format!("{plural}.{group} cannot be listed").into()));
        }
        Ok(Some(informer.lister().list_namespace(namespace).len()))
    }

    /// All that a namespace uses of what `spec` bounds.
    async fn count(&self, namespace: &str, spec: &ResourceQuotaSpec) -> Result<Resources, kube::Error> {
        let now = self.client.clock().now();
        let hard = spec.hard.iter().flat_map(BTreeMap::keys);
        let (mut sums, mut used) = (Resources::new(), Resources::new());
        for pod in self.pods.list_namespace(namespace) {
            if usage::takes_pod(spec, &pod) {
                add(&mut sums, &usage::of_pod(&pod, now));
            }
        }
        for claim in self.claims.list_namespace(namespace) {
            if usage::takes_claim(spec, &claim) {
                add(&mut sums, &usage::of_claim(&claim));
            }
        }
        if !usage::is_scoped(spec) {
            for service in self.services.list_namespace(namespace) {
                add(&mut sums, &usage::of_service(&service));
            }
        }
        for name in hard {
            let number = match counted(name) {
                Counted::Objects(..) if usage::is_scoped(spec) => Some(count(0)),
                Counted::Objects(plural, group) => self.objects(namespace, plural, group).await?.map(count),
                _ => Some(sums.get(name).copied().unwrap_or(count(0))),
            };
            used.extend(number.map(|number| (name.clone(), number)));
        }
        Ok(used)
    }
}

fn key(quota: &ResourceQuota) -> String {
    let (namespace, name) = (quota.metadata.namespace.as_deref(), quota.metadata.name.as_deref());
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn used(quota: &ResourceQuota) -> Resources {
    usage::quantities(quota.status.as_ref().and_then(|status| status.used.as_ref()))
}

/// Whether no number of `some` is above that of `others`.
fn within(some: &Resources, others: &Resources) -> bool {
    some.iter().all(|(name, quantity)| others.get(name).is_some_and(|other| quantity <= other))
}

impl Reconciler for ResourceQuotaController {
    const NAME: &'static str = "resourcequota-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(quota) = self.quotas.get(namespace, name) else { return Ok(()) };
        let spec = quota.spec.clone().unwrap_or_default();
        let used = self.count(namespace, &spec).await?;
        let status = quota.status.clone().unwrap_or_default();
        if status.hard == spec.hard && usage::quantities(status.used.as_ref()) == used && status.used.is_some() {
            return Ok(());
        }
        let since =
            self.charges.lock().get(&key).map(|charged| self.client.clock().monotonic().saturating_sub(*charged));
        if since.is_some_and(|since| since < SETTLED) && !within(&usage::quantities(status.used.as_ref()), &used) {
            self.queue.add_after(key, SETTLED);
            return Ok(());
        }
        let used = used.into_iter().map(|(name, quantity)| (name, Text(quantity.to_string()))).collect();
        let fresh = ResourceQuota {
            status: Some(ResourceQuotaStatus { hard: spec.hard.clone(), used: Some(used) }),
            ..ResourceQuota::clone(&quota)
        };
        let api = self.client.namespaced::<ResourceQuota>(namespace);
        match api.replace_status(name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            // Something was charged meanwhile.
            Err(error) if is_conflict(&error) => {
                self.queue.add_rate_limited(key);
                Ok(())
            }
            other => other.map(drop),
        }
    }
}
