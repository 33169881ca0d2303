//! Storage classes, CSI objects and attachments.
//! Mirrors `pkg/apis/storage/{v1/defaults.go,validation/validation.go}`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Subresource, edit, labels, names};

const DRIVER_NAME_MAX: usize = 63;
const NODE_ID_MAX: usize = 256;
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const ALLOCATABLE_SECONDS_MIN: i64 = 10;
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
        let mode = object.get("volumeBindingMode");
        match mode.value() {
            Value::Null => errors.push(mode.required("")),
            _ if !["Immediate", "WaitForFirstConsumer"].contains(&mode.str()) => {
                errors.push(mode.not_supported(&["Immediate", "WaitForFirstConsumer"]));
            }
            _ => {}
        }
        validate_topologies(&object.get("allowedTopologies"), errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        for (name, sentence) in [
            ("parameters", "updates to parameters are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if new.get(name).value() != old.get(name).value() {
                errors.push(new.get(name).forbidden(sentence));
            }
        }
        for name in ["provisioner", "volumeBindingMode"] {
            new.get(name).immutable(&old.get(name), errors);
        }
    }
}

/// What a topology term comes to: each key with its values.
type Topology<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// `pkg/apis/core/validation.ValidateTopologySelectorTerm`, and that no two terms are the same.
fn validate_topologies(terms: &Field<'_>, errors: &mut Errors) {
    // Kubernetes begins with as many empty terms as there are: an empty one repeats each of them.
    let mut seen = BTreeMap::from([(Topology::new(), terms.len())]);
    for term in terms.items() {
        let mut topology = Topology::new();
        let expressions = term.get("matchLabelExpressions");
        for expression in expressions.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            let mut distinct = BTreeSet::new();
            if values.is_empty() {
                errors.push(values.required(""));
            }
            for value in values.items() {
                if !distinct.insert(value.str()) {
                    errors.push(value.duplicate());
                }
            }
            key.check(names::qualified_name(key.str()), errors);
            if topology.insert(key.str(), distinct).is_some() {
                errors.push(key.duplicate());
            }
        }
        let times = seen.entry(topology).or_default();
        errors.extend((0..*times).map(|_| expressions.with(&Value::from("")).duplicate()));
        *times += 1;
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
            ("preventPodSchedulingIfMissing", false),
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
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        match spec.get("fsGroupPolicy") {
            policy if !policy.is_set() => errors.push(policy.required("")),
            policy if !policies.contains(&policy.str()) => errors.push(policy.not_supported(&policies)),
            _ => {}
        }
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes.items().filter(|mode| !["Ephemeral", "Persistent"].contains(&mode.str())) {
            errors.push(modes.with(mode.value()).not_supported(&["Persistent", "Ephemeral"]));
        }
        let mut audiences = BTreeSet::new();
        for token in spec.get("tokenRequests").items() {
            let audience = token.get("audience");
            if !audiences.insert(audience.str()) {
                errors.push(audience.with(&audience.str().into()).duplicate());
            }
            let lifetime = token.get("expirationSeconds");
            match lifetime.int() {
                Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                    errors.push(lifetime.invalid("may not specify a duration less than 10 minutes"));
                }
                Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                    errors.push(lifetime.invalid("may not specify a duration larger than 2^32 seconds"));
                }
                _ => {}
            }
        }
        let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
        if period.int().is_some_and(|seconds| seconds < ALLOCATABLE_SECONDS_MIN) {
            let why = format!("must be greater than or equal to {ALLOCATABLE_SECONDS_MIN} seconds");
            errors.push(period.invalid(why));
        }
        let in_secrets = spec.get("serviceAccountTokenInSecrets");
        if in_secrets.bool() && spec.get("tokenRequests").is_empty() {
            errors.push(in_secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified"));
        }
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        let spec = object.get("spec");
        if !spec.get("tokenRequests").is_empty() && !spec.get("serviceAccountTokenInSecrets").is_set() {
            warnings.push(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes"
                    .to_owned(),
            );
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        let (spec, before) = (new.get("spec"), old.get("spec"));
        // Kubernetes spells the first so in its errors.
        if spec.get("attachRequired").value() != before.get("attachRequired").value() {
            errors.push(
                spec.get("attachedRequired")
                    .invalid_as(spec.get("attachRequired").value().clone(), "field is immutable"),
            );
        }
        spec.get("volumeLifecycleModes").immutable(&before.get("volumeLifecycleModes"), errors);
    }
}

/// `storage.k8s.io/v1` CSINode.
pub struct CsiNode;

impl Behavior for CsiNode {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let mut seen = BTreeSet::new();
        for driver in object.get("spec").get("drivers").items() {
            let (name, node) = (driver.get("name"), driver.get("nodeID"));
            driver_name(&name, errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
            if node.is_empty() {
                errors.push(node.required(""));
            }
            if node.len() > NODE_ID_MAX {
                errors.push(node.invalid(format!("must be {NODE_ID_MAX} characters or less")));
            }
            driver.get("allocatable").get("count").non_negative(errors);
            let mut topology = BTreeSet::new();
            for key in driver.get("topologyKeys").items() {
                // Named by the driver's place alone, as in Kubernetes.
                let shown = driver.with(key.value());
                if key.is_empty() {
                    errors.push(shown.required(""));
                }
                if !topology.insert(key.str()) {
                    errors.push(shown.duplicate());
                }
                shown.check(names::qualified_name(key.str()), errors);
            }
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        let drivers = new.get("spec").get("drivers");
        let by_name: BTreeMap<&str, Field<'_>> =
            drivers.items().map(|driver| (driver.get("name").str(), driver)).collect();
        for before in old.get("spec").get("drivers").items() {
            let after = by_name.get(before.get("name").str());
            if let Some(after) = after.filter(|after| after.value() != before.value()) {
                errors.push(drivers.invalid_as(go_driver(after), "field is immutable"));
            }
        }
    }
}

/// A driver as Kubernetes' internal type holds it.
fn go_driver(driver: &Field<'_>) -> Value {
    let count = driver.get("allocatable").set().map(|it| json!({ "Count": it.get("count").value() }));
    json!({
        "Name": driver.get("name").str(), "NodeID": driver.get("nodeID").str(),
        "TopologyKeys": driver.get("topologyKeys").value(), "Allocatable": count,
    })
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
