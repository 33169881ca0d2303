//! The pods behind a Service as EndpointSlices: pieces of at most [`MAX_ENDPOINTS`], so that a change of one pod of a
//! large Service does not send all of them to every node.
//!
//! Watches Services, Pods, Nodes and EndpointSlices; owns the EndpointSlices that carry its label.
//! (Kubernetes: `staging/src/k8s.io/endpointslice/reconciler.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_not_found};

use crate::endpoints::{Backend, TRIGGER_TIME, backends, port_in, seconds, selector, services_of, target};
use crate::manager::{Context, Reconciler};
use crate::owners::controller_reference;
use crate::pod_control::is_namespace_terminating;

/// How many endpoints a slice holds.
const MAX_ENDPOINTS: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "endpointslice/service";

/// The ports of a slice: name, number, protocol, application protocol.
type Ports = Vec<(String, i32, Option<String>, Option<String>)>;

/// Writes EndpointSlices.
#[derive(Clone)]
pub struct EndpointSliceController {
    client: Client,
    services: Lister<Service>,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    slices: Lister<EndpointSlice>,
    queue: WorkQueue<String>,
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY)? == MANAGER).then_some(())?;
    Some(format!("{}/{}", slice.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME)?))
}

impl EndpointSliceController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let services = context.informers.informer::<Service>();
        let pods = context.informers.informer::<Pod>();
        let nodes = context.informers.informer::<Node>();
        let slices = context.informers.informer::<EndpointSlice>();
        slices.add_index(BY_SERVICE, |slice| service_key(slice).into_iter().collect());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        services.on_event(move |event| {
            let meta = &event.object().metadata;
            let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
            add.add(format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default()));
        });
        let (add, lister) = (queue.clone(), services.lister());
        pods.on_event(move |event| services_of(&lister, event).into_iter().for_each(|key| add.add(key)));
        let add = queue.clone();
        slices.on_event(move |event| {
            // What somebody else did to a slice is undone; what this controller did changes nothing.
            if !matches!(event, Event::Added(_)) {
                service_key(event.object()).into_iter().for_each(|key| add.add(key));
            }
        });
        Self {
            client: context.client.clone(),
            services: services.lister(),
            pods: pods.lister(),
            nodes: nodes.lister(),
            slices: slices.lister(),
            queue,
        }
    }

    fn endpoint(&self, service: &Service, backend: &Backend) -> Endpoint {
        let spec = backend.pod.spec.as_ref();
        let node_name = spec.and_then(|spec| spec.node_name.clone());
        let node = node_name.as_deref().and_then(|name| self.nodes.get("", name));
        let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        let hostname = spec
            .and_then(|spec| spec.hostname.clone())
            .filter(|_| spec.and_then(|spec| spec.subdomain.as_deref()) == service.metadata.name.as_deref());
        Endpoint {
            addresses: vec![backend.address.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(backend.ready),
                serving: Some(backend.serving),
                terminating: Some(backend.terminating),
            }),
            hostname,
            node_name,
            target_ref: Some(target(&backend.pod)),
            zone,
            ..Endpoint::default()
        }
    }

    /// The endpoints of a Service by the ports that they have.
    fn groups(&self, service: &Service) -> BTreeMap<Ports, Vec<Endpoint>> {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
        for backend in backends(service, &self.pods) {
            let found: Ports = ports
                .iter()
                .filter_map(|port| {
                    let number = port_in(&backend.pod, port)?;
                    let name = port.name.clone().unwrap_or_default();
                    Some((name, number, port.protocol.clone(), port.app_protocol.clone()))
                })
                .collect();
            let endpoint = self.endpoint(service, &backend);
            groups.entry(found).or_default().push(endpoint);
        }
        if groups.is_empty() {
            // A Service without pods has one empty slice, so that clients know that somebody looked.
            groups.insert(Vec::new(), Vec::new());
        }
        groups
    }

    fn slice(&self, service: &Service, ports: &Ports, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let name = service.metadata.name.clone().unwrap_or_default();
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels.insert(SERVICE_NAME.to_owned(), name.clone());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        let ports = ports.iter().map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name.clone()),
            port: Some(*port),
            protocol: protocol.clone(),
            app_protocol: app_protocol.clone(),
        });
        let ports: Vec<EndpointPort> = ports.collect();
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(service)]),
                ..ObjectMeta::default()
            },
            address_type: "IPv4".to_owned(),
            endpoints: Some(endpoints).filter(|endpoints| !endpoints.is_empty()),
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        }
    }

    async fn write(&self, known: Option<&EndpointSlice>, mut wanted: EndpointSlice) -> Result<(), kube::Error> {
        let namespace = wanted.metadata.namespace.clone().unwrap_or_default();
        let api = self.client.namespaced::<EndpointSlice>(&namespace);
        let stamp = (TRIGGER_TIME.to_owned(), seconds(self.client.clock().now()));
        match known {
            Some(known) if same(known, &wanted) => Ok(()),
            Some(known) => {
                wanted.metadata = ObjectMeta { labels: wanted.metadata.labels, ..known.metadata.clone() };
                wanted.metadata.annotations.get_or_insert_default().extend([stamp]);
                let name = known.metadata.name.as_deref().unwrap_or_default();
                api.replace(name, &PostParams::default(), &wanted).await.map(drop)
            }
            None => {
                wanted.metadata.annotations.get_or_insert_default().extend([stamp]);
                match api.create(&PostParams::default(), &wanted).await {
                    Err(error) if is_namespace_terminating(&error) => Ok(()),
                    other => other.map(drop),
                }
            }
        }
    }

    async fn remove(&self, slice: &EndpointSlice) -> Result<(), kube::Error> {
        let api = self.client.namespaced::<EndpointSlice>(slice.metadata.namespace.as_deref().unwrap_or_default());
        match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn same(known: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    known.metadata.labels == wanted.metadata.labels
        && known.endpoints.clone().unwrap_or_default() == wanted.endpoints.clone().unwrap_or_default()
        && known.ports.clone().unwrap_or_default() == wanted.ports.clone().unwrap_or_default()
}

fn ports_of(slice: &EndpointSlice) -> Ports {
    let ports = slice.ports.iter().flatten();
    ports
        .map(|port| {
            let name = port.name.clone().unwrap_or_default();
            (name, port.port.unwrap_or(0), port.protocol.clone(), port.app_protocol.clone())
        })
        .collect()
}

/// Lays endpoints into slices so that few change: each stays in the slice where it was, new ones fill what room there is.
fn lay(endpoints: Vec<Endpoint>, known: &[Arc<EndpointSlice>]) -> Vec<(Option<Arc<EndpointSlice>>, Vec<Endpoint>)> {
    let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    let mut home: BTreeMap<String, usize> = BTreeMap::new();
    for (at, slice) in known.iter().enumerate() {
        for endpoint in slice.endpoints.iter().flatten() {
            home.extend(uid(endpoint).map(|uid| (uid, at)));
        }
    }
    let mut laid: Vec<_> = known.iter().map(|slice| (Some(slice.clone()), Vec::new())).collect();
    let mut new = Vec::new();
    for endpoint in endpoints {
        match uid(&endpoint).and_then(|uid| home.get(&uid)) {
            Some(at) => laid[*at].1.push(endpoint),
            None => new.push(endpoint),
        }
    }
    for endpoint in new {
        match laid.iter_mut().find(|(_, endpoints)| endpoints.len() < MAX_ENDPOINTS) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => laid.push((None, vec![endpoint])),
        }
    }
    if laid.is_empty() {
        laid.push((None, Vec::new()));
    }
    laid
}

