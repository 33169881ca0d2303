//! `minik8s node`: machines come, fail, come back and go.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cli::Name;
use crate::control::{ControlClient, NewNode};
use crate::home::{Home, name_flag};

/// The verbs of `node`.
#[derive(Subcommand)]
pub enum Node {
    /// Add a node to a running cluster
    Add(Add),
    /// Switch a node off, as a machine that loses power
    Stop(One),
    /// Switch a stopped node on again
    Start(One),
    /// Remove a node from the cluster
    Delete(One),
}

/// The options of `node add`.
#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    cluster: Name,
    /// The node's name [default: the next number]
    node: Option<String>,
    /// CPU, as a quantity
    #[arg(long)]
    cpu: Option<String>,
    /// Memory, as a quantity
    #[arg(long)]
    memory: Option<String>,
    /// A label, KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// A taint, KEY=VALUE:EFFECT or KEY:EFFECT; may be repeated
    #[arg(long = "taint", value_name = "TAINT")]
    taints: Vec<String>,
}

/// A node that exists.
#[derive(Args)]
pub struct One {
    #[command(flatten)]
    cluster: Name,
    /// The node's name
    node: String,
}

fn parse_label(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("a label is KEY=VALUE"),
    }
}

fn connect(cluster: &Name) -> Result<ControlClient> {
    let dir = Home::open()?.existing(&cluster.name)?;
    match dir.read()? {
        Some(file) if dir.is_running() => ControlClient::new(&dir, &file),
        _ => bail!("cluster {:?} is not running; `minik8s up{}` starts it", cluster.name, name_flag(&cluster.name)),
    }
}

impl Node {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        match self {
            Node::Add(add) => {
                let labels: BTreeMap<_, _> = add.labels.into_iter().collect();
                let new = NewNode { name: add.node, cpu: add.cpu, memory: add.memory, labels, taints: add.taints };
                let name = connect(&add.cluster)?.add_node(&new)?;
                println!("node/{name} added");
            }
            Node::Stop(one) => {
                connect(&one.cluster)?.stop_node(&one.node)?;
                println!("node/{} stopped", one.node);
            }
            Node::Start(one) => {
                connect(&one.cluster)?.start_node(&one.node)?;
                println!("node/{} started", one.node);
            }
            Node::Delete(one) => {
                connect(&one.cluster)?.delete_node(&one.node)?;
                println!("node/{} deleted", one.node);
            }
        }
        Ok(())
    }
}
