//! `agnhost`: the program that Kubernetes' own end-to-end tests run in most of their pods
//! (`test/images/agnhost` of kubernetes 1.37).
//!
//! ```text
//!  /agnhost SUBCOMMAND --flags ──► SUBCOMMANDS ──► flags.rs ──► run(Call) ──► exit code
//!                                                                  │
//!       one file a family: waiting, mounttest, netexec, servers, … ┘── server.rs   HTTP, HTTPS and UDP inside of the pod
//! ```
//! A new subcommand is a function in the file of its family and a row in [`SUBCOMMANDS`].
//!
//! What it says is what the real one says: tests read its log. What the simulation has not is refused by name on standard
//! error, with exit code 1: SCTP, mostly.

mod client;
mod connect;
mod conversion;
mod flags;
mod go_format;
mod guestbook;
mod http2;
mod in_cluster;
mod inclusterclient;
mod mounttest;
mod names;
mod netexec;
mod nettest;
mod openidmetadata;
mod ports;
mod server;
mod servers;
mod snat;
mod waiting;
mod webhook;

use crate::process::{Output, Process, Signal, Spawn, World};
use flags::{Flag, Flags};
use futures::future::BoxFuture;
use minik8s_clock::Watched;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;

/// The exit code of a Go program that a signal ends which it does not handle, as the first process of a container: the kernel
/// shields it from the signal, so that the Go runtime ends it (`dieFromSignal` in `runtime/signal_unix.go`).
const DIED_FROM_SIGNAL: i32 = 2;
/// What a Go program holds when it does nothing.
const RESIDENT_BYTES: u64 = 3 * 1024 * 1024;
/// Signals that end a Go program.
const ENDING: [Signal; 4] = [Signal::Hup, Signal::Int, Signal::Quit, Signal::Term];

/// Flags of every subcommand: those of `klog`, which say how much is logged and where. Here all goes to standard error.
const LOGGING_FLAGS: &[Flag] = &[
    Flag::bool("alsologtostderr", "false", "log to standard error as well as files"),
    Flag::duration("log-flush-frequency", "5s", "Maximum number of seconds between log flushes"),
    Flag::bool("logtostderr", "true", "log to standard error instead of files"),
    Flag::string("stderrthreshold", "2", "logs at or above this threshold go to stderr"),
    Flag::int("v", "0", "number for the log level verbosity").letter('v'),
    Flag::string("vmodule", "", "comma-separated list of pattern=N settings for file-filtered logging"),
];
/// Subcommands of the real one that are not simulated.
const NOT_SIMULATED: [&str; 8] = [
    "audit-proxy",
    "external-metrics",
    "fake-registry-server",
    "mtlsclient",
    "mtlsserver",
    "podcertificatesigner",
    "resource-consumer-controller",
    "stress",
];

/// A subcommand, as `cobra` describes one.
struct Subcommand {
    name: &'static str,
    short: &'static str,
    /// What it takes besides flags, as its usage line shows it; `None` for nothing.
    operands: Option<&'static str>,
    flags: &'static [Flag],
    /// Signals that it handles itself.
    handles: &'static [Signal],
    run: fn(Arc<Call>) -> BoxFuture<'static, i32>,
}

