//! What a new cluster holds, and what a resumed one gets back.
//!
//! `data/bootstrap.json` lists, by resource, the namespaces, roles, bindings, priority classes, flow schemas, the service
//! network and the Service `kubernetes` that kube-apiserver makes by itself. [`run`] creates what is missing, all at once so
//! that the store commits it in a few batches, and reconciles default roles and bindings as Kubernetes does: rules and
//! subjects that went missing come back, unless `rbac.authorization.kubernetes.io/autoupdate` is `"false"`; what was added
//! stays. Then it says where this server is: Endpoints and EndpointSlice of `kubernetes`.
//!
//! Mirrors `pkg/registry/rbac/rest/storage_rbac.go`, `pkg/controlplane/controller/kubernetesservice` and
//! `k8s.io/component-helpers/auth/rbac/reconciliation`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{civil::Date, tz::TimeZone};
use minik8s_api::{
    kinds::GroupResource,
    status::{Status, StatusReason},
    strategy::strategy_for,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    aggregator::{FrontProxy, front_proxy},
    allocators::ServiceAllocators,
    authn::{RequestHeaders, legacy_token::TRACKING},
    authz::rules::{PolicyRule, uncovered},
    cache::Objects as _,
    flowcontrol,
    options::{DeleteOptions, WriteOptions},
    registry::{Context, Registry, Target, read::Freshness},
};

const OBJECTS: &str = include_str!("../data/bootstrap.json");
/// Writes in flight at once; the store commits them together.
const PARALLEL_WRITES: usize = 64;
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What this server is to the cluster it boots.
#[derive(Clone)]
pub struct Bootstrap {
    /// The address at which pods and nodes reach this server: the endpoint of the Service `kubernetes`. A loopback address
    /// cannot be an endpoint, and is left out.
    pub advertise: SocketAddr,
    /// The CA of client certificates (PEM), published for those who authenticate on the cluster's behalf.
    pub client_ca: String,
    /// How this server introduces itself to servers behind APIServices, published beside it.
    pub front_proxy: Option<FrontProxy>,
    /// What proxies are believed, published in the same place.
    pub request_headers: Option<RequestHeaders>,
    /// The network of cluster IPs and the bits of its prefix.
    pub service_network: (Ipv4Addr, u8),
}

/// The network of cluster IPs that the list of objects names, and its first address, that of the Service `kubernetes`.
const LISTED_NETWORK: (&str, &str) = ("10.96.0.0/16", "10.96.0.1");

/// How often it is looked whether the system's own objects are still there.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// Why a cluster did not boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of objects is not what this code takes it for.
    #[error("bootstrap objects: {0}")]
    Data(String),
    /// An object was refused.
    #[error("{resource} {name:?}: {status}")]
    Refused {
        /// Plural.
        resource: String,
        /// Of the object.
        name: String,
        /// Why.
        status: Status,
    },
    /// The allocations could not be repaired.
    #[error(transparent)]
    Store(#[from] minik8s_store::Error),
}

/// The objects that every cluster has, by the path of their collection.
static ALL: LazyLock<Result<BTreeMap<String, Vec<Value>>, String>> =
    LazyLock::new(|| serde_json::from_str(OBJECTS).map_err(|error| error.to_string()));

/// The FlowSchemas or PriorityLevelConfigurations that every cluster has.
pub fn flow_control(resource: &str) -> Vec<Value> {
    let path = format!("/apis/{}/v1/{resource}", flowcontrol::GROUP);
    ALL.as_ref().ok().and_then(|all| all.get(&path)).cloned().unwrap_or_default()
}

/// Creates and reconciles everything. Idempotent.
pub async fn run(registry: &Registry, allocators: &ServiceAllocators, bootstrap: &Bootstrap) -> Result<(), Error> {
    allocators.repair().await?;
    let mut by_path = ALL.clone().map_err(Error::Data)?;
    by_path.values_mut().flatten().for_each(|object| settle(object, bootstrap.service_network));
    let today = registry.clock().now().to_zoned(TimeZone::UTC).date();
    let maps = [authentication_config(bootstrap), token_tracking(today)];
    by_path.entry("/api/v1/configmaps".to_owned()).or_default().extend(maps);
    by_path.entry("/apis/storage.k8s.io/v1/storageclasses".to_owned()).or_default().push(storage_class());
    if !bootstrap.advertise.ip().is_loopback() {
        by_path.entry("/api/v1/endpoints".to_owned()).or_default().push(endpoints(bootstrap.advertise));
        by_path
            .entry("/apis/discovery.k8s.io/v1/endpointslices".to_owned())
            .or_default()
            .push(endpoint_slice(bootstrap.advertise));
    }
    let mut objects = Vec::new();
    for (path, items) in by_path {
        let place = Place::of(&path).ok_or_else(|| Error::Data(format!("{path} is no collection of a resource")))?;
        // Operators may have switched its group off.
        if registry.kinds().by_resource(&place.group, &place.version, &place.resource).is_none() {
            continue;
        }
        objects.extend(items.into_iter().map(|object| (place.clone(), object)));
    }
    let writes = objects.into_iter().map(|(place, object)| ensure(registry, place, object));
    stream::iter(writes).buffer_unordered(PARALLEL_WRITES).try_collect::<Vec<()>>().await.map(drop)
}

