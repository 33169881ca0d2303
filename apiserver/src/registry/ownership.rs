//! Who owns which field: `metadata.managedFields` of every write.

use std::sync::LazyLock;

use minik8s_api::kinds::Kind;
use minik8s_api::managed::{Apply, FieldManager, FieldSet, Versions};
use minik8s_api::meta;
use minik8s_api::schema::Type;
use minik8s_api::status::Status;
use minik8s_api::strategy::strategy_for;
use serde_json::Value;

use super::versions::OtherVersions;
use super::{Context, Registry, Target};
use crate::options::WriteOptions;

static NOTHING: LazyLock<FieldSet> = LazyLock::new(FieldSet::default);
static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["status"]]));
static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["spec"]]));
static SPEC_AND_LABELS: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of_fields(&[&["spec"]]).union(&FieldSet::of_fields(&[&["metadata", "labels"]])));
static SPEC_AND_OWNERS: LazyLock<FieldSet> = LazyLock::new(|| {
    let [deletion, owners] =
        ["deletionTimestamp", "ownerReferences"].map(|name| FieldSet::of_fields(&[&["metadata", name]]));
    FieldSet::of_fields(&[&["spec"]]).union(&deletion).union(&owners)
});
static SPEC_AND_METADATA: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["spec"], &["metadata"]]));

/// What a door of a kind does not write, whatever the client sends (`ResetFieldsStrategy` of the registries).
fn reset_fields(kind: &Kind, subresource: &str) -> &'static FieldSet {
    match subresource {
        "status" if kind.group == "apps" && kind.kind == "Deployment" => &SPEC_AND_LABELS,
        "status" if kind.group.is_empty() && kind.kind == "Pod" => &SPEC_AND_OWNERS,
        "status" if strategy_for(kind).status_keeps_metadata() => &SPEC_AND_METADATA,
        "" if kind.subresource("status").is_some() => &STATUS,
        "status" if kind.custom => &SPEC_AND_METADATA,
        "status" => &SPEC,
        _ => &NOTHING,
    }
}

fn with_field_manager<T>(target: &Target, versions: &OtherVersions, call: impl FnOnce(FieldManager<'_>) -> T) -> T {
    let (ty, api_version): (Type, String) = (target.kind.ty(), target.kind.api_version());
    call(FieldManager {
        ty: &ty,
        api_version: &api_version,
        kind: &target.kind.kind,
        subresource: &target.subresource,
        reset_fields: reset_fields(&target.kind, &target.subresource),
        versions: versions.differ().then_some(versions as &dyn Versions),
    })
}

impl Registry {
    /// Records in managedFields what this write sets, before admission adds to it.
    pub(super) async fn record_manager(
        &self,
        context: &Context,
        target: &Target,
        live: Option<&Value>,
        object: &mut Value,
        options: &WriteOptions,
    ) {
        let manager = options.field_manager.as_deref().unwrap_or(&context.manager);
        let versions = OtherVersions::of(target, self.kinds());
        if !versions.differ() {
            return with_field_manager(target, &versions, |fields| {
                fields.update(live, object, manager, self.clock.now());
            });
        }
        loop {
            let mut recorded = object.clone();
            with_field_manager(target, &versions, |fields| {
                fields.update(live, &mut recorded, manager, self.clock.now());
            });
            match versions.fetch(&self.converter).await {
                Ok(true) => {}
                Ok(false) => {
                    *object = recorded;
                    return;
                }
                // The owners stay as they were: an ordinary write does not fail for a version that it is not about.
                Err(status) => {
                    tracing::warn!(message = status.message, "owners of fields are not told: another version failed");
                    let before = live.and_then(|live| live["metadata"].get("managedFields")).cloned();
                    match before {
                        Some(before) => meta::set(object, "managedFields", before),
                        None => drop(meta::metadata_mut(object).remove("managedFields")),
                    }
                    return;
                }
            }
        }
    }

    /// The result of applying a configuration to the live object.
    pub(super) fn applied(
        &self,
        target: &Target,
        live: Option<&Value>,
        patch: &Value,
        options: &WriteOptions,
        versions: &OtherVersions,
    ) -> Result<Value, Status> {
        let manager = options.field_manager.as_deref().unwrap_or_default();
        let apply = Apply { patch, manager, force: options.force, now: self.clock.now() };
        with_field_manager(target, versions, |fields| fields.apply(live, apply)).map_err(Status::from)
    }
}
