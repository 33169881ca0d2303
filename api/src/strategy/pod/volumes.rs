//! Volumes and their sources. Mirrors `ValidateVolumes` and `validateVolumeSource` of
//! `pkg/apis/core/validation/validation.go`.
use crate::quantity::Quantity;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{names, storage};

/// Fields of a pod that an environment variable may show.
pub const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a downward API volume may show.
const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields of a pod that have a downward API name at all.
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const CONTAINER_RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Volume sources in the order in which Kubernetes looks at them: the second one found is the one refused.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// What is wrong with a pod's volumes.
pub fn validate(volumes: &Field<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for volume in volumes.items() {
        validate_source(&volume, errors);
        let name = volume.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        let complaints = names::dns1123_label(name.str());
        if !complaints.is_empty() {
            name.check(complaints, errors);
        } else if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            seen.push(name.str());
        }
    }
}

fn validate_source(volume: &Field<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in SOURCES {
        let Some(source) = volume.get(kind).set() else {
            continue;
        };
        if found {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        match *kind {
            "emptyDir" => empty_dir(&source, errors),
            "hostPath" => host_path(&source, errors),
            "gitRepo" => {
                required(&source, &["repository"], errors);
                descending_path(&source.get("directory"), errors);
            }
            "secret" => {
                required(&source, &["secretName"], errors);
                keyed_files(&source, errors);
            }
            "configMap" => {
                required(&source, &["name"], errors);
                keyed_files(&source, errors);
            }
            "persistentVolumeClaim" => required(&source, &["claimName"], errors),
            "downwardAPI" => {
                file_mode(&source.get("defaultMode"), errors);
                source.get("items").items().for_each(|file| downward_file(&file, errors));
            }
            "projected" => projected(&source, errors),
            "csi" => {
                let driver = source.get("driver");
                storage::driver_name(&driver, errors);
                if let Some(secret) = source.get("nodePublishSecretRef").set() {
                    required(&secret, &["name"], errors);
                }
            }
            "ephemeral" => ephemeral(&source, errors),
            "image" => {
                required(&source, &["reference"], errors);
                source.get("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
            }
            _ => storage::network_source(kind, &source, errors),
        }
    }
    if !found {
        errors.push(volume.required("must specify a volume type"));
    }
}

/// `Required value` for each of these members that is missing.
pub fn required(source: &Field<'_>, members: &[&'static str], errors: &mut Errors) {
    for name in members {
        if source.get(name).is_empty() {
            errors.push(source.get(name).required(""));
        }
    }
}

fn empty_dir(source: &Field<'_>, errors: &mut Errors) {
    if source.get("sizeLimit").quantity().is_some_and(|limit| limit < Quantity::ZERO) {
        errors.push(source.get("sizeLimit").forbidden("SizeLimit field must be a valid resource quantity"));
    }
}

/// A directory or file of the node, as pods and persistent volumes have it.
pub fn host_path(source: &Field<'_>, errors: &mut Errors) {
    let path = source.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    no_backsteps(&path, errors);
    let kind = source.get("type");
    if kind.is_set() && !HOST_PATH_TYPES.contains(&kind.str()) {
        errors.push(kind.not_supported(HOST_PATH_TYPES));
    }
}

fn no_backsteps(path: &Field<'_>, errors: &mut Errors) {
    if path.str().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// A relative path that stays inside.
pub fn descending_path(path: &Field<'_>, errors: &mut Errors) {
    if path.str().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_backsteps(path, errors);
}

/// The same, and not one of the `..` names that atomic volume updates use.
fn file_path(path: &Field<'_>, errors: &mut Errors) {
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    descending_path(path, errors);
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

fn file_mode(mode: &Field<'_>, errors: &mut Errors) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        errors.push(mode.invalid(FILE_MODE));
    }
}

fn keyed_files(source: &Field<'_>, errors: &mut Errors) {
    file_mode(&source.get("defaultMode"), errors);
    for file in source.get("items").items() {
        if file.get("key").is_empty() {
            errors.push(file.get("key").required(""));
        }
        file_path(&file.get("path"), errors);
        file_mode(&file.get("mode"), errors);
    }
}

fn downward_file(file: &Field<'_>, errors: &mut Errors) {
    file_path(&file.get("path"), errors);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    match (field.set(), resource.set()) {
        (Some(field), other) => {
            field_selector(&field, VOLUME_FIELDS, errors);
            if other.is_some() {
                errors.push(
                    file.invalid_as("resource", "fieldRef and resourceFieldRef can not be specified simultaneously"),
                );
            }
        }
        (None, Some(resource)) => resource_field_selector(&resource, true, errors),
        (None, None) => errors.push(file.required("one of fieldRef and resourceFieldRef is required")),
    }
    file_mode(&file.get("mode"), errors);
}

/// A field of the pod, of those that may be shown here.
pub fn field_selector(source: &Field<'_>, supported: &[&str], errors: &mut Errors) {
    let (version, path) = (source.get("apiVersion"), source.get("fieldPath"));
    if version.is_empty() {
        errors.push(version.required(""));
        return;
    }
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let text = path.str();
    let subscript = text.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let known = match subscript {
        _ if version.str() != "v1" => Err(format!("unsupported pod version: {}", version.str())),
        Some(("metadata.annotations" | "metadata.labels", _)) => Ok(()),
        Some(_) => Err(format!("field label does not support subscript: {text}")),
        None if DOWNWARD_FIELDS.contains(&text) => Ok(()),
        None => Err(format!("field label not supported: {text}")),
    };
    match (known, subscript) {
        (Err(why), _) => errors.push(path.invalid(format!("error converting fieldPath: {why}"))),
        (Ok(()), Some(("metadata.annotations", key))) => {
            let complaints = names::qualified_name(&key.to_lowercase());
            errors.extend(complaints.into_iter().map(|complaint| source.invalid_as(key, complaint)));
        }
        (Ok(()), Some((_, key))) => {
            let complaints = names::qualified_name(key);
            errors.extend(complaints.into_iter().map(|complaint| source.invalid_as(key, complaint)));
        }
        (Ok(()), None) if !supported.contains(&text) => errors.push(path.not_supported(supported)),
        (Ok(()), None) => {}
    }
}

/// A container's request or limit; a volume must say of which container.
pub fn resource_field_selector(source: &Field<'_>, in_volume: bool, errors: &mut Errors) {
    let (container, resource) = (source.get("containerName"), source.get("resource"));
    let name = resource.str();
    if in_volume && container.is_empty() {
        errors.push(container.required(""));
    } else if name.is_empty() {
        errors.push(resource.required(""));
    } else if !CONTAINER_RESOURCES.contains(&name)
        && !name.starts_with("limits.hugepages-")
        && !name.starts_with("requests.hugepages-")
    {
        errors.push(resource.not_supported(CONTAINER_RESOURCES));
    }
    let divisor = source.get("divisor");
    let text = divisor.str();
    let allowed = match name.rsplit('.').next() {
        Some("cpu") => ["", "0", "1m", "1"].contains(&text),
        _ => {
            ["", "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"].contains(&text)
        }
    };
    if !allowed {
        let detail = match name.rsplit('.').next() {
            Some("cpu") => "only divisor's values 1m and 1 are supported with the cpu resource",
            _ => {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
            }
        };
        errors.push(divisor.invalid_as(name, detail));
    }
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    file_mode(&source.get("defaultMode"), errors);
    let mut paths: Vec<String> = Vec::new();
    for part in source.get("sources").items() {
        let mut found = false;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let Some(projection) = part.get(kind).set() else {
                continue;
            };
            if found {
                errors.push(projection.forbidden("may not specify more than 1 volume type per source"));
                continue;
            }
            found = true;
            match kind {
                "secret" | "configMap" => {
                    required(&projection, &["name"], errors);
                    keyed_files(&projection, errors);
                }
                "downwardAPI" => projection.get("items").items().for_each(|file| downward_file(&file, errors)),
                "serviceAccountToken" => token_projection(&projection, errors),
                "clusterTrustBundle" => trust_bundle_projection(&projection, errors),
                _ => required(&projection, &["signerName", "keyType"], errors),
            }
            conflicting_paths(source, &projection, &mut paths, errors);
        }
        if !found {
            errors.push(part.required("must specify one volume source"));
        }
    }
}

fn token_projection(token: &Field<'_>, errors: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    let value = seconds.int().unwrap_or(0);
    if value < TOKEN_SECONDS_MIN {
        errors.push(seconds.invalid_as(value, "may not specify a duration less than 10 minutes"));
    } else if value > TOKEN_SECONDS_MAX {
        errors.push(seconds.invalid_as(value, "may not specify a duration larger than 2^32 seconds"));
    }
    file_path(&token.get("path"), errors);
}

fn trust_bundle_projection(bundle: &Field<'_>, errors: &mut Errors) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => errors.push(bundle.invalid("only one of name and signerName may be used")),
        (false, false) => errors.push(bundle.required("either name or signerName must be specified")),
        _ => {}
    }
    file_path(&bundle.get("path"), errors);
}

/// Two sources of a projected volume must not write one file.
fn conflicting_paths(volume: &Field<'_>, projection: &Field<'_>, seen: &mut Vec<String>, errors: &mut Errors) {
    let items = projection.get("items").items().map(|file| file.get("path"));
    for path in items.chain(projection.get("path").set()) {
        if path.is_empty() {
            continue;
        }
        if seen.iter().any(|other| other == path.str()) {
            errors.push(volume.invalid_as(path.str(), "conflicting duplicate paths"));
        } else {
            seen.push(path.str().to_owned());
        }
    }
}

fn ephemeral(source: &Field<'_>, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.is_set() {
        crate::strategy::core::claim::validate_spec(&template.get("spec"), errors);
    } else {
        errors.push(template.required(""));
    }
}
