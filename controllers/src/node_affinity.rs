//! Which nodes a pod may be on, by its node selector and its required node affinity. Pure.
//! (Kubernetes: `staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.)

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, PodSpec};
use minik8s_api::selector::{Operator, Requirement};

/// The one field of nodes that terms may ask for.
pub const NAME_FIELD: &str = "metadata.name";

/// Whether the pod's own words admit the node.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| label(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return true };
    let field = |key: &str| if key == NAME_FIELD { node.metadata.name.as_deref() } else { None };
    required.node_selector_terms.iter().any(|term| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        // A term that asks for nothing matches nothing.
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|wanted| holds(wanted, label(&wanted.key)))
            && fields.iter().all(|wanted| holds(wanted, field(&wanted.key)))
    })
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match wanted.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = wanted.values.clone().unwrap_or_default();
    Requirement::new(&wanted.key, operator, values).is_ok_and(|requirement| requirement.matches(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_alternatives_and_their_parts_are_not() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}})).unwrap();
        let check = |terms: serde_json::Value, expected: bool| {
            let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
            assert_eq!(admits(&serde_json::from_value(spec).unwrap(), &node), expected, "{terms}");
        };
        check(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), true);
        check(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]), false);
        check(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}]), true);
        check(json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]), true);
        check(
            json!([{"matchExpressions": [
                {"key": "zone", "operator": "Exists"}, {"key": "cores", "operator": "NotIn", "values": ["8"]}]}]),
            false,
        );
    }
}
