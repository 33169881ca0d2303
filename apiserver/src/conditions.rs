//! Conditions of objects that the server itself looks after.

use serde_json::{Value, json};

/// A condition by its type.
pub fn find<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|found| found["type"] == condition)
}

/// Sets a condition; its time moves with its status (`SetCRDCondition`, `SetAPIServiceCondition`).
pub fn set_condition(object: &mut Value, condition: &str, status: &str, reason: &str, message: &str, now: &str) {
    let since = find(object, condition)
        .filter(|found| found["status"] == status)
        .map(|found| found["lastTransitionTime"].clone());
    let new = json!({
        "type": condition,
        "status": status,
        "lastTransitionTime": since.unwrap_or_else(|| now.into()),
        "reason": reason,
        "message": message,
    });
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|found| found["type"] == condition) {
        Some(found) => *found = new,
        None => list.push(new),
    }
}
