//! Who owns an object: controller references, and the adopting and releasing of objects that a selector finds.
//! (Kubernetes: `pkg/controller/controller_ref_manager.go`.)

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_api::selector::LabelSelector;
use minik8s_client::Watched;

/// The reference that makes `owner` the controller of another object.
pub fn controller_reference<K>(owner: &K) -> OwnerReference
where
    K: Watched + k8s_openapi::Resource,
{
    let meta = owner.object_meta();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to an object's controller, where it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The UID of an object's controller, for indexes.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    controller_of(meta).map(|owner| owner.uid.as_str())
}

/// What is to be done about the objects that `owner`'s selector may find.
pub struct Claims<T> {
    /// Those that are its own already.
    pub owned: Vec<Arc<T>>,
    /// Those that match and have no controller.
    pub adopt: Vec<Arc<T>>,
    /// Those that are its own and match no longer.
    pub release: Vec<Arc<T>>,
}

/// Sorts `objects` (all of one namespace) by what `owner` should do about them.
pub fn claim<T: Watched>(owner: &ObjectMeta, selector: &LabelSelector, objects: Vec<Arc<T>>) -> Claims<T> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let ends = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.object_meta();
        let matches = selector.matches_set(meta.labels.as_ref());
        match controller_uid(meta) {
            Some(uid) if Some(uid) != owner.uid.as_deref() => {}
            Some(_) if matches => claims.owned.push(object),
            Some(_) if !ends => claims.release.push(object),
            None if matches && !ends && meta.deletion_timestamp.is_none() => claims.adopt.push(object),
            _ => {}
        }
    }
    claims
}

/// The patch that makes `owner` the controller of the object with this UID.
pub fn adopt_patch(owner: &OwnerReference, uid: &str) -> serde_json::Value {
    serde_json::json!({"metadata": {"uid": uid, "ownerReferences": [owner]}})
}

/// The strategic patch that takes `owner` off the object with this UID.
pub fn release_patch(owner_uid: &str, uid: &str) -> serde_json::Value {
    serde_json::json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}
