//! Tools about the system and its processes: `ps`, `kill`, `sleep`, `env`, `date`, `id` and their like.

use super::{Options, complain_usage};
use crate::process::{self, CANNOT_EXECUTE, ExecError, NOT_FOUND, Process, Signal, Spawn, errno_text};
use std::io;
use std::time::Duration;

/// The exit code of `timeout` when time was up.
const TIMED_OUT: i32 = 143;
/// What a node has; a container sees it all, as it does in a real one.
const NODE_PROCESSORS: &str = "2";
const NODE_MEMORY_KIB: u64 = 8 * 1024 * 1024;

/// Runs another command in place of the tool; complains as the tool does when it cannot.
async fn run_command(process: &Process, spawn: Spawn) -> i32 {
    let path = spawn.env.get("PATH").cloned();
    match process.world.load(&spawn.args, path.as_deref(), &spawn.cwd) {
        Ok((program, args)) => process::run(&process.world, program, Spawn { args, ..spawn }).await,
        Err(error) => {
            let command = spawn.args.first().map(String::as_str).unwrap_or_default();
            let (words, code) = match error {
                ExecError::PermissionDenied(_) | ExecError::IsADirectory(_) => ("Permission denied", CANNOT_EXECUTE),
                ExecError::Format(_) => ("Exec format error", CANNOT_EXECUTE),
                _ => ("No such file or directory", NOT_FOUND),
            };
            process.complain(format!("can't execute '{command}': {words}")).await;
            code
        }
    }
}

pub(super) async fn busybox(process: Process) -> io::Result<i32> {
    let Some(name) = process.arguments().first() else {
        process.stdout.line("BusyBox (minik8s simulation) multi-call binary.").await?;
        process.stdout.line(super::names().collect::<Vec<_>>().join(", ")).await?;
        return Ok(0);
    };
    match super::find(name) {
        Some(applet) => {
            let mut process = process;
            process.args.remove(0);
            Ok(applet(process).await)
        }
        None => {
            process.stderr.line(format!("{name}: applet not found")).await?;
            Ok(NOT_FOUND)
        }
    }
}

pub(super) async fn env(process: Process) -> io::Result<i32> {
    let mut spawn = process.child(Vec::new());
    let mut words = process.arguments().iter().peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option.as_str() {
            "-i" | "-" => spawn.env.clear(),
            "-u" => drop(words.next().map(|name| spawn.env.remove(name))),
            other => return complain_usage(&process, format!("unrecognized option: {other}")).await,
        }
    }
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        spawn.env.insert(name.to_string(), value.to_string());
        words.next();
    }
    spawn.args = words.cloned().collect();
    if !spawn.args.is_empty() {
        return Ok(run_command(&process, spawn).await);
    }
    for (name, value) in &spawn.env {
        process.stdout.line(format!("{name}={value}")).await?;
    }
    Ok(0)
}

pub(super) async fn printenv(process: Process) -> io::Result<i32> {
    if process.arguments().is_empty() {
        return env(process).await;
    }
    let mut code = 0;
    for name in process.arguments() {
        match process.env.get(name) {
            Some(value) => process.stdout.line(value).await?,
            None => code = 1,
        }
    }
    Ok(code)
}

pub(super) async fn pwd(process: Process) -> io::Result<i32> {
    process.stdout.line(minik8s_cri::normalize(&process.cwd)).await?;
    Ok(0)
}

/// `5`, `0.5`, `2m`, `infinity`; `None` for what is no time.
fn duration(text: &str) -> Option<Option<Duration>> {
    if text == "infinity" || text == "inf" {
        return Some(None);
    }
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (
            number,
            match &text[number.len()..] {
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => 1.0,
            },
        ),
        None => (text, 1.0),
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok().map(Some)
}

pub(super) async fn sleep(process: Process) -> io::Result<i32> {
    if process.arguments().is_empty() {
        return complain_usage(&process, "missing operand".to_string()).await;
    }
    let mut total = Duration::ZERO;
    for argument in process.arguments() {
        match duration(argument) {
            Some(Some(time)) => total = total.saturating_add(time),
            Some(None) => std::future::pending::<()>().await,
            None if process.world.profile.gnu => {
                process.complain(format!("invalid time interval '{argument}'")).await;
                return Ok(1);
            }
            None => {
                process.complain(format!("invalid number '{argument}'")).await;
                return Ok(1);
            }
        }
    }
    process.world.clock.sleep(total).await;
    Ok(0)
}

