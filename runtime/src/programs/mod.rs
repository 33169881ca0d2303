//! Programs by name.
//!
//! ```text
//!  a name in an executable file   found in
//!  nginx, postgres, …             the image's profile: a Scripted program, which is data
//!  agnhost, nnp, stress, perl, …  the table below: programs whose behaviour is code
//!  sh, ls, curl, …                commands/ and shell/: the tools of a distribution
//!  component:kube-scheduler, …    the process itself: SimConfig::host_programs
//! ```
//! A new one is a file here and a row in [`BUILTIN`], if a profile cannot say it.

mod agnhost;
mod http;
mod nnp;
mod perl;
mod scripted;
mod stress;

pub(crate) use http::{Server, serve_connection};
pub use scripted::ScriptedProgram;

use crate::commands::{self, Applet};
use crate::image::ImageProfile;
use crate::process::{Process, Program};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The scripted program that an image without a description runs whatever it is told to run.
const DEFAULT_PROGRAM: &str = "main";

/// Programs whose behaviour is code, besides the tools of a distribution.
const BUILTIN: [(&str, Applet); 4] = [
    ("agnhost", |process| Box::pin(agnhost::run(process))),
    ("stress", |process| Box::pin(stress::run(process))),
    ("nnp", |process| Box::pin(nnp::run(process))),
    ("perl", |process| Box::pin(perl::run(process))),
];

struct AppletProgram(Applet);

#[async_trait]
impl Program for AppletProgram {
    async fn run(&self, process: Process) -> i32 {
        let run: BoxFuture<'static, i32> = (self.0)(process);
        run.await
    }
}

/// Programs that do not depend on an image, made once a process.
static SHARED: LazyLock<BTreeMap<&'static str, Arc<dyn Program>>> = LazyLock::new(|| {
    let rows = BUILTIN.iter().chain(commands::TABLE).copied();
    rows.map(|(name, applet)| (name, Arc::new(AppletProgram(applet)) as Arc<dyn Program>)).collect()
});

/// A tool of a distribution as a program, wherever an image has it.
pub(crate) fn applet(name: &str) -> Option<Arc<dyn Program>> {
    SHARED.get(name).cloned()
}

/// All programs of one node.
pub(crate) struct Programs {
    host: BTreeMap<String, Arc<dyn Program>>,
}

impl Programs {
    /// The programs that come with this crate, and those of the process.
    pub fn new(host: BTreeMap<String, Arc<dyn Program>>) -> Programs {
        Programs { host }
    }

    /// The program that an executable file of an image names.
    pub fn get(&self, profile: &ImageProfile, name: &str) -> Option<Arc<dyn Program>> {
        if let Some(program) = self.host.get(name) {
            return Some(program.clone());
        }
        if let Some(script) = profile.programs.get(name) {
            return Some(Arc::new(ScriptedProgram(script.clone())));
        }
        SHARED.get(name).cloned()
    }

    /// What an image runs whose programs nobody knows.
    pub fn default_program(&self, profile: &ImageProfile) -> Option<Arc<dyn Program>> {
        self.get(profile, DEFAULT_PROGRAM)
    }
}
