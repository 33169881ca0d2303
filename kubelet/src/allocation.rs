//! What the pods of a node may use, and what their containers were last told to use.
//!
//! A pod that is resized has its resources in three places, which differ for a while:
//!
//! ```text
//!   desired (its spec in the API) ──► allocated (the node has room) ──► actuated (the runtime was told)
//! ```
//! All that a kubelet does for a pod it does by the allocated resources; the desired ones wait until the node has room for
//! them (`resize`), the actuated ones say what is left to be done (`plan`). The last two are kept in the
//! pod's folder, so that a new kubelet knows them (kubelet: `allocation/allocation_manager.go`, `allocation/state`, which
//! keeps the pods of a node in one file).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use minik8s_api::quantity::{Format, Quantity};
use minik8s_cri::NodeFs;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::spec::PodExt as _;
use crate::volumes::{PODS, pod_directory};

/// The file in a pod's folder that holds its [`Record`].
const FILE: &str = "resources";

/// A list of resources.
pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// The resources of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodResources {
    /// Those of its init, sidecar and regular containers, by name.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Those of the pod as a whole, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
}

impl PodResources {
    /// What a spec says. Ephemeral containers have none.
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let containers = containers.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()));
        Self { containers: containers.collect(), pod: spec.resources.clone() }
    }

    /// The pod with these resources in its spec; the same pod where they mean the same.
    pub fn applied_to<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        let own = Self::of(pod);
        let differs = own.containers.iter().any(|(name, own)| self.containers.get(name).is_some_and(|r| !same(r, own)));
        if !differs && same_option(self.pod.as_ref(), own.pod.as_ref()) {
            return Cow::Borrowed(pod);
        }
        let mut pod = pod.clone();
        let spec = pod.spec.get_or_insert_default();
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(resources) = self.containers.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
        spec.resources.clone_from(&self.pod);
        Cow::Owned(pod)
    }

    fn shared(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match self.applied_to(pod) {
            Cow::Borrowed(_) => pod.clone(),
            Cow::Owned(changed) => Arc::new(changed),
        }
    }
}

fn quantity(list: Option<&ResourceList>, name: &str) -> Quantity {
    // The API has validated it.
    list.and_then(|list| list.get(name)).and_then(|text| Quantity::parse(&text.0).ok()).unwrap_or_default()
}

fn same_list(a: Option<&ResourceList>, b: Option<&ResourceList>) -> bool {
    let amounts = |list: Option<&ResourceList>| -> Option<Vec<(String, Quantity)>> {
        let list = list.into_iter().flatten();
        list.map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
    };
    a == b || amounts(a) == amounts(b)
}

/// Whether two requirements mean the same: `1` and `1000m` are one amount, no list and an empty one are one list.
pub fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    same_list(a.requests.as_ref(), b.requests.as_ref()) && same_list(a.limits.as_ref(), b.limits.as_ref())
}

fn same_option(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() == b.is_none(),
    }
}

/// The limits of a container: what it does not limit itself is limited by its pod (kubelet: `util/util.go`, `GetLimits`).
pub fn effective_limits(container: &ResourceRequirements, pod: Option<&ResourceRequirements>) -> Option<ResourceList> {
    let Some(whole) = pod.and_then(|pod| pod.limits.as_ref()).filter(|limits| !limits.is_empty()) else {
        return container.limits.clone();
    };
    let mut limits = container.limits.clone().unwrap_or_default();
    for name in ["cpu", "memory"] {
        if quantity(Some(&limits), name).is_zero()
            && let Some(limit) = whole.get(name).filter(|_| !quantity(Some(whole), name).is_zero())
        {
            limits.insert(name.to_owned(), limit.clone());
        }
    }
    Some(limits)
}

/// Requests and limits of processors and memory as numbers; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuMemory {
    /// Thousandths of a processor.
    pub cpu_request: i64,
    /// Thousandths of a processor.
    pub cpu_limit: i64,
    /// Bytes.
    pub memory_request: i64,
    /// Bytes.
    pub memory_limit: i64,
}

impl CpuMemory {
    /// Those of a container in a pod with (or without) resources of its own.
    pub fn of(container: &ResourceRequirements, pod: Option<&ResourceRequirements>) -> Self {
        let (requests, limits) = (container.requests.as_ref(), effective_limits(container, pod));
        Self {
            cpu_request: quantity(requests, "cpu").milli_value(),
            cpu_limit: quantity(limits.as_ref(), "cpu").milli_value(),
            memory_request: quantity(requests, "memory").value(),
            memory_limit: quantity(limits.as_ref(), "memory").value(),
        }
    }

    /// As requirements, in the formats that Kubernetes notes actuated resources in.
    pub fn to_requirements(self) -> ResourceRequirements {
        let list = |cpu: i64, memory: i64| {
            let cpu = Quantity::from_milli(cpu, Format::DecimalSi).to_string();
            let memory = Quantity::new(memory, Format::BinarySi).to_string();
            BTreeMap::from([("cpu".to_owned(), ApiQuantity(cpu)), ("memory".to_owned(), ApiQuantity(memory))])
        };
        ResourceRequirements {
            requests: Some(list(self.cpu_request, self.memory_request)),
            limits: Some(list(self.cpu_limit, self.memory_limit)),
            claims: None,
        }
    }
}

