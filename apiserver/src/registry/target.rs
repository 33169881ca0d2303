//! Which object a request means.

use std::sync::Arc;

use minik8s_api::kinds::{GroupResource, GroupVersionResource, Kind};
use minik8s_api::status::Status;
use minik8s_api::strategy::Subresource;

use super::{Registry, keys};

/// A served kind, and a place in it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The row of the served version.
    pub kind: Arc<Kind>,
    /// Empty for cluster-scoped kinds and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Target {
    /// An object of a kind.
    pub fn new(kind: Arc<Kind>, namespace: &str, name: &str) -> Target {
        let namespace = if kind.namespaced { namespace } else { "" };
        Target { kind, namespace: namespace.to_owned(), name: name.to_owned(), subresource: String::new() }
    }

    /// The same object through one of its subresources.
    pub fn subresource(mut self, subresource: &str) -> Target {
        self.subresource = subresource.to_owned();
        self
    }

    /// The same kind and namespace, another name.
    pub fn named(&self, name: &str) -> Target {
        Target { name: name.to_owned(), ..self.clone() }
    }

    /// The store's key.
    pub fn key(&self) -> String {
        keys::object(&self.kind, &self.namespace, &self.name)
    }

    /// The resource, as errors name it.
    pub fn resource(&self) -> GroupResource {
        self.kind.group_resource()
    }

    /// The 404 of an object that is not there.
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource(), &self.name)
    }

    /// The 400 of a body that names another object.
    pub fn name_mismatch(&self, name: &str) -> Status {
        Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            self.name
        ))
    }

    /// The 409 of a write whose preconditions do not hold, as etcd's storage layer says it, with the key that it would have there.
    pub fn storage_error(&self, why: &str) -> Status {
        let place = self.kind.etcd_prefix();
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        let told = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{place}/{namespace}{}, ResourceVersion: 0, AdditionalErrorMsg: {why}",
            self.name
        );
        Status::conflict(&self.resource(), &self.name, told)
    }

    /// The door through which the strategy is asked; those that do not write through it pass as the object itself.
    pub fn door(&self) -> Subresource {
        Subresource::from_path(&self.subresource).unwrap_or(Subresource::Main)
    }
}

impl Registry {
    /// An object of a served resource, by names.
    pub fn target(
        &self,
        group: &str,
        version: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Target, Status> {
        let kind = self.kind(&GroupVersionResource::new(group, version, resource))?;
        Ok(Target::new(kind, namespace, name))
    }
}
