//! Admission: what changes or refuses an object on its way to the store.
//!
//! ```text
//!  decode ─► defaults ─► Chain::admit (plugins change it, in order) ─► prepare ─► validate ─► Chain::validate (plugins refuse) ─► store
//! ```
//! One plugin a file; [`Chain::new`] is the table of them, in the order of `pkg/kubeapiserver/options/plugins.go`. A plugin
//! names what it is interested in ([`Plugin::handles`]) and sees only that. Plugins read the cluster through
//! [`Objects`] and never wait for anything but the store, and for webhooks, for as long as these say.
//!
//! What a cluster's users add themselves: `webhook` calls out, `policy` evaluates expressions (`expressions`); both go by
//! the same rules (`matching`) and see a write in the version these ask for (`view`); `reinvocation` is the second pass.

mod certificates;
mod default_ingress_class;
mod default_toleration_seconds;
mod device_claims;
mod expressions;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod owner_permissions;
mod pod_resize;
mod pod_resources;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
pub mod selection;
mod service_account;
mod storage;
mod taint_nodes_by_condition;
mod times;
mod view;
mod webhook;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use minik8s_clock::{Clock, Random};
use minik8s_store::Store;
use parking_lot::Mutex;
use serde_json::Value;

pub use self::node_restriction::a_kubelet_may_set;
use self::reinvocation::Reinvocation;
pub use self::selection::Selection;
pub use self::times::Times;
use self::times::{Step, WebhookTimes};
use crate::{
    audit::AuditContext,
    authz::{Authorizer, Rbac, escalation::Escalation},
    cache::{Object, Objects},
    crd::Converter,
    identity::UserInfo,
    outgoing::Outgoing,
};

/// The annotation of pods that a kubelet runs from a file, and shows by a mirror that nobody else creates.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

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
    /// What the request leaves in the audit log.
    pub audit: AuditContext,
    /// What happened in the first pass of the chain, of two.
    pub reinvocation: Reinvocation,
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
        let named = |field: &str| {
            metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_str).filter(|name| !name.is_empty())
        };
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

/// What plugins look things up in.
#[derive(Clone)]
pub struct Cluster {
    /// The cache.
    pub objects: Arc<dyn Objects>,
    /// The store, for quota and for what the cache may not know yet.
    pub store: Arc<dyn Store>,
    /// The authorizer of requests.
    pub authorizer: Arc<dyn Authorizer>,
    /// What users hold by roles.
    pub rbac: Arc<Rbac>,
    /// The way to webhooks.
    pub outgoing: Outgoing,
    /// From the version of a write to the one that a webhook or policy asks for.
    pub converter: Arc<Converter>,
    /// Time.
    pub clock: Clock,
    /// Names.
    pub random: Random,
}

/// All plugins, in order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    times: Times,
    /// What times are taken with; none are in a chain for tests.
    clock: Option<Clock>,
}

