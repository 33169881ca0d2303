//! Requests, limits and what follows from them: QoS class, CPU shares and quota, OOM score.
//!
//! (`pkg/apis/core/v1/helper/qos/qos.go`; kubelet: `cm/helpers_linux.go`, `qos/policy.go`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::quantity::Quantity;

use crate::allocation::{ResourceList, effective_limits};
use crate::error::{Error, Result};
use crate::spec::{self, ContainerKind, PodExt as _};

/// An amount of a resource in thousandths of its unit: enough for CPU, more than enough for bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Amount>;

impl Amount {
    /// Whole units.
    pub fn from_units(units: i128) -> Self {
        Self(units * 1000)
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// The quantity is malformed, which the API server does not let through.
    pub fn parse(text: &str) -> Result<Self> {
        let quantity =
            Quantity::parse(text).map_err(|error| Error::InvalidPod(format!("quantity {text:?}: {error}")))?;
        Ok(Self(i128::from(quantity.milli_value())))
    }

    /// Thousandths, as CPU is counted.
    pub fn millis(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Whole units, rounded up, as bytes are counted.
    pub fn units(self) -> i64 {
        i64::try_from((self.0 + 999).div_euclid(1000)).unwrap_or(i64::MAX)
    }

    /// How many times `divisor` it is, rounded up.
    pub fn divided_up(self, divisor: Amount) -> i128 {
        if divisor.0 <= 0 { 0 } else { (self.0 + divisor.0 - 1).div_euclid(divisor.0) }
    }

    /// What is left of it; nothing where there was not so much.
    pub fn minus(self, other: Amount) -> Amount {
        Self((self.0 - other.0).max(0))
    }

    fn plus(self, other: Amount) -> Amount {
        Self(self.0 + other.0)
    }
}

/// One resource of a list.
///
/// # Errors
/// The quantity is malformed.
pub fn amount_of(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Result<Option<Amount>> {
    list.and_then(|list| list.get(name)).map(|quantity| Amount::parse(&quantity.0)).transpose()
}

fn request_of(container: &Container, name: &str) -> Result<Amount> {
    let resources = container.resources.as_ref();
    let request = amount_of(resources.and_then(|r| r.requests.as_ref()), name)?;
    let limit = amount_of(resources.and_then(|r| r.limits.as_ref()), name)?;
    Ok(request.or(limit).unwrap_or_default())
}

/// What a pod asks for of one resource: its containers and sidecars together, or the hungriest moment of its
/// initialization, plus its overhead (`component-helpers/resource/helpers.go`, `PodRequests`).
///
/// # Errors
/// A quantity is malformed.
pub fn pod_request(pod: &Pod, name: &str) -> Result<Amount> {
    let spec = pod.spec();
    let mut sidecars = Amount::default();
    let mut peak = Amount::default();
    for container in spec.init_containers.iter().flatten() {
        let request = request_of(container, name)?;
        if spec::init_kind(container) == ContainerKind::Sidecar {
            sidecars = sidecars.plus(request);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(request));
        }
    }
    let mut sum = sidecars;
    for container in &spec.containers {
        sum = sum.plus(request_of(container, name)?);
    }
    let pod_level = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let total = amount_of(pod_level, name)?.unwrap_or(sum.max(peak));
    Ok(total.plus(amount_of(spec.overhead.as_ref(), name)?.unwrap_or_default()))
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return "Guaranteed",
            "Burstable" => return "Burstable",
            "BestEffort" => return "BestEffort",
            _ => {}
        }
    }
    let spec: &PodSpec = pod.spec();
    let (mut any, mut guaranteed) = (false, true);
    // What is set for the pod as a whole decides alone.
    let whole = spec.resources.as_ref().filter(|whole| {
        whole.requests.iter().chain(&whole.limits).flat_map(BTreeMap::keys).any(|name| is_pod_level(name))
    });
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let each: Vec<_> = match whole {
        Some(whole) => vec![Some(whole)],
        None => containers.map(|container| container.resources.as_ref()).collect(),
    };
    for resources in each {
        for name in ["cpu", "memory"] {
            let get = |list: Option<&BTreeMap<String, ApiQuantity>>| {
                amount_of(list, name).ok().flatten().filter(|amount| *amount > Amount::default())
            };
            let request = get(resources.and_then(|r| r.requests.as_ref()));
            let limit = get(resources.and_then(|r| r.limits.as_ref()));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.unwrap_or(limit.unwrap_or_default()) == limit.unwrap_or_default();
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The least and the most CPU shares a container gets.
const SHARES: (i64, i64) = (2, 262_144);
/// The least and the most weight of a cgroup of version 2.
const WEIGHTS: (i64, i64) = (1, 10_000);
/// The period of CPU quotas, in microseconds.
const QUOTA_PERIOD: i64 = 100_000;
/// The least CPU quota, in microseconds.
const QUOTA_MIN: i64 = 1000;

/// What the runtime is told about the resources of a container, beside its OOM score, or of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Relative weight of its CPU time.
    pub cpu_shares: i64,
    /// CPU time in microseconds a period; 0 means no limit.
    pub cpu_quota: i64,
    /// Length of a period in microseconds.
    pub cpu_period: i64,
    /// Bytes; 0 means no limit.
    pub memory_limit: i64,
}

impl CgroupLimits {
    /// From thousandths of processors and from bytes.
    pub fn new(cpu_request: i64, cpu_limit: i64, memory_limit: i64) -> Self {
        let cpu_quota = if cpu_limit == 0 { 0 } else { (cpu_limit * QUOTA_PERIOD / 1000).max(QUOTA_MIN) };
        Self { cpu_shares: millis_to_shares(cpu_request), cpu_quota, cpu_period: QUOTA_PERIOD, memory_limit }
    }
}

/// `MilliCPUToShares`.
fn millis_to_shares(millis: i64) -> i64 {
    (millis * 1024 / 1000).clamp(SHARES.0, SHARES.1)
}

/// `SharesToMilliCPU`.
pub fn shares_to_millis(shares: i64) -> i64 {
    if shares < SHARES.0 { 0 } else { (shares * 1000 + 1023) / 1024 }
}

/// `QuotaToMilliCPU`.
pub fn quota_to_millis(quota: i64, period: i64) -> i64 {
    if quota <= 0 || period <= 0 { 0 } else { quota * 1000 / period }
}

/// The shares that are read back from a pod's cgroup of version 2 after some were written: weights are coarser
/// (`cm/cgroup_manager_linux.go`, `getCPUWeight`; `cm/cgroup_v2_manager_linux.go`, `cpuWeightToCPUShares`).
pub fn shares_read_back(shares: i64) -> i64 {
    let weight = if shares >= SHARES.1 { WEIGHTS.1 } else { WEIGHTS.0 + (shares - SHARES.0) * 9999 / 262_142 };
    (weight - WEIGHTS.0) * 262_142 / 9999 + SHARES.0
}

/// The cgroup numbers of a container.
///
/// # Errors
/// A quantity is malformed.
pub fn cgroup_limits(pod: &Pod, container: &Container) -> Result<CgroupLimits> {
    let whole = pod.spec().resources.as_ref();
    let limits = effective_limits(&container.resources.clone().unwrap_or_default(), whole);
    let cpu_limit = amount_of(limits.as_ref(), "cpu")?.unwrap_or_default().millis();
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let cpu_request = amount_of(requests, "cpu")?.map_or(cpu_limit, Amount::millis);
    let memory_limit = amount_of(limits.as_ref(), "memory")?.unwrap_or_default().units();
    Ok(CgroupLimits::new(cpu_request, cpu_limit, memory_limit))
}

/// Sums up what the containers of a pod have: of what runs at the same time, at most.
fn aggregate(pod: &Pod, list: impl Fn(&ResourceRequirements) -> Option<&ResourceList>) -> BTreeMap<String, Quantity> {
    type Sum = BTreeMap<String, Quantity>;
    let of = |container: &Container| -> Sum {
        let own = container.resources.as_ref().and_then(&list).into_iter().flatten();
        own.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(&amount.0).ok()?))).collect()
    };
    let add = |sum: &mut Sum, more: &Sum| more.iter().for_each(|(name, q)| *sum.entry(name.clone()).or_default() += *q);
    let raise = |sum: &mut Sum, other: &Sum| {
        for (name, amount) in other {
            let own = sum.entry(name.clone()).or_insert(*amount);
            *own = (*own).max(*amount);
        }
    };
    let spec = pod.spec();
    let (mut total, mut sidecars, mut start) = (Sum::new(), Sum::new(), Sum::new());
    spec.containers.iter().for_each(|container| add(&mut total, &of(container)));
    for container in spec.init_containers.iter().flatten() {
        let mut now = sidecars.clone();
        add(&mut now, &of(container));
        raise(&mut start, &now);
        if spec::init_kind(container) == ContainerKind::Sidecar {
            add(&mut total, &of(container));
            sidecars = now;
        }
    }
    raise(&mut total, &start);
    total
}

