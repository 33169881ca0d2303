//! The cgroup of a container: what it may use, as its runtime was told, and as its processes read it.

use super::MemoryMeter;
use minik8s_cri::proto::LinuxContainerResources;
use parking_lot::Mutex;
use std::sync::Arc;

/// The period of CPU quotas where nobody says (`cpu.cfs_period_us` of the kernel), in microseconds.
const DEFAULT_PERIOD: i64 = 100_000;
/// The weight of a cgroup that was not given any.
const DEFAULT_WEIGHT: u64 = 100;

/// What a container may use. Clones are the same cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup {
    memory: MemoryMeter,
    resources: Arc<Mutex<LinuxContainerResources>>,
}

fn memory_limit(resources: &LinuxContainerResources) -> Option<u64> {
    u64::try_from(resources.memory_limit_in_bytes).ok().filter(|limit| *limit > 0)
}

impl Cgroup {
    /// The cgroup of a new container.
    pub fn new(resources: LinuxContainerResources) -> Cgroup {
        Cgroup { memory: MemoryMeter::new(memory_limit(&resources)), resources: Arc::new(Mutex::new(resources)) }
    }

    /// The memory it counts.
    pub fn memory(&self) -> &MemoryMeter {
        &self.memory
    }

    /// What it was told, as containers' statuses show it.
    pub fn resources(&self) -> LinuxContainerResources {
        self.resources.lock().clone()
    }

    /// Takes in other limits. What is 0 or empty stays as it was; the OOM score is that of a process, which has started
    /// already (containerd: `internal/cri/server/container_update_resources_linux.go`, `updateOCILinuxResource`).
    pub fn update(&self, new: &LinuxContainerResources) {
        let mut guard = self.resources.lock();
        let resources = &mut *guard;
        let set = |own: &mut i64, new: i64| {
            if new != 0 {
                *own = new;
            }
        };
        set(&mut resources.cpu_period, new.cpu_period);
        set(&mut resources.cpu_quota, new.cpu_quota);
        set(&mut resources.cpu_shares, new.cpu_shares);
        set(&mut resources.memory_limit_in_bytes, new.memory_limit_in_bytes);
        set(&mut resources.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes);
        for (own, new) in
            [(&mut resources.cpuset_cpus, &new.cpuset_cpus), (&mut resources.cpuset_mems, &new.cpuset_mems)]
        {
            if !new.is_empty() {
                own.clone_from(new);
            }
        }
        resources.unified.extend(new.unified.clone());
        self.memory.set_limit(memory_limit(resources));
    }

    /// Names of the files that show it, sorted.
    pub fn files() -> &'static [&'static str] {
        &FILES
    }

    /// A file as cgroup version 2 has it; `pids` are the processes in it.
    pub fn file(&self, name: &str, pids: &[u32]) -> Option<String> {
        let resources = self.resources.lock();
        let or_max = |limit: Option<u64>| limit.map_or_else(|| "max".to_string(), |limit| limit.to_string());
        // What was set by its own name is shown by it.
        let unified = |default: &str| resources.unified.get(name).map_or(default, String::as_str).to_string();
        Some(match name {
            "cgroup.controllers" => "cpuset cpu io memory hugetlb pids rdma misc\n".to_string(),
            "cgroup.procs" => pids.iter().map(|pid| format!("{pid}\n")).collect(),
            "cpu.max" => {
                let period = if resources.cpu_period > 0 { resources.cpu_period } else { DEFAULT_PERIOD };
                format!("{} {period}\n", or_max(u64::try_from(resources.cpu_quota).ok().filter(|quota| *quota > 0)))
            }
            "cpu.weight" => format!("{}\n", weight(resources.cpu_shares)),
            "memory.current" => format!("{}\n", self.memory.used()),
            "memory.high" | "memory.swap.max" => format!("{}\n", unified("max")),
            "memory.low" | "memory.min" => format!("{}\n", unified("0")),
            "memory.max" => format!("{}\n", or_max(self.memory.limit())),
            "memory.oom.group" => format!("{}\n", unified("1")),
            "pids.current" => format!("{}\n", pids.len()),
            "pids.max" => "max\n".to_string(),
            _ => return None,
        })
    }
}

const FILES: [&str; 13] = [
    "cgroup.controllers",
    "cgroup.procs",
    "cpu.max",
    "cpu.weight",
    "memory.current",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.oom.group",
    "memory.swap.max",
    "pids.current",
    "pids.max",
];

/// The weight that runtimes make of shares (`opencontainers/cgroups/utils.go`, `ConvertCPUSharesToCgroupV2Value`).
fn weight(shares: i64) -> u64 {
    match shares {
        ..=0 => DEFAULT_WEIGHT,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs of `cgroups/utils_test.go`.
    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(0, 100), (1, 1), (2, 1), (3, 2), (1024, 100), (262_143, 10_000), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn what_is_not_said_stays() {
        let cgroup = Cgroup::new(LinuxContainerResources {
            cpu_shares: 102,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1000,
            oom_score_adj: 500,
            ..Default::default()
        });
        cgroup.update(&LinuxContainerResources { cpu_quota: 30_000, oom_score_adj: 900, ..Default::default() });
        let resources = cgroup.resources();
        assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.oom_score_adj), (102, 30_000, 500));
        let read = |name: &str| cgroup.file(name, &[1]).unwrap();
        assert_eq!((read("cpu.max"), read("memory.max")), ("30000 100000\n".to_string(), "1000\n".to_string()));
        assert!(Cgroup::files().iter().all(|name| cgroup.file(name, &[]).is_some()));
        assert!(Cgroup::files().is_sorted());
    }
}
