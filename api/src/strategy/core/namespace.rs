//! Namespaces.
use serde_json::{Value, json};

use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Context, Subresource, edit, meta};

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `v1` Namespace: a finalizer keeps it until its content is gone.
pub struct Namespace;

impl Behavior for Namespace {
    fn set_defaults(&self, object: &mut Value) {
        let name = edit::text(&object["metadata"], "name").to_owned();
        if !name.is_empty() {
            edit::label(object, NAME_LABEL, &name);
        }
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        // generateName has made the name by now.
        self.set_defaults(object);
        let spec = edit::child(object, "spec");
        edit::default(spec, "finalizers", json!([]));
        if let Some(list) = spec["finalizers"].as_array_mut()
            && !list.iter().any(|finalizer| finalizer == FINALIZER)
        {
            list.push(FINALIZER.into());
        }
        edit::set(edit::child(object, "status"), "phase", "Active");
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        match subresource {
            Subresource::Finalize => {
                let finalizers = new["spec"].get("finalizers").cloned();
                edit::keep(new, old, "spec");
                edit::replace(edit::child(new, "spec"), "finalizers", finalizers);
            }
            Subresource::Status => {}
            _ => edit::keep(edit::child(new, "spec"), &old["spec"], "finalizers"),
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        // Reported at the list: the path names no element.
        let list = object.get("spec").get("finalizers");
        finalizers(list.items().map(|finalizer| list.with(finalizer.value())), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, _: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Finalize {
            finalizers(new.get("spec").get("finalizers").items(), errors);
        }
        let (phase, deleted) = (new.get("status").get("phase"), new.get("metadata").get("deletionTimestamp").is_set());
        // The path is Go's.
        let shown = Field::at("status.Phase", phase.value());
        match (subresource, deleted) {
            (Subresource::Status, false) if phase.str() != "Active" => {
                errors.push(shown.invalid("may only be 'Active' if `deletionTimestamp` is empty"));
            }
            (Subresource::Status, true) if phase.str() != "Terminating" => {
                errors.push(shown.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty"));
            }
            _ => {}
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.phase", "/status/phase")]
    }
}

fn finalizers<'a>(finalizers: impl Iterator<Item = Field<'a>>, errors: &mut Errors) {
    for finalizer in finalizers {
        finalizer.check(crate::strategy::names::qualified_name(finalizer.str()), errors);
        meta::kube_finalizer(&finalizer, errors);
    }
}
