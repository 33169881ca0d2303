//! ConfigMaps, Secrets and ServiceAccounts.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Context, Subresource, edit, names};

/// Most bytes that a ConfigMap or Secret may hold, values only.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// `v1` ConfigMap.
pub struct ConfigMap;

impl Behavior for ConfigMap {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (data, binary) = (object.get("data"), object.get("binaryData"));
        let mut bytes = 0;
        for (key, value) in data.entries() {
            check_key(&value, key, errors);
            if binary.key(key).is_set() {
                errors.push(value.invalid_as(key, "duplicate of key present in binaryData"));
            }
            bytes += value.str().len();
        }
        for (key, value) in binary.entries() {
            check_key(&value, key, errors);
            bytes += decoded_len(value.str());
        }
        if bytes > DATA_MAX_BYTES {
            // The path of the whole is an empty key: `[]`.
            errors.push(object.key("").too_long(DATA_MAX_BYTES));
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        keep_if_immutable(new, old, &["data", "binaryData"], errors);
        self.validate(new, errors);
    }
}

/// `v1` Secret.
pub struct Secret;

impl Behavior for Secret {
    fn set_defaults(&self, object: &mut Value) {
        edit::default_text(object, "type", "Opaque");
        // stringData is a way to write data, never a thing to read.
        if let Some(Value::Object(plain)) = edit::take(object, "stringData") {
            let data = edit::child(object, "data");
            for (key, value) in plain {
                edit::set(data, &key, STANDARD.encode(value.as_str().unwrap_or("")));
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let data = object.get("data");
        let mut bytes = 0;
        for (key, value) in data.entries() {
            check_key(&value, key, errors);
            bytes += decoded_len(value.str());
        }
        if bytes > DATA_MAX_BYTES {
            errors.push(data.too_long(DATA_MAX_BYTES));
        }
        validate_type(object, &data, errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        new.get("type").immutable(&old.get("type"), errors);
        keep_if_immutable(new, old, &["data"], errors);
        self.validate(new, errors);
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("type", "/type")]
    }
}

/// `v1` ServiceAccount.
pub struct ServiceAccount;

impl Behavior for ServiceAccount {
    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        only_names(object);
    }

    fn prepare_for_update(&self, _: &Context<'_>, _: Subresource, new: &mut Value, _: &Value) {
        only_names(new);
    }
}

/// Of the references to secrets only the names count.
fn only_names(account: &mut Value) {
    for secret in edit::each(account, "secrets") {
        if let Some(map) = secret.as_object_mut() {
            map.retain(|name, _| name == "name");
        }
    }
}

fn check_key(value: &Field<'_>, key: &str, errors: &mut Errors) {
    errors.extend(names::config_map_key(key).into_iter().map(|complaint| value.invalid_as(key, complaint)));
}

fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|byte| *byte == b'=').count().min(base64.len() / 4 * 3)
}

fn keep_if_immutable(new: &Field<'_>, old: &Field<'_>, members: &[&'static str], errors: &mut Errors) {
    if !old.get("immutable").bool() {
        return;
    }
    if !new.get("immutable").bool() {
        errors.push(new.get("immutable").forbidden(IMMUTABLE));
    }
    for name in members {
        if new.get(name).value() != old.get(name).value() {
            errors.push(new.get(name).forbidden(IMMUTABLE));
        }
    }
}

fn validate_type(object: &Field<'_>, data: &Field<'_>, errors: &mut Errors) {
    let must_have = |key: &str, errors: &mut Errors| {
        if !data.key(key).is_set() {
            errors.push(data.key(key).required(""));
        }
    };
    match object.get("type").str() {
        "kubernetes.io/service-account-token" => {
            let account = object.get("metadata").get("annotations").key("kubernetes.io/service-account.name");
            if account.is_empty() {
                errors.push(account.required(""));
            }
        }
        "kubernetes.io/dockercfg" => json_content(data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => json_content(data, ".dockerconfigjson", errors),
        // Either of the two will do.
        "kubernetes.io/basic-auth" if !data.key("username").is_set() && !data.key("password").is_set() => {
            must_have("username", errors);
            must_have("password", errors);
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").is_empty() => {
            errors.push(data.key("ssh-privatekey").required(""));
        }
        "kubernetes.io/tls" => {
            must_have("tls.crt", errors);
            must_have("tls.key", errors);
        }
        _ => {}
    }
}

fn json_content(data: &Field<'_>, key: &str, errors: &mut Errors) {
    let content = data.key(key);
    if !content.is_set() {
        errors.push(content.required(""));
        return;
    }
    let bytes = STANDARD.decode(content.str()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Value>(&bytes) {
        errors.push(content.invalid_as("<secret contents redacted>", error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_base64_is_that_of_its_bytes() {
        for (text, bytes) in [("", 0), ("YQ==", 1), ("YWI=", 2), ("YWJj", 3), ("YWJjZA==", 4)] {
            assert_eq!(decoded_len(text), bytes, "{text}");
        }
    }
}
