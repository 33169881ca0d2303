//! What the process uses, where the operating system tells without being asked much (Linux).

use std::fs;

use minik8s_metrics::{Kind, Text};

/// Linux counts processor time in hundredths of a second, on every machine it runs on (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// The size of a page where nobody says, in bytes.
const PAGE_BYTES: u64 = 4096;

/// Writes it; nothing on other systems.
pub(super) fn write(text: &mut Text) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    // The name of the program, in parentheses, may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    // Counted from the third field of proc(5), which is the first here.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let seconds = (number(14) + number(15)) as f64 / TICKS_PER_SECOND;
    text.family("process_cpu_seconds_total", Kind::Counter, "Processor time used, in seconds.").sample(&[], seconds);
    text.family("process_virtual_memory_bytes", Kind::Gauge, "Size of the address space.").sample(&[], number(23));
    text.family("process_resident_memory_bytes", Kind::Gauge, "Memory in use.").sample(&[], number(24) * PAGE_BYTES);
    if let Some(boot) = boot_seconds() {
        let started = boot as f64 + number(22) as f64 / TICKS_PER_SECOND;
        text.family("process_start_time_seconds", Kind::Gauge, "When the process was started, in Unix time.")
            .sample(&[], started);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", Kind::Gauge, "Open files.").sample(&[], files.count());
    }
    if let Some(limit) = max_files() {
        text.family("process_max_fds", Kind::Gauge, "How many files may be open.").sample(&[], limit);
    }
}

fn boot_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
