//! The RBAC authorizer: roles and bindings, compiled.
//!
//! ```text
//!  roles, clusterroles ──┐
//!  rolebindings ─────────┼─► Snapshot { cluster: user|group → grants, namespace → user|group → grants } ─► authorize
//!  clusterrolebindings ──┘
//! ```
//! A request looks up its user and its groups and tries only the rules granted to these. The snapshot is compiled again
//! when one of the four resources has changed, which a version number tells; roles that did not change keep their rules.
//!
//! Mirrors `plugin/pkg/auth/authorizer/rbac/rbac.go` and `pkg/registry/rbac/validation/rule.go`.

use std::{collections::BTreeMap, sync::Arc};

use minik8s_api::{kinds::GroupResource, status::Status};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use super::{Attributes, Authorizer, UserRules, Verdict, rules::PolicyRule};
use crate::{
    cache::{Object, Objects},
    identity::{UserInfo, service_account_name},
};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Allows what roles allow to those who are bound to them.
pub struct Rbac {
    objects: Arc<dyn Objects>,
    resources: Resources,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while compiling, so that a burst of requests compiles once.
    compiling: Mutex<()>,
}

struct Resources {
    roles: GroupResource,
    cluster_roles: GroupResource,
    role_bindings: GroupResource,
    cluster_role_bindings: GroupResource,
}

/// Namespace (empty for ClusterRoles) and name.
type RoleKey = (String, String);

#[derive(Default)]
struct Snapshot {
    /// Of the four resources, when this was compiled; `None` before the first time.
    versions: Option<[u64; 4]>,
    roles: BTreeMap<RoleKey, Role>,
    cluster: Grants,
    namespaces: BTreeMap<String, Grants>,
}

#[derive(Clone)]
struct Role {
    revision: u64,
    rules: Arc<[Arc<PolicyRule>]>,
}

/// Bindings by whom they name.
#[derive(Default)]
struct Grants {
    users: BTreeMap<String, Vec<Grant>>,
    groups: BTreeMap<String, Vec<Grant>>,
}

/// One subject of one binding.
#[derive(Clone)]
struct Grant {
    /// Position of the binding, by which rules are listed.
    binding: usize,
    /// `Err` says which role is missing.
    role: Result<Role, Arc<str>>,
    /// `RBAC: allowed by …`.
    reason: Arc<str>,
}

