//! What a driver says of the devices it has: `spec` of a ResourceSlice.
//! `pkg/apis/resource/validation/validation.go` `validateResourceSliceSpec`.
use serde_json::{Value, json};

use super::super::field::{Errors, Field};
use super::super::pod::scheduling::validate_node_selector;
use super::super::storage::driver_name;
use super::super::{edit, names};
use super::capacity;
use super::claim::binding_conditions;
use super::formats::{self, is_too_long};
use super::{CONSUMED_COUNTERS_MAX, COUNTER_SETS_MAX};
use crate::custom::cel::semver::Version;

const DEVICES_MAX: usize = 128;
/// The same where devices have taints or consume counters.
const DEVICES_WITH_MORE_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const ATTRIBUTE_VALUES_MAX: usize = 48;
const VALUE_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
const COUNTERS_MAX: usize = 32;
/// Longest key that is shown whole: a domain, a slash and a name.
const KEY_SHOWN_MAX: usize = 63 + 1 + 32;

/// Lists as values of attributes, resources of the node that a device brings, groups of what fits together, and
/// operations that a driver does without are alpha features.
pub fn drop_disabled_fields(spec: &mut Value) {
    for name in ["partitionTypeAttribute", "skipNodeOperations"] {
        edit::take(spec, name);
    }
    for device in edit::each(spec, "devices") {
        edit::take(device, "nodeAllocatableResources");
        for consumed in edit::each(device, "consumesCounters") {
            edit::take(consumed, "compatibilityGroups");
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for (_, attribute) in attributes.into_iter().flatten() {
            for name in ["ints", "bools", "strings", "versions"] {
                edit::take(attribute, name);
            }
        }
    }
}

/// What is wrong with a slice, given what it was, but for what is declared.
pub fn validate_spec(spec: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
    let (driver, pool, node) = (spec.get("driver"), spec.get("pool"), spec.get("nodeName"));
    driver_name(&driver, errors);
    formats::pool_name(&pool.get("name"), errors);
    let (count, generation) = (pool.get("resourceSliceCount"), pool.get("generation"));
    if count.int().unwrap_or(0) <= 0 {
        errors.push(count.invalid_as(count.int().unwrap_or(0), "must be greater than zero"));
    }
    if generation.int().unwrap_or(0) < 0 {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    if let Some(old) = old {
        for (new, old) in [(pool.get("name"), old.get("pool").get("name")), (driver, old.get("driver"))] {
            if new.str() != old.str() {
                errors.push(new.invalid("field is immutable"));
            }
        }
        node.immutable(&old.get("nodeName"), errors);
    }
    places(spec, errors);
    let devices = spec.get("devices");
    if spec.get("sharedCounters").is_set() && devices.is_set() {
        errors.push(spec.invalid_as("", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let more = devices.items().any(|one| !one.get("taints").is_empty() || !one.get("consumesCounters").is_empty());
    let most = if more { DEVICES_WITH_MORE_MAX } else { DEVICES_MAX };
    if !is_too_long(&devices, most, false, errors) {
        let each = spec.get("perDeviceNodeSelection").bool();
        for one in devices.items() {
            let named = |other: &Field<'_>| other.get("name").str() == one.get("name").str();
            let before = old.and_then(|old| old.get("devices").items().find(named));
            device(&one, before.as_ref(), each, errors);
        }
        formats::duplicates(&devices, |one| one.get("name").str().to_owned(), errors);
    }
    let counters = spec.get("sharedCounters");
    if !is_too_long(&counters, COUNTER_SETS_MAX, true, errors) {
        counters.items().for_each(|set| counters_of(&set, errors));
    }
}

fn counters_of(set: &Field<'_>, errors: &mut Errors) {
    is_too_long(&set.get("counters"), COUNTERS_MAX, false, errors);
}

/// Where the devices of a slice can be had: one of four ways to say it.
fn places(spec: &Field<'_>, errors: &mut Errors) {
    let mut given = Vec::new();
    let node = spec.get("nodeName");
    if !node.is_empty() {
        given.push("`nodeName`");
        node.check(names::dns1123_subdomain(node.str()), errors);
    } else if node.is_set() {
        errors.push(node.invalid("must be either unset or set to a non-empty string"));
    }
    if let Some(selector) = spec.get("nodeSelector").set() {
        given.push("`nodeSelector`");
        validate_node_selector(&selector, errors);
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            let error = terms.invalid("must have exactly one node selector term");
            errors.push(error.showing(internal_terms(&terms)));
        }
    }
    true_or_unset(spec, "allNodes", "`allNodes`", &mut given, errors);
    true_or_unset(spec, "perDeviceNodeSelection", "`perDeviceNodeSelection`", &mut given, errors);
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(spec.required(ONE)),
        1 => {}
        _ => errors
            .push(spec.invalid_as(format!("{{{}}}", given.join(", ")), format!("{ONE}, but multiple fields are set"))),
    }
}

fn true_or_unset(
    of: &Field<'_>,
    name: &'static str,
    quoted: &'static str,
    given: &mut Vec<&'static str>,
    errors: &mut Errors,
) {
    let field = of.get(name);
    if field.bool() {
        given.push(quoted);
    } else if field.is_set() {
        errors.push(field.invalid("must be either unset or set to true"));
    }
}

/// Terms of a node selector as Kubernetes has them inside.
fn internal_terms(terms: &Field<'_>) -> String {
    if !terms.is_set() {
        return "null".to_owned();
    }
    let requirements = |list: &Field<'_>| {
        if !list.is_set() {
            return "null".to_owned();
        }
        let each = list.items().map(|requirement| {
            requirement.internal(&[
                ("Key", "key", json!("")),
                ("Operator", "operator", json!("")),
                ("Values", "values", Value::Null),
            ])
        });
        format!("[{}]", each.collect::<Vec<_>>().join(","))
    };
    let each = terms.items().map(|term| {
        let (labels, fields) = (term.get("matchExpressions"), term.get("matchFields"));
        format!("{{\"MatchExpressions\":{},\"MatchFields\":{}}}", requirements(&labels), requirements(&fields))
    });
    format!("[{}]", each.collect::<Vec<_>>().join(","))
}

/// One device. Capacities and taints that are as they were are not looked at again.
fn device(device: &Field<'_>, old: Option<&Field<'_>>, placed_each: bool, errors: &mut Errors) {
    let unchanged = |name: &'static str| old.is_some_and(|old| old.get(name).value() == device.get(name).value());
    let name = device.get("name");
    name.check(names::dns1123_label(name.str()), errors);
    let (attributes, capacities) = (device.get("attributes"), device.get("capacity"));
    let many = attributes.len() + capacities.len();
    if many > ATTRIBUTES_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.push(device.invalid_as(many, detail));
    }
    // Only lists have more than one value, and those are an alpha feature.
    if attributes.len() > ATTRIBUTE_VALUES_MAX {
        let detail = format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES_MAX}");
        errors.push(device.invalid_as(attributes.len(), detail));
    }
    for (key, attribute) in attributes.entries() {
        formats::qualified_name(key, &attributes, errors);
        attribute_value(&keyed(&attributes, key, attribute), errors);
    }
    let shared = device.get("allowMultipleAllocations").bool();
    for (key, one) in capacities.entries().filter(|_| !unchanged("capacity")) {
        formats::qualified_name(key, &capacities, errors);
        let one = keyed(&capacities, key, one);
        let Some(policy) = one.get("requestPolicy").set() else { continue };
        if shared {
            capacity::request_policy(&one.get("value"), &policy, errors);
        } else {
            errors.push(policy.forbidden("allowMultipleAllocations must be true"));
        }
    }
    let taints = device.get("taints");
    if !unchanged("taints") && !is_too_long(&taints, TAINTS_MAX, false, errors) {
        taints.items().for_each(|one| taint(&one, errors));
    }
    let consumed = device.get("consumesCounters");
    if !is_too_long(&consumed, CONSUMED_COUNTERS_MAX, true, errors) {
        consumed.items().for_each(|set| counters_of(&set, errors));
    }
    place_of_device(device, placed_each, errors);
    binding_conditions(device, errors);
}

