//! Volume sources that pods and persistent volumes share, each with what it may lack.
//! Mirrors the `validate…VolumeSource` functions of `pkg/apis/core/validation/validation.go`.
use std::sync::LazyLock;

use regex::Regex;

use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{names, storage};

const NUMBER_MAX: i64 = 255;
const TENANT_MAX: usize = 64;
const ISCSI_PORTAL_MAX: usize = 64;
const HOST_PORT: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Forms of an iSCSI name, by its prefix.
static ISCSI_NAMES: LazyLock<[(&str, Regex); 3]> = LazyLock::new(|| {
    [
        ("iqn", r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\t\n\f\r ]+)$"),
        ("eui", r"^eui.[[:alnum:]]{16}$"),
        ("naa", r"^naa.[[:alnum:]]{32}$"),
    ]
    .map(|(prefix, form)| (prefix, Regex::new(form).expect("a constant pattern")))
});

/// Whose volume it is: a persistent volume's references name a namespace too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A pod's, with the name of the volume in it.
    Pod(&'a str),
    /// A persistent volume's, with its name.
    PersistentVolume(&'a str),
}

/// The name under which a second source is refused.
pub fn refused_as(kind: &'static str, owner: Owner<'_>) -> &'static str {
    match (kind, owner) {
        ("cephfs", _) => "cephFS",
        ("downwardAPI", Owner::Pod(_)) => "downwarAPI",
        _ => kind,
    }
}