/// Makes the system's namespaces and the Service `kubernetes` again when they are deleted
/// (`pkg/controlplane/controller/{systemnamespaces,kubernetesservice}`), until the server ends.
pub async fn keep(registry: Arc<Registry>, bootstrap: Bootstrap, shutdown: CancellationToken) {
    let mut kept: Vec<(&str, Value)> = Vec::new();
    for path in ["/api/v1/namespaces", "/api/v1/services"] {
        let own = ALL.as_ref().ok().and_then(|all| all.get(path)).cloned().unwrap_or_default();
        kept.extend(own.into_iter().map(|mut object| {
            settle(&mut object, bootstrap.service_network);
            (path, object)
        }));
    }
    if !bootstrap.advertise.ip().is_loopback() {
        kept.push(("/api/v1/endpoints", endpoints(bootstrap.advertise)));
        kept.push(("/apis/discovery.k8s.io/v1/endpointslices", endpoint_slice(bootstrap.advertise)));
    }
    let mut ticks = registry.clock().ticks(KEEP_EVERY);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        for (path, object) in &kept {
            let Some(place) = Place::of(path) else { continue };
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            let resource = GroupResource::new(place.group.as_str(), place.resource.as_str());
            if registry.cache().get(&resource, text("namespace"), text("name")).is_none()
                && let Err(error) = ensure(&registry, place, object.clone()).await
            {
                tracing::warn!(%error, "an object of the system cannot be made again");
            }
        }
    }
}

/// Moves an object of the list into this network of cluster IPs.
fn settle(value: &mut Value, (network, bits): (Ipv4Addr, u8)) {
    match value {
        Value::String(text) if text == LISTED_NETWORK.0 => *text = format!("{network}/{bits}"),
        Value::String(text) if text == LISTED_NETWORK.1 => *text = Ipv4Addr::from(u32::from(network) + 1).to_string(),
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, (network, bits))),
        Value::Object(fields) => fields.values_mut().for_each(|field| settle(field, (network, bits))),
        _ => {}
    }
}

/// The class of volumes that small clusters have: folders on the node. It is not marked as the default one, so that a
/// claim without a class is taken as kube-apiserver takes it; the volume binder gives it this class afterwards.
fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard"},
        "provisioner": "minik8s.io/hostpath",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    })
}

/// A resource by the path of its collection.
#[derive(Debug, Clone)]
struct Place {
    group: String,
    version: String,
    resource: String,
}

impl Place {
    fn of(path: &str) -> Option<Place> {
        let place = |group: &str, version: &str, resource: &str| Place {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
        };
        match path.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
            ["api", version, resource] => Some(place("", version, resource)),
            ["apis", group, version, resource] => Some(place(group, version, resource)),
            _ => None,
        }
    }
}

/// Creates an object, or reconciles the one that is there.
async fn ensure(registry: &Registry, place: Place, object: Value) -> Result<(), Error> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let refused = |status: Status| Error::Refused { resource: place.resource.clone(), name: name.clone(), status };
    let target = registry.target(&place.group, &place.version, &place.resource, &namespace, &name).map_err(refused)?;
    create_or_reconcile(registry, &target, object).await.map_err(refused)
}