/// Every subcommand, by name.
const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "connect",
        short: "Attempts a TCP, UDP or SCTP connection and returns useful errors",
        operands: Some("[host:port]"),
        flags: connect::FLAGS,
        handles: &[],
        run: |call| Box::pin(connect::run(call)),
    },
    Subcommand {
        name: "crd-conversion-webhook",
        short: "Starts HTTP server on port 443 for testing CustomResourceConversionWebhook",
        operands: None,
        flags: conversion::FLAGS,
        handles: &[],
        run: |call| Box::pin(conversion::run(call)),
    },
    Subcommand {
        name: "dns-server-list",
        short: "Prints the host's DNS Server list",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(names::dns_server_list(call)),
    },
    Subcommand {
        name: "dns-suffix",
        short: "Prints the host's DNS suffix list",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(names::dns_suffix(call)),
    },
    Subcommand {
        name: "entrypoint-tester",
        short: "Prints the args it's passed and exits",
        operands: Some("[args]"),
        flags: &[],
        handles: &[],
        run: |call| Box::pin(waiting::entrypoint_tester(call)),
    },
    Subcommand {
        name: "etc-hosts",
        short: "Prints the host's /etc/hosts file",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(names::etc_hosts(call)),
    },
    Subcommand {
        name: "fake-gitserver",
        short: "Fakes a git server",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(servers::fake_gitserver(call)),
    },
    Subcommand {
        name: "grpc-health-checking",
        short: "Starts a simple grpc health checking endpoint",
        operands: None,
        flags: http2::GRPC_FLAGS,
        handles: &[],
        run: |call| Box::pin(http2::grpc_health_checking(call)),
    },
    Subcommand {
        name: "guestbook",
        short: "Creates a HTTP server with various endpoints representing a guestbook app",
        operands: None,
        flags: guestbook::FLAGS,
        handles: &[],
        run: |call| Box::pin(guestbook::run(call)),
    },
    Subcommand {
        name: "h2c-server",
        short: "Starts a simple HTTP/2 cleartext (h2c) server",
        operands: None,
        flags: http2::H2C_FLAGS,
        handles: &[],
        run: |call| Box::pin(http2::h2c_server(call)),
    },
    Subcommand {
        name: "inclusterclient",
        short: "Periodically poll the Kubernetes \"/healthz\" endpoint",
        operands: None,
        flags: inclusterclient::FLAGS,
        handles: &[],
        run: |call| Box::pin(inclusterclient::run(call)),
    },
    Subcommand {
        name: "liveness",
        short: "Starts a server that is alive for 10 seconds",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(servers::liveness(call)),
    },
    Subcommand {
        name: "logs-generator",
        short: "Outputs lines of logs to stdout uniformly",
        operands: None,
        flags: waiting::LOGS_GENERATOR_FLAGS,
        handles: &[],
        run: |call| Box::pin(waiting::logs_generator(call)),
    },
    Subcommand {
        name: "mounttest",
        short: "Creates files with given permissions and outputs FS type, owner, mode, permissions, contents of files",
        operands: None,
        flags: mounttest::FLAGS,
        handles: &[],
        run: |call| Box::pin(mounttest::run(call)),
    },
    Subcommand {
        name: "netexec",
        short: "Creates HTTP(S), UDP, and (optionally) SCTP servers with various endpoints",
        operands: None,
        flags: netexec::FLAGS,
        handles: &[Signal::Term],
        run: |call| Box::pin(netexec::run(call)),
    },
    Subcommand {
        name: "nettest",
        short: "Starts a tiny web server for checking networking connectivity",
        operands: None,
        flags: nettest::FLAGS,
        handles: &[Signal::Term],
        run: |call| Box::pin(nettest::run(call)),
    },
    Subcommand {
        name: "no-snat-test",
        short: "Creates the /checknosnat and /whoami endpoints",
        operands: None,
        flags: snat::FLAGS,
        handles: &[],
        run: |call| Box::pin(snat::no_snat_test(call)),
    },
    Subcommand {
        name: "no-snat-test-proxy",
        short: "Creates a proxy for the /checknosnat endpoint",
        operands: None,
        flags: snat::PROXY_FLAGS,
        handles: &[],
        run: |call| Box::pin(snat::no_snat_test_proxy(call)),
    },
    Subcommand {
        name: "nonewprivs",
        short: "Prints the UID of the running process",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(waiting::nonewprivs(call)),
    },
    Subcommand {
        name: "pause",
        short: "Pauses the execution",
        operands: None,
        flags: &[],
        handles: &[Signal::Int, Signal::Term],
        run: |call| Box::pin(waiting::pause(call)),
    },
    Subcommand {
        name: "port-forward-tester",
        short: "Creates a TCP server that sends chunks of data",
        operands: None,
        flags: &[],
        handles: &[],
        run: |call| Box::pin(ports::port_forward_tester(call)),
    },
    Subcommand {
        name: "porter",
        short: "Serves requested data on ports specified in ENV variables",
        operands: None,
        flags: ports::PORTER_FLAGS,
        handles: &[],
        run: |call| Box::pin(ports::porter(call)),
    },
    Subcommand {
        name: "serve-hostname",
        short: "Serves the hostname",
        operands: None,
        flags: servers::SERVE_HOSTNAME_FLAGS,
        handles: &[Signal::Term],
        run: |call| Box::pin(servers::serve_hostname(call)),
    },
    Subcommand {
        name: "tcp-reset",
        short: "Serves on a tcp port and RST the connections received",
        operands: None,
        flags: ports::TCP_RESET_FLAGS,
        handles: &[Signal::Term],
        run: |call| Box::pin(ports::tcp_reset(call)),
    },
    Subcommand {
        name: "test-service-account-issuer-discovery",
        short: "Tests the ServiceAccountIssuerDiscovery feature",
        operands: None,
        flags: openidmetadata::FLAGS,
        handles: &[],
        run: |call| Box::pin(openidmetadata::run(call)),
    },
    Subcommand {
        name: "test-webserver",
        short: "Starts a simple HTTP fileserver",
        operands: None,
        flags: servers::TEST_WEBSERVER_FLAGS,
        handles: &[],
        run: |call| Box::pin(servers::test_webserver(call)),
    },
    Subcommand {
        name: "webhook",
        short: "Starts a HTTP server, useful for testing MutatingAdmissionWebhook and ValidatingAdmissionWebhook",
        operands: None,
        flags: webhook::FLAGS,
        handles: &[],
        run: |call| Box::pin(webhook::run(call)),
    },
];

