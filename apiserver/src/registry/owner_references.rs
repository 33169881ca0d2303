//! Owners that an object names twice.

use minik8s_api::meta;
use serde_json::Value;

use super::Context;

/// When owners are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// In what the client sent.
    Sent,
    /// In what mutating admission made of it.
    Admitted,
}

/// Names each owner once and warns of those that stood twice
/// (`k8s.io/apiserver/pkg/endpoints/handlers/create.go` `dedupOwnerReferencesAndAddWarning`).
pub(super) fn name_once(context: &Context, object: &mut Value, found: Found) {
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let Some(references) = references.filter(|references| references.len() > 1) else { return };
    let mut once: Vec<Value> = Vec::with_capacity(references.len());
    let mut twice: Vec<String> = Vec::new();
    for reference in references {
        if !once.contains(reference) {
            once.push(reference.clone());
        } else if let uid = reference["uid"].as_str().unwrap_or_default()
            && !twice.iter().any(|known| known == uid)
        {
            twice.push(uid.to_owned());
        }
    }
    if twice.is_empty() {
        return;
    }
    meta::set(object, "ownerReferences", once);
    let after = if found == Found::Admitted { " after mutating admission happens" } else { "" };
    context.warnings.add(format!(
        ".metadata.ownerReferences contains duplicate entries{after}; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: [{}]",
        twice.join(" ")
    ));
}
