//! What a kind does of its own: defaults, preparation, validation, warnings, scale, field selectors.
//!
//! The registry (`minik8s_apiserver::registry`) has one pipeline for all kinds. Where kinds differ it asks
//! [`strategy_for`] for the kind's [`Strategy`], in Kubernetes' order
//! (`staging/src/k8s.io/apiserver/pkg/registry/rest/{create,update}.go`):
//!
//! ```text
//! create   decode → set_defaults → admission → prepare_for_create → validate        → warnings → canonicalize → store
//! update   decode → set_defaults → admission → prepare_for_update → validate_update → warnings → canonicalize → store
//! ```
//!
//! All functions are pure: over a `serde_json::Value` whose JSON types the schema decoder has already checked, with
//! time and user in a [`Context`]. UID, name (from `generateName`), namespace and `creationTimestamp` are stamped by
//! the registry *before* `prepare_for_create`, because some kinds derive from them (a Job's selector is its UID).
//!
//! The API server's allocators run between preparation and validation (cluster IPs, node ports).
//!
//! A built-in kind is a row of `rows.rs` (name rule, generation, what an update may do) plus a [`Behavior`] where it
//! differs; [`BuiltIn`] joins the two. Reading order: this file, `field.rs` (the cursor that validation walks with),
//! `edit.rs` (its counterpart for defaults), `meta.rs` and `names.rs` (what all kinds share), then a kind.
//!
//! # Invariants
//!
//! - Nothing here panics on an object that the schema decoder has passed, and nothing reads a clock or another object.
//! - An object that a strategy prepared and nobody changed passes its own update unchanged: defaults are idempotent.
//! - A field that a door does not let through is kept from the old object, never refused in silence.
//!
//! # Left out, compared with Kubernetes
//!
//! - Values shown in errors are the JSON that clients write; where Kubernetes shows an internal Go struct we follow it
//!   only where it is small (`roleRef`, service ports). Diffs of refused updates have a form of our own.
//! - CEL expressions of definitions and policies, PEM certificates and CRD schemas are checked where they are compiled.
//! - Rules of alpha features, whose fields are dropped, and the volume inside a VolumeAttachment are not mirrored. Of the
//!   mandatory flow schemas and priority levels it is not checked that they keep their values.
//! - Ratcheting: an object stored under older rules is checked in full on update.
mod admissionregistration;
mod apiextensions;
mod apps;
mod autoscaling;
pub mod batch;
mod built_in;
mod certificates;
mod conditions;
mod coordination;
mod core;
mod difference;
mod discovery;
mod edit;
pub mod field;
mod flowcontrol;
mod labels;
mod meta;
pub mod names;
mod networking;
mod node;
pub mod pod;
mod policy;
mod rbac;
mod resource;
mod rows;
mod scale;
pub mod scheduling;
mod storage;
mod storagemigration;
mod volume_source;
mod webhooks;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::status::FieldError;

pub use built_in::{Behavior, BuiltIn, strategy_for};
pub use core::carry_over as carry_over_service;
pub use meta::{
    annotations as validate_annotations, generate_name, labels as validate_labels, validate_object_meta,
    validate_object_meta_update,
};
pub use names::NameRule;
pub use scale::ScalePaths;
pub(crate) use scale::selector_text;

/// What a request knows beyond the object.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The time stamped on what this request writes.
    pub now: Timestamp,
    /// Who asks: CertificateSigningRequests record it.
    pub user: Option<RequestUser<'a>>,
}

impl Context<'_> {
    /// A context without a user.
    pub fn at(now: Timestamp) -> Context<'static> {
        Context { now, user: None }
    }
}

/// The requesting user, as `spec.{username,uid,groups,extra}` of a CertificateSigningRequest records it.
#[derive(Clone, Debug)]
pub struct RequestUser<'a> {
    /// Login name.
    pub name: &'a str,
    /// Unique id, empty where the authenticator has none.
    pub uid: &'a str,
    /// Groups, in the authenticator's order.
    pub groups: &'a [String],
    /// Further attributes: key and its values.
    pub extra: Cow<'a, [(String, Vec<String>)]>,
}

/// Which door of an object a write comes through: each lets other fields pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself: `spec` passes, `status` is kept where the kind has a status subresource.
    Main,
    /// `/status`: `status` passes, all else is kept.
    Status,
    /// `/scale`: the replica count was set by [`Strategy::set_scale`].
    Scale,
    /// `pods/ephemeralcontainers`: ephemeral containers may be added.
    EphemeralContainers,
    /// `pods/resize`: container resources may change.
    Resize,
    /// `certificatesigningrequests/approval`: approval conditions pass.
    Approval,
    /// `namespaces/finalize`: `spec.finalizers` passes.
    Finalize,
}

