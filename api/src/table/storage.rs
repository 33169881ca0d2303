//! Volumes, claims, classes, drivers and devices.
use serde_json::Value;

use super::cells::{NONE, Object, UNSET, or_none};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let held = SHORT.iter().filter(|(long, _)| modes.iter().any(|mode| mode == long));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn storage_class(object: &Object<'_>) -> Value {
    match object.at("/metadata/annotations")[CLASS_ANNOTATION].as_str() {
        Some(class) => class.into(),
        None => object.text("/spec/storageClassName").into(),
    }
}

fn phase(object: &Object<'_>) -> Value {
    if object.is_deleting() { "Terminating".into() } else { object.text("/status/phase").into() }
}

pub fn volume(object: &Object<'_>) -> Vec<Value> {
    let claim = match object.at("/spec/claimRef") {
        Value::Object(_) => {
            format!("{}/{}", object.text("/spec/claimRef/namespace"), object.text("/spec/claimRef/name"))
        }
        _ => String::new(),
    };
    vec![
        object.name(),
        object.text_or("/spec/capacity/storage", "0"),
        access_modes(object.list("/spec/accessModes")).into(),
        object.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase(object),
        claim.into(),
        storage_class(object),
        object.text_or("/spec/volumeAttributesClassName", UNSET),
        object.text("/status/reason").into(),
        object.age(),
        object.text_or("/spec/volumeMode", UNSET),
    ]
}

pub fn claim(object: &Object<'_>) -> Vec<Value> {
    let bound = !object.text("/spec/volumeName").is_empty();
    let (capacity, modes) = if bound {
        (object.text_or("/status/capacity/storage", "0"), access_modes(object.list("/status/accessModes")))
    } else {
        ("".into(), String::new())
    };
    vec![
        object.name(),
        phase(object),
        object.text("/spec/volumeName").into(),
        capacity,
        modes.into(),
        storage_class(object),
        object.text_or("/spec/volumeAttributesClassName", UNSET),
        object.age(),
        object.text_or("/spec/volumeMode", UNSET),
    ]
}

pub fn class(object: &Object<'_>) -> Vec<Value> {
    let annotations = object.at("/metadata/annotations");
    let default = DEFAULT_CLASS_ANNOTATIONS.iter().any(|key| annotations[*key] == "true");
    let name = object.text("/metadata/name");
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        object.text("/provisioner").into(),
        object.text_or("/reclaimPolicy", "Delete"),
        object.text_or("/volumeBindingMode", "Immediate"),
        object.bool("/allowVolumeExpansion").into(),
        object.age(),
    ]
}

pub fn attachment(object: &Object<'_>) -> Vec<Value> {
    vec![
        object.name(),
        object.text("/spec/attacher").into(),
        object.text("/spec/source/persistentVolumeName").into(),
        object.text("/spec/nodeName").into(),
        object.bool("/status/attached").into(),
        object.age(),
    ]
}

pub fn attributes_class(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.text("/driverName").into(), object.age()]
}

pub fn csi_driver(object: &Object<'_>) -> Vec<Value> {
    let joined = |list: &[Value], name: Option<&str>| -> String {
        let text = |item: &Value| match name {
            Some(name) => item[name].as_str().unwrap_or("").to_owned(),
            None => item.as_str().unwrap_or("").to_owned(),
        };
        list.iter().map(text).collect::<Vec<_>>().join(",")
    };
    let tokens = object.list("/spec/tokenRequests");
    vec![
        object.name(),
        object.at("/spec/attachRequired").as_bool().unwrap_or(true).into(),
        object.bool("/spec/podInfoOnMount").into(),
        object.bool("/spec/storageCapacity").into(),
        if tokens.is_empty() { UNSET.into() } else { joined(tokens, Some("audience")).into() },
        object.bool("/spec/requiresRepublish").into(),
        or_none(joined(object.list("/spec/volumeLifecycleModes"), None)).into(),
        object.age(),
    ]
}

pub fn csi_node(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), object.count("/spec/drivers").into(), object.age()]
}

pub fn resource_claim(object: &Object<'_>) -> Vec<Value> {
    let mut states = Vec::new();
    if object.is_deleting() {
        states.push("deleted");
    }
    if object.at("/status/allocation").is_null() {
        if states.is_empty() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !object.list("/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    vec![object.name(), states.join(",").into(), object.age()]
}

pub fn resource_slice(object: &Object<'_>) -> Vec<Value> {
    vec![
        object.name(),
        object.text_or("/spec/nodeName", NONE),
        object.text("/spec/driver").into(),
        object.text("/spec/pool/name").into(),
        object.age(),
    ]
}

pub fn device_taint_rule(object: &Object<'_>) -> Vec<Value> {
    let added = match object.text("/spec/taint/timeAdded") {
        "" => NONE.to_owned(),
        _ => object.since("/spec/taint/timeAdded"),
    };
    vec![
        object.name(),
        object.text("/spec/taint/key").into(),
        object.text("/spec/taint/value").into(),
        object.text("/spec/taint/effect").into(),
        added.into(),
        object.age(),
    ]
}
