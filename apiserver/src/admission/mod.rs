//! Admission: what changes or refuses an object on its way to the store.
//!
//! ```text
//!  decode ─► defaults ─► Chain::admit (plugins change it, in order) ─► prepare ─► validate ─► Chain::validate (plugins refuse) ─► store
//! ```
//! One plugin a file; [`Chain::new`] is the table of them, in the order of `pkg/kubeapiserver/options/plugins.go`. A plugin
//! names what it is interested in ([`Plugin::handles`]) and sees only that. Plugins read the cluster through
//! [`Objects`](crate::cache::Objects) and never wait for anything but the store.

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::identity::UserInfo;

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a POST to a subresource such as `pods/eviction`.
    Create,
    /// PUT, PATCH or apply on an existing object or subresource.
    Update,
    /// DELETE of one object; a deletecollection asks once an object.
    Delete,
    /// A connection through the API server (`pods/exec`, `services/proxy`, …).
    Connect,
}

impl Operation {
    /// As admission reviews spell it: `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One write on its way to the store, as plugins see it.
///
/// The registry fills it, calls [`Chain::admit`] once defaults are set, takes `object` back, prepares and validates it,
/// and calls [`Chain::validate`] with the final object. After that it answers with the warnings.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// What is done.
    pub operation: Operation,
    /// Kind of `object`: the resource's, or the subresource's own (`Eviction`, `Binding`, `Scale`).
    pub kind: &'a str,
    /// API group of the resource, empty for core.
    pub group: &'a str,
    /// API version of the request.
    pub version: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Name of the object; after `generateName`, the generated one.
    pub name: &'a str,
    /// The new object (of the subresource's kind where it has its own); `None` for delete and connect.
    pub object: Option<Value>,
    /// What the store holds; `None` for create and connect.
    pub old_object: Option<&'a Value>,
    /// Options of the request (`CreateOptions`, `DeleteOptions`, …; of a connect, its own such as `PodExecOptions`), `Null` when there are none.
    pub options: Value,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Nothing is to be kept.
    pub dry_run: bool,
    /// What the client is told beside the answer; see [`Attributes::warn`].
    pub warnings: Mutex<Vec<String>>,
}

impl<'a> Attributes<'a> {
    /// Tells the client something, once (`Warning: 299 - "…"`).
    pub fn warn(&self, message: impl Into<String>) {
        let (message, mut warnings) = (message.into(), self.warnings.lock());
        if !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    /// The warnings so far, in order.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// Whether this is about `resource` of `group` itself, not a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource == resource && self.group == group
    }

    /// Whether this is about `resource/subresource` of `group`.
    pub fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.subresource == subresource && self.resource == resource && self.group == group
    }

    /// The resource, for errors.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.resource)
    }

    /// A refusal: `pods "x" is forbidden: {message}` (`k8s.io/apiserver/pkg/admission/errors.go`).
    pub fn forbidden(&self, message: impl Into<String>) -> Status {
        Status::forbidden(&self.group_resource(), self.error_name(), message.into())
    }

    /// The name errors show; `generateName` where there is no name yet.
    pub fn error_name(&self) -> &str {
        if !self.name.is_empty() {
            return self.name;
        }
        let metadata = self.object.as_ref().and_then(|object| object.get("metadata"));
        let named = |field: &str| metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str).filter(|name| !name.is_empty());
        named("name").or_else(|| named("generateName")).unwrap_or("Unknown")
    }
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Kubernetes' name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the plugin has anything to say about this; asked before each call, so keep it cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// May change `attributes.object`, or refuse.
    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let _ = attributes;
        Ok(())
    }

    /// May refuse. Sees the object as it will be stored.
    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let _ = attributes;
        Ok(())
    }
}

/// All plugins, in order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// A chain of one's own, for tests; [`Chain::new`] is the one of a cluster.
    pub fn of(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        Chain { plugins }
    }

    /// Lets every plugin that is interested change the object, in order; the first refusal ends it.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            if plugin.handles(attributes) {
                plugin.admit(attributes).await?;
            }
        }
        Ok(())
    }

    /// Lets every plugin that is interested refuse the final object; the first refusal ends it.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            if plugin.handles(attributes) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }
}
