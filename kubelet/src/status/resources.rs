//! What containers, and pods as a whole, are said to have.
//!
//! (kubelet: `kubelet_pods.go`, `convertContainerStatusResources`, `convertToAPIPodLevelResourcesStatus`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::quantity::{Format, Quantity};

use crate::allocation::{PodResources, ResourceList};
use crate::resources::{self, pod_cgroup_limits, quota_to_millis, shares_read_back, shares_to_millis};
use crate::runtime::{RuntimeContainer, RuntimeState};

/// CPU requests up to this many thousandths are all the same to the kernel (`cm.MinShares`).
const SAME_CPU_REQUESTS: i64 = 2;
/// CPU limits up to this many thousandths are all the same to the kernel (`cm.MinMilliCPULimit`).
const SAME_CPU_LIMITS: i64 = 10;

fn api(quantity: Quantity) -> ApiQuantity {
    ApiQuantity(quantity.to_string())
}

fn cpu(millis: i64) -> ApiQuantity {
    api(Quantity::from_milli(millis, Format::DecimalSi))
}

fn memory(bytes: i64) -> ApiQuantity {
    api(Quantity::new(bytes, Format::BinarySi))
}

fn quantity(list: &ResourceList, name: &str) -> Quantity {
    list.get(name).and_then(|text| Quantity::parse(&text.0).ok()).unwrap_or_default()
}

/// What a container has: what is allocated to it where it does not run, else what the runtime says where it says
/// something. `old` is its status before, if that is one of the same running container.
pub(super) fn of_container(
    allocated: &Container,
    latest: &RuntimeContainer,
    actuated: &PodResources,
    old: Option<&ContainerStatus>,
) -> ResourceRequirements {
    let mut resources = allocated.resources.clone().unwrap_or_default();
    if latest.state != RuntimeState::Running {
        return resources;
    }
    let known = actuated.containers.get(&allocated.name);
    let was = |list: fn(&ResourceRequirements) -> &Option<ResourceList>, name: &str| {
        list(old?.resources.as_ref()?).as_ref()?.get(name).cloned()
    };
    let actuated = |list: fn(&ResourceRequirements) -> &Option<ResourceList>, name: &str| {
        list(known?).as_ref().and_then(|list| list.get(name)).cloned().or_else(|| Some(ApiQuantity("0".to_owned())))
    };
    let keep = |list: &mut ResourceList, name: &str, value: Option<ApiQuantity>| {
        if let Some(value) = value {
            list.insert(name.to_owned(), value);
        }
    };
    let reported = latest.resources;
    if let Some(limits) = resources.limits.as_mut().filter(|limits| !limits.is_empty()) {
        let limit = match reported {
            Some(reported) => reported.cpu_limit.map(cpu),
            None => actuated(|own| &own.limits, "cpu"),
        };
        set_cpu(limits, limit, was(|own| &own.limits, "cpu"), SAME_CPU_LIMITS);
        let limit = match reported {
            Some(reported) => reported.memory_limit.map(memory),
            None => actuated(|own| &own.limits, "memory"),
        };
        keep(limits, "memory", limit.or_else(|| was(|own| &own.limits, "memory")));
    }
    if let Some(requests) = resources.requests.as_mut().filter(|requests| !requests.is_empty()) {
        let request = match reported {
            Some(reported) => reported.cpu_request.map(cpu),
            None => actuated(|own| &own.requests, "cpu"),
        };
        set_cpu(requests, request, was(|own| &own.requests, "cpu"), SAME_CPU_REQUESTS);
        // No runtime knows it.
        let request = actuated(|own| &own.requests, "memory");
        let request = request.filter(|text| Quantity::parse(&text.0).is_ok_and(|amount| !amount.is_zero()));
        keep(requests, "memory", request.or_else(|| was(|own| &own.requests, "memory")));
    }
    resources
}

/// Sets what is reported of processors, unless it and what is allocated are both so little that they are the same.
fn set_cpu(list: &mut ResourceList, reported: Option<ApiQuantity>, was: Option<ApiQuantity>, same: i64) {
    let Some(value) = reported else {
        if let Some(was) = was {
            list.insert("cpu".to_owned(), was);
        }
        return;
    };
    let amount = Quantity::parse(&value.0).unwrap_or_default().milli_value();
    if amount > same || quantity(list, "cpu").milli_value() > same {
        list.insert("cpu".to_owned(), value);
    }
}

/// Sets what the pod as a whole has. `actual` is the pod by what its containers were last told to use, from which its
/// cgroup follows: a runtime does not report on pods.
pub(super) fn set_of_pod(status: &mut PodStatus, pod: &Pod, actual: &Pod, old: &PodStatus) {
    let list = |amounts: BTreeMap<String, Quantity>| -> Option<ResourceList> {
        let list: ResourceList = amounts.into_iter().map(|(name, amount)| (name, api(amount))).collect();
        Some(list).filter(|list| !list.is_empty())
    };
    let requested = list(resources::pod_requests(pod));
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.clone()).unwrap_or_default();
    status.resources = Some(if status.phase.as_deref() == Some("Running") {
        running(&whole, requested.as_ref(), actual, old)
    } else {
        ResourceRequirements { requests: requested.clone(), limits: list(resources::pod_limits(pod)), ..whole }
    });
    status.allocated_resources = requested;
}

fn running(
    whole: &ResourceRequirements,
    requested: Option<&ResourceList>,
    actual: &Pod,
    old: &PodStatus,
) -> ResourceRequirements {
    let cgroup = pod_cgroup_limits(actual);
    let old = old.resources.as_ref().filter(|_| old.phase.as_deref() == Some("Running"));
    let mut requests = whole.requests.clone().unwrap_or_default();
    let allocated = quantity(&requests, "cpu").milli_value();
    let shares = shares_read_back(cgroup.cpu_shares);
    let request = shares_to_millis(shares);
    let is_same = shares_read_back(resources::CgroupLimits::new(allocated, 0, 0).cpu_shares) == shares;
    if (request > SAME_CPU_REQUESTS || allocated > SAME_CPU_REQUESTS) && !is_same {
        requests.insert("cpu".to_owned(), cpu(request));
    }
    if let Some(amount) = requested.and_then(|list| list.get("memory")) {
        requests.entry("memory".to_owned()).or_insert_with(|| amount.clone());
    }
    let mut limits = whole.limits.clone().unwrap_or_default();
    let was = |name: &str| old.and_then(|old| old.limits.as_ref()?.get(name).cloned());
    let millis = quota_to_millis(cgroup.cpu_quota, cgroup.cpu_period);
    set_cpu(&mut limits, (millis > 0).then(|| cpu(millis)), was("cpu"), SAME_CPU_LIMITS);
    let limit = (cgroup.memory_limit > 0).then(|| memory(cgroup.memory_limit)).or_else(|| was("memory"));
    if let Some(limit) = limit {
        limits.insert("memory".to_owned(), limit);
    }
    let list = |list: ResourceList| Some(list).filter(|list| !list.is_empty());
    ResourceRequirements { requests: list(requests), limits: list(limits), ..whole.clone() }
}
