//! What an update that is refused would have changed, in the message that refuses it.
//!
//! Kubernetes prints a diff of its internal structs there; ours names the fields that clients write.
use serde_json::Value;

/// The places where two specs differ, one a line: `- path: was`, `+ path: is`.
pub fn difference(new: &Value, old: &Value) -> String {
    let mut lines = Vec::new();
    collect_differences("spec", new, old, &mut lines);
    lines.join("\n")
}

fn collect_differences(path: &str, new: &Value, old: &Value, lines: &mut Vec<String>) {
    if new == old {
        return;
    }
    match (new, old) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let missing = Value::Null;
                let (a, b) = (a.get(name).unwrap_or(&missing), b.get(name).unwrap_or(&missing));
                collect_differences(&format!("{path}.{name}"), a, b, lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                collect_differences(&format!("{path}[{index}]"), a, b, lines);
            }
        }
        _ => {
            if !old.is_null() {
                lines.push(format!("- {path}: {old}"));
            }
            if !new.is_null() {
                lines.push(format!("+ {path}: {new}"));
            }
        }
    }
}
