//! Resource use, computed when it is asked for.

use crate::container::Container;
use crate::sandbox::Sandbox;
use crate::sim_runtime::SimRuntime;
use minik8s_cri::proto::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats,
    MemoryUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage, UInt64Value,
};

/// Where containerd keeps images and writable layers.
pub(crate) const CONTAINER_ROOT: &str = "/var/lib/containerd";

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu_usage(runtime: &SimRuntime, containers: &[&Container]) -> CpuUsage {
    let now = runtime.clock.monotonic();
    let usage = containers.iter().map(|container| container.world.cpu.usage(now));
    let (nanos, millicores) = usage.fold((0, 0), |(nanos, millicores), (used, rate)| {
        (nanos + u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), millicores + rate)
    });
    CpuUsage {
        timestamp: runtime.now_nanos(),
        usage_core_nano_seconds: value(nanos),
        usage_nano_cores: value(millicores * 1_000_000),
        psi: None,
    }
}

fn memory_usage(runtime: &SimRuntime, containers: &[&Container]) -> MemoryUsage {
    let used = containers.iter().map(|container| container.world.memory.used()).sum();
    let limit: Option<u64> = containers.iter().map(|container| container.world.memory.limit()).sum();
    MemoryUsage {
        timestamp: runtime.now_nanos(),
        working_set_bytes: value(used),
        available_bytes: limit.and_then(|limit| value(limit.saturating_sub(used))),
        usage_bytes: value(used),
        rss_bytes: value(used),
        page_faults: value(0),
        major_page_faults: value(0),
        psi: None,
    }
}

/// Use of one container.
pub(crate) fn of_container(runtime: &SimRuntime, container: &Container) -> ContainerStats {
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: Some(cpu_usage(runtime, &[container])),
        memory: Some(memory_usage(runtime, &[container])),
        writable_layer: Some(filesystem(runtime, container.world.fs.written_bytes())),
        swap: None,
        io: None,
    }
}

/// Use of a sandbox and its running containers.
pub(crate) fn of_sandbox(runtime: &SimRuntime, sandbox: &Sandbox) -> PodSandboxStats {
    let containers = runtime.containers_of(&sandbox.id);
    let running: Vec<&Container> =
        containers.iter().map(|container| &**container).filter(|container| container.is_running()).collect();
    let processes: usize = running.iter().map(|container| container.world.processes.own().len()).sum();
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu_usage(runtime, &running)),
            memory: Some(memory_usage(runtime, &running)),
            network: None,
            process: Some(ProcessUsage { timestamp: runtime.now_nanos(), process_count: value(processes as u64) }),
            containers: running.iter().map(|container| of_container(runtime, container)).collect(),
            io: None,
        }),
        windows: None,
    }
}

/// Space taken below [`CONTAINER_ROOT`].
pub(crate) fn filesystem(runtime: &SimRuntime, bytes: u64) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: runtime.now_nanos(),
        fs_id: Some(FilesystemIdentifier { mountpoint: CONTAINER_ROOT.to_string() }),
        used_bytes: value(bytes),
        inodes_used: value(0),
    }
}
