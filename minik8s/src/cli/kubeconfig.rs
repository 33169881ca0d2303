//! `minik8s kubeconfig`: print a kubeconfig of this cluster alone.

use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Name;
use crate::home::Home;
use crate::kubeconfig::Entry;
use crate::pki::Pki;

/// The options of `kubeconfig`.
#[derive(Args)]
pub struct Kubeconfig {
    #[command(flatten)]
    name: Name,
}

impl Kubeconfig {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let dir = Home::open()?.existing(&self.name.name)?;
        let Some(file) = dir.read()? else { bail!("{} holds no cluster", dir.path.display()) };
        let pki = Pki::read(&dir.pki())?;
        print!("{}", Entry { name: &file.context(), server: &file.server(), pki: &pki }.standalone()?);
        Ok(())
    }
}
