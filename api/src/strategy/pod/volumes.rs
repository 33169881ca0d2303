//! Volumes and their sources. Mirrors `ValidateVolumes` and `validateVolumeSource` of
//! `pkg/apis/core/validation/validation.go`.
use std::collections::{BTreeMap, BTreeSet};

use crate::quantity::Quantity;
use crate::strategy::field::{Errors, Field};
use crate::strategy::volume_source::{self, Owner};
use crate::strategy::{certificates, labels, names};

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
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
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

/// What is wrong with a pod's volumes. Gives the names of those that are sound, and whether each is a claim (which a
/// container may also mount as a block device). `pod` is the pod's name, empty in a template.
pub fn validate<'a>(volumes: &Field<'a>, pod: &str, errors: &mut Errors) -> BTreeMap<&'a str, bool> {
    let created: BTreeSet<String> = volumes
        .items()
        .filter(|volume| !pod.is_empty() && volume.get("ephemeral").is_set())
        .map(|volume| format!("{pod}-{}", volume.get("name").str()))
        .collect();
    let mut sound = BTreeMap::new();
    for volume in volumes.items() {
        let mut found = Errors::new();
        validate_source(&volume, pod, &mut found);
        let name = volume.get("name");
        if name.is_empty() {
            found.push(name.required(""));
        } else {
            name.check(names::dns1123_label(name.str()), &mut found);
        }
        if sound.contains_key(name.str()) {
            found.push(name.duplicate());
        }
        let claim = volume.get("persistentVolumeClaim");
        if found.is_empty() {
            sound.insert(name.str(), claim.is_set() || volume.get("ephemeral").is_set());
        }
        errors.extend(found);
        if created.contains(claim.get("claimName").str()) {
            errors.push(
                claim.get("claimName").invalid("must not reference a PVC that gets created for an ephemeral volume"),
            );
        }
    }
    sound
}

