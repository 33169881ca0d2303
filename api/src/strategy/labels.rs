//! Label selectors. Mirrors `apimachinery/pkg/apis/meta/v1/validation.ValidateLabelSelector`.
use serde_json::Value;

use super::field::{Errors, Field};
use super::{meta, names};
use crate::selector::LabelSelector;

/// What is wrong with a LabelSelector.
pub fn validate_selector(selector: &Field<'_>, errors: &mut Errors) {
    meta::labels(&selector.get("matchLabels"), errors);
    for expression in selector.get("matchExpressions").items() {
        requirement(&expression, errors);
    }
}

fn requirement(expression: &Field<'_>, errors: &mut Errors) {
    let (operator, values) = (expression.get("operator"), expression.get("values"));
    match operator.str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(operator.invalid("not a valid selector operator")),
    }
    let key = expression.get("key");
    key.check(names::qualified_name(key.str()), errors);
    for value in values.items() {
        value.check(names::label_value(value.str()), errors);
    }
}

/// A selector as text, its members in Kubernetes' order.
pub fn shown(selector: &Value) -> String {
    fn ordered(value: &Value, names: &[&str]) -> String {
        let members = names.iter().filter_map(|name| Some((*name, value.get(*name)?))).map(|(name, member)| {
            let text = match member {
                Value::Array(list) if name == "matchExpressions" => {
                    let all: Vec<String> =
                        list.iter().map(|one| ordered(one, &["key", "operator", "values"])).collect();
                    format!("[{}]", all.join(","))
                }
                other => other.to_string(),
            };
            format!("{name:?}:{text}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
    ordered(selector, &["matchLabels", "matchExpressions"])
}

/// Whether a selector selects everything.
pub fn is_empty(selector: &Value) -> bool {
    let nothing_in = |name: &str| match &selector[name] {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    };
    nothing_in("matchLabels") && nothing_in("matchExpressions")
}

/// Whether a LabelSelector selects an object with these labels; an invalid one selects nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    LabelSelector::from_value(Some(selector)).is_ok_and(|selector| selector.matches_labels(labels.as_object()))
}

/// Whether a LabelSelector can be read as a selector.
pub fn is_readable(selector: &Value) -> bool {
    LabelSelector::from_value(Some(selector)).is_ok()
}
