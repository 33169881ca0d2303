//! Which names a definition gets, and the conditions that say so.
//!
//! `apiextensions-apiserver/pkg/controller/{status/naming_controller.go,establish/establishing_controller.go,
//! apiapproval/apiapproval_controller.go}`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::conditions::{find, set_condition};

/// The annotation by which groups of Kubernetes itself may be used.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Names that other definitions of a group have.
#[derive(Default)]
pub struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Takes the accepted names of a definition.
    pub fn add(&mut self, definition: &Value) {
        let names = &definition["status"]["acceptedNames"];
        let mut take = |set: fn(&mut Taken) -> &mut BTreeSet<String>, value: &Value| {
            if let Some(name) = value.as_str().filter(|name| !name.is_empty()) {
                set(self).insert(name.to_owned());
            }
        };
        for field in ["plural", "singular"] {
            take(|taken| &mut taken.resources, &names[field]);
        }
        for name in names["shortNames"].as_array().into_iter().flatten() {
            take(|taken| &mut taken.resources, name);
        }
        for field in ["kind", "listKind"] {
            take(|taken| &mut taken.kinds, &names[field]);
        }
    }
}

/// Whether a condition is true.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    find(definition, condition).is_some_and(|found| found["status"] == "True")
}

/// Brings a definition's status to what its names and those of others make of it.
pub fn settle(definition: &mut Value, taken: &Taken, now: &str) {
    approve(definition, now);
    let conflict = accept(definition, taken);
    let (status, reason, message) = match &conflict {
        Some((reason, message)) => ("False", *reason, message.as_str()),
        None => ("True", "NoConflicts", "no conflicts found"),
    };
    set_condition(definition, "NamesAccepted", status, reason, message, now);
    if is_true(definition, "Established") {
        return;
    }
    let (status, reason, message) = match conflict {
        None => ("True", "InitialNamesAccepted", "the initial names have been accepted"),
        Some(_) => ("False", "NotAccepted", "not all names are accepted"),
    };
    set_condition(definition, "Established", status, reason, message, now);
}

/// Moves every name that is free from `spec.names` to `status.acceptedNames`; the last conflict, if there is one.
fn accept(definition: &mut Value, taken: &Taken) -> Option<(&'static str, String)> {
    let wanted = definition["spec"]["names"].clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    let mut conflict = None;
    let used = |name: &str| format!("{name:?} is already in use");
    let fields = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, taken) in fields {
        let had: Vec<&str> = texts(&accepted[field]);
        let refused: Vec<String> = texts(&wanted[field])
            .into_iter()
            .filter(|name| !had.contains(name) && taken.contains(*name))
            .map(used)
            .collect();
        match refused.as_slice() {
            [] => put(&mut accepted, field, wanted.get(field)),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    put(&mut accepted, "categories", wanted.get("categories"));
    definition["status"]["acceptedNames"] = accepted;
    conflict
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn put(names: &mut Value, field: &str, value: Option<&Value>) {
    match (names.as_object_mut(), value) {
        (Some(names), Some(value)) => drop(names.insert(field.to_owned(), value.clone())),
        (Some(names), None) => drop(names.remove(field)),
        (None, _) => {}
    }
}

/// Groups of Kubernetes itself say whether they were approved.
fn approve(definition: &mut Value, now: &str) {
    const CONDITION: &str = "KubernetesAPIApprovalPolicyConformant";
    if !is_protected(definition["spec"]["group"].as_str().unwrap_or_default()) {
        return;
    }
    let said = definition["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default().to_owned();
    let (status, reason, message) = if said.is_empty() {
        let message = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        ("False", "MissingAnnotation", message)
    } else if said.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {said:?}"))
    } else {
        ("True", "ApprovedAnnotation", format!("approved in {said}"))
    };
    set_condition(definition, CONDITION, status, reason, &message, now);
}

/// `k8s.io`, `kubernetes.io` and what is below them (`IsProtectedCommunityGroup`).
fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(plural: &str, kind: &str, short: &str) -> Value {
        let names = json!({ "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": [short] });
        json!({ "spec": { "group": "example.com", "names": names }, "status": { "acceptedNames": { "plural": "", "kind": "" } } })
    }

    #[test]
    fn the_second_of_a_name_waits() {
        let mut first = definition("as", "A", "a1");
        settle(&mut first, &Taken::default(), "now");
        assert!(is_true(&first, "NamesAccepted") && is_true(&first, "Established"));
        let mut taken = Taken::default();
        taken.add(&first);
        let mut second = definition("bs", "A", "a1");
        settle(&mut second, &taken, "now");
        assert!(!is_true(&second, "Established"));
        let named = find(&second, "NamesAccepted").expect("a condition");
        assert_eq!(
            (&named["reason"], &named["message"]),
            (&json!("ListKindConflict"), &json!("\"AList\" is already in use"))
        );
        let accepted = &second["status"]["acceptedNames"];
        assert_eq!(accepted["plural"], "bs");
        assert!(accepted.get("shortNames").is_none() && accepted["kind"] == "");
        settle(&mut second, &Taken::default(), "later");
        let named = find(&second, "NamesAccepted").expect("a condition");
        assert_eq!(named["lastTransitionTime"], "later");
        assert!(is_true(&second, "Established"));
    }

    #[test]
    fn groups_of_kubernetes_need_approval() {
        assert!(
            is_protected("gateway.networking.k8s.io") && !is_protected("notk8s.io") && !is_protected("example.com")
        );
    }
}
