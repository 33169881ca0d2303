//! Amounts of resources, as integers that can be added up: CPU in millicores, the rest in whole units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::quantity::Quantity;

/// What a container without a CPU request is taken to use when nodes are compared, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request is taken to use when nodes are compared, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// CPU, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Local disk, in bytes.
    pub ephemeral_storage: i64,
    /// How many pods (what a node allocates; a pod requests none).
    pub pods: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<String, i64>,
}

type List = BTreeMap<String, ApiQuantity>;

impl Resource {
    /// From a resource list. The API has validated it: what is not a quantity counts as nothing.
    pub fn from_list(list: &List) -> Self {
        let mut resource = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = Quantity::parse(&quantity.0) else {
                continue;
            };
            *resource.slot(name) = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
        }
        resource
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.milli_cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            "pods" => &mut self.pods,
            other => self.scalar.entry(other.to_owned()).or_default(),
        }
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Resource) {
        self.each(other, |own, other| own.saturating_add(other));
    }

    /// Subtracts `other`.
    pub fn subtract(&mut self, other: &Resource) {
        self.each(other, |own, other| own.saturating_sub(other));
    }

    /// Raises every amount to that of `other`.
    pub fn raise_to(&mut self, other: &Resource) {
        self.each(other, i64::max);
    }

    fn each(&mut self, other: &Resource, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = combine(*own, *amount);
        }
    }
}

fn container_requests(container: &Container, defaults: bool) -> Resource {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let mut resource = requests.map(Resource::from_list).unwrap_or_default();
    if defaults {
        let has = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
        if !has("cpu") {
            resource.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !has("memory") {
            resource.memory = DEFAULT_MEMORY;
        }
    }
    resource
}

/// What a pod requests: the sum of its containers and sidecars, or the most that its init containers need at one time
/// if that is more, plus the overhead. (Kubernetes: `component-helpers/resource/helpers.go`, `PodRequests`.)
pub fn pod_requests(pod: &Pod) -> Resource {
    pod.spec.as_ref().map(|spec| requests(spec, false)).unwrap_or_default()
}

/// The same, with something assumed for containers that request nothing, so that nodes full of them look fuller.
pub fn non_zero_requests(pod: &Pod) -> Resource {
    pod.spec.as_ref().map(|spec| requests(spec, true)).unwrap_or_default()
}

fn requests(spec: &PodSpec, defaults: bool) -> Resource {
    let mut total = Resource::default();
    for container in &spec.containers {
        total.add(&container_requests(container, defaults));
    }
    let mut sidecars = Resource::default();
    let mut peak = Resource::default();
    for container in spec.init_containers.iter().flatten() {
        let needs = container_requests(container, defaults);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needs);
            sidecars.add(&needs);
            peak.raise_to(&sidecars);
        } else {
            let mut now = sidecars.clone();
            now.add(&needs);
            peak.raise_to(&now);
        }
    }
    total.raise_to(&peak);
    if let Some(list) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        // What the pod as a whole asks for stands over what its containers do.
        for (name, amount) in list {
            let whole = Resource::from_list(&BTreeMap::from([(name.clone(), amount.clone())])).slot(name).to_owned();
            *total.slot(name) = whole;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resource::from_list(overhead));
    }
    total
}
