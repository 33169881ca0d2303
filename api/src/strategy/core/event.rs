//! Events, of the core group and of `events.k8s.io`. Mirrors `pkg/apis/core/validation/events.go`.
use crate::strategy::Subresource;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

const NOTE_MAX_BYTES: usize = 1024;
const REASON_MAX_BYTES: usize = 128;
const ACTION_MAX_BYTES: usize = 128;
const INSTANCE_MAX_BYTES: usize = 128;

/// `v1` and `events.k8s.io/v1` Event: two spellings of one object.
pub struct Event;

impl Behavior for Event {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let involved = either(object, "involvedObject", "regarding");
        let namespace = object.get("metadata").get("namespace");
        let about = involved.get("namespace");
        if about.is_empty() {
            // Events of objects without a namespace are kept in `default`.
            if !["", "default", "kube-system"].contains(&namespace.str()) {
                errors.push(about.invalid("does not match event.namespace"));
            }
        } else if about.str() != namespace.str() {
            errors.push(about.invalid("does not match event.namespace"));
        }
        if object.get("eventTime").is_set() {
            validate_new_style(object, errors);
        }
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.uid", "/involvedObject/uid"),
            ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
            ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
            ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
            ("reason", "/reason"),
            ("reportingComponent", "/reportingComponent"),
            ("source", "/source/component"),
            ("source", "/reportingComponent"),
            ("type", "/type"),
        ]
    }
}

fn either<'a>(object: &Field<'a>, core: &'static str, events: &'static str) -> Field<'a> {
    if object.get(events).is_set() { object.get(events) } else { object.get(core) }
}

/// Events that carry `eventTime` say who reports and what was done.
fn validate_new_style(object: &Field<'_>, errors: &mut Errors) {
    let controller = either(object, "reportingComponent", "reportingController");
    if controller.is_empty() {
        errors.push(controller.required(""));
    }
    controller.check(names::qualified_name(controller.str()), errors);
    for (name, limit) in
        [("reportingInstance", INSTANCE_MAX_BYTES), ("action", ACTION_MAX_BYTES), ("reason", REASON_MAX_BYTES)]
    {
        let text = object.get(name);
        if text.is_empty() {
            errors.push(text.required(""));
        }
        if text.len() > limit {
            errors.push(text.invalid(format!("can have at most {limit} characters")));
        }
    }
    let note = either(object, "message", "note");
    if note.len() > NOTE_MAX_BYTES {
        errors.push(note.invalid(format!("can have at most {NOTE_MAX_BYTES} characters")));
    }
    let kind = object.get("type");
    if !["Normal", "Warning"].contains(&kind.str()) {
        errors.push(kind.invalid(format!("has invalid value: {}", kind.str())));
    }
}
