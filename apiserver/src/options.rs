//! The options of a request, as Kubernetes' `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions`,
//! `ListOptions` and `GetOptions`, read from the query (or, for deletes, the body) and validated with Kubernetes' words
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`).

use minik8s_api::decode::FieldValidation;
use minik8s_api::kinds::GroupKind;
use minik8s_api::status::{FieldError, FieldPath, Status};
use serde_json::Value;

use crate::query::Query;

/// Options of create, update and patch, which share most.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// `dryRun=All`: everything but the write.
    pub dry_run: bool,
    /// What unknown and duplicate fields mean.
    pub field_validation: FieldValidation,
    /// Name in managedFields, if the caller gave one.
    pub field_manager: Option<String>,
    /// Server-side apply takes fields from their owners.
    pub force: bool,
}

/// What happens to an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay, without owner.
    Orphan,
    /// The object goes first.
    Background,
    /// Dependents go first.
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// Seconds until a pod is killed; 0 at once; unset is the object's own.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object has this UID.
    pub uid: Option<String>,
    /// Only if the object is at this resourceVersion.
    pub resource_version: Option<String>,
    /// What happens to dependents.
    pub propagation: Option<Propagation>,
}