fn validate_source(volume: &Field<'_>, pod: &str, errors: &mut Errors) {
    let owner = Owner::Pod(volume.get("name").str());
    let mut found = false;
    for kind in SOURCES {
        if !volume.get(kind).is_set() {
            continue;
        }
        if found {
            let refused = volume.shown_as(kind, volume_source::refused_as(kind, owner));
            errors.push(refused.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        let source = volume.shown_as(kind, volume_source::reported_as(kind));
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
                // Files are reported at the source: the path names no item.
                let items = source.get("items");
                items.items().for_each(|file| downward_file(&source.with(file.value()), errors));
            }
            "projected" => projected(&source, errors),
            "ephemeral" => ephemeral(volume, &source, pod, errors),
            "image" => {
                required(&source, &["reference"], errors);
                source.get("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
            }
            _ => volume_source::validate(kind, &source, owner, errors),
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

/// A path without `..` in it.
pub fn no_backsteps(path: &Field<'_>, errors: &mut Errors) {
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
    }
    non_reserved_path(path, errors);
}

/// The same where it need not be given.
fn non_reserved_path(path: &Field<'_>, errors: &mut Errors) {
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
    source.get("items").items().for_each(|file| keyed_file(&file, errors));
}

fn keyed_file(file: &Field<'_>, errors: &mut Errors) {
    required(file, &["key"], errors);
    file_path(&file.get("path"), errors);
    file_mode(&file.get("mode"), errors);
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
    divisor_of(source, errors);
}

/// The unit in which a request or limit is shown.
fn divisor_of(source: &Field<'_>, errors: &mut Errors) {
    const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (divisor, name) = (source.get("divisor"), source.get("resource").str());
    if divisor.quantity().is_none_or(|quantity| quantity == Quantity::ZERO) {
        return;
    }
    let Some(("limits" | "requests", resource)) = name.split_once('.') else {
        return;
    };
    let (allowed, what): (&[&str], &str) = match resource {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        _ if resource.starts_with("hugepages-") => (BYTES, "hugepages"),
        _ => return,
    };
    let text = divisor.quantity().map(|quantity| quantity.to_string()).unwrap_or_default();
    if !allowed.contains(&text.as_str()) {
        let list = allowed.join(if resource == "cpu" { " and " } else { ", " });
        errors.push(
            divisor.invalid_as(name, format!("only divisor's values {list} are supported with the {what} resource")),
        );
    }
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    file_mode(&source.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for part in source.get("sources").items() {
        let mut count = 0;
        for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
            let Some(projection) = part.get(kind).set() else {
                continue;
            };
            count += 1;
            match kind {
                "secret" | "configMap" => {
                    required(&projection, &["name"], errors);
                    for file in projection.get("items").items() {
                        keyed_file(&file, errors);
                        let shown = projection.get("name").str();
                        unique_path(source, file.get("path").str(), shown, &mut paths, errors);
                    }
                }
                "downwardAPI" => {
                    for file in projection.get("items").items() {
                        downward_file(&projection.with(file.value()), errors);
                        let path = file.get("path").str();
                        unique_path(source, path, path, &mut paths, errors);
                    }
                }
                "serviceAccountToken" => token_projection(source, &projection, errors),
                _ => {
                    trust_bundle_projection(&projection, errors);
                    let path = projection.get("path").str();
                    unique_path(source, path, path, &mut paths, errors);
                }
            }
        }
        if let Some(certificate) = part.get("podCertificate").set() {
            count += 1;
            pod_certificate(source, &certificate, &mut paths, errors);
        }
        if count > 1 {
            errors.push(part.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn token_projection(volume: &Field<'_>, token: &Field<'_>, errors: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    let value = seconds.int().unwrap_or(0);
    if value < TOKEN_SECONDS_MIN {
        errors.push(seconds.invalid_as(value, "may not specify a duration less than 10 minutes"));
    } else if value > TOKEN_SECONDS_MAX {
        errors.push(seconds.invalid_as(value, "may not specify a duration larger than 2^32 seconds"));
    }
    // The path is reported at the volume, not at the token.
    file_path(&volume.get("path").with(token.get("path").value()), errors);
}

fn trust_bundle_projection(bundle: &Field<'_>, errors: &mut Errors) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => errors.push(bundle.invalid("only one of name and signerName may be used")),
        (true, false) => {
            if name.is_empty() {
                errors.push(name.required("must be a valid object name"));
            }
            let complaints = names::dns1123_subdomain(name.str().rsplit(':').next().unwrap_or(""));
            errors.extend(
                complaints.into_iter().map(|why| name.invalid(format!("not a valid clustertrustbundlename: {why}"))),
            );
            let selector = bundle.get("labelSelector");
            if selector.is_set() {
                errors.push(selector.invalid("labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            if signer.is_empty() {
                errors.push(signer.required("must be a valid signer name"));
            }
            certificates::signer_name(&signer, errors);
            labels::validate_selector(&bundle.get("labelSelector"), errors);
        }
        (false, false) => errors.push(bundle.required("either name or signerName must be specified")),
    }
    file_path(&bundle.get("path"), errors);
}

fn pod_certificate<'a>(
    volume: &Field<'_>,
    certificate: &Field<'a>,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    const SECONDS_MIN: i64 = 3600;
    const SECONDS_MAX: i64 = 91 * 24 * 3600;
    const KUBERNETES_SECONDS_MAX: i64 = 24 * 3600;
    let (signer, key) = (certificate.get("signerName"), certificate.get("keyType"));
    certificates::signer_name(&signer, errors);
    if !KEY_TYPES.contains(&key.str()) {
        errors.push(key.not_supported(KEY_TYPES));
    }
    let seconds = certificate.get("maxExpirationSeconds");
    let ours = signer.str().starts_with("kubernetes.io/");
    let most = if ours { KUBERNETES_SECONDS_MAX } else { SECONDS_MAX };
    if seconds.int().is_some_and(|value| value < SECONDS_MIN) {
        errors.push(seconds.invalid(format!("if provided, maxExpirationSeconds must be >= {SECONDS_MIN}")));
    }
    if seconds.int().is_some_and(|value| value > most) {
        errors.push(seconds.invalid(format!("if provided, maxExpirationSeconds must be <= {most}")));
    }
    let mut given = 0;
    for member in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.get(member);
        if !path.is_empty() {
            given += 1;
            non_reserved_path(&path, errors);
            unique_path(volume, path.str(), path.str(), paths, errors);
        }
    }
    if given == 0 {
        errors.push(
            certificate.required("specify at least one of credentialBundlePath, keyPath, and certificateChainPath"),
        );
    }
}

/// Two sources of a projected volume must not write one file.
fn unique_path<'a>(volume: &Field<'_>, path: &'a str, shown: &str, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    if !path.is_empty() && !seen.insert(path) {
        errors.push(volume.invalid_as(shown, "conflicting duplicate paths"));
    }
}

fn ephemeral(volume: &Field<'_>, source: &Field<'_>, pod: &str, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.is_set() {
        crate::strategy::core::claim::validate_template(&template, errors);
    } else {
        errors.push(template.required(""));
    }
    let name = volume.get("name");
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{}", name.str());
        for why in names::dns1123_subdomain(&claim) {
            errors.push(name.invalid(format!("PVC name {claim:?}: {why}")));
        }
    }
}
