//! `minik8s kubeconfig`: print a kubeconfig of this cluster alone, the administrator's or that of another user, such as a
//! component that somebody runs.

use anyhow::{Result, bail};
use clap::Args;
use minik8s_clock::{Clock, Random};

use crate::cli::Name;
use crate::home::Home;
use crate::kubeconfig::Entry;
use crate::pki::Pki;

/// The options of `kubeconfig`.
#[derive(Args)]
pub struct Kubeconfig {
    #[command(flatten)]
    name: Name,
    /// Another user than the administrator: a client certificate is signed for it (system:kube-scheduler,
    /// system:kube-controller-manager, system:node:NAME with --group system:nodes)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The group of --user
    #[arg(long, value_name = "GROUP", requires = "user")]
    group: Option<String>,
}

impl Kubeconfig {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let dir = Home::open()?.existing(&self.name.name)?;
        let Some(file) = dir.read()? else { bail!("{} holds no cluster", dir.path.display()) };
        let mut pki = Pki::read(&dir.pki())?;
        if let Some(user) = &self.user {
            let groups: Vec<String> = self.group.into_iter().collect();
            pki.admin = Pki::sign_client(&dir.pki(), user, &groups, &Clock::real(), &Random::from_os())?;
        }
        print!("{}", Entry { name: &file.context(), server: &file.server(), pki: &pki }.standalone()?);
        Ok(())
    }
}
