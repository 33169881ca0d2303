//! Gives running containers other resources, in the runtime.
//!
//! (kubelet: `kuberuntime_manager.go`, `doPodResizeAction`, `validateMemoryResizeAction`, `updatePodContainerResources`.)

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use minik8s_cri::proto;

use crate::allocation::{ResourceList, effective_limits};
use crate::container_config::{linux_resources, overhead};
use crate::error::Result;
use crate::kubelet::Kubelet;
use crate::resizing::{ContainerUpdate, Resizing};
use crate::resources::{self, Amount, CgroupLimits};
use crate::runtime::RuntimePod;
use crate::spec::PodExt as _;

/// Which of the two resources a step of a resize is about.
#[derive(Clone, Copy, PartialEq)]
enum Resource {
    Memory,
    Cpu,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Cpu => "cpu",
        }
    }
}

/// A resize on its way: the pod, and what its sandbox was last told of the pod as a whole.
struct Progress<'a> {
    pod: &'a Arc<Pod>,
    sandbox: &'a str,
    told: CgroupLimits,
    then: CgroupLimits,
}

/// Whether a limit comes down, or comes into being; 0 is none.
fn shrinks(now: i64, then: i64) -> bool {
    then != 0 && (now == 0 || then < now)
}

impl Kubelet {
    /// Does what a plan says about a resize. What fails is tried again by a later sync, from where this one got to.
    ///
    /// # Errors
    /// Why it failed, in the words of the pod's condition.
    pub(crate) async fn actuate(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        resizing: &Resizing,
    ) -> std::result::Result<(), String> {
        let Some(sandbox) = runtime.sandbox() else { return Ok(()) };
        let before = self.allocations.lock().actuated(pod);
        let limits = |pod: &Pod| resources::pod_cgroup_limits(&resources::without_overhead(pod));
        let (told, then) = (limits(&before), limits(pod));
        self.check_memory(pod, sandbox.id.as_str(), &resizing.memory, told.memory_limit, then.memory_limit).await?;
        let mut progress = Progress { pod, sandbox: &sandbox.id, told, then };
        self.step(&mut progress, Resource::Memory, &resizing.memory).await?;
        self.step(&mut progress, Resource::Cpu, &resizing.cpu).await
    }

    /// One resource: the pod as a whole is widened before its containers are, and narrowed after they are.
    async fn step(
        &self,
        progress: &mut Progress<'_>,
        resource: Resource,
        updates: &[ContainerUpdate],
    ) -> std::result::Result<(), String> {
        let (told, then) = (progress.told, progress.then);
        let (limit, request) = match resource {
            Resource::Memory => ((told.memory_limit, then.memory_limit), (0, 0)),
            Resource::Cpu => ((told.cpu_quota, then.cpu_quota), (told.cpu_shares, then.cpu_shares)),
        };
        // A limit that is not there any more stays as it was.
        let limit_changes = limit.1 != 0 && limit.1 != limit.0;
        let grows = |(now, then): (i64, i64)| then > now;
        if limit_changes && (grows(limit) || limit.0 == 0) {
            self.tell_sandbox(progress, resource, true).await?;
        }
        if grows(request) {
            self.tell_sandbox(progress, resource, false).await?;
        }
        for update in updates {
            self.update_container(progress.pod, update).await?;
        }
        if request.1 < request.0 {
            self.tell_sandbox(progress, resource, false).await?;
        }
        if limit_changes && !grows(limit) && limit.0 != 0 {
            self.tell_sandbox(progress, resource, true).await?;
        }
        self.actuate_pod(progress.pod, resource).map_err(|error| error.to_string())
    }

