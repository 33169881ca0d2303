//! Files of `/proc` and `/sys`, made up as they are read.

use super::container_fs::ContainerFs;
use crate::process::{Cgroup, ProcessInfo};
use std::sync::Arc;

/// The memory that `/proc/meminfo` reports: the node's, as it is in a real container too.
const NODE_MEMORY_KIB: u64 = 8 * 1024 * 1024;
const FILES: [&str; 6] = ["cpuinfo", "loadavg", "meminfo", "mounts", "uptime", "version"];
const PROCESS_FILES: [&str; 7] = ["cmdline", "comm", "environ", "gid_map", "oom_score_adj", "status", "uid_map"];
/// How many bytes a path has at most that goes through other processes' roots, each of which may lead to the next.
const PATH_LIMIT: usize = 4096;
const CGROUP: &str = "/sys/fs/cgroup";

/// What stands at a path below `/proc` or `/sys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProcNode {
    Directory,
    File,
}

/// Whether the path is one of these files or directories.
pub(super) fn lookup(fs: &ContainerFs, path: &str) -> Option<ProcNode> {
    match path {
        "/proc" | "/sys" | "/sys/fs" | CGROUP | "/dev" => return Some(ProcNode::Directory),
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/sys/fs/cgroup/") {
        return Cgroup::files().contains(&name).then_some(ProcNode::File);
    }
    let rest = path.strip_prefix("/proc/")?;
    if FILES.contains(&rest) {
        return Some(ProcNode::File);
    }
    let (pid, file) = rest.split_once('/').unwrap_or((rest, ""));
    let known = fs.processes().contains(number(fs, pid)?);
    match file {
        "" | "fd" if known => Some(ProcNode::Directory),
        file if known && PROCESS_FILES.contains(&file) => Some(ProcNode::File),
        _ => None,
    }
}

/// Names in one of these directories.
pub(super) fn names(fs: &ContainerFs, directory: &str) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    match directory {
        "/proc" => {
            let mut names = owned(&FILES);
            names.push("self".to_string());
            names.extend(fs.processes().list().iter().map(|process| process.pid.to_string()));
            names
        }
        "/sys" => owned(&["fs"]),
        "/sys/fs" => owned(&["cgroup"]),
        CGROUP => owned(Cgroup::files()),
        other if other.starts_with("/proc/") && !other.ends_with("/fd") && lookup(fs, other).is_some() => {
            owned(&PROCESS_FILES)
        }
        _ => Vec::new(),
    }
}

/// The content of one of these files.
pub(super) fn read(fs: &ContainerFs, path: &str) -> Option<String> {
    let memory = fs.memory();
    if let Some(name) = path.strip_prefix("/sys/fs/cgroup/") {
        return fs.cgroup().file(name, &fs.processes().own());
    }
    Some(match path {
        "/proc/version" => "Linux version 6.12.0-minik8s (minik8s) #1 SMP\n".to_string(),
        "/proc/cpuinfo" => {
            "processor\t: 0\nvendor_id\t: minik8s\nmodel name\t: simulated processor\ncpu cores\t: 1\n".to_string()
        }
        "/proc/loadavg" => format!("0.00 0.00 0.00 1/{} 1\n", fs.processes().list().len()),
        "/proc/uptime" => {
            let seconds = fs.clock().monotonic().as_secs_f64();
            format!("{seconds:.2} {seconds:.2}\n")
        }
        "/proc/mounts" => fs.mount_table(),
        "/proc/meminfo" => {
            let used = memory.used() / 1024;
            let free = NODE_MEMORY_KIB.saturating_sub(used);
            format!(
                "MemTotal:       {NODE_MEMORY_KIB:>8} kB\nMemFree:        {free:>8} kB\nMemAvailable:   {free:>8} kB\n"
            )
        }
        _ => {
            let (pid, file) = path.strip_prefix("/proc/")?.split_once('/')?;
            let processes = fs.processes().list();
            let pid = number(fs, pid)?;
            if file == "oom_score_adj" {
                return Some(format!("{}\n", fs.cgroup().resources().oom_score_adj));
            }
            return process_file(processes.iter().find(|process| process.pid == pid)?, file);
        }
    })
}

/// The files that a process sees, for a path below `/proc/PID/root`, and the path in them.
pub(super) fn root<'a>(fs: &ContainerFs, path: &'a str) -> Option<(Arc<ContainerFs>, &'a str)> {
    let (pid, rest) = path.strip_prefix("/proc/").filter(|_| path.len() <= PATH_LIMIT)?.split_once("/root")?;
    let rest = if rest.is_empty() { "/" } else { rest };
    let files = fs.processes().root(number(fs, pid)?)?;
    rest.starts_with('/').then_some((files, rest))
}

/// Who reads cannot be told here; the container's first process stands in for itself.
fn number(fs: &ContainerFs, pid: &str) -> Option<u32> {
    if pid == "self" { Some(fs.processes().first()) } else { pid.parse().ok() }
}

fn process_file(process: &ProcessInfo, file: &str) -> Option<String> {
    let name = process.command.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    Some(match file {
        "cmdline" => format!("{}\0", process.command.replace(' ', "\0")),
        "comm" => format!("{name}\n"),
        "environ" => String::new(),
        // There are no user namespaces: every number is itself.
        "gid_map" | "uid_map" => format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX),
        "status" => format!("Name:\t{name}\nState:\tS (sleeping)\nPid:\t{}\nPPid:\t{}\n", process.pid, process.parent),
        _ => return None,
    })
}
