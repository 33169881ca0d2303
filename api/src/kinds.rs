//! Kinds as data: one [`Kind`] row for each resource that is served, and [`Kinds`], the snapshot of all of them.
//!
//! The rows of the built-in kinds come from `data/kinds.tsv` and `data/columns.tsv`; a CustomResourceDefinition adds rows
//! at run time. Nothing downstream asks where a row came from: the API server reads names, verbs and subresources from it,
//! the codec its type, the printer its columns.
//!
//! A snapshot is immutable. [`Kinds::with`] and [`Kinds::without`] make a new one, which shares all unchanged rows, so that
//! a request works on the snapshot it began with.

mod built_in;
mod convert;
mod names;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::custom::CustomResource;
use crate::schema::{Struct, Type};

pub use convert::convert;
pub use names::{GroupKind, GroupResource, GroupVersionKind, GroupVersionResource, api_version, split_api_version};

/// A column of the kind's Table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub ty: String,
    /// `name` for the column that holds the name; mostly empty.
    pub format: String,
    /// 0 for always, above for `-o wide` only.
    pub priority: u32,
    /// For people.
    pub description: String,
    /// Where a custom resource's cell is read from.
    pub json_path: Option<String>,
}

/// A subresource, as in `pods/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// As in `scale`.
    pub name: String,
    /// The kind of its bodies, which may be of another group (`autoscaling/v1, Scale`).
    pub kind: GroupVersionKind,
    /// As in `get`, `patch`, `update`.
    pub verbs: Vec<String>,
}

/// Under which resource objects are stored. Versions of a group share one storage, and so do events of both their groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Kind whose form the stored bytes have.
    pub kind: GroupVersionKind,
    /// Its plural.
    pub plural: String,
}

/// One served resource.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Empty for core.
    pub group: String,
    /// As in `v1`.
    pub version: String,
    /// As in `deployments`.
    pub plural: String,
    /// As in `deployment`.
    pub singular: String,
    /// As in `Deployment`.
    pub kind: String,
    /// As in `DeploymentList`.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// As in `deploy`.
    pub short_names: Vec<String>,
    /// As in `all`.
    pub categories: Vec<String>,
    /// What clients may do with it.
    pub verbs: Vec<String>,
    /// Its subresources, by name.
    pub subresources: Vec<Subresource>,
    /// The columns of its Table.
    pub columns: Vec<Column>,
    /// The type of its objects.
    pub schema: Arc<Struct>,
    /// Where its objects are stored.
    pub storage: Storage,
    /// Whether a CustomResourceDefinition brought it: JSON and YAML only, no strategic merge patch, its own validation.
    pub custom: bool,
    /// What that definition says of its objects; `None` for built-in kinds.
    pub definition: Option<Arc<CustomResource>>,
}

impl Kind {
    /// Group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    /// Group, version and resource.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.plural)
    }

    /// What every answer about a deprecated kind warns of; where its resource is kept for old clients.
    pub fn deprecation(&self) -> Option<&str> {
        if let Some(definition) = &self.definition {
            return definition.deprecation.as_deref();
        }
        match (&*self.group, &*self.version, &*self.kind) {
            ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
            ("", "v1", "Endpoints") => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            _ => None,
        }
    }

    /// Group and resource, for messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    /// Group and kind, for messages.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&*self.group, &*self.kind)
    }

    /// `apps/v1`, or `v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Whether clients may do that with it.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The type of its objects, as a [`Type`].
    pub fn ty(&self) -> Type {
        Type::Struct(self.schema.clone())
    }

    /// The prefix of its objects' keys in the store: `/registry/apps/deployments/`.
    pub fn storage_prefix(&self) -> String {
        let group = if self.storage.kind.group.is_empty() { "core" } else { &self.storage.kind.group };
        format!("/registry/{group}/{}/", self.storage.plural)
    }

    /// Where Kubernetes keeps the objects in etcd, below `/registry`: errors of its storage name the key
    /// (`pkg/registry` stores, `cmd/kube-apiserver/app/options` `SpecialDefaultResourcePrefixes`).
    pub fn etcd_prefix(&self) -> String {
        let (group, plural) = (self.storage.kind.group.as_str(), self.storage.plural.as_str());
        match (group, plural) {
            ("", "replicationcontrollers") => "controllers".to_owned(),
            ("", "endpoints") => "services/endpoints".to_owned(),
            ("", "nodes") => "minions".to_owned(),
            ("", "services") => "services/specs".to_owned(),
            ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
            ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => format!("{group}/{plural}"),
            _ if self.custom => format!("{group}/{plural}"),
            _ => plural.to_owned(),
        }
    }

    /// The key of one object in the store; `namespace` is not looked at where the kind has none.
    pub fn storage_key(&self, namespace: &str, name: &str) -> String {
        let prefix = self.storage_prefix();
        if self.namespaced { format!("{prefix}{namespace}/{name}") } else { format!("{prefix}{name}") }
    }

    /// Whether objects are stored in this very version.
    pub fn is_storage_version(&self) -> bool {
        self.storage.kind.version == self.version && self.storage.kind.group == self.group
    }
}

