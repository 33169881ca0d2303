//! `minik8s bench`: measure this cluster, or any other by its kubeconfig.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use minik8s_clock::{Clock, Random};

use crate::bench::report;
use crate::bench::target::Target;
use crate::bench::workloads::{Bench as Run, Size};
use crate::cli::{Name, Output};
use crate::home::{Home, name_flag};
use crate::kubeconfig::Entry;
use crate::pki::Pki;

/// The options of `bench`.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    name: Name,
    /// Measure the cluster of this kubeconfig's current context instead
    #[arg(long, value_name = "KUBECONFIG")]
    against: Option<PathBuf>,
    /// How many pods to create
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// How many clients at once
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How many watchers
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// How many writes a second the watchers follow
    #[arg(long, default_value_t = 100)]
    rate: usize,
    /// The replicas of the Deployment
    #[arg(long, default_value_t = 10)]
    replicas: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Bench {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        if [self.objects, self.clients, self.watchers, self.rate, self.replicas].contains(&0) {
            bail!("nothing can be measured with a size of 0");
        }
        let (clock, random) = (Clock::real(), Random::from_os());
        let target = match &self.against {
            Some(path) => Target::read(path)?,
            None => self.own()?,
        };
        let size = Size {
            objects: self.objects,
            clients: self.clients,
            watchers: self.watchers,
            rate: self.rate,
            replicas: self.replicas,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let rows = runtime.block_on(Run::new(target, size, clock, &random).run())?;
        match self.output {
            Output::Text => report::print(&rows),
            Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        }
        Ok(())
    }

    fn own(&self) -> Result<Target> {
        let name = &self.name.name;
        let dir = Home::open()?.existing(name)?;
        let Some(file) = dir.read()?.filter(|_| dir.is_running()) else {
            bail!("cluster {name:?} is not running; `minik8s up{}` starts it", name_flag(name));
        };
        let pki = Pki::read(&dir.pki())?;
        Target::parse(&Entry { name: &file.context(), server: &file.server(), pki: &pki }.standalone()?)
    }
}
