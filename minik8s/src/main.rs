//! `minik8s`: a whole Kubernetes cluster in one process. This file parses the command line; [`cli`] has one file a verb,
//! and [`cluster`] is the wiring of everything that runs.

mod cli;
mod cluster;
mod components;
mod control;
mod home;
mod kubeconfig;
mod logs;
mod node;
mod pki;

fn main() -> std::process::ExitCode {
    cli::run()
}