/// A group of [`Kinds`] and its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Empty for core.
    pub name: String,
    /// As in `["v2", "v1"]`.
    pub versions: Vec<String>,
}

/// An immutable snapshot of all kinds that are served.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    rows: Vec<Arc<Kind>>,
    groups: Vec<Group>,
    // group → version → row, twice, so that looking up takes no allocation.
    by_plural: BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>,
    by_kind: BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>,
}

impl Kinds {
    /// The built-in kinds.
    pub fn built_in() -> Arc<Self> {
        static KINDS: OnceLock<Arc<Kinds>> = OnceLock::new();
        KINDS.get_or_init(|| Arc::new(Kinds::from_rows(built_in::read_tables()))).clone()
    }

    /// A snapshot of these rows; a group's place is that of its first row, its versions are sorted by Kubernetes' priority.
    pub fn from_rows(rows: Vec<Arc<Kind>>) -> Self {
        let mut this = Self { rows, ..Self::default() };
        for (index, row) in this.rows.iter().enumerate() {
            let entry = |map: &mut BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>, name: &str| {
                let versions = map.entry(row.group.clone()).or_default();
                versions.entry(row.version.clone()).or_default().insert(name.to_owned(), index);
            };
            entry(&mut this.by_plural, &row.plural);
            entry(&mut this.by_kind, &row.kind);
            let at = this.groups.iter().position(|g| g.name == row.group).unwrap_or_else(|| {
                this.groups.push(Group { name: row.group.clone(), versions: Vec::new() });
                this.groups.len() - 1
            });
            let versions = &mut this.groups[at].versions;
            if !versions.contains(&row.version) {
                versions.push(row.version.clone());
            }
        }
        for group in &mut this.groups {
            group.versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        }
        this
    }

    /// The kind under `/apis/{group}/{version}/{plural}`; the group of core is empty.
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_plural.get(group)?.get(version)?.get(plural).map(|i| &self.rows[*i])
    }

    /// The kind that `apiVersion` and `kind` name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.by_kind.get(group)?.get(version)?.get(kind).map(|i| &self.rows[*i])
    }

    /// The kind of a [`GroupVersionKind`].
    pub fn get(&self, gvk: &GroupVersionKind) -> Option<&Arc<Kind>> {
        self.by_kind(&gvk.group, &gvk.version, &gvk.kind)
    }

    /// The kind of a resource in the group's preferred version that serves it.
    pub fn preferred(&self, resource: &GroupResource) -> Option<&Arc<Kind>> {
        let group = self.group(&resource.group)?;
        group.versions.iter().find_map(|version| self.by_resource(&resource.group, version, &resource.resource))
    }

    /// All rows, in the order of discovery.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.rows.iter()
    }

    /// The rows of one group and version, in the order of discovery.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> + 'a {
        self.rows.iter().filter(move |row| row.group == group && row.version == version)
    }

    /// The groups in the order of discovery, core (`""`) first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    /// Whether the group serves that version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.group(group).is_some_and(|g| g.versions.iter().any(|v| v == version))
    }

    /// A snapshot that has `kind` too, in place of a row of the same group, version and plural. Groups that come at run
    /// time follow the built-in ones in the order of their names, as in kube-apiserver.
    pub fn with(&self, kind: Arc<Kind>) -> Arc<Self> {
        let mut rows: Vec<_> = self.rows.iter().filter(|row| row.gvr() != kind.gvr()).cloned().collect();
        let group_end = rows.iter().rposition(|row| row.group == kind.group).map(|last| last + 1);
        let at = group_end
            .unwrap_or_else(|| rows.iter().position(|row| row.custom && row.group > kind.group).unwrap_or(rows.len()));
        rows.insert(at, kind);
        Arc::new(Self::from_rows(rows))
    }

    /// A snapshot without that resource.
    pub fn without(&self, resource: &GroupVersionResource) -> Arc<Self> {
        let rows = self.rows.iter().filter(|row| row.gvr() != *resource).cloned().collect();
        Arc::new(Self::from_rows(rows))
    }
}

