//! Volumes: what a pod's containers find under their mount paths.
//!
//! [`payload`] says which files a volume holds, as a pure function of the pod and of the objects it names; [`atomic`]
//! puts them on the node so that a reader never sees half of an update; [`set_up`] and [`tear_down`] join the two; [`forget`] comes last.
//!
//! [`claim`] finds the folder behind a PersistentVolumeClaim, [`trust_anchors`] the certificates of ClusterTrustBundles.
//!
//! (`pkg/volume/{configmap,secret,projected,downwardapi,emptydir,hostpath}`.)

pub mod atomic;
pub mod claim;
pub mod payload;
pub mod trust_anchors;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use minik8s_cri::{FileKind, NodeFs};

use crate::error::{Error, Result};
use crate::spec::PodExt as _;
use crate::words;
use payload::Sources;

/// Where a kubelet keeps what belongs to pods.
pub(crate) const PODS: &str = "/var/lib/kubelet/pods";

/// The folder of one pod.
pub fn pod_directory(uid: &str) -> String {
    format!("{PODS}/{uid}")
}

/// What of a pod's volumes is on the node already, so that unchanged ones are left alone.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    /// Host paths by volume.
    pub paths: BTreeMap<String, String>,
    /// What was written, by volume.
    written: BTreeMap<String, payload::Files>,
}

/// A volume that could not be set up.
#[derive(Debug)]
pub struct SetUpFailure {
    /// Its name.
    pub volume: String,
    /// Why.
    pub error: Error,
}

impl SetUpFailure {
    /// The message of the `FailedMount` event.
    pub fn message(&self) -> String {
        let (volume, error) = (&self.volume, &self.error);
        match error {
            Error::Claim(why) => format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {why}"
            ),
            _ => format!("MountVolume.SetUp failed for volume {} : {error}", words::quoted(volume)),
        }
    }
}

/// Sets up (or brings up to date) every volume of the pod. All are tried; the failures come back.
pub fn set_up(fs: &dyn NodeFs, pod: &Pod, sources: &Sources<'_>, mounted: &mut Mounted) -> Vec<SetUpFailure> {
    let mut failures = Vec::new();
    for volume in pod.spec().volumes.iter().flatten() {
        if let Err(error) = set_up_one(fs, pod, volume, sources, mounted) {
            failures.push(SetUpFailure { volume: volume.name.clone(), error });
        }
    }
    failures
}

/// Removes the volumes of a pod.
///
/// # Errors
/// The file system's.
pub fn tear_down(fs: &dyn NodeFs, uid: &str) -> Result<()> {
    Ok(fs.remove_all(&format!("{}/volumes", pod_directory(uid)))?)
}

/// Removes everything that a pod had on the node.
///
/// # Errors
/// The file system's.
pub fn forget(fs: &dyn NodeFs, uid: &str) -> Result<()> {
    Ok(fs.remove_all(&pod_directory(uid))?)
}

fn set_up_one(fs: &dyn NodeFs, pod: &Pod, volume: &Volume, sources: &Sources<'_>, mounted: &mut Mounted) -> Result<()> {
    let claimed = match sources.claims.get(&volume.name) {
        Some(Ok(folder)) => Some(folder),
        Some(Err(why)) => return Err(Error::Claim(why.clone())),
        None => None,
    };
    if let Some(host_path) = claimed.or(volume.host_path.as_ref()) {
        prepare_host_path(fs, host_path)?;
        mounted.paths.insert(volume.name.clone(), host_path.path.clone());
        return Ok(());
    }
    if volume.image.is_some() {
        // The runtime mounts it; the image comes when a container starts.
        return Ok(());
    }
    let plugin = plugin(volume);
    let path = format!("{}/volumes/kubernetes.io~{plugin}/{}", pod_directory(pod.uid()), volume.name);
    let make = || if is_in_memory(volume) { fs.create_tmpfs(&path) } else { fs.create_dir_all(&path) };
    if volume.empty_dir.is_some() {
        // What is in it survives restarts of containers and of the kubelet.
        let new = !fs.exists(&path);
        make()?;
        if new {
            fs.set_mode(&path, 0o777)?;
        }
    } else {
        let files = payload::files(pod, volume, sources)?;
        if mounted.written.get(&volume.name) != Some(&files) {
            make()?;
            atomic::write(fs, &path, &files)?;
            mounted.written.insert(volume.name.clone(), files);
        }
    }
    mounted.paths.insert(volume.name.clone(), path);
    Ok(())
}

/// Whether a volume is a `tmpfs`: all that may hold secrets is, and what asks for it (`wrappedVolumeSpec` of each plugin).
fn is_in_memory(volume: &Volume) -> bool {
    match &volume.empty_dir {
        Some(empty_dir) => empty_dir.medium.as_deref() == Some("Memory"),
        None => volume.config_map.is_none(),
    }
}

fn plugin(volume: &Volume) -> &'static str {
    if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        "projected"
    }
}

/// Checks (or makes) what a hostPath volume wants to find (`pkg/volume/hostpath/host_path.go`).
fn prepare_host_path(fs: &dyn NodeFs, source: &HostPathVolumeSource) -> Result<()> {
    let path = &source.path;
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs.metadata(path).ok().map(|metadata| metadata.kind);
    let expect = |wanted: FileKind, what: &str| match found {
        Some(found) if found == wanted => Ok(()),
        _ => Err(Error::InvalidPod(format!("hostPath type check failed: {path} is not a {what}"))),
    };
    match kind {
        "" if found.is_none() => {
            // A runtime that binds a path that is not there makes a folder of it.
            fs.create_dir_all(path)?;
            Ok(())
        }
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if found.is_none() {
                fs.create_dir_all(path)?;
                return Ok(());
            }
            expect(FileKind::Directory, "directory")
        }
        "Directory" => expect(FileKind::Directory, "directory"),
        "FileOrCreate" => {
            if found.is_none() {
                fs.write(path, b"")?;
                return Ok(());
            }
            expect(FileKind::File, "file")
        }
        "File" => expect(FileKind::File, "file"),
        "Socket" => expect(FileKind::File, "socket file"),
        "CharDevice" => Err(Error::InvalidPod(format!("hostPath type check failed: {path} is not a character device"))),
        "BlockDevice" => Err(Error::InvalidPod(format!("hostPath type check failed: {path} is not a block device"))),
        other => Err(Error::InvalidPod(format!("{other} is an invalid volume type"))),
    }
}
