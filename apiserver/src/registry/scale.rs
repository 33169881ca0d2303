//! The `scale` subresource: an `autoscaling/v1` Scale read from and written into an object.
//!
//! `pkg/registry/apps/deployment/storage/storage.go` `ScaleREST`.

use std::sync::{Arc, LazyLock};

use minik8s_api::decode::FieldValidation;
use minik8s_api::kinds::GroupKind;
use minik8s_api::managed::{Apply, ApplyError, EntryError, FieldManager, FieldSet, ScaleOwners};
use minik8s_api::meta;
use minik8s_api::schema::{Struct, Type, built_in};
use minik8s_api::status::Status;
use minik8s_api::strategy::{scale_errors, strategy_for};
use serde_json::Value;

use super::create::check_namespace;
use super::patch::{Patch, PatchType, apply_patch, check_duplicates, normalized};
use super::read::Freshness;
use super::update::{Ownership, check_name};
use super::{Context, Registry, Target};
use crate::options::WriteOptions;

static SCHEMA: LazyLock<&Arc<Struct>> =
    LazyLock::new(|| built_in().definition("io.k8s.api.autoscaling.v1.Scale").expect("the schema of a Scale"));
static SCALE: LazyLock<Type> = LazyLock::new(|| Type::Struct(Arc::clone(*SCHEMA)));
static NOTHING: FieldSet = FieldSet::new();
/// Who owns the fields of a Scale, whatever it is the Scale of.
static OWNERS: LazyLock<FieldManager<'static>> = LazyLock::new(|| FieldManager {
    ty: &SCALE,
    api_version: "autoscaling/v1",
    kind: "Scale",
    subresource: "scale",
    reset_fields: &NOTHING,
    versions: None,
});

/// A custom resource that does not say how many there are to be has no Scale to read, though one can be written. (Kubernetes
/// answers 500 here.)
fn has_replicas(target: &Target, object: &Value) -> Result<(), Status> {
    let replicas = strategy_for(&target.kind).replicas_path().unwrap_or_default();
    let found = replicas.iter().try_fold(object, |object, name| object.get(name));
    if target.kind.definition.is_none() || found.is_some_and(|found| !found.is_null()) {
        return Ok(());
    }
    let mut status = target.not_found();
    status.message = format!("the spec replicas field {:?} does not exist", format!(".{}", replicas.join(".")));
    Err(status)
}

impl Registry {
    /// An object's Scale.
    pub async fn get_scale(&self, target: &Target, freshness: Freshness) -> Result<Value, Status> {
        let object = self.get(target, freshness).await?;
        let object = self.served(target, &object).await?;
        let scale = self.scale_of(target, &object)?;
        has_replicas(target, &object)?;
        Ok(scale)
    }

    fn scale_of(&self, target: &Target, object: &Value) -> Result<Value, Status> {
        strategy_for(&target.kind).scale(object).ok_or_else(Status::unknown_resource)
    }

    /// Replaces an object's Scale; answers with the new one.
    pub async fn update_scale(
        &self,
        context: &Context,
        target: &Target,
        scale: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let mut scale = scale;
        check_namespace(target, &mut scale)?;
        check_name(target, &scale)?;
        let manager = options.field_manager.as_deref().unwrap_or(&context.manager);
        self.write_scale(context, target, options, &mut |present| {
            let mut scale = scale.clone();
            OWNERS.update(Some(present), &mut scale, manager, self.clock.now());
            Ok(scale)
        })
        .await
    }

    /// Patches an object's Scale; answers with the new one.
    pub async fn patch_scale(
        &self,
        context: &Context,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let manager = options.field_manager.as_deref().unwrap_or(&context.manager);
        self.write_scale(context, target, options, &mut |present| {
            let mut scale = if patch.patch_type == PatchType::Apply {
                let apply = Apply { patch: &patch.body, manager, force: options.force, now: self.clock.now() };
                let applied = OWNERS.apply(Some(present), apply)?;
                check_duplicates(context, patch, options.field_validation)?;
                applied
            } else {
                let mut scale = present.clone();
                apply_patch(&SCHEMA, patch, &mut scale)?;
                if !scale.is_object() {
                    return Err(Status::unprocessable());
                }
                scale
            };
            check_namespace(target, &mut scale)?;
            check_name(target, &scale)?;
            let (patched_by, validation) = match patch.patch_type {
                PatchType::Apply => (None, FieldValidation::Ignore),
                _ => (Some(patch), options.field_validation),
            };
            let mut scale = normalized(context, &SCALE, scale, patched_by, validation)?;
            if patch.patch_type != PatchType::Apply {
                OWNERS.update(Some(present), &mut scale, manager, self.clock.now());
            }
            Ok(scale)
        })
        .await
    }

    /// Writes what `wanted` makes of the present Scale into the object. Who owns the replicas is told by the Scale's owners.
    async fn write_scale(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        wanted: &mut (dyn FnMut(&Value) -> Result<Value, Status> + Send),
    ) -> Result<Value, Status> {
        let strategy = strategy_for(&target.kind);
        let replicas = strategy.replicas_path().ok_or_else(Status::unknown_resource)?;
        let api_version = target.kind.api_version();
        let owners = ScaleOwners { group: &target.kind.group, api_version: &api_version, replicas: &replicas };
        let unreadable = |error: EntryError| Status::from(ApplyError::from(error));
        let mut change = |object: Option<&Value>| {
            let object = object.ok_or_else(|| target.not_found())?;
            let stored = object["metadata"].get("managedFields");
            let mut present = self.scale_of(target, object)?;
            if let Some(owners) = owners.of_scale(stored).map_err(unreadable)? {
                meta::set(&mut present, "managedFields", owners);
            }
            let scale = wanted(&present)?;
            let errors = scale_errors(&scale);
            if !errors.is_empty() {
                return Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), &target.name, errors));
            }
            let mut object = object.clone();
            // UID and resourceVersion of the Scale are those of the object: conditions of this write.
            for (field, read) in [("uid", meta::uid as fn(&Value) -> &str), ("resourceVersion", meta::resource_version)]
            {
                let asked = read(&scale);
                if !asked.is_empty() && asked != read(&present) {
                    meta::set(&mut object, field, asked);
                }
            }
            let told = owners.of_object(stored, scale["metadata"].get("managedFields")).map_err(unreadable)?;
            match told {
                Some(told) => meta::set(&mut object, "managedFields", told),
                None => drop(meta::metadata_mut(&mut object).remove("managedFields")),
            }
            strategy.set_scale(&mut object, scale["spec"]["replicas"].as_i64().unwrap_or(0));
            Ok(object)
        };
        let written = self.change(context, target, options, false, Ownership::Given, &mut change).await?;
        self.scale_of(target, &written.object)
    }
}
