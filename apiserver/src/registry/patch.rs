//! Patch: JSON patch, merge patch, strategic merge patch, and server-side apply.
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`. The patched object is decoded again, so that a patch cannot store
//! what a client could not have sent.

use std::sync::Arc;

use minik8s_api::decode::{self, DecodeError, FieldValidation, yaml_errors};
use minik8s_api::kinds::GroupKind;
use minik8s_api::meta;
use minik8s_api::patch;
use minik8s_api::schema::{Struct, Type};
use minik8s_api::status::{FieldError, FieldPath, Status};
use minik8s_api::strategy::strategy_for;
use serde_json::Value;

use super::create::check_namespace;
use super::update::{Ownership, check_name};
use super::versions::OtherVersions;
use super::{Context, Registry, Target, Written};
use crate::options::WriteOptions;

/// The kind of a patch, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7396.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`.
    Apply,
}

/// A patch, parsed.
#[derive(Debug, Clone)]
pub struct Patch {
    /// Its type.
    pub patch_type: PatchType,
    /// Its body.
    pub body: Value,
    /// What it says twice, as `duplicate field "data.a"`; an apply configuration in the words of YAML.
    pub duplicates: Vec<String>,
}

impl Registry {
    /// Patches an object, or through the target's subresource a part of it.
    pub async fn patch(
        &self,
        context: &Context,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        if patch.patch_type == PatchType::Apply {
            return self.apply(context, target, patch, options).await;
        }
        let mut change = |present: Option<&Value>| {
            let present = present.ok_or_else(|| target.not_found())?;
            let mut object = present.clone();
            apply_patch(&target.kind.schema, patch, &mut object)?;
            check_kind(target, patch, &object)?;
            check_identity(target, present, &mut object)?;
            self.redecode(context, target, object, patch, options.field_validation)
        };
        self.change(context, target, options, false, Ownership::Record, &mut change).await
    }

    /// Server-side apply: creates what is absent.
    async fn apply(
        &self,
        context: &Context,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let versions = OtherVersions::of(target, self.kinds());
        let mut change = |present: Option<&Value>| {
            // As it was sent: decoding it would add the zeros of its type, which the applier does not mean to own.
            let mut applied = self.applied(target, present, &patch.body, options, &versions)?;
            check_duplicates(context, patch, options.field_validation)?;
            check_applied(target, present, &mut applied)?;
            let mut object = normalized(context, &target.kind.ty(), applied, None, FieldValidation::Ignore)?;
            strategy_for(&target.kind).set_defaults_of_applied(&mut object);
            Ok(object)
        };
        let create = target.subresource.is_empty();
        self.change(context, target, options, create, Ownership::Recorded(&versions), &mut change).await
    }

    /// Decodes a patched object as if a client had sent it, defaults included.
    fn redecode(
        &self,
        context: &Context,
        target: &Target,
        object: Value,
        patch: &Patch,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        if patch.patch_type == PatchType::Strategic
            && let Some(why) = patch::strategic::conversion_error(&target.kind.schema, &object)
        {
            let error = FieldError::invalid(&FieldPath::new("patch"), patch::go_value(&patch.body), why);
            return Err(Status::invalid(&GroupKind::default(), "", vec![error]));
        }
        let mut object = normalized(context, &target.kind.ty(), object, Some(patch), validation)?;
        strategy_for(&target.kind).set_defaults(&mut object);
        Ok(object)
    }
}

