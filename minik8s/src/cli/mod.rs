//! The command line, one verb a file. Every error ends as one line on standard error and exit code 1.

mod apiserver;
mod authentication;
mod bench;
mod controllers;
mod delete;
mod down;
mod flags;
mod kubeconfig;
mod kubelet;
mod kubelet_config;
mod logs;
mod node;
mod process;
mod scheduler;
mod status;
mod up;
mod version;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// The cluster that is meant where none is named.
pub const DEFAULT_NAME: &str = "minik8s";

/// A whole Kubernetes cluster in one process, for learning, tests and research.
#[derive(Parser)]
#[command(name = "minik8s", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster, or resume a stopped one, and make it kubectl's current context
    Up(up::Up),
    /// Stop a cluster and keep its state
    Down(down::Down),
    /// Remove a cluster, its data and its context
    Delete(delete::Delete),
    /// Say what runs
    Status(status::Status),
    /// Print a kubeconfig for the cluster
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Print the log of the cluster's process
    Logs(logs::Logs),
    /// Add, stop, start and delete nodes
    #[command(subcommand)]
    Node(node::Node),
    /// Run an API server alone, with the flags of kube-apiserver
    Apiserver(Box<apiserver::ApiServer>),
    /// Run the controllers alone, with the flags of kube-controller-manager
    Controllers(Box<controllers::Controllers>),
    /// Run a scheduler alone, with the flags of kube-scheduler
    Scheduler(Box<scheduler::Scheduler>),
    /// Run a node alone, with the flags of the kubelet
    Kubelet(Box<kubelet::Kubelet>),
    /// Measure how fast the API is
    Bench(bench::Bench),
    /// Print the version
    Version(version::Version),
}

/// Which cluster a verb is about.
#[derive(Args, Clone)]
pub struct Name {
    /// The cluster's name
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    pub name: String,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// A name becomes a folder, a context and part of messages: a DNS label.
fn parse_name(name: &str) -> Result<String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: char| c != '-';
    if name.is_empty()
        || name.len() > 63
        || !name.chars().all(inner)
        || !name.starts_with(ends)
        || !name.ends_with(ends)
    {
        bail!("a name has 1 to 63 lower-case letters, digits and '-', and begins and ends with a letter or digit");
    }
    if name == "clusters" {
        bail!("\"clusters\" is the folder in which minik8s lists its clusters; take another name");
    }
    Ok(name.to_owned())
}

/// The verbs that stand for programs of Kubernetes: these end with 1 where a flag is wrong.
const COMPONENTS: [&str; 4] = ["apiserver", "controllers", "scheduler", "kubelet"];

fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        let component = std::env::args().nth(1).is_some_and(|verb| COMPONENTS.contains(&verb.as_str()));
        if component && error.use_stderr() {
            let _ = error.print();
            std::process::exit(1);
        }
        error.exit()
    })
}

/// Parses, runs, reports.
pub fn run() -> ExitCode {
    // One provider of cryptography for the process; a second call cannot happen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match parse().verb {
        Verb::Up(verb) => verb.run(),
        Verb::Down(verb) => verb.run(),
        Verb::Delete(verb) => verb.run(),
        Verb::Status(verb) => verb.run(),
        Verb::Kubeconfig(verb) => verb.run(),
        Verb::Logs(verb) => verb.run(),
        Verb::Node(verb) => verb.run(),
        Verb::Apiserver(verb) => verb.run(),
        Verb::Controllers(verb) => verb.run(),
        Verb::Scheduler(verb) => verb.run(),
        Verb::Kubelet(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Version(verb) => verb.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
