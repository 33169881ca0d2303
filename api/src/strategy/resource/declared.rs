//! Rules that Kubernetes declares beside the types (`+k8s:` tags of `k8s.io/api/resource/v1/types.go`) and enforces.
//!
//! They are asked of the whole object, apart from what is written by hand, and their errors come last. Where both know a
//! fault, Kubernetes tells of it in the words of these; the files beside this one leave it out.
//! Generated there as `pkg/apis/resource/v1/zz_generated.validations.go`.
use super::super::field::{Errors, Field};
use super::super::names;
use super::formats::{
    declared_driver_name, declared_extended_resource_name, declared_fully_qualified_name, declared_pool_name,
    declared_uuid,
};
use super::{
    BINDING_CONDITIONS_MAX, CONFIGS_MAX, CONSTRAINTS_MAX, CONSUMED_COUNTERS_MAX, COUNTER_SETS_MAX, FIRST_AVAILABLE_MAX,
    REQUESTS_MAX, RESERVED_FOR_MAX, SELECTORS_MAX,
};

const INTERFACE_NAME_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
const IPS_MAX: usize = 16;
/// Members of an attribute, of which one must be given.
const ATTRIBUTE_VALUES: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];

/// `spec` of a ResourceClaim.
pub fn claim_spec(spec: &Field<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    if fits(&requests, REQUESTS_MAX, errors) {
        unique(&requests, &["name"], errors);
        requests.items().for_each(|request| device_request(&request, errors));
    }
    let constraints = devices.get("constraints");
    if fits(&constraints, CONSTRAINTS_MAX, errors) {
        for constraint in constraints.items() {
            request_names(&constraint.get("requests"), errors);
            for name in ["matchAttribute", "distinctAttribute"] {
                if let Some(attribute) = constraint.get(name).set() {
                    declared_fully_qualified_name(&attribute, errors);
                }
            }
        }
    }
    let configs = devices.get("config");
    if fits(&configs, CONFIGS_MAX, errors) {
        for config in configs.items() {
            request_names(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
}

fn device_request(request: &Field<'_>, errors: &mut Errors) {
    if let Some(exactly) = request.get("exactly").set() {
        requested_devices(&exactly, errors);
    }
    let choices = request.get("firstAvailable");
    if fits(&choices, FIRST_AVAILABLE_MAX, errors) {
        unique(&choices, &["name"], errors);
        for choice in choices.items() {
            let class = choice.get("deviceClassName");
            if class.is_empty() {
                errors.push(class.required(""));
            } else {
                class.check(names::long_name(class.str()), errors);
            }
            requested_devices(&choice, errors);
        }
    }
}

fn requested_devices(request: &Field<'_>, errors: &mut Errors) {
    fits(&request.get("selectors"), SELECTORS_MAX, errors);
    let mode = request.get("allocationMode");
    if !mode.is_empty() {
        one_of(&mode, &["All", "ExactCount"], errors);
    }
    request.get("tolerations").items().for_each(|toleration| device_toleration(&toleration, errors));
}

fn device_toleration(toleration: &Field<'_>, errors: &mut Errors) {
    let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
    if !key.is_empty() {
        key.check(names::qualified_name(key.str()), errors);
    }
    operator.one_of(&["Equal", "Exists"], errors);
    if !effect.is_empty() {
        one_of(&effect, &TAINT_EFFECTS, errors);
    }
}

const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// A taint of a device.
pub fn taint(taint: &Field<'_>, errors: &mut Errors) {
    taint.get("effect").one_of(&TAINT_EFFECTS, errors);
}

fn request_names(requests: &Field<'_>, errors: &mut Errors) {
    if fits(requests, REQUESTS_MAX, errors) {
        unique(requests, &[], errors);
    }
}

fn configuration(config: &Field<'_>, errors: &mut Errors) {
    if let Some(opaque) = config.get("opaque").set() {
        declared_driver_name(&opaque.get("driver"), errors);
    }
}

/// `spec` of a DeviceClass.
pub fn class_spec(spec: &Field<'_>, errors: &mut Errors) {
    fits(&spec.get("selectors"), SELECTORS_MAX, errors);
    let configs = spec.get("config");
    if fits(&configs, CONFIGS_MAX, errors) {
        configs.items().for_each(|config| configuration(&config, errors));
    }
    if let Some(name) = spec.get("extendedResourceName").set() {
        declared_extended_resource_name(&name, errors);
    }
}

/// `spec` of a ResourceSlice.
pub fn slice_spec(spec: &Field<'_>, errors: &mut Errors) {
    spec.get("devices").items().for_each(|one| device(&one, errors));
    let sets = spec.get("sharedCounters");
    if fits(&sets, COUNTER_SETS_MAX, errors) {
        unique(&sets, &["name"], errors);
        sets.items().for_each(|set| counter_names(&set, "name", errors));
    }
}

fn device(device: &Field<'_>, errors: &mut Errors) {
    device.get("attributes").entries().for_each(|(_, attribute)| one_value(&attribute, errors));
    let consumed = device.get("consumesCounters");
    if fits(&consumed, CONSUMED_COUNTERS_MAX, errors) {
        unique(&consumed, &["counterSet"], errors);
        consumed.items().for_each(|set| counter_names(&set, "counterSet", errors));
    }
    device.get("taints").items().for_each(|one| taint(&one, errors));
    for name in ["bindingConditions", "bindingFailureConditions"] {
        fits(&device.get(name), BINDING_CONDITIONS_MAX, errors);
    }
}

/// An attribute has exactly one value.
fn one_value(attribute: &Field<'_>, errors: &mut Errors) {
    let all = ATTRIBUTE_VALUES.map(|name| format!("`{name}`")).join(", ");
    let given: Vec<&str> = ATTRIBUTE_VALUES.into_iter().filter(|name| attribute.get(name).is_set()).collect();
    match given.len() {
        0 => errors.push(attribute.invalid_as("", format!("must specify one of: {all}"))),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            errors.push(attribute.invalid_as(shown, format!("must specify exactly one of: {all}")));
        }
    }
}

/// The name of a set of counters, and the counters' names.
fn counter_names(set: &Field<'_>, name: &'static str, errors: &mut Errors) {
    let (name, counters) = (set.get(name), set.get("counters"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.check(names::short_name(name.str()), errors);
    }
    if counters.is_empty() {
        errors.push(counters.required(""));
    }
    for (key, _) in counters.entries() {
        errors.extend(names::short_name(key).into_iter().map(|complaint| counters.invalid_as(key, complaint)));
    }
}

/// `status` of a ResourceClaim, given what it was.
pub fn claim_status(status: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (allocation, before) = (status.get("allocation"), old.get("allocation"));
    if allocation.value() != before.value() {
        if before.is_set() && allocation.is_set() {
            errors.push(allocation.invalid_as(serde_json::Value::Null, "field cannot be modified once set"));
        } else {
            allocated(&allocation.get("devices"), errors);
        }
    }
    let reserved = status.get("reservedFor");
    if fits(&reserved, RESERVED_FOR_MAX, errors) {
        unique(&reserved, &["uid"], errors);
    }
    let devices = status.get("devices");
    unique(&devices, &["driver", "device", "pool", "shareID"], errors);
    for device in devices.items() {
        if let Some(share) = device.get("shareID").set() {
            declared_uuid(&share, errors);
        }
        network_data(&device.get("networkData"), errors);
    }
}

fn allocated(devices: &Field<'_>, errors: &mut Errors) {
    let results = devices.get("results");
    if fits(&results, REQUESTS_MAX, errors) {
        results.items().for_each(|result| allocated_device(&result, errors));
    }
    let configs = devices.get("config");
    if fits(&configs, 2 * CONFIGS_MAX, errors) {
        for config in configs.items() {
            config.get("source").one_of(&["FromClaim", "FromClass"], errors);
            request_names(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
}

fn allocated_device(result: &Field<'_>, errors: &mut Errors) {
    declared_driver_name(&result.get("driver"), errors);
    let pool = result.get("pool");
    if pool.is_empty() {
        errors.push(pool.required(""));
    } else {
        declared_pool_name(&pool, errors);
    }
    result.get("tolerations").items().for_each(|toleration| device_toleration(&toleration, errors));
    for name in ["bindingConditions", "bindingFailureConditions"] {
        fits(&result.get(name), BINDING_CONDITIONS_MAX, errors);
    }
    if let Some(share) = result.get("shareID").set() {
        declared_uuid(&share, errors);
    }
}

fn network_data(data: &Field<'_>, errors: &mut Errors) {
    let long = |name: &'static str, most: usize, errors: &mut Errors| {
        let text = data.get(name);
        if text.len() > most {
            errors.push(text.too_long(most));
        }
    };
    long("interfaceName", INTERFACE_NAME_MAX, errors);
    let ips = data.get("ips");
    if fits(&ips, IPS_MAX, errors) {
        unique(&ips, &[], errors);
    }
    long("hardwareAddress", HARDWARE_ADDRESS_MAX, errors);
}

/// Tells of a list that is too long; the elements of one that is are not looked at.
fn fits(list: &Field<'_>, most: usize, errors: &mut Errors) -> bool {
    let fits = list.len() <= most;
    if !fits {
        errors.push(list.too_many(most));
    }
    fits
}

/// Elements that are the same as one before them in these members; without members, as a whole.
fn unique(list: &Field<'_>, members: &[&'static str], errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for item in list.items() {
        let key = match members {
            [] => item.value().to_string(),
            // A member that is left out and one that is empty differ only where Kubernetes has a pointer, as to a share.
            _ => members.iter().map(|name| format!("{}\u{0}", item.get(name).str())).collect(),
        };
        if !seen.insert(key) {
            errors.push(item.duplicate());
        }
    }
}

fn one_of(field: &Field<'_>, known: &[&str], errors: &mut Errors) {
    if !known.contains(&field.str()) {
        errors.push(field.not_supported(known));
    }
}
