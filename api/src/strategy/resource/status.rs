//! The status of a claim: which devices it got, who may use them, and what their drivers say of them.
//! `pkg/apis/resource/validation/validation.go` `validateResourceClaimStatusUpdate`.
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::conditions;
use super::super::field::{Errors, Field};
use super::super::pod::scheduling::validate_node_selector;
use super::super::storage::driver_name;
use super::super::{edit, names};
use super::claim::{self, RequestNames};
use super::formats::{self, is_too_long};
use super::{CONFIGS_MAX, IPS_MAX, REQUESTS_MAX, RESERVED_FOR_MAX};

const DEVICE_CONDITIONS_MAX: usize = 8;
const DEVICE_DATA_MAX_BYTES: usize = 10 * 1024;

/// A device, or a share of one: driver, pool, device, share.
type DeviceId = [String; 4];

fn device_id(device: &Value) -> DeviceId {
    ["driver", "pool", "device", "shareID"].map(|name| edit::text(device, name).to_owned())
}

fn allocated(status: &Value) -> BTreeSet<DeviceId> {
    let results = status.pointer("/allocation/devices/results").and_then(Value::as_array);
    results.into_iter().flatten().map(device_id).collect()
}

/// What is said of a device goes with its allocation.
pub fn drop_deallocated_devices(new: &mut Value, old: &Value) {
    let kept = allocated(&new["status"]);
    let gone: BTreeSet<DeviceId> = allocated(&old["status"]).into_iter().filter(|id| !kept.contains(id)).collect();
    if let Some(status) = edit::member(new, "status")
        && let Some(devices) = edit::member(status, "devices").and_then(Value::as_array_mut)
    {
        devices.retain(|device| !gone.contains(&device_id(device)));
        if devices.is_empty() {
            edit::take(status, "devices");
        }
    }
}

/// Operations of the kubelet that a driver does without are an alpha feature.
pub fn drop_disabled_fields(status: &mut Value) {
    for result in status.pointer_mut("/allocation/devices/results").and_then(Value::as_array_mut).into_iter().flatten()
    {
        edit::take(result, "skipNodeOperations");
    }
}

/// What is wrong with a claim's status, given what it was, but for what is declared.
pub fn validate(object: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (status, before) = (object.get("status"), old.get("status"));
    let reserved = status.get("reservedFor");
    if !is_too_long(&reserved, RESERVED_FOR_MAX, true, errors) {
        for consumer in reserved.items() {
            for name in ["resource", "name", "uid"] {
                if consumer.get(name).is_empty() {
                    errors.push(consumer.get(name).required(""));
                }
            }
        }
    }
    let known = allocated(status.value());
    status.get("devices").items().for_each(|device| device_status(&device, &known, errors));

    let allocation = status.get("allocation");
    let deleted = object.get("metadata").get("deletionTimestamp").is_set();
    if !reserved.is_empty() && !allocation.is_set() {
        errors.push(reserved.forbidden("may not be specified when `allocated` is not set"));
    } else if deleted && reserved.items().any(|one| !before.get("reservedFor").items().any(|own| same(&own, &one))) {
        errors
            .push(reserved.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            ));
    }
    // An allocation is never changed, so it is looked at only when it is made.
    if allocation.is_set() && !before.get("allocation").is_set() {
        let requests = RequestNames::of(&object.get("spec"));
        allocation_result(&allocation, &requests, errors);
    }
}

fn same(one: &Field<'_>, other: &Field<'_>) -> bool {
    ["apiGroup", "resource", "name", "uid"].iter().all(|name| one.get(name).str() == other.get(name).str())
}

fn allocation_result(allocation: &Field<'_>, requests: &RequestNames<'_>, errors: &mut Errors) {
    let devices = allocation.get("devices");
    let results = devices.get("results");
    if !is_too_long(&results, REQUESTS_MAX, true, errors) {
        for result in results.items() {
            requests.check(&result.get("request"), errors);
            let device = result.get("device");
            device.check(names::dns1123_label(device.str()), errors);
            claim::binding_conditions(&result, errors);
            result.get("tolerations").items().for_each(|one| claim::device_toleration(&one, errors));
        }
    }
    let configs = devices.get("config");
    if !is_too_long(&configs, 2 * CONFIGS_MAX, true, errors) {
        for config in configs.items() {
            requests.check_all(&config.get("requests"), errors);
            claim::configuration(&config, errors);
        }
    }
    if let Some(selector) = allocation.get("nodeSelector").set() {
        validate_node_selector(&selector, errors);
    }
}

fn device_status(device: &Field<'_>, allocated: &BTreeSet<DeviceId>, errors: &mut Errors) {
    driver_name(&device.get("driver"), errors);
    formats::pool_name(&device.get("pool"), errors);
    let name = device.get("device");
    name.check(names::dns1123_label(name.str()), errors);
    if !allocated.contains(&device_id(device.value())) {
        // Kubernetes shows an id whose parts do not show.
        let shown = json!({"Driver": {}, "Pool": {}, "Device": {}, "ShareID": {}});
        let error = device.invalid_as(shown, "must be an allocated device in the claim");
        errors.push(error.showing(r#"{"Driver":{},"Pool":{},"Device":{},"ShareID":{}}"#.to_owned()));
    }
    let conditions = device.get("conditions");
    if conditions.len() > DEVICE_CONDITIONS_MAX {
        errors.push(conditions.too_many(DEVICE_CONDITIONS_MAX));
    }
    conditions::validate(&conditions, errors);
    claim::raw_object(&device.get("data"), DEVICE_DATA_MAX_BYTES, false, errors);
    let ips = device.get("networkData").get("ips");
    if !is_too_long(&ips, IPS_MAX, true, errors) {
        ips.items().for_each(|ip| interface_address(&ip, errors));
    }
}

/// An address and the length of its network's prefix, written as they print.
fn interface_address(address: &Field<'_>, errors: &mut Errors) {
    let parts = names::parse_cidr(address.str());
    let Some((ip, length)) = parts else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        errors.push(address.invalid_as(address.str(), detail));
        return;
    };
    let (ip, length) = match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => (IpAddr::V4(v4), length.saturating_sub(96)),
            None => (ip, length),
        },
        IpAddr::V4(_) => (ip, length),
    };
    let canonical = format!("{ip}/{length}");
    if canonical != address.str() {
        errors.push(address.invalid(format!("must be in canonical form ({canonical:?})")));
    }
}