    /// Tells the sandbox, for information, what its pod has as a whole. Not every runtime listens.
    async fn tell_sandbox(
        &self,
        progress: &mut Progress<'_>,
        resource: Resource,
        limit: bool,
    ) -> std::result::Result<(), String> {
        let then = progress.then;
        let mut told = progress.told;
        match (resource, limit) {
            (Resource::Memory, _) => told.memory_limit = then.memory_limit,
            (Resource::Cpu, true) => told.cpu_quota = then.cpu_quota,
            (Resource::Cpu, false) => told.cpu_shares = then.cpu_shares,
        }
        let request = proto::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: progress.sandbox.to_owned(),
            overhead: Some(overhead(progress.pod)),
            resources: Some(linux_resources(told)),
        };
        if let Err(error) = self.config.cri.update_pod_sandbox_resources(request).await
            && !error.is_unimplemented()
        {
            let (sandbox, name) = (progress.sandbox, resource.name());
            // "sanboxID" is Kubernetes' own.
            return Err(format!(
                "failed to notify runtime for UpdatePodSandboxResources (resource={name}); resize rejected: updatePodSandboxResources failed for sanboxID {sandbox:?}: {error}"
            ));
        }
        progress.told = told;
        Ok(())
    }

    async fn update_container(&self, pod: &Arc<Pod>, update: &ContainerUpdate) -> std::result::Result<(), String> {
        let Some((_, container)) = pod.container(&update.name) else { return Ok(()) };
        let capacity = Amount::parse(&self.config.capacity.memory).map_err(|error| error.to_string())?.units();
        let to = update.to;
        let linux = proto::LinuxContainerResources {
            oom_score_adj: resources::oom_score_adj(pod, &container, capacity),
            ..linux_resources(CgroupLimits::new(to.cpu_request, to.cpu_limit, to.memory_limit))
        };
        let updated = self.config.cri.update_container_resources(&update.id, linux).await;
        updated.map_err(|error| error.to_string())?;
        let mut allocations = self.allocations.lock();
        let noted = allocations.actuate(self.config.fs.as_ref(), pod.uid(), Some(&update.name), to.to_requirements());
        noted.map_err(|error| error.to_string())
    }

    /// Notes that the pod as a whole has what is allocated to it, of one resource.
    fn actuate_pod(&self, pod: &Pod, resource: Resource) -> Result<()> {
        let Some(allocated) = &pod.spec().resources else { return Ok(()) };
        let mut allocations = self.allocations.lock();
        let known = allocations.get(pod.uid()).and_then(|known| known.record.actuated.pod.clone());
        let mut whole = known.unwrap_or_default();
        let copy = |from: &Option<ResourceList>, to: &mut Option<ResourceList>| {
            if let Some(amount) = from.as_ref().and_then(|list| list.get(resource.name())) {
                to.get_or_insert_default().insert(resource.name().to_owned(), amount.clone());
            }
        };
        copy(&allocated.requests, &mut whole.requests);
        copy(&allocated.limits, &mut whole.limits);
        allocations.actuate(self.config.fs.as_ref(), pod.uid(), None, whole)
    }

    /// Notes that a container that is about to be made gets what is allocated to it.
    ///
    /// # Errors
    /// The node's file system.
    pub(crate) fn actuate_new(&self, pod: &Pod, container: &Container) -> Result<()> {
        let own = container.resources.clone().unwrap_or_default();
        let limits = effective_limits(&own, pod.spec().resources.as_ref());
        let actuated = ResourceRequirements { limits, ..own };
        self.allocations.lock().actuate(self.config.fs.as_ref(), pod.uid(), Some(&container.name), actuated)
    }

    /// Refuses to set a limit of memory below what is in use, which would kill.
    async fn check_memory(
        &self,
        pod: &Arc<Pod>,
        sandbox: &str,
        updates: &[ContainerUpdate],
        told: i64,
        then: i64,
    ) -> std::result::Result<(), String> {
        let shrinking = || updates.iter().filter(|update| shrinks(update.from.memory_limit, update.to.memory_limit));
        let pod_shrinks = shrinks(told, then);
        if !pod_shrinks && shrinking().next().is_none() {
            return Ok(());
        }
        let unreadable = |_| format!("unable to read memory usage for pod {:?}", pod.full_format());
        let filter = proto::PodSandboxStatsFilter { id: sandbox.to_owned(), ..Default::default() };
        let stats = self.config.cri.list_pod_sandbox_stats(Some(filter)).await.map_err(unreadable)?;
        let stats = stats.into_iter().next().and_then(|stats| stats.linux).unwrap_or_default();
        let usage = |memory: Option<&proto::MemoryUsage>| {
            memory.and_then(|memory| memory.usage_bytes.as_ref()).map(|usage| usage.value)
        };
        let whole = usage(stats.memory.as_ref());
        let exceeds = |used: u64, limit: i64| u64::try_from(limit).is_ok_and(|limit| used >= limit);
        let mut errors = Vec::new();
        if pod_shrinks {
            match whole {
                None => errors.push("missing pod memory usage".to_owned()),
                Some(used) if exceeds(used, then) => {
                    errors.push(format!("attempting to set pod memory limit ({then}) below current usage ({used})"));
                }
                Some(_) => {}
            }
        }
        for container in &stats.containers {
            let metadata = container.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
            let name = metadata.map(|metadata| metadata.name.as_str()).unwrap_or_default();
            let Some(update) = shrinking().find(|update| update.name == name) else { continue };
            let limit = update.to.memory_limit;
            match usage(container.memory.as_ref()) {
                None => errors.push(format!("missing container {name:?} memory usage")),
                Some(used) if exceeds(used, limit) => errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({})",
                    whole.unwrap_or(used)
                )),
                Some(_) => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            several => Err(format!("cannot decrease memory limits: [{}]", several.join(", "))),
        }
    }
}
