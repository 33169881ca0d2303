//! Endpoints that users write by hand, for Services without a selector, as EndpointSlices.
//!
//! Watches Endpoints, Services and EndpointSlices; owns the EndpointSlices that carry its label.
//! (Kubernetes: `pkg/controller/endpointslicemirroring`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_not_found};

use crate::endpoints::selector;
use crate::manager::{Context, Reconciler};
use crate::owners::controller_reference;
use crate::pod_control::is_namespace_terminating;
use crate::pod_owners::key_of;

/// How many addresses of a subset are mirrored; so many a slice holds too.
const MAX_ENDPOINTS_PER_SUBSET: usize = 1000;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BY_SERVICE: &str = "endpointslicemirroring/service";

/// See the module.
#[derive(Clone)]
pub struct EndpointSliceMirroring {
    client: Client,
    endpoints: Lister<Endpoints>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    queue: WorkQueue<String>,
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY)? == MANAGER).then_some(())?;
    Some(format!("{}/{}", slice.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME)?))
}

impl EndpointSliceMirroring {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let endpoints = context.informers.informer::<Endpoints>();
        let services = context.informers.informer::<Service>();
        let slices = context.informers.informer::<EndpointSlice>();
        slices.add_index(BY_SERVICE, |slice| service_key(slice).into_iter().collect());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        endpoints.on_event(move |event| add.add(key_of(&event.object().metadata)));
        let add = queue.clone();
        services.on_event(move |event| add.add(key_of(&event.object().metadata)));
        let add = queue.clone();
        slices.on_event(move |event| {
            if !matches!(event, Event::Added(_)) {
                service_key(event.object()).into_iter().for_each(|key| add.add(key));
            }
        });
        Self {
            client: context.client.clone(),
            endpoints: endpoints.lister(),
            services: services.lister(),
            slices: slices.lister(),
            queue,
        }
    }
}

/// Whether these Endpoints are a user's, to be mirrored.
fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let labelled = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR));
    let elects = endpoints.metadata.annotations.iter().flatten().any(|(key, _)| key == LEADER);
    selector(service).is_none() && !elects && labelled.is_none_or(|value| value != "true")
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// The slices for a subset: one for each family of addresses that it has.
fn slices_of(endpoints: &Endpoints, subset: &EndpointSubset) -> Vec<EndpointSlice> {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    let ports: Vec<EndpointPort> = ports.collect();
    let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
    let others = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false));
    let (six, four): (Vec<Endpoint>, Vec<Endpoint>) = ready
        .chain(others)
        .take(MAX_ENDPOINTS_PER_SUBSET)
        .partition(|endpoint| endpoint.addresses.iter().any(|address| address.contains(':')));
    let mut labels: BTreeMap<String, String> = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    };
    let families = [("IPv4", four), ("IPv6", six)].into_iter().filter(|(_, all)| !all.is_empty());
    families
        .map(|(family, all)| EndpointSlice {
            metadata: metadata.clone(),
            address_type: family.to_owned(),
            endpoints: Some(all),
            ports: Some(ports.clone()).filter(|ports| !ports.is_empty()),
        })
        .collect()
}

fn same(known: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    known.metadata.labels == wanted.metadata.labels
        && known.metadata.annotations == wanted.metadata.annotations
        && known.endpoints == wanted.endpoints
}

impl Reconciler for EndpointSliceMirroring {
    const NAME: &'static str = "endpointslice-mirroring-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let mut left: Vec<Arc<EndpointSlice>> = self.slices.by_index(BY_SERVICE, &key);
        let service = self.services.get(namespace, name);
        let endpoints = self.endpoints.get(namespace, name);
        let mirrored = service.zip(endpoints).filter(|(service, endpoints)| is_mirrored(endpoints, service));
        let api = self.client.namespaced::<EndpointSlice>(namespace);
        if let Some((_, endpoints)) = mirrored {
            let subsets = endpoints.subsets.iter().flatten();
            for mut wanted in subsets.flat_map(|subset| slices_of(&endpoints, subset)) {
                let fits = |slice: &Arc<EndpointSlice>| {
                    slice.ports == wanted.ports && slice.address_type == wanted.address_type
                };
                let Some(at) = left.iter().position(fits) else {
                    match api.create(&PostParams::default(), &wanted).await {
                        Err(error) if is_namespace_terminating(&error) => return Ok(()),
                        other => other.map(drop)?,
                    }
                    continue;
                };
                let known = left.remove(at);
                if !same(&known, &wanted) {
                    let (labels, annotations) = (wanted.metadata.labels, wanted.metadata.annotations);
                    wanted.metadata = ObjectMeta { labels, annotations, ..known.metadata.clone() };
                    let name = known.metadata.name.as_deref().unwrap_or_default();
                    api.replace(name, &PostParams::default(), &wanted).await?;
                }
            }
        }
        for slice in left {
            match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subset_becomes_a_slice_for_each_family() {
        let endpoints: Endpoints = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "subsets": [{
                "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 5432}]}]}))
        .unwrap();
        let slices = slices_of(&endpoints, &endpoints.subsets.as_ref().unwrap()[0]);
        let show: Vec<_> =
            slices.iter().map(|slice| (slice.address_type.as_str(), slice.endpoints.as_ref().unwrap().len())).collect();
        assert_eq!(show, [("IPv4", 2), ("IPv6", 1)]);
    }

    #[test]
    fn only_what_users_write_is_mirrored() {
        let service = |spec: serde_json::Value| -> Service { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let by_hand = Endpoints::default();
        assert!(is_mirrored(&by_hand, &service(json!({}))));
        assert!(!is_mirrored(&by_hand, &service(json!({"selector": {"app": "db"}}))));
        let elects = json!({"metadata": {"annotations": {LEADER: "{}"}}});
        assert!(!is_mirrored(&serde_json::from_value(elects).unwrap(), &service(json!({}))));
    }
}