/// The name under which what is wrong inside a source is reported.
pub fn reported_as(kind: &'static str) -> &'static str {
    if kind == "gcePersistentDisk" { "persistentDisk" } else { kind }
}

/// What is wrong with a network volume source.
pub fn validate(kind: &str, source: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    let persistent = matches!(owner, Owner::PersistentVolume(_));
    let members: &[&'static str] = match kind {
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "nfs" => &["server", "path"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["monitors", "image"],
        "cephfs" => &["monitors"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "azureDisk" => &["diskName", "diskURI"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "flexVolume" => &["driver"],
        _ => &[],
    };
    required(source, members, errors);
    match kind {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = source.get("partition");
            if partition.int().is_some_and(|number| !(0..=NUMBER_MAX).contains(&number)) {
                errors.push(partition.invalid(names::out_of_range(1, NUMBER_MAX)));
            }
        }
        "nfs" if !source.get("path").str().starts_with('/') => {
            errors.push(source.get("path").invalid("must be an absolute path"));
        }
        "glusterfs" if persistent => endpoints_namespace(&source.get("endpointsNamespace"), errors),
        "iscsi" => iscsi(source, owner, errors),
        "fc" => fibre_channel(source, errors),
        "flocker" => flocker(source, errors),
        "quobyte" => quobyte(source, errors),
        "cinder" => secret_ref(source, persistent, errors),
        "flexVolume" => {
            for (key, option) in source.get("options").entries() {
                let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    errors.push(option.invalid_as(key, "kubernetes.io and k8s.io namespaces are reserved"));
                }
            }
        }
        "azureFile" if persistent => {
            let namespace = source.get("secretNamespace");
            if namespace.is_set() && namespace.is_empty() {
                errors.push(namespace.required(""));
            }
        }
        "azureDisk" => azure_disk(source, errors),
        "storageos" => {
            let (name, namespace) = (source.get("volumeName"), source.get("volumeNamespace"));
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                name.check(names::dns1123_label(name.str()), errors);
            }
            if !namespace.is_empty() {
                namespace.check(names::dns1123_label(namespace.str()), errors);
            }
            secret_ref(source, persistent, errors);
        }
        "csi" if persistent => persistent_csi(source, errors),
        "csi" => {
            storage::driver_name(&source.get("driver"), errors);
            if let Some(secret) = source.get("nodePublishSecretRef").set() {
                let name = secret.get("name");
                if name.is_empty() {
                    errors.push(name.required(""));
                } else {
                    source.get("name").with(name.value()).check(names::dns1123_subdomain(name.str()), errors);
                }
            }
        }
        _ => {}
    }
}

fn secret_ref(source: &Field<'_>, persistent: bool, errors: &mut Errors) {
    if let Some(secret) = source.get("secretRef").set() {
        required(&secret, if persistent { &["name", "namespace"] } else { &["name"] }, errors);
    }
}

fn endpoints_namespace(namespace: &Field<'_>, errors: &mut Errors) {
    if namespace.is_set() && namespace.is_empty() {
        errors.push(namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name"));
    } else if namespace.is_set() {
        namespace.check(names::dns1123_label(namespace.str()), errors);
    }
}

fn iscsi(source: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    let (portal, target, initiator) = (source.get("targetPortal"), source.get("iqn"), source.get("initiatorName"));
    required(source, &["targetPortal"], errors);
    let persistent = matches!(owner, Owner::PersistentVolume(_));
    let (Owner::Pod(name) | Owner::PersistentVolume(name)) = owner;
    let too_long = initiator.is_set() && name.len() + 1 + portal.len() > ISCSI_PORTAL_MAX;
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    if too_long && persistent {
        errors.push(source.shown_as("targetPortal", "targetportal").invalid(TOO_LONG));
    }
    if target.is_empty() {
        errors.push(target.required(""));
    } else {
        iscsi_name(&target, persistent, errors);
    }
    let lun = source.get("lun");
    if !(0..=NUMBER_MAX).contains(&lun.int().unwrap_or(0)) {
        errors.push(lun.invalid(names::out_of_range(0, NUMBER_MAX)));
    }
    let secret = source.get("secretRef");
    if (source.get("chapAuthDiscovery").bool() || source.get("chapAuthSession").bool()) && !secret.is_set() {
        errors.push(secret.required(""));
    }
    if persistent && secret.is_set() {
        required(&secret, &["name"], errors);
    }
    if initiator.is_set() {
        iscsi_name(&source.shown_as("initiatorName", "initiatorname"), persistent, errors);
    }
}

fn iscsi_name(name: &Field<'_>, persistent: bool, errors: &mut Errors) {
    match ISCSI_NAMES.iter().find(|(prefix, _)| name.str().starts_with(prefix)) {
        Some((_, form)) if form.is_match(name.str()) => {}
        None if !persistent => errors.push(name.invalid("must be valid format starting with iqn, eui, or naa")),
        _ => errors.push(name.invalid("must be valid format")),
    }
}

fn fibre_channel(source: &Field<'_>, errors: &mut Errors) {
    let (targets, ids, lun) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => errors.push(targets.required("must specify either targetWWNs or wwids, but not both")),
        (false, false) => errors.push(targets.invalid("targetWWNs and wwids can not be specified simultaneously")),
        _ => {}
    }
    match lun.int() {
        _ if targets.is_empty() => {}
        None => errors.push(lun.required("lun is required if targetWWNs is specified")),
        Some(number) if !(0..=NUMBER_MAX).contains(&number) => {
            errors.push(lun.invalid(names::out_of_range(0, NUMBER_MAX)));
        }
        Some(_) => {}
    }
}

fn flocker(source: &Field<'_>, errors: &mut Errors) {
    let (name, id) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => errors.push(source.required("one of datasetName and datasetUUID is required")),
        (false, false) => errors
            .push(source.invalid_as("resource", "datasetName and datasetUUID can not be specified simultaneously")),
        _ => {}
    }
    if name.str().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

fn quobyte(source: &Field<'_>, errors: &mut Errors) {
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.is_empty() {
        errors.push(registry.required(HOST_PORT));
    } else if tenant.len() > TENANT_MAX {
        errors.push(tenant.required("must be a UUID and may not exceed a length of 64 characters"));
    } else {
        let malformed = registry.str().split(',').filter(|pair| !is_host_port(pair));
        errors.extend(malformed.map(|_| registry.invalid(HOST_PORT)));
    }
    required(source, &["volume"], errors);
}

/// Whether Go's `net.SplitHostPort` takes it: one colon before the port, brackets around an IPv6 address.
fn is_host_port(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once("]:")
            .is_some_and(|(host, port)| !host.contains(['[', ']']) && !port.contains([':', '[', ']'])),
        None => text
            .split_once(':')
            .is_some_and(|(host, port)| !port.contains([':', '[', ']']) && !host.contains(['[', ']'])),
    }
}

fn azure_disk(source: &Field<'_>, errors: &mut Errors) {
    for (member, supported) in
        [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])]
    {
        let field = source.get(member);
        if field.is_set() && !supported.contains(&field.str()) {
            errors.push(field.not_supported(&supported));
        }
    }
    let (kind, uri) = (source.get("kind"), source.get("diskURI"));
    if kind.str() == "Managed" && !uri.str().starts_with("/subscriptions/") {
        errors.push(uri.not_supported(&[
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ]));
    }
    if kind.is_set() && kind.str() != "Managed" && !uri.str().starts_with("https://") {
        errors.push(
            uri.not_supported(&["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"]),
        );
    }
}

fn persistent_csi(source: &Field<'_>, errors: &mut Errors) {
    storage::driver_name(&source.get("driver"), errors);
    required(source, &["volumeHandle"], errors);
    for reference in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = source.get(reference).set() else {
            continue;
        };
        for (member, check) in [
            ("name", names::dns1123_subdomain as fn(&str) -> Vec<String>),
            ("namespace", names::dns1123_label as fn(&str) -> Vec<String>),
        ] {
            let field = secret.get(member);
            if field.is_empty() {
                errors.push(field.required(""));
            } else {
                field.check(check(field.str()), errors);
            }
        }
    }
}
