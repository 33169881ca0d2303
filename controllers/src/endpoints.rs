//! Which pods are behind a Service: as an Endpoints object and as EndpointSlices.
//!
//! Two controllers, for clients of both kinds; what they have in common — which pods, which ports — stands here.
//! Watch Services, Pods and Nodes; own and write Endpoints and EndpointSlices.
//! (Kubernetes: `pkg/controller/endpoint`, `staging/…/endpointslice`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ContainerPort, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, PostParams};
use minik8s_api::selector::LabelSelector;
use minik8s_client::{Client, Event, Lister, WorkQueue, is_already_exists, is_conflict, is_not_found};

use crate::manager::{Context, Reconciler};
use crate::pod_control::is_namespace_terminating;
use crate::pods;

/// How many addresses an Endpoints object holds; further ones are left out and the object says so.
const MAX_CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The keys of the Services of `namespace` that select `pod`, or did before.
pub(crate) fn services_of(services: &Lister<Service>, event: &Event<Pod>) -> Vec<String> {
    let namespace = event.object().metadata.namespace.clone().unwrap_or_default();
    if let Event::Updated { old, new } = event
        && !matters(old, new)
    {
        return Vec::new();
    }
    let labels: Vec<_> = match event {
        Event::Updated { old, new } => vec![&old.metadata.labels, &new.metadata.labels],
        other => vec![&other.object().metadata.labels],
    };
    let all = services.list_namespace(&namespace);
    let selecting = all.iter().filter(|service| {
        selector(service).is_some_and(|selector| labels.iter().any(|set| selector.matches_set(set.as_ref())))
    });
    selecting.map(|service| format!("{namespace}/{}", service.metadata.name.as_deref().unwrap_or_default())).collect()
}

/// Whether what endpoints tell of the pod has changed.
fn matters(old: &Pod, new: &Pod) -> bool {
    let told = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            status.and_then(|status| status.pod_ip.clone()),
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            pods::is_ready(pod),
            matches!(pods::phase(pod), "Succeeded" | "Failed"),
            pod.metadata.deletion_timestamp.is_some(),
            pod.metadata.labels.clone(),
            pod.metadata.uid.clone(),
        )
    };
    told(old) != told(new)
}

/// A Service's selector; `None` where its endpoints are somebody else's business.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some(LabelSelector::from_set(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
}

/// A pod behind a Service.
pub(crate) struct Backend {
    pub(crate) pod: Arc<Pod>,
    pub(crate) address: String,
    /// It serves, and nobody has told it to end; or the Service does not ask.
    pub(crate) ready: bool,
    /// It serves, whether or not it ends.
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

/// The pods behind a Service, by name.
pub(crate) fn backends(service: &Service, pods_lister: &Lister<Pod>) -> Vec<Backend> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let Some(selector) = selector(service) else {
        return Vec::new();
    };
    let always = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let all = pods_lister.list_namespace(namespace).into_iter();
    all.filter(|pod| selector.matches_set(pod.metadata.labels.as_ref()))
        .filter(|pod| !matches!(pods::phase(pod), "Succeeded" | "Failed"))
        .filter_map(|pod| {
            let address = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
            let terminating = pod.metadata.deletion_timestamp.is_some();
            let serving = pods::is_ready(&pod);
            Some(Backend { address, ready: always || serving && !terminating, serving, terminating, pod })
        })
        .collect()
}

/// The number that a Service's port has in a pod: its own, or that of the container's port of this name.
pub(crate) fn port_in(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let wanted = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    ports
        .find(|found| found.name.as_deref() == Some(name) && protocol(found) == wanted)
        .map(|found| found.container_port)
}

/// The reference by which an endpoint names its pod.
pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Writes Endpoints.
#[derive(Clone)]
pub struct EndpointsController {
    client: Client,
    services: Lister<Service>,
    pods: Lister<Pod>,
    endpoints: Lister<Endpoints>,
    queue: WorkQueue<String>,
}

