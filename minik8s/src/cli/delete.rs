//! `minik8s delete`: remove a cluster, its data and its context.

use anyhow::Result;
use clap::Args;

use crate::cli::{Name, down};
use crate::home::{Home, context_name};
use crate::kubeconfig;

/// The options of `delete`.
#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    name: Name,
}

impl Delete {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let name = &self.name.name;
        let home = Home::open()?;
        let dir = home.existing(name)?;
        let file = dir.read()?;
        down::stop(&dir)?;
        if let Some(file) = file {
            kubeconfig::remove(&file.kubeconfig, &context_name(name))?;
        }
        dir.remove()?;
        home.forget(name)?;
        println!("Deleted cluster {name:?}.");
        Ok(())
    }
}
