//! What images are based on: the directories and tools of a distribution.

use crate::commands;
use crate::fs::{Layer, LayerNode};
use crate::process::PROGRAM_MAGIC;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A distribution, as far as a container shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Base {
    /// No files at all.
    #[default]
    Scratch,
    /// busybox alone.
    Busybox,
    /// Alpine Linux: busybox with a distribution around it.
    Alpine,
    /// Debian: bash, coreutils, no network tools, no `ps`.
    Debian,
}

/// What Debian's slim images leave out of the tools we have.
const NOT_IN_DEBIAN: [&str; 9] = ["busybox", "curl", "dig", "ip", "nc", "nslookup", "ping", "ps", "wget"];
/// What busybox does not have of the tools we have.
const NOT_IN_BUSYBOX: [&str; 4] = ["bash", "curl", "dig", "getent"];

const DIRECTORIES: [&str; 16] = [
    "/bin",
    "/etc",
    "/home",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/tmp",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/share",
    "/var/lib",
    "/var/log",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/sbin/nologin\n\
bin:x:2:2:bin:/bin:/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/sbin/nologin\n\
nginx:x:101:101:nginx:/nonexistent:/sbin/nologin\nnode:x:1000:1000:Linux User:/home/node:/bin/sh\n\
redis:x:999:1000::/home/redis:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n\
curl_user:x:100:101::/home/curl_user:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n\
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nwww-data:x:33:\nnginx:x:101:\nnode:x:1000:\nnonroot:x:65532:\n\
nobody:x:65534:\n";
const ALPINE_RELEASE: &str =
    "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\nPRETTY_NAME=\"Alpine Linux v3.22\"\n";
const DEBIAN_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\n\
VERSION=\"13 (trixie)\"\nVERSION_CODENAME=trixie\nID=debian\n";

/// An executable file that stands for a simulated program.
pub(super) fn executable(program: &str) -> LayerNode {
    LayerNode::File(format!("{PROGRAM_MAGIC}{program}\n").into(), 0o755)
}

/// Builds the layers of bases, each once.
#[derive(Default)]
pub(super) struct Toolset {
    built: BTreeMap<Base, Arc<Layer>>,
}

impl Toolset {
    /// The layers below an image's own.
    pub fn layers(&mut self, base: Base) -> Option<Arc<Layer>> {
        if base == Base::Scratch {
            return None;
        }
        Some(self.built.entry(base).or_insert_with(|| Arc::new(build(base))).clone())
    }
}

fn build(base: Base) -> Layer {
    let mut layer = Layer::default();
    let text = |text: &str| LayerNode::File(text.to_string().into(), 0o644);
    DIRECTORIES.iter().for_each(|path| layer.add_directory(path));
    layer.add("/etc/passwd", text(PASSWD));
    layer.add("/etc/group", text(GROUP));
    layer.add("/var/run", LayerNode::Symlink("/run".to_string()));
    match base {
        Base::Alpine => {
            layer.add("/etc/os-release", text(ALPINE_RELEASE));
            layer.add("/etc/alpine-release", text("3.22.1\n"));
        }
        Base::Debian => {
            layer.add("/etc/os-release", text(DEBIAN_RELEASE));
            layer.add("/etc/debian_version", text("13.1\n"));
        }
        Base::Busybox | Base::Scratch => {}
    }
    let missing: &[&str] = if base == Base::Debian { &NOT_IN_DEBIAN } else { &NOT_IN_BUSYBOX };
    for name in commands::names().filter(|name| !missing.contains(name)) {
        layer.add(&format!("/bin/{name}"), executable(name));
        if base == Base::Debian {
            layer.add(&format!("/usr/bin/{name}"), executable(name));
        }
    }
    layer
}