/// What an apply configuration says twice. Only then is it looked at: conflicts are told first.
pub(super) fn check_duplicates(context: &Context, patch: &Patch, validation: FieldValidation) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !patch.duplicates.is_empty() => {
            let errors = yaml_errors(&patch.duplicates);
            let message = format!("error strict decoding patch: error converting YAML to JSON: {errors}");
            Err(Status::bad_request(message))
        }
        FieldValidation::Warn => {
            patch.duplicates.iter().for_each(|found| context.warnings.add(found.clone()));
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

/// A patched value, decoded as if a client had sent it. `patch` is what made it of another, if one did.
pub(super) fn normalized(
    context: &Context,
    ty: &Type,
    object: Value,
    patch: Option<&Patch>,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let duplicates = patch.map_or(&[][..], |patch| &patch.duplicates);
    let mut decoded = decode::normalize(ty, object.clone(), validation);
    match validation {
        FieldValidation::Strict if !duplicates.is_empty() => {
            let mut found = duplicates.to_vec();
            if let Err(DecodeError::Strict(others)) = decoded {
                found.extend(others);
            }
            decoded = Err(DecodeError::Strict(found));
        }
        FieldValidation::Warn => duplicates.iter().for_each(|found| context.warnings.add(found.clone())),
        _ => {}
    }
    match decoded {
        Ok(decoded) => {
            for warning in decoded.warnings {
                context.warnings.add(warning);
            }
            Ok(decoded.object)
        }
        // The bad value is the patched object, or a strategic patch, as Kubernetes shows it.
        Err(error) => {
            let shown = match patch {
                Some(patch) if patch.patch_type == PatchType::Strategic => patch::go_value(&patch.body),
                _ => object.to_string(),
            };
            let error = FieldError::invalid(&FieldPath::new("patch"), shown, error.to_string());
            Err(Status::invalid(&GroupKind::default(), "", vec![error]))
        }
    }
}

pub(super) fn apply_patch(schema: &Arc<Struct>, patch: &Patch, object: &mut Value) -> Result<(), Status> {
    let outcome = match patch.patch_type {
        PatchType::Json => patch::json::apply(object, &patch.body),
        PatchType::Merge => patch::merge::apply(object, &patch.body),
        PatchType::Strategic => patch::strategic::apply(schema, object, &patch.body),
        PatchType::Apply => {
            return Err(Status::internal_error("apply is no patch of the document"));
        }
    };
    outcome.map_err(Status::from)
}

/// A patched object is still of its kind and version; a strategic merge is not asked.
fn check_kind(target: &Target, patch: &Patch, object: &Value) -> Result<(), Status> {
    let said = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (&target.kind.kind, target.kind.api_version());
    let is_same = |said: &str, is: &str| said.is_empty() || said == is;
    if patch.patch_type == PatchType::Strategic
        || (is_same(said("kind"), kind) && is_same(said("apiVersion"), &version))
    {
        return Ok(());
    }
    let status = decode::check_kind(said("apiVersion"), said("kind"), &target.kind).err();
    let why = status.map(|status| status.message).unwrap_or_default();
    let why = why.split_once(&format!(" cannot be handled as a {kind}: ")).map_or(why.as_str(), |(_, why)| why);
    let error = FieldError::invalid(&FieldPath::new("patch"), object.to_string(), why);
    Err(Status::invalid(&GroupKind::default(), "", vec![error]))
}

/// A patch changes neither what the object is nor which one it is.
fn check_identity(target: &Target, present: &Value, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::unprocessable());
    }
    for field in ["kind", "apiVersion"] {
        if object.get(field).is_none() {
            object[field] = present[field].clone();
        }
    }
    let uid = meta::uid(object);
    if !uid.is_empty() && uid != meta::uid(present) {
        // A PUT with another UID is a precondition that fails; in a patch it is a field that cannot change.
        return Err(immutable_uid(target, uid));
    }
    check_namespace(target, object)?;
    check_name(target, object)
}

/// Which object an apply is about: that of the request (`patcher.applyPatch`).
fn check_applied(target: &Target, present: Option<&Value>, applied: &mut Value) -> Result<(), Status> {
    let uid = meta::uid(applied);
    if present.is_none() && !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(&target.resource(), &target.name, why));
    }
    if present.is_some_and(|present| !uid.is_empty() && uid != meta::uid(present)) {
        return Err(immutable_uid(target, uid));
    }
    check_namespace(target, applied)?;
    check_name(target, applied)
}

fn immutable_uid(target: &Target, uid: &str) -> Status {
    let error = FieldError::invalid(&FieldPath::new("metadata").child("uid"), uid, "field is immutable");
    Status::invalid(&target.kind.group_kind(), &target.name, vec![error])
}
