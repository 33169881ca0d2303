//! A cluster's objects for the tests of authentication, authorization and admission: a memory store, read as the cache is.

use std::sync::Arc;

use futures::FutureExt;
use minik8s_api::kinds::{GroupResource, Kind, Kinds};
use minik8s_clock::{Clock, Random, Simulation};
use minik8s_store::{MemoryStore, Range, Store, Txn};
use serde_json::{Value, json};

use super::UserInfo;
use crate::{
    admission::{Attributes, Chain, Cluster, Operation, Selection},
    authz::{Authorizer, Masters, NodeAuthorizer, PodsOnNode, Rbac, Union},
    cache::{Object, Objects, object},
    crd::Converter,
    outgoing::{MachineNetwork, Outgoing},
    registry::keys,
};

/// See the module.
#[derive(Clone)]
pub(crate) struct World {
    pub store: Arc<MemoryStore>,
    pub kinds: Arc<Kinds>,
    pub clock: Clock,
    pub simulation: Arc<Simulation>,
    pub random: Random,
}

impl World {
    /// An empty cluster at the first moment of 2026.
    pub fn new() -> World {
        let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("time"));
        World {
            store: MemoryStore::new(clock.clone()),
            kinds: Kinds::built_in(),
            clock,
            simulation: Arc::new(simulation),
            random: Random::seeded(1),
        }
    }

    /// A cluster with the default roles and bindings.
    pub fn with_roles() -> World {
        let world = World::new();
        let by_path: serde_json::Map<String, Value> =
            serde_json::from_str(include_str!("../../data/bootstrap.json")).expect("data");
        for (path, objects) in by_path.iter().filter(|(path, _)| path.contains("rbac")) {
            let kind = world
                .kinds
                .by_resource("rbac.authorization.k8s.io", "v1", path.rsplit('/').next().expect("plural"))
                .expect("kind");
            for object in objects.as_array().expect("list") {
                let mut object = object.clone();
                object["kind"] = json!(kind.kind);
                object["apiVersion"] = json!(kind.api_version());
                world.put(object);
            }
        }
        world
    }

    fn kind(&self, resource: &GroupResource) -> Arc<Kind> {
        Arc::clone(self.kinds.preferred(resource).expect("a built-in kind"))
    }

    /// Stores an object, with a UID if it has none.
    pub fn put(&self, mut object: Value) {
        let text =
            |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api_version = text(&object, "/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = self.kinds.by_kind(group, version, &text(&object, "/kind")).expect("a built-in kind");
        if object.pointer("/metadata/uid").is_none() {
            object["metadata"]["uid"] = json!(format!("uid-of-{}", text(&object, "/metadata/name")));
        }
        let key = keys::object(kind, &text(&object, "/metadata/namespace"), &text(&object, "/metadata/name"));
        self.store
            .commit(Txn::put(key, object::encode(kind, &object)))
            .now_or_never()
            .expect("at once")
            .expect("stored");
    }

    /// Takes an object away.
    pub fn delete(&self, resource: &GroupResource, namespace: &str, name: &str) {
        let held = self.get(resource, namespace, name).expect("it is there");
        self.store
            .commit(Txn::delete(Arc::clone(held.key()), held.revision()))
            .now_or_never()
            .expect("at once")
            .expect("deleted");
    }

    /// The objects, as a trait object.
    pub fn objects(&self) -> Arc<dyn Objects> {
        Arc::new(self.clone())
    }

    /// RBAC over the cluster, and the authorizers of a server.
    pub fn authorizers(&self) -> (Arc<Rbac>, Arc<dyn Authorizer>) {
        let rbac = Arc::new(Rbac::new(self.objects()));
        let node = NodeAuthorizer::new(self.objects(), Arc::new(self.clone()), Arc::clone(&rbac));
        (
            Arc::clone(&rbac),
            Arc::new(Union::new(vec![(Masters::NAME, Arc::new(Masters)), ("node", Arc::new(node)), ("rbac", rbac)])),
        )
    }

    /// The admission chain of a server.
    pub fn chain(&self) -> Chain {
        let (rbac, authorizer) = self.authorizers();
        let (clock, random) = (self.clock.clone(), self.random.clone());
        let outgoing = Outgoing::new(self.objects(), Arc::new(MachineNetwork), clock.clone(), random.clone());
        Chain::new(&Cluster {
            objects: self.objects(),
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            authorizer,
            rbac,
            converter: Arc::new(Converter::new(outgoing.clone())),
            outgoing,
            clock,
            random,
        })
        .only(&Selection::default())
    }
}

impl Objects for World {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let kind = self.kind(resource);
        let held =
            self.store.get(&keys::object(&kind, namespace, name)).now_or_never().expect("at once").expect("read")?;
        Some(Arc::new(Object::from_stored(&kind, &held).expect("an object")))
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let kind = self.kind(resource);
        let prefix = keys::prefix(&kind, namespace.unwrap_or_default());
        let held = self.store.range(Range::prefix(prefix)).now_or_never().expect("at once").expect("read");
        held.key_values.iter().map(|held| Arc::new(Object::from_stored(&kind, held).expect("an object"))).collect()
    }

    fn version(&self, _: &GroupResource) -> u64 {
        self.store.revision()
    }

    fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds)
    }
}

impl PodsOnNode for World {
    fn pods_on(&self, node: &str) -> Vec<Arc<Object>> {
        self.list(&GroupResource::new("", "pods"), None).into_iter().filter(|pod| pod.indexed() == Some(node)).collect()
    }
}

/// A write of `user` on its way through admission; name and namespace are the object's.
pub(crate) fn write<'a>(
    operation: Operation,
    resource: (&'a str, &'a str),
    object: &'a Value,
    old: Option<&'a Value>,
    user: &'a UserInfo,
) -> Attributes<'a> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Attributes {
        operation,
        kind: object["kind"].as_str().unwrap_or_default(),
        group: resource.0,
        version: "v1",
        resource: resource.1,
        subresource: "",
        namespace: text("namespace"),
        name: text("name"),
        object: (operation != Operation::Delete).then(|| object.clone()),
        old_object: old,
        options: Value::Null,
        user,
        dry_run: false,
        warnings: parking_lot::Mutex::default(),
        audit: Default::default(),
        reinvocation: Default::default(),
    }
}
