//! The environment of containers: literal values, references, whole ConfigMaps and Secrets, Services, `$(VAR)`.
//!
//! (kubelet: `kubelet_pods.go`, `makeEnvironmentVariables`; `envvars/envvars.go`; `third_party/forked/golang/expansion`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service};
use minik8s_cri::{FileKind, NodeFs};

use crate::downward::{self, NodeView};
use crate::env_file;
use crate::error::{Error, Result};
use crate::spec::PodExt as _;

/// How large a file of variables may be.
const ENV_FILE_MAX_BYTES: u64 = 64 << 10;

/// The objects that the containers and volumes of a pod name, fetched beforehand. What is absent here is absent in the
/// cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The ConfigMaps of the pod's namespace.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// The Secrets of the pod's namespace.
    pub secrets: BTreeMap<String, Secret>,
    /// All ClusterTrustBundles, if the pod selects any of them and they could be read.
    pub trust_bundles: Option<Vec<Arc<ClusterTrustBundle>>>,
    /// The PodCertificateRequests of the node, if the pod needs any and they could be read.
    pub certificate_requests: Option<Vec<Arc<PodCertificateRequest>>>,
}

impl Objects {
    /// A ConfigMap that may be absent only if `optional`.
    ///
    /// # Errors
    /// `configmap "x" not found`.
    pub fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Option<&ConfigMap>> {
        match self.config_maps.get(name) {
            None if optional != Some(true) => Err(Error::MissingObject(format!("configmap \"{name}\" not found"))),
            found => Ok(found),
        }
    }