pub(super) async fn timeout(process: Process) -> io::Result<i32> {
    let mut words = process.arguments().iter().peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        if matches!(option.as_str(), "-s" | "-k" | "-t") {
            words.next();
        }
    }
    let limit = words.next().and_then(|text| duration(text)).flatten();
    let Some(limit) = limit else {
        return complain_usage(&process, "invalid time interval".to_string()).await;
    };
    let spawn = process.child(words.cloned().collect());
    let code = process.world.clock.timeout(limit, run_command(&process, spawn)).await;
    Ok(code.unwrap_or(if process.world.profile.gnu { 124 } else { TIMED_OUT }))
}

pub(super) async fn nohup(process: Process) -> io::Result<i32> {
    let spawn = process.child(process.arguments().to_vec());
    Ok(run_command(&process, spawn).await)
}

pub(super) async fn xargs(process: Process) -> io::Result<i32> {
    let options = xargs_options(process.arguments());
    let Ok((options, command)) = options else {
        return complain_usage(&process, options.err().unwrap_or_default()).await;
    };
    let content = process.stdin.rest().await?;
    let text = String::from_utf8_lossy(&content);
    let items: Vec<String> = match (options.value(&["I"]), options.has(&["0"])) {
        (_, true) => text.split('\0').filter(|item| !item.is_empty()).map(str::to_string).collect(),
        (Some(_), _) => text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect(),
        _ => text.split_whitespace().map(str::to_string).collect(),
    };
    if items.is_empty() && options.has(&["r"]) {
        return Ok(0);
    }
    let command = if command.is_empty() { vec!["echo".to_string()] } else { command };
    let size = match options.value(&["I"]) {
        Some(_) => 1,
        None => options.value(&["n"]).and_then(|count| count.parse().ok()).unwrap_or(usize::MAX),
    };
    let mut batches: Vec<&[String]> = items.chunks(size.clamp(1, items.len().max(1))).collect();
    if batches.is_empty() {
        batches.push(&[]);
    }
    let mut code = 0;
    for batch in batches {
        let args = match (options.value(&["I"]), batch.first()) {
            (Some(mark), Some(item)) => command.iter().map(|word| word.replace(mark, item)).collect(),
            _ => command.iter().chain(batch).cloned().collect(),
        };
        if run_command(&process, process.child(args)).await != 0 {
            code = 123;
        }
    }
    Ok(code)
}

/// The options of `xargs` end where its command begins.
fn xargs_options(arguments: &[String]) -> Result<(Options, Vec<String>), String> {
    let mut at = 0;
    while let Some(word) = arguments.get(at).filter(|word| word.starts_with('-')) {
        at += if matches!(word.as_str(), "-n" | "-I" | "-P" | "-L") { 2 } else { 1 };
    }
    let at = at.min(arguments.len());
    let options = Options::parse(&arguments[..at], &["0", "r", "t"], &["n", "I", "P", "L"])?;
    Ok((options, arguments[at..].to_vec()))
}

pub(super) async fn kill(process: Process) -> io::Result<i32> {
    let mut words = process.arguments().iter().peekable();
    let mut signal = Signal::Term;
    if let Some(option) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
        let name = match option.as_str() {
            "-l" => {
                let names: Vec<String> =
                    Signal::all().map(|signal| format!("{}) {}", signal.number(), signal.name())).collect();
                process.stdout.line(names.join("\n")).await?;
                return Ok(0);
            }
            "-s" => words.next().cloned().unwrap_or_default(),
            option => option[1..].to_string(),
        };
        if name == "0" {
            let all = words.all(|pid| pid.parse().is_ok_and(|pid| process.world.processes.contains(pid)));
            return Ok(i32::from(!all));
        }
        match Signal::parse(&name) {
            Some(named) => signal = named,
            None => return complain_usage(&process, format!("bad signal name '{name}'")).await,
        }
    }
    let mut code = 0;
    for pid in words {
        // A job of the shell, `%1`, is known to the shell only.
        let sent = pid.parse().is_ok_and(|pid| process.world.processes.signal(pid, signal));
        if !sent {
            process.complain(format!("can't kill pid {pid}: No such process")).await;
            code = 1;
        }
    }
    Ok(code)
}