impl Reconciler for EndpointSliceController {
    const NAME: &'static str = "endpointslice";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let known = self.slices.by_index(BY_SERVICE, &key);
        let service = self
            .services
            .get(namespace, name)
            .filter(|service| service.metadata.deletion_timestamp.is_none() && selector(service).is_some());
        let Some(service) = service else {
            // Slices of a Service that is gone go with their owner; those of one that lost its selector stay.
            return Ok(());
        };
        let mut left: Vec<Arc<EndpointSlice>> = known;
        for (ports, endpoints) in self.groups(&service) {
            let (fitting, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|slice| ports_of(slice) == ports);
            left = others;
            let many = fitting.len() > 1;
            for (slice, endpoints) in lay(endpoints, &fitting) {
                match &slice {
                    Some(slice) if endpoints.is_empty() && many => self.remove(slice).await?,
                    _ => self.write(slice.as_deref(), self.slice(&service, &ports, endpoints)).await?,
                }
            }
        }
        for slice in left {
            self.remove(&slice).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_stay_in_their_slices_and_new_ones_fill_the_room() {
        let endpoint = |n: usize| -> Endpoint {
            serde_json::from_value(
                serde_json::json!({"addresses": [format!("10.0.0.{n}")], "targetRef": {"uid": format!("u{n}")}}),
            )
            .unwrap()
        };
        let slice = |of: std::ops::Range<usize>| {
            Arc::new(EndpointSlice { endpoints: Some(of.map(endpoint).collect()), ..EndpointSlice::default() })
        };
        let known = [slice(0..100), slice(100..150)];
        let laid = lay((50..300).map(endpoint).collect(), &known);
        let sizes: Vec<usize> = laid.iter().map(|(_, endpoints)| endpoints.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        assert_eq!(laid[0].1[0], endpoint(50), "what was there is still there");
        assert!(laid[2].0.is_none());
        assert_eq!(lay(Vec::new(), &[]).len(), 1, "an empty Service has an empty slice");
    }
}
