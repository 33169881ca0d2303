//! Which files a volume holds.
//!
//! (`pkg/volume/configmap/configmap.go`, `MakePayload`; `secret.go`, `downwardapi.go`, `projected.go`, `collectData`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};

use crate::certificates::{Credentials, Place};
use crate::downward::{self, NodeView};
use crate::env::Objects;
use crate::error::{Error, Result};
use crate::volumes::trust_anchors::trust_anchors;

/// The permission bits of files unless the volume says otherwise.
const DEFAULT_MODE: u32 = 0o644;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The files of a volume by their relative paths.
pub type Files = BTreeMap<String, File>;

/// What volumes take their content from.
pub struct Sources<'a> {
    /// The ConfigMaps and Secrets the pod names.
    pub objects: &'a Objects,
    /// The tokens of the pod's ServiceAccount, by volume and path: fetched, or why not.
    pub tokens: &'a BTreeMap<(String, String), Result<String, String>>,
    /// The certificates of the pod, by volume and source: issued, or why not.
    pub certificates: &'a BTreeMap<Place, Result<Credentials, String>>,
    /// What the claims the pod names lead to, by volume: a folder of the node, or why there is none.
    pub claims: &'a BTreeMap<String, Result<HostPathVolumeSource, String>>,
    /// What the pod may learn about itself.
    pub node: &'a NodeView,
}

/// The files of a ConfigMap, Secret, downward API or projected volume.
///
/// # Errors
/// What the volume names and is not there, in the words of the `FailedMount` event.
pub fn files(pod: &Pod, volume: &Volume, sources: &Sources<'_>) -> Result<Files> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = bits(source.default_mode);
        let name = source.name.as_str();
        if let Some(object) = sources.objects.config_map(name, source.optional)? {
            add_config_map(&mut files, object, source.items.as_deref(), source.optional, mode)?;
        }
    } else if let Some(source) = &volume.secret {
        let mode = bits(source.default_mode);
        let name = source.secret_name.as_deref().unwrap_or_default();
        if let Some(object) = sources.objects.secret(name, source.optional)? {
            add_secret(&mut files, object, source.items.as_deref(), source.optional, mode)?;
        }
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        add_downward(&mut files, pod, items, sources.node, bits(source.default_mode))?;
    } else if let Some(source) = &volume.projected {
        let mode = bits(source.default_mode);
        let mut failures = Vec::new();
        for (index, projection) in source.sources.iter().flatten().enumerate() {
            let place = (volume.name.clone(), index);
            failures.extend(add_projection(&mut files, pod, &place, projection, sources, mode).err());
        }
        if let Some(failure) = aggregate(failures) {
            return Err(failure);
        }
    } else {
        return Err(Error::InvalidPod(format!("no volume plugin matched volume {}", volume.name)));
    }
    Ok(files)
}

/// Several failures as one, as Kubernetes joins them (`apimachinery/pkg/util/errors`, `NewAggregate`).
fn aggregate(mut failures: Vec<Error>) -> Option<Error> {
    if failures.len() < 2 {
        return failures.pop();
    }
    let mut words: Vec<String> = Vec::new();
    for failure in failures {
        let failure = failure.to_string();
        if !words.contains(&failure) {
            words.push(failure);
        }
    }
    Some(Error::MissingObject(format!("[{}]", words.join(", "))))
}

fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE)
}

fn add_projection(
    files: &mut Files,
    pod: &Pod,
    place: &Place,
    projection: &VolumeProjection,
    sources: &Sources<'_>,
    mode: u32,
) -> Result<()> {
    if let Some(source) = &projection.config_map
        && let Some(object) = sources.objects.config_map(&source.name, source.optional)?
    {
        add_config_map(files, object, source.items.as_deref(), source.optional, mode)?;
    }
    if let Some(source) = &projection.secret
        && let Some(object) = sources.objects.secret(&source.name, source.optional)?
    {
        add_secret(files, object, source.items.as_deref(), source.optional, mode)?;
    }
    if let Some(source) = &projection.downward_api {
        add_downward(files, pod, source.items.as_deref().unwrap_or_default(), sources.node, mode)?;
    }
    if let Some(source) = &projection.cluster_trust_bundle {
        let data = trust_anchors(sources.objects.trust_bundles.as_deref(), source)?.into_bytes();
        files.insert(source.path.clone(), File { data, mode });
    }
    if let Some(source) = &projection.pod_certificate {
        let missing = || Err("credential bundle is not issued yet".to_owned());
        let credentials = sources.certificates.get(place).cloned().unwrap_or_else(missing);
        let Credentials { key, chain } = credentials.map_err(Error::MissingObject)?;
        for (path, data) in [
            (&source.credential_bundle_path, format!("{key}{chain}")),
            (&source.key_path, key),
            (&source.certificate_chain_path, chain),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_empty()) {
                files.insert(path.clone(), File { data: data.into_bytes(), mode });
            }
        }
    }
    if let Some(source) = &projection.service_account_token {
        let key = (place.0.clone(), source.path.clone());
        let token = match sources.tokens.get(&key) {
            Some(Ok(token)) => token,
            Some(Err(why)) => {
                return Err(Error::MissingObject(format!("failed to fetch token: {why}")));
            }
            None => {
                return Err(Error::MissingObject("failed to fetch token: none was requested".to_owned()));
            }
        };
        files.insert(source.path.clone(), File { data: token.clone().into_bytes(), mode });
    }
    Ok(())
}

fn add_config_map(
    files: &mut Files,
    object: &ConfigMap,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<()> {
    let text = object.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    let missing = |key: &str| format!("configmap references non-existent config key: {key}");
    add_data(files, text.chain(binary).collect(), items, optional, mode, missing)
}

fn add_secret(
    files: &mut Files,
    object: &Secret,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<()> {
    let data = object.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    let missing = |key: &str| format!("references non-existent secret key: {key}");
    add_data(files, data, items, optional, mode, missing)
}

fn add_data(
    files: &mut Files,
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    missing: impl Fn(&str) -> String,
) -> Result<()> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        files.extend(data.into_iter().map(|(key, data)| (key, File { data, mode })));
        return Ok(());
    }
    for item in items {
        match data.get_mut(&item.key) {
            Some(content) => {
                let mode = item.mode.map_or(mode, |mode| bits(Some(mode)));
                files.insert(item.path.clone(), File { data: content.clone(), mode });
            }
            None if optional == Some(true) => {}
            None => return Err(Error::MissingObject(missing(&item.key))),
        }
    }
    Ok(())
}

fn add_downward(
    files: &mut Files,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    node: &NodeView,
    mode: u32,
) -> Result<()> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, node)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, node)?,
            (None, None) => {
                return Err(Error::InvalidPod(format!("downwardAPI item {} refers to nothing", item.path)));
            }
        };
        let mode = item.mode.map_or(mode, |mode| bits(Some(mode)));
        files.insert(item.path.clone(), File { data: text.into_bytes(), mode });
    }
    Ok(())
}
