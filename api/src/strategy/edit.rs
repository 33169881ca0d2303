//! The counterpart of `field.rs` for functions that change objects: defaults and preparation.
use serde_json::{Map, Value};

/// Sets a member that is absent.
pub fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(name).is_none_or(Value::is_null)
    {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets a string member that is absent or empty.
pub fn default_text(object: &mut Value, name: &str, value: &str) {
    if object.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
        set(object, name, value);
    }
}

/// Sets a member.
pub fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value.into());
    }
}

/// Removes a member and gives it back.
pub fn take(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut().and_then(|map| map.remove(name))
}

/// Sets a member, or removes it where there is no value.
pub fn replace(object: &mut Value, name: &str, value: Option<Value>) {
    match value {
        Some(value) => set(object, name, value),
        None => {
            take(object, name);
        }
    }
}

/// Makes a member what it is in `old`.
pub fn keep(new: &mut Value, old: &Value, name: &str) {
    replace(new, name, old.get(name).cloned());
}

/// A member that is an object, made if absent.
pub fn child<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let member = &mut object[name];
    if member.is_null() {
        *member = Value::Object(Map::new());
    }
    member
}

/// A member, if it is there.
pub fn member<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    object.get_mut(name).filter(|value| !value.is_null())
}

/// The elements of a list member.
pub fn each<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The string at a member, `""` where absent.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or("")
}

/// Sets an annotation.
pub fn annotate(object: &mut Value, key: &str, value: &str) {
    set(child(child(object, "metadata"), "annotations"), key, value);
}

/// Sets a label.
pub fn label(object: &mut Value, key: &str, value: &str) {
    set(child(child(object, "metadata"), "labels"), key, value);
}
