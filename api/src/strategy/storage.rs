//! Storage classes, CSI objects and attachments.
//! Mirrors `pkg/apis/storage/{v1/defaults.go,validation/validation.go}`.
use serde_json::Value;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, labels, names};

const DRIVER_NAME_MAX: usize = 63;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

/// The name of a CSI driver.
pub fn driver_name(driver: &Field<'_>, errors: &mut Errors) {
    if driver.is_empty() {
        errors.push(driver.required(""));
        return;
    }
    if driver.len() > DRIVER_NAME_MAX {
        errors.push(driver.too_long(DRIVER_NAME_MAX));
    }
    driver.check(names::dns1123_subdomain(&driver.str().to_lowercase()), errors);
}

fn parameters(parameters: &Field<'_>, errors: &mut Errors) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(parameters.too_long(PARAMETERS_MAX));
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(parameters.invalid_as(key, "field can not be empty."));
        }
        bytes += key.len() + value.len();
    }
    if bytes > PARAMETERS_MAX_BYTES {
        errors.push(parameters.too_long(PARAMETERS_MAX_BYTES));
    }
}

/// `storage.k8s.io/v1` StorageClass.
pub struct StorageClass;

impl Behavior for StorageClass {
    fn set_defaults(&self, object: &mut Value) {
        edit::default(object, "reclaimPolicy", "Delete");
        edit::default(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let provisioner = object.get("provisioner");
        if provisioner.is_empty() {
            errors.push(provisioner.required(""));
        } else {
            provisioner.check(names::qualified_name(&provisioner.str().to_lowercase()), errors);
        }
        parameters(&object.get("parameters"), errors);
        let policy = object.get("reclaimPolicy");
        if !policy.is_empty() && !["Delete", "Retain"].contains(&policy.str()) {
            errors.push(policy.not_supported(&["Delete", "Retain"]));
        }
        object.get("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], errors);
        let mut seen: Vec<&str> = Vec::new();
        for expression in
            object.get("allowedTopologies").items().flat_map(|term| term.get("matchLabelExpressions").items())
        {
            let (key, values) = (expression.get("key"), expression.get("values"));
            key.check(names::qualified_name(key.str()), errors);
            if values.is_empty() {
                errors.push(values.required(""));
            }
            if seen.contains(&key.str()) {
                errors.push(key.duplicate());
            }
            seen.push(key.str());
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        for (name, sentence) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if new.get(name).value() != old.get(name).value() {
                errors.push(new.get(name).forbidden(sentence));
            }
        }
        new.get("volumeBindingMode").immutable(&old.get("volumeBindingMode"), errors);
    }
}

/// `storage.k8s.io/v1` VolumeAttributesClass.
pub struct VolumeAttributesClass;

impl Behavior for VolumeAttributesClass {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        driver_name(&object.get("driverName"), errors);
        let values = object.get("parameters");
        if values.is_empty() {
            errors.push(values.required("must contain at least one key/value pair"));
        }
        parameters(&values, errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if new.get("driverName").str() != old.get("driverName").str() {
            errors.push(new.get("driverName").forbidden("updates to driverName are forbidden."));
        }
        if new.get("parameters").value() != old.get("parameters").value() {
            errors.push(new.get("parameters").forbidden("updates to parameters are forbidden."));
        }
    }
}

/// `storage.k8s.io/v1` VolumeAttachment.
pub struct VolumeAttachment;

impl Behavior for VolumeAttachment {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        driver_name(&spec.get("attacher"), errors);
        let node = spec.get("nodeName");
        node.check(names::dns1123_subdomain(node.str()), errors);
        let source = spec.get("source");
        match (source.get("inlineVolumeSpec").is_set(), source.get("persistentVolumeName").is_set()) {
            (false, false) => {
                errors.push(source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
            }
            (true, true) => {
                errors.push(source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
            }
            _ => {}
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.validate(new, errors);
            if new.get("spec").value() != old.get("spec").value() {
                errors.push(new.get("spec").invalid("field is immutable"));
            }
        }
    }
}

/// `storage.k8s.io/v1` CSIDriver.
pub struct CsiDriver;

impl Behavior for CsiDriver {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        for (name, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            edit::default(spec, name, value);
        }
        edit::default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
            edit::set(spec, "volumeLifecycleModes", serde_json::json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        for name in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
            if !spec.get(name).is_set() {
                errors.push(spec.get(name).required(""));
            }
        }
        spec.get("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"], errors);
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes.items().filter(|mode| !["Ephemeral", "Persistent"].contains(&mode.str())) {
            errors.push(modes.with(mode.value()).not_supported(&["Ephemeral", "Persistent"]));
        }
        let mut audiences: Vec<&str> = Vec::new();
        for token in spec.get("tokenRequests").items() {
            let audience = token.get("audience");
            if audiences.contains(&audience.str()) {
                errors.push(audience.with(&audience.str().into()).duplicate());
            }
            audiences.push(audience.str());
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        let (spec, before) = (new.get("spec"), old.get("spec"));
        for name in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
            spec.get(name).immutable(&before.get(name), errors);
        }
    }
}

/// `storage.k8s.io/v1` CSINode.
pub struct CsiNode;

impl Behavior for CsiNode {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let mut seen: Vec<&str> = Vec::new();
        for driver in object.get("spec").get("drivers").items() {
            let (name, node) = (driver.get("name"), driver.get("nodeID"));
            driver_name(&name, errors);
            if seen.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            seen.push(name.str());
            if node.is_empty() {
                errors.push(node.required(""));
            }
            driver.get("allocatable").get("count").non_negative(errors);
        }
    }
}

/// `storage.k8s.io/v1` CSIStorageCapacity.
pub struct CsiStorageCapacity;

impl Behavior for CsiStorageCapacity {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        labels::validate_selector(&object.get("nodeTopology"), errors);
        let class = object.get("storageClassName");
        class.check(names::dns1123_subdomain(class.str()), errors);
        for name in ["capacity", "maximumVolumeSize"] {
            super::pod::resources::validate_quantity(&object.get(name), "storage", errors);
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        for name in ["nodeTopology", "storageClassName"] {
            new.get(name).immutable(&old.get(name), errors);
        }
    }
}
