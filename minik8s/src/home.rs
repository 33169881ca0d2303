//! Where clusters live on disk.
//!
//! ```text
//! $MINIK8S_HOME (else the platform's folder for user data)/
//!   clusters/NAME.json     which clusters there are, and where
//!   NAME/                  the data directory, unless --data-dir says otherwise
//!     minik8s.json         marks the folder as ours: format, name, settings, nodes
//!     lock                 held by the process that runs the cluster
//!     pki/  store/  minik8s.log
//! ```

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::safeguards::Safeguards;

/// The version of the layout above. A folder of a newer one is refused.
const FORMAT: u32 = 1;
const MARKER: &str = "minik8s.json";

/// What is kept about a cluster between two runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFile {
    /// The layout's version.
    pub format: u32,
    /// The cluster's name.
    pub name: String,
    /// The port of the API server.
    pub port: u16,
    /// The kubeconfig that holds the context.
    pub kubeconfig: PathBuf,
    /// Whether nothing is kept: the store is in memory and the folder goes with the cluster.
    pub ephemeral: bool,
    /// What guards its API.
    #[serde(default)]
    pub safeguards: Safeguards,
    /// The nodes.
    pub nodes: Vec<NodeFile>,
    /// What of the cluster others run: components, and `controllers/NAME` for a single controller.
    #[serde(default)]
    pub disabled: Vec<String>,
}

/// The scheduler, as `up --disable` names it.
pub const SCHEDULER: &str = "scheduler";
/// The controllers, as `up --disable` names them; one of them is `controllers/NAME`.
pub const CONTROLLERS: &str = "controllers";
/// The kubelets, as `up --disable` names them.
pub const KUBELET: &str = "kubelet";

/// What is kept about a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    /// Its name.
    pub name: String,
    /// Its number, from which its address is made; never used twice in one cluster.
    pub number: u32,
    /// Whether it runs the control plane.
    pub control_plane: bool,
    /// CPU, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory, as a Kubernetes quantity.
    pub memory: String,
    /// Labels beside the standard ones.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Taints, `key=value:Effect` or `key:Effect`.
    #[serde(default)]
    pub taints: Vec<String>,
    /// Whether the machine is switched off.
    #[serde(default)]
    pub stopped: bool,
}

/// Which clusters there are.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    data_dir: PathBuf,
}

impl Home {
    /// The user's.
    pub fn open() -> Result<Self> {
        if let Some(root) = std::env::var_os("MINIK8S_HOME").filter(|root| !root.is_empty()) {
            return Ok(Self { root: std::path::absolute(root).context("cannot resolve $MINIK8S_HOME")? });
        }
        let data = if cfg!(windows) {
            std::env::var_os("LOCALAPPDATA").map(PathBuf::from)
        } else if cfg!(target_os = "macos") {
            std::env::home_dir().map(|home| home.join("Library").join("Application Support"))
        } else {
            let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            xdg.or_else(|| std::env::home_dir().map(|home| home.join(".local").join("share")))
        };
        match data {
            Some(data) => Ok(Self { root: data.join("minik8s") }),
            None => bail!("no home directory: set MINIK8S_HOME"),
        }
    }

    fn pointer(&self, name: &str) -> PathBuf {
        self.root.join("clusters").join(format!("{name}.json"))
    }

    /// The data directory of a known cluster.
    pub fn find(&self, name: &str) -> Result<Option<DataDir>> {
        let path = self.pointer(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let pointer: Pointer = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(DataDir { path: pointer.data_dir }))
    }

    /// The data directory of a cluster that must exist.
    pub fn existing(&self, name: &str) -> Result<DataDir> {
        match self.find(name)? {
            Some(dir) => Ok(dir),
            None => bail!("no cluster named {name:?}; `minik8s up{}` makes one", name_flag(name)),
        }
    }

    /// Where a new cluster goes.
    pub fn data_dir(&self, name: &str, asked: Option<&Path>) -> Result<DataDir> {
        match (asked, self.find(name)?) {
            (Some(asked), known) => {
                let path = std::path::absolute(asked).context("cannot resolve --data-dir")?;
                match known {
                    Some(known) if known.path != path && known.path.join(MARKER).exists() => bail!(
                        "cluster {name:?} keeps its data in {}; delete it first, or take another --name",
                        known.path.display()
                    ),
                    _ => Ok(DataDir { path }),
                }
            }
            (None, Some(known)) => Ok(known),
            (None, None) => Ok(DataDir { path: self.root.join(name) }),
        }
    }