/// A subcommand that runs. Those that serve share it with the answers they give.
struct Call {
    args: Vec<String>,
    flags: Flags,
    env: BTreeMap<String, String>,
    cwd: String,
    stdout: Output,
    stderr: Output,
    world: Arc<World>,
    pid: u32,
    /// The last signal among those that the subcommand handles.
    signal: Watched<Option<Signal>>,
}

/// Runs a subcommand.
pub(super) async fn run(process: Process) -> i32 {
    let Process { args, env, cwd, stdout, stderr, mut signals, world, .. } = process;
    let _held = world.memory.allocate(RESIDENT_BYTES);
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let (name, rest) = match words.split_first() {
        None | Some((&("help" | "--help" | "-h"), [])) => return said(&stdout, &help()).await,
        Some((&("--version" | "-v"), _)) => {
            return said(&stdout, &format!("app version {}\n", world.version)).await;
        }
        Some((&"help", [name, ..])) => (*name, ["--help"].as_slice()),
        Some((name, rest)) => (*name, rest),
    };
    if NOT_SIMULATED.contains(&name) {
        return complained(&stderr, &format!("agnhost: {name}: not simulated\n")).await;
    }
    let Some(subcommand) = SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name) else {
        return complained(
            &stderr,
            &format!("Error: unknown command {name:?} for \"app\"\nRun 'app --help' for usage.\n"),
        )
        .await;
    };
    if rest.iter().any(|word| matches!(*word, "--help" | "-h")) {
        return said(&stdout, &subcommand.usage()).await;
    }
    let flags = match Flags::parse(&[subcommand.flags, LOGGING_FLAGS].concat(), rest) {
        Ok(flags) => flags,
        Err(message) => return complained(&stderr, &format!("Error: {message}\n{}", subcommand.usage())).await,
    };
    if let (None, Some(operand)) = (subcommand.operands, flags.operands.first()) {
        let message = format!("Error: unknown command {operand:?} for \"app {name}\"\n{}", subcommand.usage());
        return complained(&stderr, &message).await;
    }
    let pid = signals.pid();
    // Another process than the first is ended by what it does not handle without any doing of its own.
    let caught = ENDING.iter().filter(|signal| pid == 1 || subcommand.handles.contains(signal));
    caught.for_each(|signal| signals.handle(*signal));
    let call = Arc::new(Call { args, flags, env, cwd, stdout, stderr, world, pid, signal: Watched::new(None) });
    let ended = (subcommand.run)(call.clone());
    let died = async {
        loop {
            let signal = signals.next().await;
            if !subcommand.handles.contains(&signal) {
                return DIED_FROM_SIGNAL;
            }
            call.signal.set(Some(signal));
        }
    };
    tokio::select! {
        biased;
        code = ended => code,
        code = died => code,
    }
}

