//! PersistentVolumes.
use serde_json::Value;

use super::claim;
use crate::quantity::Quantity;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::pod::{self, scheduling, volumes};
use crate::strategy::{Context, Subresource, edit, names, storage};

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
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "azureDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// `v1` PersistentVolume.
pub struct PersistentVolume;

impl Behavior for PersistentVolume {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        edit::default_text(spec, "volumeMode", "Filesystem");
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
        if subresource == Subresource::Status && new["status"]["phase"] != old["status"]["phase"] {
            edit::default(edit::child(new, "status"), "lastPhaseTransitionTime", Value::Null);
            if new["status"]["lastPhaseTransitionTime"] == old["status"]["lastPhaseTransitionTime"] {
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
            errors.push(capacity.not_supported(&["storage"]));
        }
        for (_, amount) in capacity.entries() {
            if amount.quantity().is_some_and(|amount| amount <= Quantity::ZERO) {
                errors.push(amount.invalid("must be greater than zero"));
            }
        }
        let policy = spec.get("persistentVolumeReclaimPolicy");
        if !["", "Delete", "Recycle", "Retain"].contains(&policy.str()) {
            errors.push(policy.not_supported(&["Delete", "Recycle", "Retain"]));
        }
        if let Some(required) = spec.get("nodeAffinity").get("required").set() {
            scheduling::validate_node_selector(&required, errors);
        }
        source(&spec, errors);
        let class = spec.get("storageClassName");
        if !class.is_empty() {
            class.check(names::dns1123_subdomain(class.str()), errors);
        }
        let mode = spec.get("volumeMode");
        if mode.is_set() && !["Block", "Filesystem"].contains(&mode.str()) {
            errors.push(mode.not_supported(&["Block", "Filesystem"]));
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
        let policy = object.get("spec").get("persistentVolumeReclaimPolicy");
        if policy.str() == "Recycle" {
            warnings.push(format!(
                "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                policy.path()
            ));
        }
    }
}

fn source(spec: &Field<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in SOURCES {
        let Some(source) = spec.get(kind).set() else {
            continue;
        };
        if found {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        match *kind {
            "hostPath" => {
                volumes::host_path(&source, errors);
                let root = source.get("path").str().trim_matches('/').is_empty() && !source.get("path").is_empty();
                if root && spec.get("persistentVolumeReclaimPolicy").str() == "Recycle" {
                    errors.push(
                        spec.get("persistentVolumeReclaimPolicy")
                            .forbidden("may not be 'recycle' for a hostPath mount of '/'"),
                    );
                }
            }
            "local" => {
                volumes::required(&source, &["path"], errors);
                if !spec.get("nodeAffinity").get("required").is_set() {
                    errors.push(
                        spec.with(spec.value()).get("nodeAffinity").required("Local volume requires node affinity"),
                    );
                }
            }
            "csi" => {
                storage::driver_name(&source.get("driver"), errors);
                volumes::required(&source, &["volumeHandle"], errors);
            }
            _ => storage::network_source(kind, &source, errors),
        }
    }
    if !found {
        errors.push(spec.required("must specify a volume type"));
    }
}