/// An entry of a map under its key, the middle of which is left out where it is too long to be shown.
fn keyed<'a>(map: &Field<'a>, key: &str, entry: Field<'a>) -> Field<'a> {
    const ELLIPSIS: &str = "...";
    if key.len() <= KEY_SHOWN_MAX {
        return entry;
    }
    let remaining = KEY_SHOWN_MAX - ELLIPSIS.len();
    let (mut start, mut end) = (remaining.div_ceil(2), key.len() - remaining / 2);
    while !key.is_char_boundary(start) {
        start -= 1;
    }
    while !key.is_char_boundary(end) {
        end += 1;
    }
    map.key_as(&format!("{}{ELLIPSIS}{}", &key[..start], &key[end..]), entry.value())
}

fn attribute_value(attribute: &Field<'_>, errors: &mut Errors) {
    let text = attribute.get("string");
    if text.len() > VALUE_MAX {
        errors.push(text.too_long(VALUE_MAX));
    }
    if let Some(version) = attribute.get("version").set() {
        if Version::parse(version.str()).is_err() {
            errors.push(version.invalid("must be a string compatible with semver.org spec 2.0.0"));
        }
        if version.len() > VALUE_MAX {
            errors.push(version.too_long(VALUE_MAX));
        }
    }
}

/// What is wrong with a taint, but for its effect, which is declared.
pub fn taint(taint: &Field<'_>, errors: &mut Errors) {
    let (key, value) = (taint.get("key"), taint.get("value"));
    key.check(names::qualified_name(key.str()), errors);
    value.check(names::label_value(value.str()), errors);
}

/// Where one device can be had, if the slice leaves it to each.
fn place_of_device(device: &Field<'_>, placed_each: bool, errors: &mut Errors) {
    let (node, selector) = (device.get("nodeName"), device.get("nodeSelector"));
    if !placed_each {
        if node.is_set() || selector.is_set() || device.get("allNodes").is_set() {
            errors.push(device.invalid_as(
                Value::Null,
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            ));
        }
        return;
    }
    let mut given = Vec::new();
    if !node.is_empty() {
        given.push("`nodeName`");
        node.check(names::dns1123_subdomain(node.str()), errors);
    } else if node.is_set() {
        errors.push(node.invalid("must not be empty"));
    }
    if selector.is_set() {
        given.push("`nodeSelector`");
        validate_node_selector(&selector, errors);
    }
    true_or_unset(device, "allNodes", "`allNodes`", &mut given, errors);
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.push(device.required(ONE)),
        1 => {}
        _ => errors.push(device.invalid_as(format!("{{{}}}", given.join(", ")), ONE)),
    }
}
