//! `stress` and its relatives: programs that use what they are told to use.
//!
//! `stress --vm 1 --vm-bytes 250M --vm-hang 1` (polinux/stress), `stress -cpus 1 -mem-total 150Mi` (vish/stress) and
//! `stress-ng` with the options that they share.

use crate::image::parse_bytes;
use crate::process::{Process, Signal};
use std::time::Duration;

/// What a worker of `--vm` takes where `--vm-bytes` is not given.
const DEFAULT_VM_BYTES: u64 = 256 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    cpu: u64,
    memory: u64,
    timeout: Option<Duration>,
}

/// Runs until its timeout, or until it is stopped.
pub(super) async fn run(mut process: Process) -> i32 {
    let load = match parse(process.arguments()) {
        Ok(load) => load,
        Err(message) => {
            process.complain(format!("FAIL: [{}] ({}) {message}", process.pid(), 244)).await;
            return 1;
        }
    };
    let (name, pid) = (process.name().to_string(), process.pid());
    let info = |text: String| format!("{name}: info: [{pid}] {text}");
    // Output that nobody reads stops no load.
    let _told = process
        .stdout
        .line(info(format!("dispatching hogs: {} cpu, 0 io, {} vm, 0 hdd", load.cpu, u8::from(load.memory > 0))))
        .await;
    let world = process.world.clone();
    let _memory = world.memory.allocate(load.memory);
    world.cpu.add_rate(world.clock.monotonic(), load.cpu * 1000);
    process.signals.handle(Signal::Term);
    let timeout = async {
        match load.timeout {
            Some(timeout) => world.clock.sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = timeout => {
            let seconds = load.timeout.unwrap_or_default().as_secs();
            let _told = process.stdout.line(info(format!("successful run completed in {seconds}s"))).await;
            0
        }
        signal = process.signals.next() => signal.exit_code(),
    }
}

fn parse(arguments: &[String]) -> Result<Load, String> {
    let mut load = Load::default();
    let (mut workers, mut worker_bytes) = (0, DEFAULT_VM_BYTES);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (option, inline) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        let name = option.trim_start_matches('-');
        if matches!(name, "vm-keep" | "v" | "verbose" | "q" | "quiet" | "metrics-brief" | "logtostderr") {
            continue;
        }
        let value = match inline {
            Some(value) => value,
            None => arguments.next().cloned().ok_or_else(|| format!("option requires an argument: {option}"))?,
        };
        let number = || value.parse::<u64>().map_err(|_| format!("unrecognized option value: {value}"));
        let bytes = || {
            parse_bytes(&value.to_ascii_uppercase().replace("MI", "Mi").replace("GI", "Gi").replace("KI", "Ki"))
                .ok_or_else(|| format!("unrecognized option value: {value}"))
        };
        match name {
            "c" | "cpu" | "cpus" => load.cpu = number()?,
            "m" | "vm" => workers = number()?,
            "vm-bytes" => worker_bytes = bytes()?,
            "mem-total" => load.memory = bytes()?,
            "t" | "timeout" => {
                load.timeout = Some(seconds(&value).ok_or_else(|| format!("unrecognized option value: {value}"))?)
            }
            // How the load is made does not matter to one that is only counted.
            "i" | "io" | "d" | "hdd" | "hdd-bytes" | "vm-hang" | "vm-stride" | "b" | "backoff" | "mem-alloc-size"
            | "mem-alloc-sleep" => {}
            _ => return Err(format!("unrecognized option: {option}")),
        }
    }
    load.memory += workers * worker_bytes;
    Ok(load)
}

/// `60`, `60s`, `10m`, `1h`.
fn seconds(text: &str) -> Option<Duration> {
    let plain = text.parse().ok().map(Duration::from_secs);
    plain.or_else(|| crate::image::parse_duration(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, expect: Result<Load, &str>) {
        let arguments: Vec<String> = command.split_whitespace().map(str::to_string).collect();
        assert_eq!(parse(&arguments), expect.map_err(str::to_string), "{command}");
    }

    #[test]
    fn the_options_of_the_stress_family_are_read() {
        check("--vm 1 --vm-bytes 250M --vm-hang 1", Ok(Load { memory: 250_000_000, ..Load::default() }));
        check("-cpus 2", Ok(Load { cpu: 2, ..Load::default() }));
        check("-mem-total 150Mi -mem-alloc-size 10Mi", Ok(Load { memory: 150 << 20, ..Load::default() }));
        check("--cpu 1 --timeout 60s", Ok(Load { cpu: 1, timeout: Some(Duration::from_secs(60)), ..Load::default() }));
        check("--dance 1", Err("unrecognized option: --dance"));
    }
}