/// Sorts versions as Kubernetes does (apimachinery `pkg/version`, `CompareKubeAwareVersionStrings`): v2, v1, v1beta2,
/// v1alpha1, and what is no such version last, by name.
pub fn version_priority(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let name = std::cmp::Reverse(version.to_owned());
    let unknown = (0, 0, 0, name.clone());
    let Some(rest) = version.strip_prefix('v') else {
        return unknown;
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u32>() else {
        return unknown;
    };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, Ok(0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor.parse::<u32>()),
            (_, Some(minor)) => (1, minor.parse::<u32>()),
            _ => return unknown,
        },
    };
    match minor {
        Ok(minor) => (stage, major, minor, name),
        Err(_) => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn the_tables_hold_every_kind() {
        let kinds = Kinds::built_in();
        assert_eq!(kinds.iter().count(), 72);
        let deployments = kinds.by_resource("apps", "v1", "deployments").unwrap();
        assert_eq!(deployments.gvk().to_string(), "apps/v1, Kind=Deployment");
        assert_eq!(deployments.group_resource().to_string(), "deployments.apps");
        assert_eq!(deployments.storage_key("default", "web"), "/registry/apps/deployments/default/web");
        assert_eq!(deployments.subresource("scale").unwrap().kind.api_version(), "autoscaling/v1");
        let nodes = kinds.by_kind("", "v1", "Node").unwrap();
        assert_eq!(nodes.storage_key("ignored", "n1"), "/registry/core/nodes/n1");
        assert_eq!(nodes.columns[0].name, "Name");
        assert_eq!(nodes.columns[0].format, "name");
    }

    #[test]
    fn every_body_has_a_type() {
        for kind in Kinds::built_in().iter() {
            for subresource in &kind.subresources {
                let gvk = &subresource.kind;
                assert!(schema::built_in().kind(&gvk.group, &gvk.version, &gvk.kind).is_some(), "{gvk}");
            }
        }
    }

    #[test]
    fn versions_share_storage() {
        let kinds = Kinds::built_in();
        let v1 = kinds.by_resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v2 = kinds.by_resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        assert_eq!(v1.storage, v2.storage);
        assert!(v2.is_storage_version() && !v1.is_storage_version());
        let events = kinds.by_resource("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(events.storage_prefix(), "/registry/core/events/");
        assert_eq!(kinds.group("autoscaling").unwrap().versions, ["v2", "v1"]);
        let preferred = kinds.preferred(&GroupResource::new("autoscaling", "horizontalpodautoscalers")).unwrap();
        assert_eq!(preferred.version, "v2");
    }

    #[test]
    fn custom_kinds_come_and_go_in_new_snapshots() {
        let kinds = Kinds::built_in();
        let mut custom = Kind::clone(kinds.by_resource("", "v1", "configmaps").unwrap());
        custom.group = "example.com".to_owned();
        custom.custom = true;
        let resource = custom.gvr();
        let more = kinds.with(Arc::new(custom.clone())).with(Arc::new(custom));
        assert_eq!(more.iter().count(), 73);
        assert_eq!(more.groups().last().unwrap().name, "example.com");
        assert!(kinds.group("example.com").is_none());
        assert!(more.without(&resource).group("example.com").is_none());
    }

    #[test]
    fn versions_sort_as_kubernetes_sorts_them() {
        let mut versions = ["v1alpha1", "foo", "v1", "v10", "v1beta1", "v2", "v1beta2", "v11alpha2", "bar"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v11alpha2", "v1alpha1", "bar", "foo"]);
    }
}
