//! Where objects are stored: `/registry/{group or "core"}/{plural}/{namespace}/{name}`, without the namespace where a
//! kind has none.

use minik8s_api::kinds::{GroupResource, Kind};

use crate::cache::REGISTRY_PREFIX;

/// The resource that objects of a kind are stored as.
pub fn storage(kind: &Kind) -> GroupResource {
    GroupResource::new(kind.storage.kind.group.as_str(), kind.storage.plural.as_str())
}

/// The key of an object.
pub fn object(kind: &Kind, namespace: &str, name: &str) -> String {
    kind.storage_key(namespace, name)
}

/// The prefix of all objects of a kind, or of those in a namespace.
pub fn prefix(kind: &Kind, namespace: &str) -> String {
    let mut prefix = kind.storage_prefix();
    if kind.namespaced && !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}

/// The stored resource a key belongs to.
pub fn resource_of(key: &str) -> Option<GroupResource> {
    let mut parts = key.strip_prefix(REGISTRY_PREFIX)?.split('/');
    let (group, plural) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some(GroupResource::new(if group == "core" { "" } else { group }, plural))
}
