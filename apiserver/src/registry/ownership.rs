//! Who owns which field: `metadata.managedFields` of every write.

use std::sync::LazyLock;

use minik8s_api::kinds::Kind;
use minik8s_api::managed::{Apply, FieldManager, FieldSet};
use minik8s_api::schema::Type;
use minik8s_api::status::Status;
use serde_json::Value;

use super::{Context, Registry, Target};
use crate::options::WriteOptions;

static NOTHING: LazyLock<FieldSet> = LazyLock::new(FieldSet::default);
static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["status"]]));
static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["spec"]]));

/// What a door of a kind does not write, whatever the client sends (`ResetFieldsStrategy` of the registries).
fn reset_fields(kind: &Kind, subresource: &str) -> &'static FieldSet {
    match subresource {
        "" if kind.subresource("status").is_some() => &STATUS,
        "status" => &SPEC,
        _ => &NOTHING,
    }
}

fn with_field_manager<T>(target: &Target, call: impl FnOnce(FieldManager<'_>) -> T) -> T {
    let (ty, api_version): (Type, String) = (target.kind.ty(), target.kind.api_version());
    call(FieldManager {
        ty: &ty,
        api_version: &api_version,
        kind: &target.kind.kind,
        subresource: &target.subresource,
        reset_fields: reset_fields(&target.kind, &target.subresource),
        versions: None,
    })
}

impl Registry {
    /// Records in managedFields what this write sets, before admission adds to it.
    pub(super) fn record_manager(
        &self,
        context: &Context,
        target: &Target,
        live: Option<&Value>,
        object: &mut Value,
        options: &WriteOptions,
    ) {
        let manager = options.field_manager.as_deref().unwrap_or(&context.manager);
        with_field_manager(target, |fields| fields.update(live, object, manager, self.clock.now()));
    }

    /// The result of applying a configuration to the live object.
    pub(super) fn applied(
        &self,
        target: &Target,
        live: Option<&Value>,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let manager = options.field_manager.as_deref().unwrap_or_default();
        let apply = Apply { patch, manager, force: options.force, now: self.clock.now() };
        with_field_manager(target, |fields| fields.apply(live, apply)).map_err(Status::from)
    }
}