/// What names a role in a binding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// Always `rbac.authorization.k8s.io`.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Name.
    pub name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RoleView {
    rules: Vec<PolicyRule>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct BindingView {
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Rbac {
    /// An authorizer over the roles and bindings of a cluster.
    pub fn new(objects: Arc<dyn Objects>) -> Rbac {
        let resource = |name| GroupResource::new(GROUP, name);
        Rbac {
            objects,
            resources: Resources {
                roles: resource("roles"),
                cluster_roles: resource("clusterroles"),
                role_bindings: resource("rolebindings"),
                cluster_role_bindings: resource("clusterrolebindings"),
            },
            snapshot: RwLock::default(),
            compiling: Mutex::new(()),
        }
    }

    /// The rules of the role that a binding in `namespace` (empty for a ClusterRoleBinding) refers to; 404 when there is none.
    pub fn rules_of(&self, reference: &RoleRef, namespace: &str) -> Result<Vec<PolicyRule>, Status> {
        let (resource, namespace) = match reference.kind.as_str() {
            "ClusterRole" => (&self.resources.cluster_roles, ""),
            _ => (&self.resources.roles, namespace),
        };
        let object = self
            .objects
            .get(resource, namespace, &reference.name)
            .ok_or_else(|| Status::not_found(resource, &reference.name))?;
        Ok(parse::<RoleView>(&object).rules)
    }

    /// The compiled rules of a ClusterRole; none if it does not exist.
    pub fn cluster_role(&self, name: &str) -> Arc<[Arc<PolicyRule>]> {
        let snapshot = self.snapshot();
        snapshot.roles.get(&(String::new(), name.to_owned())).map(|role| Arc::clone(&role.rules)).unwrap_or_default()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let Resources { roles, cluster_roles, role_bindings, cluster_role_bindings } = &self.resources;
        let versions = || {
            Some(
                [roles, cluster_roles, role_bindings, cluster_role_bindings]
                    .map(|resource| self.objects.version(resource)),
            )
        };
        let current = |snapshot: &Arc<Snapshot>| (snapshot.versions == versions()).then(|| Arc::clone(snapshot));
        if let Some(snapshot) = current(&self.snapshot.read()) {
            return snapshot;
        }
        let _compiling = self.compiling.lock();
        let previous = Arc::clone(&self.snapshot.read());
        if let Some(snapshot) = current(&previous) {
            return snapshot;
        }
        // The versions are read before the objects: what changes in between is compiled again, never missed.
        let versions = versions();
        let snapshot = Arc::new(Snapshot { versions, ..self.compile(&previous) });
        *self.snapshot.write() = Arc::clone(&snapshot);
        snapshot
    }

    fn compile(&self, previous: &Snapshot) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for resource in [&self.resources.cluster_roles, &self.resources.roles] {
            for object in self.objects.list(resource, None) {
                let key = (object.namespace().to_owned(), object.name().to_owned());
                let unchanged = previous.roles.get(&key).filter(|role| role.revision == object.revision()).cloned();
                let role = unchanged.unwrap_or_else(|| Role {
                    revision: object.revision(),
                    rules: parse::<RoleView>(&object).rules.into_iter().map(Arc::new).collect(),
                });
                snapshot.roles.insert(key, role);
            }
        }
        // client-go's indexer lists in no order; here the last name comes first, so that what is listed is listed the same every time.
        for (position, object) in
            self.objects.list(&self.resources.cluster_role_bindings, None).iter().rev().enumerate()
        {
            let grants = grants_of(object, &snapshot.roles, position);
            snapshot.cluster.extend(grants);
        }
        for (position, object) in self.objects.list(&self.resources.role_bindings, None).iter().rev().enumerate() {
            let grants = grants_of(object, &snapshot.roles, usize::MAX / 2 + position);
            snapshot.namespaces.entry(object.namespace().to_owned()).or_default().extend(grants);
        }
        snapshot
    }
}

/// Cached objects were decoded by their schema, so their shape is right; what is absent is empty.
fn parse<T: for<'a> Deserialize<'a> + Default>(object: &Object) -> T {
    serde_json::from_slice(object.stored()).unwrap_or_default()
}

/// `(is a group, name, grant)` for each subject of a binding.
fn grants_of(object: &Object, roles: &BTreeMap<RoleKey, Role>, binding: usize) -> Vec<(bool, String, Grant)> {
    let BindingView { subjects, role_ref } = parse(object);
    let namespace = object.namespace();
    let key = if role_ref.kind == "ClusterRole" {
        (String::new(), role_ref.name.clone())
    } else {
        (namespace.to_owned(), role_ref.name.clone())
    };
    let role = roles.get(&key).cloned().ok_or_else(|| {
        let missing = GroupResource::new(GROUP, role_ref.kind.to_lowercase());
        Arc::from(Status::not_found(&missing, &role_ref.name).to_string())
    });
    let of_role = format!("of {} {:?} to", role_ref.kind, role_ref.name);
    let by = if namespace.is_empty() {
        format!("ClusterRoleBinding {:?} {of_role}", object.name())
    } else {
        format!("RoleBinding {:?} {of_role}", format!("{}/{namespace}", object.name()))
    };
    let mut grants = Vec::new();
    for subject in subjects {
        let (is_group, name, shown) = match subject.kind.as_str() {
            "User" => (false, subject.name.clone(), subject.name),
            "Group" => (true, subject.name.clone(), subject.name),
            "ServiceAccount" => {
                let own = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                if own.is_empty() {
                    continue;
                }
                (false, service_account_name(own, &subject.name), format!("{}/{own}", subject.name))
            }
            _ => continue,
        };
        let reason = format!("RBAC: allowed by {by} {} {shown:?}", subject.kind);
        grants.push((is_group, name, Grant { binding, role: role.clone(), reason: reason.into() }));
    }
    grants
}

impl Grants {
    fn extend(&mut self, grants: Vec<(bool, String, Grant)>) {
        for (is_group, name, grant) in grants {
            let map = if is_group { &mut self.groups } else { &mut self.users };
            map.entry(name).or_default().push(grant);
        }
    }

    fn of<'s>(&'s self, user: &'s UserInfo) -> impl Iterator<Item = &'s Grant> {
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(by_group).flatten()
    }
}

impl Snapshot {
    fn grants<'s>(&'s self, user: &'s UserInfo, namespace: &str) -> impl Iterator<Item = &'s Grant> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.of(user).chain(own.into_iter().flat_map(|grants| grants.of(user)))
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let snapshot = self.snapshot();
        let mut missing: Vec<&str> = Vec::new();
        for grant in snapshot.grants(attributes.user, attributes.namespace) {
            match &grant.role {
                Ok(role) if role.rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Verdict::allow(grant.reason.to_string());
                }
                Ok(_) => {}
                Err(error) if missing.contains(&&**error) => {}
                Err(error) => missing.push(error),
            }
        }
        match missing[..] {
            [] => Verdict::no_opinion(""),
            [one] => Verdict::no_opinion(format!("RBAC: {one}")),
            _ => Verdict::no_opinion(format!("RBAC: [{}]", missing.join(", "))),
        }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let snapshot = self.snapshot();
        let mut grants: Vec<&Grant> = snapshot.grants(user, namespace).collect();
        grants.sort_by_key(|grant| grant.binding);
        grants.dedup_by_key(|grant| grant.binding);
        let mut all = UserRules::default();
        for grant in grants {
            match &grant.role {
                Ok(role) => all.rules.extend(role.rules.iter().cloned()),
                Err(error) => all.errors.push(error.to_string()),
            }
        }
        all
    }
}