pub(super) async fn ps(process: Process) -> io::Result<i32> {
    process.stdout.line("PID   USER     TIME  COMMAND").await?;
    for row in process.world.processes.list() {
        process.stdout.line(format!("{:>5} {:<8}  0:00 {}", row.pid, row.user, row.command)).await?;
    }
    Ok(0)
}

pub(super) async fn id(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["u", "g", "n", "G"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let user = &process.world.user;
    let label =
        |number: i64, name: &str| if name.is_empty() { number.to_string() } else { format!("{number}({name})") };
    let group_names = process.world.read_text("/etc/group").unwrap_or_default();
    let group_name = |gid: i64| {
        let row = |line: &&str| line.split(':').nth(2) == Some(gid.to_string().as_str());
        group_names.lines().find(row).and_then(|line| line.split(':').next()).unwrap_or_default().to_string()
    };
    let line = if options.has(&["u"]) {
        if options.has(&["n"]) && !user.name.is_empty() { user.name.clone() } else { user.uid.to_string() }
    } else if options.has(&["g"]) {
        if options.has(&["n"]) { group_name(user.gid) } else { user.gid.to_string() }
    } else if options.has(&["G"]) {
        user.groups.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
    } else {
        let groups: Vec<String> = user.groups.iter().map(|gid| label(*gid, &group_name(*gid))).collect();
        let (uid, gid) = (label(user.uid, &user.name), label(user.gid, &group_name(user.gid)));
        format!("uid={uid} gid={gid} groups={}", groups.join(","))
    };
    process.stdout.line(line).await?;
    Ok(0)
}

pub(super) async fn whoami(process: Process) -> io::Result<i32> {
    let user = &process.world.user;
    if user.name.is_empty() {
        process.complain(format!("unknown uid {}", user.uid)).await;
        return Ok(1);
    }
    process.stdout.line(&user.name).await?;
    Ok(0)
}

pub(super) async fn hostname(process: Process) -> io::Result<i32> {
    let line = match process.arguments().first().map(String::as_str) {
        Some("-i" | "-I") => process.world.network.ip.map_or_else(|| "127.0.0.1".to_string(), |ip| ip.to_string()),
        Some("-s") => process.world.hostname.split('.').next().unwrap_or_default().to_string(),
        Some("-f") => full_host_name(&process),
        None => process.world.hostname.clone(),
        Some(_) => return complain_usage(&process, "you must be root to change the host name".to_string()).await,
    };
    process.stdout.line(line).await?;
    Ok(0)
}

/// The first name of the line of `/etc/hosts` that has the host's.
fn full_host_name(process: &Process) -> String {
    let hostname = &process.world.hostname;
    let hosts = process.world.read_text("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let found = lines.into_iter().find(|names| names.contains(&hostname.as_str()));
    found.map_or_else(|| hostname.clone(), |names| names[0].to_string())
}

/// Kernel parameters, as files of `/proc/sys`.
pub(super) async fn sysctl(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["n", "e", "a"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut code = 0;
    for name in &options.operands {
        if name.contains('=') {
            process.complain("permission denied on a parameter of the kernel".to_string()).await;
            code = 1;
            continue;
        }
        // Both kinds of separators are taken, and dots are shown.
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let name = name.replace('/', ".");
        match process.world.read_text(&path) {
            Ok(value) if options.has(&["n"]) => process.stdout.line(value.trim_end()).await?,
            Ok(value) => process.stdout.line(format!("{name} = {}", value.trim_end())).await?,
            Err(_) if options.has(&["e"]) => {}
            Err(error) => {
                process.complain(format!("error: '{path}' {}", errno_text(&error))).await;
                code = 1;
            }
        }
    }
    Ok(code)
}

/// What is mounted. Nothing can be, since containers lack the right to.
pub(super) async fn mount(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["a", "r", "w", "f", "i", "n", "v"], &["t", "o", "O"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    if !options.operands.is_empty() || options.has(&["a", "o"]) {
        process.complain("permission denied (are you root?)".to_string()).await;
        return Ok(1);
    }
    let table = process.world.read_text("/proc/mounts").unwrap_or_default();
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(path), Some(kind), Some(how)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if options.value(&["t"]).is_none_or(|wanted| wanted.split(',').any(|wanted| wanted == kind)) {
            process.stdout.line(format!("{source} on {path} type {kind} ({how})")).await?;
        }
    }
    Ok(0)
}

/// Where commands are found.
pub(super) async fn which(process: Process) -> io::Result<i32> {
    let mut code = 0;
    for name in process.arguments().iter().filter(|name| !name.starts_with('-')) {
        match process.world.locate(name, process.env.get("PATH").map(String::as_str), &process.cwd) {
            Ok(path) => process.stdout.line(path).await?,
            Err(_) => code = 1,
        }
    }
    Ok(code)
}

/// Everything is on the simulated disk at once.
pub(super) async fn sync(_process: Process) -> io::Result<i32> {
    Ok(0)
}

pub(super) async fn date(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["u", "R", "Is", "Iseconds"], &["d", "I"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut time = process.world.clock.now();
    if let Some(text) = options.value(&["d"]) {
        let seconds = text.strip_prefix('@').and_then(|seconds| seconds.parse().ok());
        let parsed =
            seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).or_else(|| text.parse().ok());
        match parsed {
            Some(parsed) => time = parsed,
            None => return complain_usage(&process, format!("invalid date '{text}'")).await,
        }
    }
    let format = match options.operands.first().and_then(|operand| operand.strip_prefix('+')) {
        Some(format) => format,
        None if options.has(&["R"]) => "%a, %d %b %Y %H:%M:%S %z",
        None if options.has(&["I"]) => "%Y-%m-%dT%H:%M:%S%:z",
        None => "%a %b %e %H:%M:%S %Z %Y",
    };
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
    match jiff::fmt::strtime::format(format.replace("%N", "%9f"), &zoned) {
        Ok(text) => process.stdout.line(text).await?,
        Err(_) => return complain_usage(&process, format!("bad format '{format}'")).await,
    }
    Ok(0)
}

pub(super) async fn uname(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["a", "s", "n", "r", "v", "m", "o", "p"], &[]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let host = process.world.hostname.clone();
    let parts =
        [("s", "Linux"), ("n", &host), ("r", "6.12.0-minik8s"), ("v", "#1 SMP"), ("m", "x86_64"), ("o", "GNU/Linux")];
    let none = !options.has(&["a", "s", "n", "r", "v", "m", "o", "p"]);
    let shown = parts.iter().filter(|(name, _)| options.has(&["a", name]) || (none && *name == "s"));
    let line: Vec<&str> = shown.map(|(_, part)| *part).collect();
    process.stdout.line(line.join(" ")).await?;
    Ok(0)
}

pub(super) async fn nproc(process: Process) -> io::Result<i32> {
    process.stdout.line(NODE_PROCESSORS).await?;
    Ok(0)
}

pub(super) async fn uptime(process: Process) -> io::Result<i32> {
    let now = process.world.clock.now().to_zoned(jiff::tz::TimeZone::UTC);
    let minutes = process.world.clock.monotonic().as_secs() / 60;
    let up = format!("{}:{:02}", minutes / 60, minutes % 60);
    process
        .stdout
        .line(format!(" {} up {up},  0 users,  load average: 0.00, 0.00, 0.00", now.strftime("%H:%M:%S")))
        .await?;
    Ok(0)
}

pub(super) async fn free(process: Process) -> io::Result<i32> {
    let used = process.world.memory.used() / 1024;
    let left = NODE_MEMORY_KIB.saturating_sub(used);
    process.stdout.line("              total        used        free      shared  buff/cache   available").await?;
    process
        .stdout
        .line(format!("Mem:     {NODE_MEMORY_KIB:>10} {used:>11} {left:>11} {:>11} {:>11} {left:>11}", 0, 0))
        .await?;
    Ok(0)
}

pub(super) async fn df(process: Process) -> io::Result<i32> {
    let used = process.world.fs.written_bytes() / 1024;
    let total = crate::fs::WRITABLE_LAYER_BYTES / 1024;
    let percent = used * 100 / total.max(1);
    process.stdout.line("Filesystem           1K-blocks      Used Available Use% Mounted on").await?;
    let left = total.saturating_sub(used);
    process.stdout.line(format!("overlay              {total:>9} {used:>9} {left:>9} {percent:>3}% /")).await?;
    Ok(0)
}
