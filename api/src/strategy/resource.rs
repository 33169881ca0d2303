//! Dynamic resource allocation, and storage migration: the main rules of kinds that few clusters write by hand.
use std::collections::BTreeSet;

use serde_json::Value;

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{Subresource, edit, names};

const REQUESTS_MAX: usize = 32;

/// `resource.k8s.io/v1` DeviceClass.
pub struct DeviceClass;

impl Behavior for DeviceClass {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        selectors(&object.get("spec").get("selectors"), errors);
    }
}

fn selectors(selectors: &Field<'_>, errors: &mut Errors) {
    for selector in selectors.items() {
        let expression = selector.get("cel").get("expression");
        if !selector.get("cel").is_set() {
            errors.push(selector.get("cel").required(""));
        } else if expression.is_empty() {
            errors.push(expression.required(""));
        }
    }
}

fn claim_spec(spec: &Field<'_>, errors: &mut Errors) {
    let requests = spec.get("devices").get("requests");
    if requests.len() > REQUESTS_MAX {
        errors.push(requests.too_many(REQUESTS_MAX));
    }
    let mut seen = BTreeSet::new();
    for request in requests.items() {
        let name = request.get("name");
        name.check(names::dns1123_label(name.str()), errors);
        if !seen.insert(name.str()) {
            errors.push(name.duplicate());
        }
        match (request.get("exactly").set(), request.get("firstAvailable").is_empty()) {
            (Some(exactly), true) => {
                required(&exactly, &["deviceClassName"], errors);
                selectors(&exactly.get("selectors"), errors);
            }
            (None, false) => {
                for choice in request.get("firstAvailable").items() {
                    required(&choice, &["name", "deviceClassName"], errors);
                }
            }
            _ => errors.push(request.invalid("exactly one of `exactly` or `firstAvailable` is required")),
        }
    }
}

/// Counts and modes of each request: `SetDefaults_ExactDeviceRequest`.
fn claim_defaults(spec: &mut Value) {
    let complete = |request: &mut Value| {
        edit::default_text(request, "allocationMode", "ExactCount");
        if edit::text(request, "allocationMode") == "ExactCount" {
            edit::default(request, "count", 1);
        }
    };
    if let Some(devices) = edit::member(spec, "devices") {
        for request in edit::each(devices, "requests") {
            if let Some(exactly) = edit::member(request, "exactly") {
                complete(exactly);
            }
            edit::each(request, "firstAvailable").for_each(complete);
        }
    }
}

/// `resource.k8s.io/v1` ResourceClaim.
pub struct ResourceClaim;

impl Behavior for ResourceClaim {
    fn set_defaults(&self, object: &mut Value) {
        claim_defaults(edit::child(object, "spec"));
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        claim_spec(&object.get("spec"), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            new.get("spec").immutable(&old.get("spec"), errors);
        }
    }
}

/// `resource.k8s.io/v1` ResourceClaimTemplate.
pub struct ResourceClaimTemplate;

impl Behavior for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Value) {
        claim_defaults(edit::child(edit::child(object, "spec"), "spec"));
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        claim_spec(&object.get("spec").get("spec"), errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        new.get("spec").immutable(&old.get("spec"), errors);
    }
}

/// `resource.k8s.io/v1` ResourceSlice.
pub struct ResourceSlice;

impl Behavior for ResourceSlice {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        super::storage::driver_name(&spec.get("driver"), errors);
        required(&spec.get("pool"), &["name"], errors);
        if spec.get("pool").get("resourceSliceCount").int().unwrap_or(0) <= 0 {
            let count = spec.get("pool").get("resourceSliceCount");
            errors.push(count.invalid_as(count.int().unwrap_or(0), "must be greater than zero"));
        }
        let places = [
            spec.get("nodeName").is_set(),
            spec.get("nodeSelector").is_set(),
            spec.get("allNodes").bool(),
            spec.get("perDeviceNodeSelection").bool(),
        ];
        match places.iter().filter(|given| **given).count() {
            1 => {}
            0 => errors.push(spec.required(
                "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            )),
            _ => errors.push(spec.invalid(
                "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            )),
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        for name in ["driver", "nodeName"] {
            new.get("spec").get(name).immutable(&old.get("spec").get(name), errors);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.nodeName", "/spec/nodeName"), ("spec.driver", "/spec/driver")]
    }
}

/// `resource.k8s.io/v1` DeviceTaintRule.
pub struct DeviceTaintRule;

impl Behavior for DeviceTaintRule {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let taint = object.get("spec").get("taint");
        let (key, effect) = (taint.get("key"), taint.get("effect"));
        key.check(names::qualified_name(key.str()), errors);
        effect.one_of(&["NoExecute", "NoSchedule", "None"], errors);
    }
}

/// `storagemigration.k8s.io/v1` StorageVersionMigration.
pub struct StorageVersionMigration;

impl Behavior for StorageVersionMigration {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        required(&object.get("spec").get("resource"), &["resource"], errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            new.get("spec").get("resource").immutable(&old.get("spec").get("resource"), errors);
        }
    }
}