    /// Remembers where a cluster is.
    pub fn remember(&self, name: &str, dir: &DataDir) -> Result<()> {
        let path = self.pointer(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let text = serde_json::to_string_pretty(&Pointer { data_dir: dir.path.clone() })?;
        // In one step: a process killed here leaves the old pointer or the new one.
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets a cluster.
    pub fn forget(&self, name: &str) -> Result<()> {
        let path = self.pointer(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// ` --name NAME`, where that is not the default.
pub fn name_flag(name: &str) -> String {
    if name == crate::cli::DEFAULT_NAME { String::new() } else { format!(" --name {name}") }
}

/// One cluster's folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    /// The folder.
    pub path: PathBuf,
}

/// The right to run the cluster in a folder; ends with the process that holds it.
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// What the folder says about its cluster; `None` where there is no cluster yet. A folder with other things in it
    /// is refused.
    pub fn read(&self) -> Result<Option<ClusterFile>> {
        let path = self.path.join(MARKER);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let file: ClusterFile =
                    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
                if file.format > FORMAT {
                    bail!("{} was written by a newer minik8s (format {})", self.path.display(), file.format);
                }
                Ok(Some(file))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.refuse_foreign()?;
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn refuse_foreign(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        for entry in entries {
            let name = entry?.file_name();
            // Both are there before the marker, while the first start is on its way.
            if name != "lock" && name != "minik8s.log" {
                bail!(
                    "{} is not a data directory of minik8s: it holds {} but no {MARKER}; take an empty folder",
                    self.path.display(),
                    name.display()
                );
            }
        }
        Ok(())
    }

    /// Writes what the next run must know, in one step.
    pub fn write(&self, file: &ClusterFile) -> Result<()> {
        let path = self.path.join(MARKER);
        let fresh = self.path.join("minik8s.json.new");
        fs::write(&fresh, serde_json::to_string_pretty(file)?)
            .with_context(|| format!("cannot write {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes the lock; fails at once when another process runs this cluster.
    pub fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot create {}", self.path.display()))?;
        let path = self.path.join("lock");
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("another process runs the cluster in {}", self.path.display()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Whether a process runs the cluster.
    pub fn is_running(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Removes what belongs to the cluster, and the folder where nothing else is in it.
    pub fn remove(&self) -> Result<()> {
        for name in ["pki", "store"] {
            match fs::remove_dir_all(self.path.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", self.path.join(name).display()));
                }
                _ => {}
            }
        }
        for name in ["minik8s.log", "minik8s.log.1", "minik8s.json.new", "lock", MARKER] {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", self.path.join(name).display()));
                }
                _ => {}
            }
        }
        // What else somebody put there is not ours to remove.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// The certificates.
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The log of the process.
    pub fn log(&self) -> PathBuf {
        self.path.join("minik8s.log")
    }
}

impl ClusterFile {
    /// A new cluster.
    pub fn new(name: &str, port: u16, kubeconfig: PathBuf, ephemeral: bool, nodes: Vec<NodeFile>) -> Self {
        let (safeguards, disabled) = (Safeguards::default(), Vec::new());
        Self { format: FORMAT, name: name.to_owned(), port, kubeconfig, ephemeral, safeguards, nodes, disabled }
    }

    /// Whether others run this component.
    pub fn is_disabled(&self, component: &str) -> bool {
        self.disabled.iter().any(|disabled| disabled == component)
    }

    /// The single controllers that others run.
    pub fn disabled_controllers(&self) -> Vec<String> {
        let names = self.disabled.iter().filter_map(|name| name.strip_prefix(CONTROLLERS)?.strip_prefix('/'));
        names.map(str::to_owned).collect()
    }

    /// The name of its context.
    pub fn context(&self) -> String {
        context_name(&self.name)
    }

    /// The address of its API server.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// The context of a cluster: `minik8s`, or `minik8s-NAME`.
pub fn context_name(name: &str) -> String {
    if name == crate::cli::DEFAULT_NAME { name.to_owned() } else { format!("minik8s-{name}") }
}