async fn said(stdout: &Output, text: &str) -> i32 {
    i32::from(stdout.write(text).await.is_err())
}

async fn complained(stderr: &Output, text: &str) -> i32 {
    // With its standard error gone, a process has nobody to complain to.
    let _told = stderr.write(text).await;
    1
}

fn help() -> String {
    let mut text = "Usage:\n  app [command]\n\nAvailable Commands:\n".to_string();
    let width = SUBCOMMANDS.iter().map(|subcommand| subcommand.name.len()).max().unwrap_or_default();
    for Subcommand { name, short, .. } in SUBCOMMANDS {
        let _infallible = writeln!(text, "  {name:width$} {short}");
    }
    text + "\nFlags:\n  -h, --help      help for app\n  -v, --version   version for app\n\n\
            Use \"app [command] --help\" for more information about a command.\n"
}

impl Subcommand {
    fn usage(&self) -> String {
        let operands = self.operands.map(|operands| format!(" {operands}")).unwrap_or_default();
        let flags = if self.flags.is_empty() { "" } else { " [flags]" };
        let mut text = format!("{}\n\nUsage:\n  app {}{operands}{flags}\n\nFlags:\n", self.short, self.name);
        for flag in self.flags {
            let _infallible = writeln!(text, "{flag}");
        }
        text += "\nGlobal Flags:\n";
        for flag in LOGGING_FLAGS {
            let _infallible = writeln!(text, "{flag}");
        }
        text
    }
}

impl Call {
    /// Waits for a signal among those that the subcommand handles.
    async fn signalled(&self) -> Signal {
        let mut watcher = self.signal.watch();
        match watcher.wait_for(Option::is_some).await {
            Ok(Some(signal)) => signal,
            // The sender lives as long as this call.
            _ => std::future::pending().await,
        }
    }

    /// Writes a line to standard output.
    async fn say(&self, text: impl Display) {
        // A log that nobody reads any more stops no server.
        let _told = self.stdout.line(text.to_string()).await;
    }

    /// Writes a line of the log as `klog` does, to whom Go's `log` is directed too (`component-base/logs`).
    async fn log(&self, message: impl Display) {
        self.klog('I', "log.go:245", message).await;
    }

    /// Writes a line of the log as `klog` does: severity, place and message.
    async fn klog(&self, severity: char, place: &str, message: impl Display) {
        let line = go_format::klog_line(severity, self.world.clock.now(), self.pid, place, &message.to_string());
        let _told = self.stderr.write(line).await;
    }

    /// [`Call::klog`], where `-v` asks for as much.
    async fn verbose(&self, level: i64, place: &str, message: impl Display) {
        if self.flags.number("v") >= level {
            self.klog('I', place, message).await;
        }
    }

    /// [`Call::log`] for what ends a program; returns the exit code for it.
    async fn fatal(&self, message: impl Display) -> i32 {
        self.log(message).await;
        1
    }

    /// Refuses what is not simulated; returns the exit code for it.
    async fn unsupported(&self, what: impl Display) -> i32 {
        complained(&self.stderr, &format!("agnhost: {what}: not simulated\n")).await
    }

    /// A path as the process means it: relative ones count from the working directory.
    fn path(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_string(),
            false => format!("{}/{path}", self.cwd),
        }
    }

    /// What a child with the same environment and directory is started with.
    fn child(&self, args: Vec<String>, stdin: crate::process::Input, stdout: Output, stderr: Output) -> Spawn {
        Spawn { args, env: self.env.clone(), cwd: self.cwd.clone(), stdin, stdout, stderr, parent: self.pid }
    }
}
