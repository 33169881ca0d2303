//! Nodes.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::status::FieldError;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Context, Subresource, edit, names, pod};

/// `v1` Node. The kubelet registers it with a status.
pub struct Node;

impl Behavior for Node {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(status) = edit::member(object, "status")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            edit::default(status, "allocatable", capacity);
        }
        mirror_pod_ranges(object);
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        drop_disabled_fields(object, None);
    }

    fn prepare_for_update(&self, _: &Context<'_>, _: Subresource, new: &mut Value, old: &Value) {
        drop_disabled_fields(new, Some(old));
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        // Taints were an annotation once, and are reported beside it.
        validate_taints(&object.get("metadata").get("taints").with(spec.get("taints").value()), errors);
        for (name, quantity) in object.get("status").get("capacity").entries() {
            pod::resources::validate_quantity(&quantity, name, errors);
        }
        let blocks = spec.get("podCIDRs");
        for block in blocks.items() {
            block.check(names::cidr(block.str()), errors);
        }
        if blocks.len() > 2 {
            errors.push(blocks.invalid("may specify no more than one CIDR for each IP family"));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        let (spec, before) = (new.get("spec"), old.get("spec"));
        self.validate(new, errors);
        if subresource == Subresource::Status {
            return;
        }
        let blocks = before.get("podCIDRs");
        if !blocks.is_empty() && spec.get("podCIDRs").value() != blocks.value() {
            errors
                .push(spec.get("podCIDRs").forbidden("node updates may not change podCIDR except from \"\" to valid"));
        }
        let provider = before.get("providerID");
        if !provider.is_empty() && spec.get("providerID").str() != provider.str() {
            errors.push(
                spec.get("providerID").forbidden("node updates may not change providerID except from \"\" to valid"),
            );
        }
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        let spec = object.get("spec");
        if spec.get("configSource").is_set() {
            warnings.push("spec.configSource: the feature is removed and has no effect".to_owned());
        }
        if !spec.get("externalID").is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.unschedulable", "/spec/unschedulable")]
    }
}

/// `podCIDR` is the old name of the first of `podCIDRs`; where they differ, the old one is taken.
fn mirror_pod_ranges(node: &mut Value) {
    let Some(spec) = edit::member(node, "spec") else {
        return;
    };
    let (old, first) = (edit::text(spec, "podCIDR").to_owned(), spec["podCIDRs"][0].as_str().unwrap_or("").to_owned());
    if old.is_empty() && !first.is_empty() {
        edit::set(spec, "podCIDR", first);
    } else if !old.is_empty() && old != first {
        edit::set(spec, "podCIDRs", json!([old]));
    }
}

/// What nodes could once be told, and what they may be told some day.
fn drop_disabled_fields(node: &mut Value, old: Option<&Value>) {
    for (part, name) in [("spec", "configSource"), ("status", "config"), ("spec", "podPreemptionPolicy")] {
        let held = old.is_some_and(|old| old[part].get(name).is_some());
        if !held && let Some(part) = edit::member(node, part) {
            edit::take(part, name);
        }
    }
}

/// What is wrong with a list of taints.
fn validate_taints(taints: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.check(names::qualified_name(key.str()), errors);
        let complaints = names::label_value(value.str());
        if !complaints.is_empty() {
            errors.push(value.invalid(complaints.join(";")));
        }
        pod::scheduling::taint_effect(&effect, errors);
        let pair = (key.str(), effect.str());
        if !seen.insert(pair) {
            let detail = "taints must be unique by key and effect pair".to_owned();
            let shown = taint.internal(&[
                ("Key", "key", "".into()),
                ("Value", "value", "".into()),
                ("Effect", "effect", "".into()),
                ("TimeAdded", "timeAdded", Value::Null),
            ]);
            errors.push(FieldError { detail, ..taint.duplicate().showing(shown) });
        }
    }
}
