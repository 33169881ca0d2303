//! `minik8s status`: what runs.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Name, Output};
use crate::control::{ClusterStatus, ControlClient};
use crate::home::{ClusterFile, DataDir, Home};

/// The options of `status`.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    name: Name,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Status {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let dir = Home::open()?.existing(&self.name.name)?;
        let Some(file) = dir.read()? else { bail!("{} holds no cluster", dir.path.display()) };
        let running = match dir.is_running() {
            true => Some(ControlClient::new(&dir, &file)?.status()?),
            false => None,
        };
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&dir, &file, running.as_ref())?)?),
            Output::Text => print_text(&dir, &file, running.as_ref()),
        }
        Ok(())
    }
}

fn as_json(dir: &DataDir, file: &ClusterFile, running: Option<&ClusterStatus>) -> Result<Value> {
    let mut status = json!({
        "name": file.name,
        "state": if running.is_some() { "Running" } else { "Stopped" },
        "context": file.context(),
        "server": file.server(),
        "kubeconfig": file.kubeconfig,
        "dataDir": dir.path,
        "ephemeral": file.ephemeral,
        "disabled": file.disabled,
    });
    match running {
        Some(running) => {
            if let (Some(all), Value::Object(more)) = (status.as_object_mut(), serde_json::to_value(running)?) {
                all.extend(more);
            }
        }
        None => {
            let nodes = file.nodes.iter().map(|node| json!({"name": node.name, "state": "Stopped"}));
            status["nodes"] = nodes.collect();
        }
    }
    Ok(status)
}

fn print_text(dir: &DataDir, file: &ClusterFile, running: Option<&ClusterStatus>) {
    println!("Cluster:     {}", file.name);
    println!("State:       {}", if running.is_some() { "Running" } else { "Stopped" });
    println!("Context:     {}", file.context());
    println!("API server:  {}", file.server());
    println!("Kubeconfig:  {}", file.kubeconfig.display());
    println!("Data:        {}{}", dir.path.display(), if file.ephemeral { " (ephemeral)" } else { "" });
    if !file.disabled.is_empty() {
        println!("Disabled:    {}", file.disabled.join(", "));
    }
    let Some(running) = running else { return };
    println!("Version:     {} (minik8s {})", running.kubernetes_version, running.version);
    println!("Process:     {}", running.pid);
    println!("Revision:    {}", running.revision);
    println!("Nodes:");
    for node in &running.nodes {
        println!("  {:<20} {:<10} {:<9} {}", node.name, node.state, node.condition, node.address);
    }
}