pub(crate) async fn create_or_reconcile(registry: &Registry, target: &Target, mut object: Value) -> Result<(), Status> {
    object["kind"] = json!(target.kind.kind);
    object["apiVersion"] = json!(target.kind.api_version());
    strategy_for(&target.kind).set_defaults(&mut object);
    let (context, options) = (Context::internal(), WriteOptions::default());
    let collection = target.named("");
    let mut present = match registry.get(target, Freshness::Any).await {
        Ok(present) => present.value(),
        Err(status) if status.reason == StatusReason::NotFound => {
            return match registry.create(&context, &collection, object, &options).await {
                // Another member boots the same cluster.
                Err(status) if status.reason == StatusReason::AlreadyExists => Ok(()),
                created => created.map(drop),
            };
        }
        Err(status) => return Err(status),
    };
    let reconcile: fn(&Value, &mut Value) -> bool = match target.kind.plural.as_str() {
        "roles" | "clusterroles" => reconcile_role,
        // What a binding refers to cannot be changed.
        "rolebindings" | "clusterrolebindings"
            if present["roleRef"] != object["roleRef"] && updates_itself(&present) =>
        {
            registry.delete(&context, target, &DeleteOptions::default()).await?;
            return registry.create(&context, &collection, object, &options).await.map(drop);
        }
        "rolebindings" | "clusterrolebindings" => reconcile_binding,
        "endpoints" => |wanted, present| replace(wanted, present, &["subsets"]),
        "endpointslices" => |wanted, present| replace(wanted, present, &["endpoints", "ports"]),
        // The day since when stays, if it is one.
        "configmaps" if target.name == TRACKING && is_day(&present["data"]["since"]) => return Ok(()),
        "configmaps" => |wanted, present| replace(wanted, present, &["data"]),
        flowcontrol::FLOW_SCHEMAS | flowcontrol::PRIORITY_LEVELS => flowcontrol::controller::reconcile,
        _ => return Ok(()),
    };
    if !reconcile(&object, &mut present) {
        return Ok(());
    }
    let mut change = |present: &mut Value| {
        reconcile(&object, present);
        Ok(())
    };
    registry.modify(&context, target, &options, &mut change).await.map(drop)
}

/// Makes fields be as wanted; says whether they were not.
fn replace(wanted: &Value, present: &mut Value, fields: &[&str]) -> bool {
    let mut changed = false;
    for field in fields {
        if present.get(field) != wanted.get(field) {
            present[*field] = wanted[*field].clone();
            changed = true;
        }
    }
    changed
}

fn updates_itself(present: &Value) -> bool {
    present["metadata"]["annotations"][AUTOUPDATE] != "false"
}

/// Labels and annotations that went missing come back.
fn reconcile_metadata(wanted: &Value, present: &mut Value) -> bool {
    let mut changed = false;
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if present["metadata"][field].get(key) != Some(value) {
                present["metadata"][field][key] = value.clone();
                changed = true;
            }
        }
    }
    changed
}

fn reconcile_role(wanted: &Value, present: &mut Value) -> bool {
    if !updates_itself(present) {
        return false;
    }
    let mut changed = reconcile_metadata(wanted, present);
    if wanted["aggregationRule"].is_object() {
        // The rules are gathered by a controller.
        return replace(wanted, present, &["aggregationRule"]) || changed;
    }
    let rules = |role: &Value| Vec::<PolicyRule>::deserialize(&role["rules"]).unwrap_or_default();
    let held = rules(present);
    for rule in wanted["rules"].as_array().into_iter().flatten() {
        let wanted = PolicyRule::deserialize(rule).unwrap_or_default();
        if !uncovered(held.iter(), &[wanted]).is_empty() {
            append(&mut present["rules"], rule.clone());
            changed = true;
        }
    }
    changed
}

fn reconcile_binding(wanted: &Value, present: &mut Value) -> bool {
    if !updates_itself(present) {
        return false;
    }
    let mut changed = reconcile_metadata(wanted, present);
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        if !present["subjects"].as_array().is_some_and(|subjects| subjects.contains(subject)) {
            append(&mut present["subjects"], subject.clone());
            changed = true;
        }
    }
    changed
}

fn append(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = Value::Array(vec![item]),
    }
}

fn authentication_config(bootstrap: &Bootstrap) -> Value {
    let mut data = front_proxy::config(&bootstrap.client_ca, bootstrap.front_proxy.as_ref());
    if let Some(headers) = &bootstrap.request_headers {
        for (key, list) in [
            ("requestheader-allowed-names", &headers.allowed_names),
            ("requestheader-extra-headers-prefix", &headers.extra_prefix),
            ("requestheader-group-headers", &headers.group),
            ("requestheader-uid-headers", &headers.uid),
            ("requestheader-username-headers", &headers.username),
        ] {
            data[key] = json!(json!(list).to_string());
        }
        data["requestheader-client-ca-file"] = json!(headers.ca_pem);
    }
    json!({
        "metadata": { "namespace": "kube-system", "name": "extension-apiserver-authentication" },
        "data": data,
    })
}

/// Since when the use of tokens that Secrets hold is written down: a cleaner waits a year from there
/// (`pkg/controlplane/controller/legacytokentracking`). It stays as it was first written.
fn token_tracking(today: Date) -> Value {
    json!({
        "metadata": { "namespace": "kube-system", "name": TRACKING },
        "data": { "since": today.to_string() },
    })
}

fn is_day(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<Date>().is_ok())
}

fn endpoints(address: SocketAddr) -> Value {
    json!({
        "metadata": { "namespace": "default", "name": "kubernetes", "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{
            "addresses": [{ "ip": address.ip().to_string() }],
            "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
        }],
    })
}