impl Chain {
    /// The plugins of a cluster, in Kubernetes' order. ResourceQuota is last because it counts what all others let through.
    pub fn new(cluster: &Cluster) -> Chain {
        let Cluster { objects, store, authorizer, rbac, outgoing: _, converter, clock, random } = cluster;
        let objects = || Arc::clone(objects);
        let authorizer = || Arc::clone(authorizer);
        let webhooks = Arc::new(WebhookTimes::default());
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle::new(objects(), Arc::clone(store))),
            Box::new(limit_ranger::LimitRanger::new(objects())),
            Box::new(service_account::ServiceAccount::new(objects(), random.clone())),
            Box::new(node_restriction::NodeRestriction::new(objects())),
            Box::new(taint_nodes_by_condition::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity::new(objects())),
            Box::new(priority::Priority::new(objects())),
            Box::new(default_toleration_seconds::DefaultTolerationSeconds),
            Box::new(storage::DefaultStorageClass::new(objects())),
            Box::new(storage::StorageObjectInUseProtection),
            Box::new(owner_permissions::OwnerPermissions::new(objects(), authorizer())),
            Box::new(storage::PersistentVolumeClaimResize::new(objects())),
            Box::new(runtime_class::RuntimeClass::new(objects())),
            Box::new(certificates::CertificateApproval::new(authorizer())),
            Box::new(certificates::CertificateSigning::new(authorizer())),
            Box::new(certificates::ClusterTrustBundleAttest::new(authorizer())),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(default_ingress_class::DefaultIngressClass::new(objects())),
            Box::new(pod_topology_labels::PodTopologyLabels::new(objects())),
            Box::new(node_declared_features::NodeDeclaredFeatureValidator::new(objects())),
            Box::new(pod_resize::PodResizeValidator::new(objects())),
            Box::new(device_claims::DeviceClaims::new(objects(), authorizer())),
            Box::new(Escalation::new(Arc::clone(rbac), authorizer())),
            Box::new(policy::ParamPermissions::new(objects(), authorizer())),
            Box::new(policy::MutatingPolicies::new(objects(), authorizer(), Arc::clone(converter))),
            Box::new(webhook::MutatingWebhooks::new(cluster, &webhooks)),
            Box::new(policy::ValidatingPolicies::new(objects(), authorizer(), Arc::clone(converter))),
            Box::new(webhook::ValidatingWebhooks::new(cluster, &webhooks)),
            Box::new(resource_quota::ResourceQuota::new(objects(), Arc::clone(store), clock.clone())),
        ];
        Chain {
            times: Times::new(plugins.iter().map(|plugin| plugin.name()), webhooks),
            plugins,
            clock: Some(clock.clone()),
        }
    }

    /// A chain of one's own, for tests; [`Chain::new`] is the one of a cluster.
    pub fn of(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        Chain { times: Times::new(plugins.iter().map(|plugin| plugin.name()), Arc::default()), plugins, clock: None }
    }

    /// Lets every plugin that is interested change the object, in order; the first refusal ends it. Where a webhook or a
    /// policy changed it, all are asked once more, because those before have not seen the change.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let began = self.now();
        let mut admitted = self.pass(attributes).await;
        if admitted.is_ok() && attributes.reinvocation.begin_second_pass() {
            admitted = self.pass(attributes).await;
        }
        self.times.step(attributes.operation, Step::Admit, admitted.is_err(), self.now().saturating_sub(began));
        admitted
    }

    fn now(&self) -> Duration {
        self.clock.as_ref().map(Clock::monotonic).unwrap_or_default()
    }

    async fn pass(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        for (at, plugin) in self.plugins.iter().enumerate() {
            if plugin.handles(attributes) {
                let began = self.now();
                let admitted = plugin.admit(attributes).await;
                let took = self.now().saturating_sub(began);
                self.times.plugin(at, attributes.operation, Step::Admit, admitted.is_err(), took);
                admitted?;
            }
        }
        Ok(())
    }

    /// Lets every plugin that is interested refuse the final object; the first refusal ends it.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let began = self.now();
        let validated = self.validate_each(attributes).await;
        self.times.step(attributes.operation, Step::Validate, validated.is_err(), self.now().saturating_sub(began));
        validated
    }

    async fn validate_each(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for (at, plugin) in self.plugins.iter().enumerate() {
            if plugin.handles(attributes) {
                let began = self.now();
                let validated = plugin.validate(attributes).await;
                let took = self.now().saturating_sub(began);
                self.times.plugin(at, attributes.operation, Step::Validate, validated.is_err(), took);
                validated?;
            }
        }
        Ok(())
    }

    /// How long it all takes.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }
}

/// The members of a list; none if it is absent.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn items_mut(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

/// Appends to a list that may be absent.
fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = Value::Array(vec![item]),
    }
}

/// The name of the class that an annotation marks as default; of several, the newest, then the first by name.
fn default_class(objects: &dyn Objects, classes: &GroupResource, annotation: &str) -> Option<String> {
    let marked = objects
        .list(classes, None)
        .into_iter()
        .filter(|class| class.parsed()["metadata"]["annotations"][annotation] == "true");
    let newest_first = |class: &Arc<Object>| {
        let created = class.parsed()["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        (std::cmp::Reverse(created), class.name().to_owned())
    };
    marked.min_by_key(newest_first).map(|class| class.name().to_owned())
}