/// Whether a resource can be given to a pod as a whole (`IsSupportedPodLevelResource`).
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod has as a whole of its own, in place of what its containers have.
fn with_pod_level(mut sum: BTreeMap<String, Quantity>, whole: Option<&ResourceList>) -> BTreeMap<String, Quantity> {
    for (name, amount) in whole.into_iter().flatten().filter(|(name, _)| is_pod_level(name)) {
        if let Ok(amount) = Quantity::parse(&amount.0) {
            sum.insert(name.clone(), amount);
        }
    }
    sum
}

/// All that a pod requests, with its overhead (`component-helpers/resource/helpers.go`, `PodRequests`).
pub fn pod_requests(pod: &Pod) -> BTreeMap<String, Quantity> {
    let whole = pod.spec().resources.as_ref().and_then(|whole| whole.requests.as_ref());
    let mut requests = with_pod_level(aggregate(pod, |own| own.requests.as_ref()), whole);
    for (name, amount) in pod.spec().overhead.iter().flatten() {
        if let Ok(amount) = Quantity::parse(&amount.0) {
            *requests.entry(name.clone()).or_default() += amount;
        }
    }
    requests
}

/// All that a pod is limited to, with its overhead where there is a limit (`PodLimits`).
pub fn pod_limits(pod: &Pod) -> BTreeMap<String, Quantity> {
    let whole = pod.spec().resources.as_ref().and_then(|whole| whole.limits.as_ref());
    let mut limits = with_pod_level(aggregate(pod, |own| own.limits.as_ref()), whole);
    for (name, amount) in pod.spec().overhead.iter().flatten() {
        if let (Some(limit), Ok(amount)) = (limits.get_mut(name).filter(|l| !l.is_zero()), Quantity::parse(&amount.0)) {
            *limit += amount;
        }
    }
    limits
}

