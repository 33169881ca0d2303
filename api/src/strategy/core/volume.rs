//! PersistentVolumes.
use serde_json::Value;

use super::claim;
use crate::quantity::Quantity;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::pod::{self, scheduling, volumes};
use crate::strategy::volume_source::{self, Owner};
use crate::strategy::{Context, Subresource, edit, names};

const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Sources of which creation warns, in the order in which Kubernetes does.
const DEPRECATED_SOURCES: &[&str] = &["cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"];

/// `v1` PersistentVolume.
pub struct PersistentVolume;

impl Behavior for PersistentVolume {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        edit::default(spec, "volumeMode", "Filesystem");
        if let Some(host_path) = edit::member(spec, "hostPath") {
            edit::default(host_path, "type", "");
        }
        pod::set_network_volume_defaults(spec);
        edit::default_text(edit::child(object, "status"), "phase", "Pending");
    }

    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        let status = edit::child(object, "status");
        edit::set(status, "phase", "Pending");
        edit::set(status, "lastPhaseTransitionTime", pod::seconds(context.now));
    }

    fn prepare_for_update(&self, context: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status && new["status"]["phase"] == old["status"]["phase"] {
            if new["status"]["lastPhaseTransitionTime"].is_null() {
                edit::keep(edit::child(new, "status"), &old["status"], "lastPhaseTransitionTime");
            }
        } else if subresource == Subresource::Status {
            edit::default(edit::child(new, "status"), "lastPhaseTransitionTime", Value::Null);
            let at = &new["status"]["lastPhaseTransitionTime"];
            if at.is_null() || *at == old["status"]["lastPhaseTransitionTime"] {
                edit::set(edit::child(new, "status"), "lastPhaseTransitionTime", pod::seconds(context.now));
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let (modes, capacity) = (spec.get("accessModes"), spec.get("capacity"));
        if modes.is_empty() {
            errors.push(modes.required(""));
        }
        claim::access_modes(&modes, errors);
        if capacity.is_empty() {
            errors.push(capacity.required(""));
        }
        if !capacity.key("storage").is_set() || capacity.len() > 1 {
            errors.push(capacity.not_supported_as(capacity.value().clone(), &["storage"]));
        }
        for (_, amount) in capacity.entries() {
            if amount.quantity().is_some_and(|amount| amount < Quantity::ZERO) {
                errors.push(amount.invalid("must be a valid resource quantity"));
            }
            if amount.quantity().is_some_and(|amount| amount <= Quantity::ZERO) {
                errors.push(amount.invalid("must be greater than zero"));
            }
        }
        let policy = spec.get("persistentVolumeReclaimPolicy");
        if !["", "Delete", "Recycle", "Retain"].contains(&policy.str()) {
            errors.push(policy.not_supported(&["Delete", "Recycle", "Retain"]));
        }
        if let Some(affinity) = spec.get("nodeAffinity").set() {
            match affinity.get("required").set() {
                Some(required) => scheduling::validate_node_selector(&required, errors),
                None => errors.push(affinity.get("required").required("must specify required node constraints")),
            }
        }
        source(&spec, object.get("metadata").get("name").str(), errors);
        let class = spec.get("storageClassName");
        if !class.is_empty() {
            class.check(names::dns1123_subdomain(class.str()), errors);
        }
        let mode = spec.get("volumeMode");
        if mode.is_set() && !["Block", "Filesystem"].contains(&mode.str()) {
            errors.push(mode.not_supported(&["Block", "Filesystem"]));
        }
        if let Some(class) = spec.get("volumeAttributesClassName").set() {
            if class.is_empty() {
                errors.push(class.required("an empty string is disallowed"));
            } else {
                class.check(names::dns1123_subdomain(class.str()), errors);
            }
            if !spec.get("csi").is_set() {
                errors.push(spec.get("csi").required("has to be specified when using volumeAttributesClassName"));
            }
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            return;
        }
        self.validate(new, errors);
        let (spec, before) = (new.get("spec"), old.get("spec"));
        let changed = SOURCES.iter().any(|name| *name != "csi" && spec.get(name).value() != before.get(name).value());
        if changed {
            errors.push(
                spec.get("persistentvolumesource").forbidden("spec.persistentvolumesource is immutable after creation"),
            );
        }
        spec.get("volumeMode").immutable(&before.get("volumeMode"), errors);
        if before.get("nodeAffinity").is_set() {
            spec.get("nodeAffinity").immutable(&before.get("nodeAffinity"), errors);
        }
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        claim::storage_class_annotation(object, warnings);
        let annotations = object.get("metadata").get("annotations");
        if let Some(options) = annotations.key("volume.beta.kubernetes.io/mount-options").set() {
            warnings
                .push(format!("{}: deprecated since v1.31; use \"mountOptions\" attribute instead", options.path()));
        }
        let policy = object.get("spec").get("persistentVolumeReclaimPolicy");
        if policy.str() == "Recycle" {
            warnings.push(format!(
                "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                policy.path()
            ));
        }
        let required = object.get("spec").get("nodeAffinity").get("required");
        pod::node_selector_warnings(&required.get("nodeSelectorTerms"), warnings);
        pod::deprecated_volume_warnings(&object.get("spec"), DEPRECATED_SOURCES, warnings);
    }
}

fn source(spec: &Field<'_>, name: &str, errors: &mut Errors) {
    let owner = Owner::PersistentVolume(name);
    let mut found = false;
    for kind in SOURCES {
        if !spec.get(kind).is_set() {
            continue;
        }
        // A second source is refused, but for flexVolume, at which Kubernetes does not look back.
        if found && *kind != "flexVolume" {
            let refused = spec.shown_as(kind, volume_source::refused_as(kind, owner));
            errors.push(refused.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        let source = spec.shown_as(kind, volume_source::reported_as(kind));
        match *kind {
            "hostPath" => volumes::host_path(&source, errors),
            "local" => {
                volumes::required(&source, &["path"], errors);
                volumes::no_backsteps(&source.get("path"), errors);
                if !spec.get("nodeAffinity").get("required").is_set() {
                    errors.push(spec.get("nodeAffinity").required("Local volume requires node affinity"));
                }
            }
            _ => volume_source::validate(kind, &source, owner, errors),
        }
    }
    if !found {
        errors.push(spec.required("must specify a volume type"));
    }
    let (path, policy) = (spec.get("hostPath").get("path").str(), spec.get("persistentVolumeReclaimPolicy"));
    let root = path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".");
    if root && policy.str() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
}
