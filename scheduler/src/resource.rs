//! Amounts of resources, as integers that can be added up: CPU in millicores, the rest in whole units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
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

/// Which of the resources of a container count.
#[derive(Clone, Copy)]
enum Side {
    /// What its spec asks for.
    Spec,
    /// What its node has set aside for it.
    Allocated,
    /// What it has.
    Actuated,
}

/// The pod's word on one of its containers.
fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|status| status.name == name)
}

/// What a container asks for on one side. What its status does not tell is what the spec says, unless that can never
/// come true.
fn container_list<'a>(pod: &'a Pod, container: &'a Container, side: Side, infeasible: bool) -> Option<&'a List> {
    let spec = || container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let status = match side {
        Side::Spec => return spec(),
        Side::Allocated | Side::Actuated => status_of(pod, &container.name),
    };
    let allocated = status.and_then(|status| status.allocated_resources.as_ref());
    let actuated = status.and_then(|status| status.resources.as_ref()).and_then(|own| own.requests.as_ref());
    let told = if matches!(side, Side::Actuated) { actuated.or(allocated) } else { allocated };
    told.or_else(|| spec().filter(|_| !infeasible))
}

fn container_requests(requests: Option<&List>, defaults: bool) -> Resource {
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
/// if that is more, plus the overhead. While it is resized, it is the most of what it asks for, of what its node has set
/// aside for it, and of what it has. (Kubernetes: `component-helpers/resource/helpers.go`, `PodRequests`.)
pub fn pod_requests(pod: &Pod) -> Resource {
    requests(pod, false)
}

/// The same, with something assumed for containers that request nothing, so that nodes full of them look fuller.
pub fn non_zero_requests(pod: &Pod) -> Resource {
    requests(pod, true)
}

/// Whether the pod asks for more than its node can ever give.
fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let pending = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodResizePending");
    pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"))
}

fn requests(pod: &Pod, defaults: bool) -> Resource {
    let Some(spec) = &pod.spec else { return Resource::default() };
    let infeasible = is_infeasible(pod);
    let status = pod.status.as_ref();
    let actuated = status.and_then(|status| status.resources.as_ref());
    let whole = status.and_then(|status| status.allocated_resources.as_ref());
    let whole = whole.zip(actuated.and_then(|actuated| actuated.requests.as_ref()));
    let mut total = if infeasible { Resource::default() } else { aggregate(pod, spec, Side::Spec, false, defaults) };
    match whole {
        Some((allocated, actuated)) => {
            total.raise_to(&Resource::from_list(allocated));
            total.raise_to(&Resource::from_list(actuated));
        }
        // Most pods have not begun to run, or never say more than their spec.
        None if status.is_none_or(|status| status.container_statuses.is_none()) && !infeasible => {}
        None => {
            total.raise_to(&aggregate(pod, spec, Side::Allocated, infeasible, defaults));
            total.raise_to(&aggregate(pod, spec, Side::Actuated, infeasible, defaults));
        }
    }
    if let Some(list) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        // What the pod as a whole asks for stands over what its containers do.
        let one = |name: &str, amount: &ApiQuantity| {
            Resource::from_list(&BTreeMap::from([(name.to_owned(), amount.clone())])).slot(name).to_owned()
        };
        let told =
            actuated.map(|actuated| (actuated.requests.as_ref(), status.and_then(|s| s.allocated_resources.as_ref())));
        for (name, amount) in list {
            let mut most = one(name, amount);
            if let Some((actuated, allocated)) = told {
                if infeasible {
                    most = 0;
                }
                for told in [actuated, allocated].into_iter().flatten().filter_map(|list| list.get(name)) {
                    most = most.max(one(name, told));
                }
            }
            *total.slot(name) = most;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resource::from_list(overhead));
    }
    total
}

/// What the containers of a pod ask for together, on one side.
fn aggregate(pod: &Pod, spec: &PodSpec, side: Side, infeasible: bool, defaults: bool) -> Resource {
    let of = |container: &Container| container_requests(container_list(pod, container, side, infeasible), defaults);
    let mut total = Resource::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let mut sidecars = Resource::default();
    let mut peak = Resource::default();
    for container in spec.init_containers.iter().flatten() {
        let needs = of(container);
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
    total
}

/// Whether a pod requests less of something than it did.
pub fn shrinks(old: &Resource, new: &Resource) -> bool {
    let scalar = |resource: &Resource, name: &str| resource.scalar.get(name).copied().unwrap_or(0);
    new.milli_cpu < old.milli_cpu
        || new.memory < old.memory
        || new.ephemeral_storage < old.ephemeral_storage
        || old.scalar.keys().any(|name| scalar(new, name) < scalar(old, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(status: Value, milli_cpu: i64) {
        let pod = json!({
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}], "overhead": {"cpu": "1m"}},
            "status": status,
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(pod_requests(&pod).milli_cpu, milli_cpu, "{status}");
    }

    #[test]
    fn a_pod_that_is_resized_has_the_most_of_three() {
        let container = |allocated: &str, actuated: Option<&str>| {
            let mut status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0});
            status["allocatedResources"] = json!({"cpu": allocated});
            if let Some(actuated) = actuated {
                status["resources"] = json!({"requests": {"cpu": actuated}});
            }
            json!([status])
        };
        check(json!({}), 2001);
        check(json!({"containerStatuses": container("1", Some("1"))}), 2001);
        check(json!({"containerStatuses": container("3", Some("1"))}), 3001);
        check(json!({"containerStatuses": container("1", Some("4"))}), 4001);
        let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
        check(json!({"containerStatuses": container("1", None), "conditions": pending("Deferred")}), 2001);
        check(json!({"containerStatuses": container("1", None), "conditions": pending("Infeasible")}), 1001);
        check(json!({"containerStatuses": container("1", Some("1500m")), "conditions": pending("Infeasible")}), 1501);
        // What is told of the pod as a whole stands for its containers.
        let whole = json!({"allocatedResources": {"cpu": "3"}, "resources": {"requests": {"cpu": "2999m"}}});
        check(whole, 3001);
    }
}
