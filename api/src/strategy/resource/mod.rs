//! Dynamic resource allocation: devices that drivers offer, classes of them, and claims to them.
//!
//! ```text
//!  mod.rs       the kinds                    declared.rs  rules that Kubernetes has beside its types
//!  claim.rs     what a claim asks for        status.rs    what it got
//!  slice.rs     what a driver offers         capacity.rs  how much of it one may take
//!  selector.rs  expressions over devices     formats.rs   names
//! ```
//! Mirrors `pkg/apis/resource/{v1/defaults.go,validation/validation.go}` and `pkg/registry/resource`. Fields of alpha
//! features are dropped. That admin access is for some namespaces only, and who may write an allocation, is admission's.
mod capacity;
mod claim;
mod declared;
mod formats;
mod selector;
mod slice;
mod status;

use serde_json::Value;

use super::built_in::Behavior;
use super::core::template_metadata;
use super::field::{Errors, Field};
use super::storage::driver_name;
use super::{Context, Subresource, conditions, edit, names, pod};

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const FIRST_AVAILABLE_MAX: usize = 8;
const RESERVED_FOR_MAX: usize = 256;
const BINDING_CONDITIONS_MAX: usize = 4;
const CONSUMED_COUNTERS_MAX: usize = 2;
const COUNTER_SETS_MAX: usize = 8;
const IPS_MAX: usize = 16;
const PARAMETERS_MAX_BYTES: usize = 10 * 1024;
const RULE_CONDITIONS_MAX: usize = 8;

/// `resource.k8s.io/v1` DeviceClass.
pub struct DeviceClass;

impl DeviceClass {
    fn check(&self, spec: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
        let stored = |name: &'static str| old.is_some_and(|old| old.get(name).value() == spec.get(name).value());
        let (selectors, configs) = (spec.get("selectors"), spec.get("config"));
        // What is stored was compiled before.
        if !stored("selectors") {
            claim::selectors(&selectors, errors);
        }
        if !stored("config") && !formats::is_too_long(&configs, CONFIGS_MAX, true, errors) {
            configs.items().for_each(|config| claim::configuration(&config, errors));
        }
        declared::class_spec(spec, errors);
    }
}

impl Behavior for DeviceClass {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        self.check(&object.get("spec"), None, errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.check(&new.get("spec"), Some(&old.get("spec")), errors);
    }
}

/// `resource.k8s.io/v1` ResourceClaim.
pub struct ResourceClaim;

impl Behavior for ResourceClaim {
    fn set_defaults(&self, object: &mut Value) {
        claim::set_spec_defaults(edit::child(object, "spec"));
        let results = object.pointer_mut("/status/allocation/devices/results").and_then(Value::as_array_mut);
        results.into_iter().flatten().for_each(claim::set_toleration_defaults);
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        claim::drop_disabled_fields(edit::child(object, "spec"));
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            if let Some(status) = edit::member(new, "status") {
                status::drop_disabled_fields(status);
            }
            status::drop_deallocated_devices(new, old);
        } else {
            claim::drop_disabled_fields(edit::child(new, "spec"));
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        claim::validate_spec(&spec, errors);
        declared::claim_spec(&spec, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            status::validate(new, old, errors);
            declared::claim_status(&new.get("status"), &old.get("status"), errors);
        } else if new.get("spec").value() != old.get("spec").value() {
            errors.push(new.get("spec").invalid_as(Value::Null, "field is immutable"));
        }
    }
}

/// `resource.k8s.io/v1` ResourceClaimTemplate.
pub struct ResourceClaimTemplate;

impl Behavior for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Value) {
        claim::set_spec_defaults(edit::child(edit::child(object, "spec"), "spec"));
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        claim::drop_disabled_fields(edit::child(edit::child(object, "spec"), "spec"));
    }

    fn prepare_for_update(&self, _: &Context<'_>, _: Subresource, new: &mut Value, _: &Value) {
        claim::drop_disabled_fields(edit::child(edit::child(new, "spec"), "spec"));
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let template = object.get("spec");
        template_metadata(&template.get("metadata"), errors);
        claim::validate_spec(&template.get("spec"), errors);
        declared::claim_spec(&template.get("spec"), errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if new.get("spec").value() != old.get("spec").value() {
            let template = new.get("spec");
            template_metadata(&template.get("metadata"), errors);
            claim::validate_spec(&template.get("spec"), errors);
            template.immutable(&old.get("spec"), errors);
            declared::claim_spec(&template.get("spec"), errors);
        }
    }
}

/// `resource.k8s.io/v1` ResourceSlice.
pub struct ResourceSlice;

impl Behavior for ResourceSlice {
    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        prepare_slice(context, object);
    }

    fn prepare_for_update(&self, context: &Context<'_>, _: Subresource, new: &mut Value, _: &Value) {
        prepare_slice(context, new);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        slice::validate_spec(&object.get("spec"), None, errors);
        declared::slice_spec(&object.get("spec"), errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        slice::validate_spec(&new.get("spec"), Some(&old.get("spec")), errors);
        declared::slice_spec(&new.get("spec"), errors);
    }

    fn canonicalize(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        for name in ["devices", "sharedCounters"] {
            if spec.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                edit::take(spec, name);
            }
        }
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        let driver = object.get("spec").get("driver").str();
        if driver.to_lowercase() != driver {
            warnings.push(format!(
                "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
            ));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.nodeName", "/spec/nodeName"), ("spec.driver", "/spec/driver"), ("spec.pool.name", "/spec/pool/name")]
    }
}

fn prepare_slice(context: &Context<'_>, object: &mut Value) {
    let spec = edit::child(object, "spec");
    slice::drop_disabled_fields(spec);
    for device in edit::each(spec, "devices") {
        edit::each(device, "taints").for_each(|taint| edit::default(taint, "timeAdded", pod::seconds(context.now)));
    }
}

/// `resource.k8s.io/v1` DeviceTaintRule.
pub struct DeviceTaintRule;

fn taint_of(rule: &mut Value) -> &mut Value {
    edit::child(edit::child(rule, "spec"), "taint")
}

impl DeviceTaintRule {
    fn check(&self, spec: &Field<'_>, errors: &mut Errors) {
        let selector = spec.get("deviceSelector");
        if let Some(driver) = selector.get("driver").set() {
            driver_name(&driver, errors);
        }
        if let Some(pool) = selector.get("pool").set() {
            formats::pool_name(&pool, errors);
        }
        if let Some(device) = selector.get("device").set() {
            device.check(names::dns1123_label(device.str()), errors);
        }
        slice::taint(&spec.get("taint"), errors);
        declared::taint(&spec.get("taint"), errors);
    }
}

impl Behavior for DeviceTaintRule {
    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value) {
        edit::default(taint_of(object), "timeAdded", pod::seconds(context.now));
    }

    /// The time is that of the effect, which tolerations count from.
    fn prepare_for_update(&self, context: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource != Subresource::Main {
            return;
        }
        let (before, now) = (&old["spec"]["taint"], pod::seconds(context.now));
        let taint = taint_of(new);
        edit::default(taint, "timeAdded", now.clone());
        if edit::text(taint, "effect") != edit::text(before, "effect") && taint["timeAdded"] == before["timeAdded"] {
            edit::set(taint, "timeAdded", now);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        self.check(&object.get("spec"), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource != Subresource::Status {
            self.check(&new.get("spec"), errors);
            return;
        }
        let conditions = new.get("status").get("conditions");
        conditions::validate(&conditions, errors);
        if conditions.len() > RULE_CONDITIONS_MAX {
            errors.push(conditions.too_many(RULE_CONDITIONS_MAX));
        }
    }
}