fn endpoint_slice(address: SocketAddr) -> Value {
    json!({
        "metadata": { "namespace": "default", "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": if matches!(address.ip(), IpAddr::V4(_)) { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
    })
}

#[cfg(test)]
mod tests {
    use minik8s_api::kinds::Kinds;
    use minik8s_clock::{Clock, Random};
    use minik8s_store::{MemoryStore, Store};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        allocators::Ranges,
        authz::rbac,
        cache::Cache,
        crd::Converter,
        outgoing::{MachineNetwork, Outgoing},
    };

    async fn cluster(store: Arc<MemoryStore>, clock: &Clock) -> (Arc<Registry>, Arc<ServiceAllocators>, Arc<Cache>) {
        let (kinds, random) = (Kinds::built_in(), Random::seeded(1));
        let cache =
            Cache::start(store.clone(), kinds.clone(), clock.clone(), &TaskTracker::new(), CancellationToken::new())
                .await
                .expect("cache");
        let outgoing = Outgoing::new(cache.clone(), Arc::new(MachineNetwork), clock.clone(), random.clone());
        let converter = Arc::new(Converter::new(outgoing));
        let registry = Registry::new(store.clone(), cache.clone(), converter, clock.clone(), random.clone());
        let allocators =
            Arc::new(ServiceAllocators::new(store, cache.clone(), kinds, clock.clone(), random, &Ranges::default()));
        registry.set_hook(GroupResource::new("", "services"), allocators.clone());
        (registry, allocators, cache)
    }

    fn at(address: &str) -> Bootstrap {
        Bootstrap {
            advertise: address.parse().expect("address"),
            client_ca: "PEM".to_owned(),
            front_proxy: None,
            request_headers: None,
            service_network: Ranges::default().service_network,
        }
    }

    #[tokio::test]
    async fn a_new_cluster_holds_what_kubernetes_makes_and_keeps_it() {
        let (clock, _simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("time"));
        let store = MemoryStore::new(clock.clone());
        let (registry, allocators, cache) = cluster(store.clone(), &clock).await;
        run(&registry, &allocators, &at("10.0.0.5:6443")).await.expect("boots");
        let rbac = |plural: &str| GroupResource::new(rbac::GROUP, plural);
        for (resource, count) in [
            (rbac("clusterroles"), 73),
            (rbac("clusterrolebindings"), 54),
            (rbac("roles"), 7),
            (rbac("rolebindings"), 7),
            (GroupResource::new("", "namespaces"), 4),
            (GroupResource::new("scheduling.k8s.io", "priorityclasses"), 2),
            (GroupResource::new("flowcontrol.apiserver.k8s.io", "flowschemas"), 11),
            (GroupResource::new("networking.k8s.io", "ipaddresses"), 1),
            (GroupResource::new("", "configmaps"), 2),
        ] {
            assert_eq!(cache.list(&resource, None).len(), count, "{resource}");
        }
        let service = cache.get(&GroupResource::new("", "services"), "default", "kubernetes").expect("service").value();
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        let before = store.revision();
        run(&registry, &allocators, &at("10.0.0.5:6443")).await.expect("boots again");
        assert_eq!(store.revision(), before, "nothing to do the second time");
    }

    #[tokio::test]
    async fn what_went_missing_comes_back_and_what_was_added_stays() {
        let (clock, _simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("time"));
        let (registry, allocators, cache) = cluster(MemoryStore::new(clock.clone()), &clock).await;
        run(&registry, &allocators, &at("10.0.0.5:6443")).await.expect("boots");
        let context = Context::internal();
        let role = |name: &str| registry.target(rbac::GROUP, "v1", "clusterroles", "", name).expect("target");
        let own = json!({ "apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"] });
        for (name, autoupdate) in [("system:basic-user", "true"), ("system:discovery", "false")] {
            let mut spoil = |object: &mut Value| {
                object["rules"] = json!([own]);
                object["metadata"]["annotations"][AUTOUPDATE] = json!(autoupdate);
                Ok(())
            };
            registry.modify(&context, &role(name), &WriteOptions::default(), &mut spoil).await.expect("spoiled");
        }
        run(&registry, &allocators, &at("10.0.0.6:6443")).await.expect("boots again");
        let rules = |name: &str| {
            cache.get(&GroupResource::new(rbac::GROUP, "clusterroles"), "", name).expect("role").value()["rules"]
                .clone()
        };
        let mended = rules("system:basic-user");
        assert_eq!((mended.as_array().map(Vec::len), &mended[0]), (Some(3), &own));
        assert_eq!(rules("system:discovery"), json!([own]));
        let endpoints =
            cache.get(&GroupResource::new("", "endpoints"), "default", "kubernetes").expect("endpoints").value();
        assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.0.0.6");
    }
}
