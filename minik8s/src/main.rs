//! `minik8s`: a whole Kubernetes cluster in one process.

fn main() -> std::process::ExitCode {
    minik8s::cli::run()
}
