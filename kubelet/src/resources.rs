//! Requests, limits and what follows from them: QoS class, CPU shares and quota, OOM score.
//!
//! (`pkg/apis/core/v1/helper/qos/qos.go`; kubelet: `cm/helpers_linux.go`, `qos/policy.go`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::quantity::Quantity;

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
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for name in ["cpu", "memory"] {
            let resources = container.resources.as_ref();
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
/// The period of CPU quotas, in microseconds.
const QUOTA_PERIOD: i64 = 100_000;

/// What the runtime is told about a container's resources, beside its OOM score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Relative weight of the container's CPU time.
    pub cpu_shares: i64,
    /// CPU time in microseconds a period; 0 means no limit.
    pub cpu_quota: i64,
    /// Length of a period in microseconds.
    pub cpu_period: i64,
    /// Bytes; 0 means no limit.
    pub memory_limit: i64,
}

/// The cgroup numbers of a container.
///
/// # Errors
/// A quantity is malformed.
pub fn cgroup_limits(container: &Container) -> Result<CgroupLimits> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let cpu_limit = amount_of(limits, "cpu")?.unwrap_or_default();
    let request = request_of(container, "cpu")?.millis();
    let cpu_shares = if request == 0 { SHARES.0 } else { (request * 1024 / 1000).clamp(SHARES.0, SHARES.1) };
    let cpu_quota = match cpu_limit.millis() {
        0 => 0,
        millis => (millis * QUOTA_PERIOD / 1000).max(1000),
    };
    let memory_limit = amount_of(limits, "memory")?.unwrap_or_default().units();
    Ok(CgroupLimits { cpu_shares, cpu_quota, cpu_period: QUOTA_PERIOD, memory_limit })
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
