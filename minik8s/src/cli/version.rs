//! `minik8s version`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::cli::Output;
use crate::node::KUBERNETES_VERSION;

/// The options of `version`.
#[derive(Args)]
pub struct Version {
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Version {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        match self.output {
            Output::Text => println!("minik8s {own} (Kubernetes {KUBERNETES_VERSION})"),
            Output::Json => println!("{}", json!({"minik8s": own, "kubernetes": KUBERNETES_VERSION})),
        }
        Ok(())
    }
}