    /// A Secret that may be absent only if `optional`.
    ///
    /// # Errors
    /// `secret "x" not found`.
    pub fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<&Secret>> {
        match self.secrets.get(name) {
            None if optional != Some(true) => Err(Error::MissingObject(format!("secret \"{name}\" not found"))),
            found => Ok(found),
        }
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for one dollar, an unknown name stays as it is written.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// What variables take their values from, beside the pod itself.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The ConfigMaps and Secrets the pod names.
    pub objects: &'a Objects,
    /// The variables of Services.
    pub services: &'a BTreeMap<String, String>,
    /// What the pod may learn about itself.
    pub node: &'a NodeView,
    /// Where on the node its volumes are, by name.
    pub volumes: &'a BTreeMap<String, String>,
    /// The node's files.
    pub fs: &'a dyn NodeFs,
}

/// The environment of one container.
///
/// # Errors
/// The first reference that leads nowhere, in the words that `CreateContainerConfigError` shows.
pub fn environment(pod: &Pod, container: &Container, sources: Sources<'_>) -> Result<BTreeMap<String, String>> {
    let Sources { objects, services, .. } = sources;
    let mut result = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref
            && let Some(config_map) = objects.config_map(&reference.name, reference.optional)?
        {
            for (key, value) in config_map.data.iter().flatten() {
                result.insert(format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &source.secret_ref
            && let Some(secret) = objects.secret(&reference.name, reference.optional)?
        {
            for (key, value) in secret.data.iter().flatten() {
                result.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                // Variables declared before win over those of Services.
                let mut known = services.clone();
                known.extend(result.iter().map(|(name, value)| (name.clone(), value.clone())));
                Some(expand(value, &known))
            }
            (_, Some(source)) => referenced(pod, container, source, sources)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            result.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        result.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(result)
}

/// The value a variable refers to; none if the reference is optional and leads nowhere.
fn referenced(pod: &Pod, container: &Container, source: &EnvVarSource, sources: Sources<'_>) -> Result<Option<String>> {
    let Sources { objects, node, .. } = sources;
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, node).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), resource, node).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(config_map) = objects.config_map(&reference.name, reference.optional)? else {
            return Ok(None);
        };
        return match config_map.data.iter().flatten().find(|(key, _)| **key == reference.key) {
            Some((_, value)) => Ok(Some(value.clone())),
            None if reference.optional == Some(true) => Ok(None),
            None => Err(missing_key(&reference.key, "ConfigMap", pod, &reference.name)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = objects.secret(&reference.name, reference.optional)? else {
            return Ok(None);
        };
        return match secret.data.iter().flatten().find(|(key, _)| **key == reference.key) {
            Some((_, value)) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if reference.optional == Some(true) => Ok(None),
            None => Err(missing_key(&reference.key, "Secret", pod, &reference.name)),
        };
    }
    if let Some(reference) = &source.file_key_ref {
        return from_file(reference, sources);
    }
    Err(Error::InvalidPod("environment variable refers to nothing that is supported".to_owned()))
}

/// The value of a variable of a file in a volume. A container may have made a link of the file, to what only the node may
/// read: links are not followed.
fn from_file(reference: &FileKeySelector, sources: Sources<'_>) -> Result<Option<String>> {
    let FileKeySelector { key, volume_name, path, optional } = reference;
    let Some(volume) = sources.volumes.get(volume_name) else {
        let why = format!("cannot find the volume {volume_name:?} referenced by FileKeyRef");
        return Err(Error::InvalidPod(why));
    };
    let mut file = volume.clone();
    let mut unreadable = false;
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        file = format!("{file}/{part}");
        let kind = sources.fs.symlink_metadata(&file).map(|metadata| metadata.kind);
        unreadable |= part == ".." || !matches!(kind, Ok(FileKind::File | FileKind::Directory));
    }
    let read = || {
        let small = sources.fs.metadata(&file).ok()?.len <= ENV_FILE_MAX_BYTES;
        let data = sources.fs.read(&file).ok().filter(|_| small && !unreadable)?;
        env_file::value(&String::from_utf8_lossy(&data), key).ok()
    };
    match read() {
        None => Err(Error::InvalidPod("couldn't parse env file".to_owned())),
        Some(value) if !value.is_empty() => Ok(Some(value)),
        Some(_) if *optional == Some(true) => Ok(None),
        Some(_) => Err(Error::InvalidPod(format!("environment variable key {key:?} not found in file {file:?}"))),
    }
}

fn missing_key(key: &str, kind: &str, pod: &Pod, name: &str) -> Error {
    Error::MissingObject(format!("couldn't find key {key} in {kind} {}/{name}", pod.namespace()))
}

/// The variables by which containers find Services: of their own namespace, and the `kubernetes` Service always.
pub fn service_variables(pod: &Pod, services: &[std::sync::Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod.spec().enable_service_links != Some(false);
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_master = namespace == "default" && name == "kubernetes";
        if is_master || (links && namespace == pod.namespace()) {
            add_service(&mut variables, service, name);
        }
    }
    variables
}

fn add_service(variables: &mut BTreeMap<String, String>, service: &Service, name: &str) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
    let (Some(address), Some(first)) = (address, ports.first()) else {
        return;
    };
    let upper = name.to_uppercase().replace('-', "_");
    variables.insert(format!("{upper}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{upper}_SERVICE_PORT"), first.port.to_string());
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            variables.insert(format!("{upper}_SERVICE_PORT_{port_name}"), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{upper}_PORT"), url.clone());
        }
        let prefix = format!("{upper}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{prefix}_ADDR"), address.to_owned());
        variables.insert(prefix, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let check = |text: &str, expect: &str| assert_eq!(expand(text, &variables), expect);
        check("x$(A)y", "x1y");
        check("$$(A)", "$(A)");
        check("$(B) $A $", "$(B) $A $");
        check("$(A", "$(A");
        check("$$$(A)", "$1");
    }

    #[test]
    fn services_become_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        }))
        .unwrap();
        let pod = Pod::default();
        let variables = service_variables(&pod, &[std::sync::Arc::new(service)]);
        assert_eq!(variables["MY_DB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(variables["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(variables["MY_DB_PORT_5432_TCP"], "tcp://10.96.0.7:5432");
        assert_eq!(variables.len(), 8);
    }
}