impl EndpointsController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let services = context.informers.informer::<Service>();
        let pods = context.informers.informer::<Pod>();
        let endpoints = context.informers.informer::<Endpoints>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let key = |meta: &ObjectMeta| {
            format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
        };
        let add = queue.clone();
        services.on_event(move |event| add.add(key(&event.object().metadata)));
        let (add, lister) = (queue.clone(), services.lister());
        pods.on_event(move |event| services_of(&lister, event).into_iter().for_each(|key| add.add(key)));
        let add = queue.clone();
        endpoints.on_event(move |event| {
            if matches!(event, Event::Deleted(_)) {
                add.add(key(&event.object().metadata));
            }
        });
        Self {
            client: context.client.clone(),
            services: services.lister(),
            pods: pods.lister(),
            endpoints: endpoints.lister(),
            queue,
        }
    }

    async fn remove(&self, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let ours = self
            .endpoints
            .get(namespace, name)
            .is_some_and(|there| there.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY)));
        if !ours {
            return Ok(());
        }
        match self.client.namespaced::<Endpoints>(namespace).delete(name, &DeleteParams::default()).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Reconciler for EndpointsController {
    const NAME: &'static str = "endpoints";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let Some(service) = self.services.get(namespace, name) else {
            return self.remove(namespace, name).await;
        };
        if selector(&service).is_none() {
            return Ok(());
        }
        let backends = backends(&service, &self.pods);
        let subsets = subsets(&service, &backends);
        let known = self.endpoints.get(namespace, name);
        let mut wanted = known.as_deref().cloned().unwrap_or_default();
        let labels = labels(&service);
        if known.is_some()
            && wanted.subsets.clone().unwrap_or_default() == subsets.0
            && wanted.metadata.labels.as_ref() == Some(&labels)
        {
            return Ok(());
        }
        wanted.metadata.name = Some(name.to_owned());
        wanted.metadata.labels = Some(labels);
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(TRIGGER_TIME.to_owned(), seconds(self.client.clock().now()));
        if subsets.1 {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        } else {
            annotations.remove(OVER_CAPACITY);
        }
        wanted.subsets = Some(subsets.0).filter(|subsets| !subsets.is_empty());
        let api = self.client.namespaced::<Endpoints>(namespace);
        let written = match known {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(_) => api.replace(name, &PostParams::default(), &wanted).await,
        };
        match written {
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            // The lister is behind; the event of what is there brings the key back.
            Err(error) if is_already_exists(&error) || is_conflict(&error) => {
                self.queue.add_rate_limited(key);
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

/// A time as annotations hold it.
pub(crate) fn seconds(at: k8s_openapi::jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// The subsets, and whether some addresses had to be left out. Addresses with the same ports stand together.
fn subsets(service: &Service, backends: &[Backend]) -> (Vec<EndpointSubset>, bool) {
    type Ports = Vec<(Option<String>, i32, Option<String>, Option<String>)>;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut groups: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let truncated = backends.len() > MAX_CAPACITY;
    for backend in backends.iter().take(MAX_CAPACITY) {
        let spec = backend.pod.spec.as_ref();
        // A headless Service tells the pods' own names.
        let hostname = spec
            .and_then(|spec| spec.hostname.clone())
            .filter(|_| spec.and_then(|spec| spec.subdomain.as_deref()) == service.metadata.name.as_deref());
        let address = EndpointAddress {
            ip: backend.address.clone(),
            hostname,
            node_name: spec.and_then(|spec| spec.node_name.clone()),
            target_ref: Some(target(&backend.pod)),
        };
        let found: Ports = ports
            .iter()
            .filter_map(|port| {
                let number = port_in(&backend.pod, port)?;
                Some((port.name.clone(), number, port.protocol.clone(), port.app_protocol.clone()))
            })
            .collect();
        if found.is_empty() && !ports.is_empty() {
            continue;
        }
        let group = groups.entry(found).or_default();
        if backend.ready { group.0.push(address) } else { group.1.push(address) }
    }
    let subsets = groups.into_iter().map(|(ports, (mut ready, mut not_ready))| {
        ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        let some = |all: Vec<EndpointAddress>| Some(all).filter(|all| !all.is_empty());
        let ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|(name, port, protocol, app_protocol)| EndpointPort { name, port, protocol, app_protocol })
            .collect();
        EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        }
    });
    (subsets.collect(), truncated)
}