/// What a sandbox is told at its start, for information: its containers together
/// (`kuberuntime_sandbox_linux.go`, `calculateSandboxResources`).
pub fn sandbox_limits(pod: &Pod) -> CgroupLimits {
    let pod = without_overhead(pod);
    let (requests, limits) = (pod_requests(&pod), pod_limits(&pod));
    let get = |list: &BTreeMap<String, Quantity>, name: &str| list.get(name).copied();
    let cpu_limit = get(&limits, "cpu").unwrap_or_default().milli_value();
    let cpu_request = get(&requests, "cpu").map_or(cpu_limit, |cpu| cpu.milli_value());
    CgroupLimits::new(cpu_request, cpu_limit, get(&limits, "memory").unwrap_or_default().value())
}

/// What running the pod costs, if its runtime class says so.
pub fn overhead_limits(pod: &Pod) -> Option<CgroupLimits> {
    let overhead = pod.spec().overhead.as_ref()?;
    let get = |name: &str| overhead.get(name).and_then(|q| Quantity::parse(&q.0).ok()).unwrap_or_default();
    let cpu = get("cpu").milli_value();
    Some(CgroupLimits::new(cpu, cpu, get("memory").value()))
}

/// The pod as if it had no overhead.
pub fn without_overhead(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.overhead = None;
    }
    pod
}

/// The cgroup numbers of a pod as a whole. A limit that not all of its containers have, it has not either
/// (`cm/helpers_linux.go`, `ResourceConfigForPod`).
pub fn pod_cgroup_limits(pod: &Pod) -> CgroupLimits {
    let spec = pod.spec();
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    let class = qos_class(pod);
    if class == "BestEffort" {
        return CgroupLimits::new(0, 0, 0);
    }
    let set = |list: Option<&ResourceList>, name: &str| {
        list.and_then(|list| list.get(name)).is_some_and(|q| Quantity::parse(&q.0).is_ok_and(|q| !q.is_zero()))
    };
    let limits_of = |container: &Container, name: &str| {
        set(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()), name)
    };
    let declared = |name: &str| {
        let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        class == "Guaranteed"
            || containers.all(|container| limits_of(container, name))
            || set(spec.resources.as_ref().and_then(|whole| whole.limits.as_ref()), name)
    };
    let get = |list: &BTreeMap<String, Quantity>, name: &str| list.get(name).copied().unwrap_or_default();
    let limit = |name: &str| Some(get(&limits, name)).filter(|_| declared(name)).unwrap_or_default();
    CgroupLimits::new(get(&requests, "cpu").milli_value(), limit("cpu").milli_value(), limit("memory").value())
}

/// How willingly the kernel kills the container when memory runs out: from -997 (last) to 1000 (first).
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const CRITICAL_PRIORITY: i32 = 2_000_000_000;
    if pod.spec().priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY) {
        return -997;
    }
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = request_of(container, "memory").unwrap_or_default().units();
            let score = 1000 - 1000 * request / memory_capacity.max(1);
            score.clamp(3, 999)
        }
    }
}