impl Subresource {
    /// The subresource of a request path; `None` for one that does not write the object through a strategy.
    pub fn from_path(name: &str) -> Option<Subresource> {
        Some(match name {
            "" => Subresource::Main,
            "status" => Subresource::Status,
            "scale" => Subresource::Scale,
            "ephemeralcontainers" => Subresource::EphemeralContainers,
            "resize" => Subresource::Resize,
            "approval" => Subresource::Approval,
            "finalize" => Subresource::Finalize,
            _ => return None,
        })
    }
}

/// What happens to the objects an object owns, when a deletion does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GarbageCollectionPolicy {
    /// The garbage collector deletes them afterwards.
    DeleteDependents,
    /// They lose the owner reference and stay.
    OrphanDependents,
    /// The kind takes no part in garbage collection (events).
    Unsupported,
}

/// How one kind behaves in the registry's pipeline. Mirrors the interfaces of `registry/rest`.
pub trait Strategy: Send + Sync {
    /// Fills what the client left out (`SetDefaults_*` of `pkg/apis/*/v1/defaults.go`).
    fn set_defaults(&self, object: &mut Value);

    /// The same for what server-side apply makes, which keeps the nulls that were applied.
    fn set_defaults_of_applied(&self, object: &mut Value) {
        self.set_defaults(object);
    }

    /// Brings a new object to its first state: no status where `/status` owns it, generation 1, initial phase.
    fn prepare_for_create(&self, context: &Context<'_>, object: &mut Value);

    /// Keeps of `old` what this door must not change, and bumps `metadata.generation` where the wish changed.
    fn prepare_for_update(&self, context: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value);

    /// What is wrong with a new object, in Kubernetes' order and words.
    fn validate(&self, object: &Value) -> Vec<FieldError>;

    /// What is wrong with an update, the object's own rules included.
    fn validate_update(&self, subresource: Subresource, new: &Value, old: &Value) -> Vec<FieldError>;

    /// Sentences for the `Warning` header of an accepted write; `old` is absent on create.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String>;

    /// Brings a valid object to its one stored form.
    fn canonicalize(&self, _object: &mut Value) {}

    /// Whether a PUT to an absent name creates the object.
    fn allow_create_on_update(&self) -> bool;

    /// Whether an update without `resourceVersion` overwrites whatever is there.
    fn allow_unconditional_update(&self) -> bool;

    /// The grace period in seconds with which to delete `object`, where the kind ends gracefully (pods);
    /// `None` where deletion is immediate. `requested` is `DeleteOptions.gracePeriodSeconds`.
    fn graceful_delete(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Field labels a field selector may use, besides `metadata.name` and `metadata.namespace`. Others get
    /// `field label not supported: spec.nope`.
    fn field_labels(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The values of [`Strategy::field_labels`] for one object, in the same order, empty where absent.
    fn selectable_fields(&self, _object: &Value) -> Vec<(Cow<'static, str>, String)> {
        Vec::new()
    }

    /// Where the kind keeps what its `/scale` subresource shows; `None` without one.
    fn scale_paths(&self) -> Option<ScalePaths> {
        None
    }

    /// The `autoscaling/v1` Scale of an object; `None` for kinds without scale.
    fn scale(&self, object: &Value) -> Option<Value> {
        self.scale_paths().map(|paths| paths.scale(object))
    }

    /// Whether `/status` writes no metadata.
    fn status_keeps_metadata(&self) -> bool {
        false
    }

    /// The names of the fields that lead to the replicas that an object's Scale sets.
    fn replicas_path(&self) -> Option<Vec<String>> {
        self.scale_paths().map(|paths| paths.spec_replicas.split('/').skip(1).map(str::to_owned).collect())
    }

    /// Writes the replica count of a Scale into an object; the Scale itself is checked by [`scale_errors`].
    fn set_scale(&self, object: &mut Value, replicas: i64) {
        if let Some(paths) = self.scale_paths() {
            paths.set_replicas(object, replicas);
        }
    }

    /// What happens to dependents when a deletion does not say.
    fn default_garbage_collection_policy(&self) -> GarbageCollectionPolicy {
        GarbageCollectionPolicy::DeleteDependents
    }

    /// How the kind's names must look.
    fn name_validation(&self) -> NameRule;

    /// JSON pointers to the pod templates in an object of this kind (`/spec/template`); a Pod itself is `""`.
    fn pod_template_paths(&self) -> &'static [&'static str] {
        &[]
    }
}

/// What is wrong with an `autoscaling/v1` Scale that a client sent. `pkg/apis/autoscaling/validation.ValidateScale`.
pub fn scale_errors(scale: &Value) -> Vec<FieldError> {
    scale::validate(scale)
}