/// What is kept of a pod on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What it may use.
    pub allocated: PodResources,
    /// What its containers were last told to use.
    pub actuated: PodResources,
}

/// What is known of the resources of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocation {
    /// What is kept on disk.
    pub record: Record,
    /// `PodResizePending`: it was asked for more than the node has room for.
    pub pending: Option<PodCondition>,
    /// `PodResizeInProgress`: what was allocated is not yet all actuated.
    pub in_progress: Option<PodCondition>,
    /// Whether the conditions of an earlier kubelet were taken over from the API.
    pub adopted: bool,
}

impl Allocation {
    /// The conditions a resize has to show, in Kubernetes' order.
    pub fn conditions(&self) -> Vec<PodCondition> {
        self.pending.iter().chain(&self.in_progress).cloned().collect()
    }
}

/// The resources of the pods of a node.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    pods: BTreeMap<String, Allocation>,
    /// The pods (by UID) whose desired resources have to be looked at again.
    pub waiting: Vec<String>,
}

impl Allocations {
    /// What an earlier kubelet of the node left behind.
    pub fn load(fs: &dyn NodeFs) -> Self {
        let mut allocations = Self::default();
        for entry in fs.list(PODS).unwrap_or_default() {
            let path = path(&entry.name);
            // A pod that was never admitted has no record.
            let Ok(data) = fs.read(&path) else { continue };
            match serde_json::from_slice(&data) {
                Ok(record) => drop(allocations.pods.insert(entry.name, Allocation { record, ..Allocation::default() })),
                Err(error) => tracing::warn!(path, %error, "a record of allocated resources cannot be read"),
            }
        }
        allocations
    }

    pub fn get(&self, uid: &str) -> Option<&Allocation> {
        self.pods.get(uid)
    }

    pub fn get_mut(&mut self, uid: &str) -> Option<&mut Allocation> {
        self.pods.get_mut(uid)
    }

    /// The pod with what is allocated to it; as it is where nothing is.
    pub fn applied_to(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.pods.get(pod.uid()).map_or_else(|| pod.clone(), |known| known.record.allocated.shared(pod))
    }

    /// The pod with what its containers were last told to use.
    pub fn actuated(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.pods.get(pod.uid()).map_or_else(|| pod.clone(), |known| known.record.actuated.shared(pod))
    }

    /// Allocates what the pod's spec says. Of a pod that is new, it is what its containers begin with.
    ///
    /// # Errors
    /// The node's file system.
    pub fn allocate(&mut self, fs: &dyn NodeFs, pod: &Pod) -> Result<()> {
        let allocated = PodResources::of(pod);
        let known = self.pods.get(pod.uid()).map(|known| known.record.clone());
        let actuated = known.as_ref().map_or_else(|| allocated.clone(), |record| record.actuated.clone());
        let record = Record { allocated, actuated };
        if known.as_ref() != Some(&record) {
            save(fs, pod.uid(), &record)?;
        }
        self.pods.entry(pod.uid().to_owned()).or_default().record = record;
        Ok(())
    }

    /// Notes what a container (or, without a name, the pod as a whole) was told to use.
    ///
    /// # Errors
    /// The node's file system.
    pub fn actuate(
        &mut self,
        fs: &dyn NodeFs,
        uid: &str,
        container: Option<&str>,
        resources: ResourceRequirements,
    ) -> Result<()> {
        let Some(known) = self.pods.get_mut(uid) else { return Ok(()) };
        let actuated = &mut known.record.actuated;
        let before = match container {
            Some(name) => actuated.containers.insert(name.to_owned(), resources.clone()),
            None => actuated.pod.replace(resources.clone()),
        };
        if before.as_ref() != Some(&resources) {
            save(fs, uid, &known.record)?;
        }
        Ok(())
    }

    /// Forgets a pod; its file goes with its folder.
    pub fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.waiting.retain(|waiting| waiting != uid);
    }

    /// Forgets all pods but these.
    pub fn retain(&mut self, is_here: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_here(uid));
        self.waiting.retain(|uid| is_here(uid));
    }
}

fn path(uid: &str) -> String {
    format!("{}/{FILE}", pod_directory(uid))
}

/// Replaces a pod's record in one step, so that a power cut leaves the old one or the new one.
fn save(fs: &dyn NodeFs, uid: &str, record: &Record) -> Result<()> {
    let (path, data) = (path(uid), serde_json::to_vec(record).expect("a record has only text in it"));
    let next = format!("{path}.new");
    fs.create_dir_all(&pod_directory(uid))?;
    fs.write(&next, &data)?;
    fs.rename(&next, &path)?;
    Ok(())
}
