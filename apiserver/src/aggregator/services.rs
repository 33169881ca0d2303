//! APIServices, read and ordered.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use minik8s_api::kinds::{Kinds, version_priority};
use minik8s_api::meta;
use minik8s_clock::Clock;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::registration::priorities;
use crate::outgoing::tls::{self, Identity, Trust};

/// The port of a Service that is not said.
const DEFAULT_PORT: u16 = 443;

/// An APIService.
pub struct ApiService {
    /// `v1.apps`
    pub name: String,
    /// Its group, empty for core.
    pub group: String,
    /// Its version.
    pub version: String,
    /// The higher, the earlier its group is found.
    pub group_priority: i64,
    /// The higher, the earlier its version is found in its group.
    pub version_priority: i64,
    /// Whether the condition `Available` holds.
    pub available: bool,
    /// Where it is served, if not here.
    pub remote: Option<Remote>,
}

/// Another server.
pub struct Remote {
    /// Namespace of its Service.
    pub namespace: String,
    /// Name of its Service.
    pub service: String,
    /// Port of its Service.
    pub port: u16,
    /// How it is trusted, or why it cannot be reached.
    pub tls: Result<Trusted, String>,
}

/// What TLS with another server goes by.
pub struct Trusted {
    /// For requests.
    pub connector: TlsConnector,
    /// As the server's certificate must name it.
    pub name: ServerName<'static>,
}

impl ApiService {
    /// Reads an object.
    pub fn read(object: &Value, identity: Option<&Identity>, clock: &Clock) -> ApiService {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let mut conditions = conditions.filter(|condition| condition["type"] == "Available");
        ApiService {
            name: meta::name(object).to_owned(),
            group: text("group"),
            version: text("version"),
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
            available: conditions.any(|condition| condition["status"] == "True"),
            remote: spec["service"].is_object().then(|| Remote::read(spec, identity, clock)),
        }
    }

    /// `/apis/{group}/{version}`, `/api/v1`.
    pub fn path(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }
}

impl Remote {
    fn read(spec: &Value, identity: Option<&Identity>, clock: &Clock) -> Remote {
        let text = |field: &str| spec["service"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, service) = (text("namespace"), text("name"));
        let port = spec["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let trust = match spec["insecureSkipTLSVerify"] == true {
            true => Trust::Anybody,
            false => Trust::of_bundle(spec["caBundle"].as_str()),
        };
        let tls = ServerName::try_from(format!("{service}.{namespace}.svc"))
            .map_err(|error| error.to_string())
            .and_then(|name| Ok(Trusted { connector: tls::connector(trust, identity, clock)?, name }));
        Remote { namespace, service, port: port.unwrap_or(DEFAULT_PORT), tls }
    }
}

/// All APIServices.
#[derive(Default)]
pub struct Services {
    all: Vec<Arc<ApiService>>,
    by_version: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Services {
    /// Finds APIServices by group and version.
    pub fn new(all: Vec<ApiService>) -> Services {
        let mut services = Services::default();
        for service in all {
            let by_version = services.by_version.entry(service.group.clone()).or_default();
            by_version.insert(service.version.clone(), services.all.len());
            services.all.push(Arc::new(service));
        }
        services
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.all.iter()
    }

    /// Those that others serve.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<ApiService>, &Remote)> {
        self.all.iter().filter_map(|service| Some((service, service.remote.as_ref()?)))
    }

    /// The one of a group and version.
    pub fn of(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        self.by_version.get(group)?.get(version).map(|at| &self.all[*at])
    }
}

/// A group of discovery.
pub struct Group {
    /// Its name, empty for core.
    pub name: String,
    /// Its versions, the preferred one first.
    pub versions: Vec<Version>,
}

/// A version of a group.
pub struct Version {
    /// As in `v1`.
    pub name: String,
    /// Who serves it, if not this server.
    pub other: Option<Arc<ApiService>>,
    rank: (Reverse<i64>, String),
    priority: i64,
}

/// What is served, by this server or by others, in the order of discovery: by the highest priority of a group's versions,
/// then by name (`apiregistration/v1/helper/helpers.go` `SortedByGroupAndVersion`). The group of APIServices is first.
pub fn groups(kinds: &Kinds, services: &Services) -> Vec<Group> {
    let mut all: Vec<(String, Version)> = Vec::new();
    for group in kinds.groups() {
        for version in &group.versions {
            let service = services.of(&group.name, version);
            if service.is_some_and(|service| service.remote.is_some()) {
                continue;
            }
            let (of_group, priority) = match service {
                Some(service) => (service.group_priority, service.version_priority),
                None if group.name == super::GROUP => (i64::MAX, 0),
                None => priorities(&group.name, version),
            };
            let rank = (Reverse(of_group), format!("{version}.{}", group.name));
            all.push((group.name.clone(), Version { name: version.clone(), other: None, rank, priority }));
        }
    }
    for (service, _) in services.others() {
        let rank = (Reverse(service.group_priority), service.name.clone());
        let (name, priority) = (service.version.clone(), service.version_priority);
        all.push((service.group.clone(), Version { name, other: Some(Arc::clone(service)), rank, priority }));
    }
    all.sort_by(|(_, one), (_, other)| one.rank.cmp(&other.rank));
    // A group stands where its first version stands.
    let mut groups: Vec<Group> = Vec::new();
    for (name, version) in all {
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.versions.push(version),
            None => groups.push(Group { name, versions: vec![version] }),
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|version| Reverse((version.priority, version_priority(&version.name))));
    }
    groups
}

/// The group and version of `/apis/{group}/{version}/…` and `/api/{version}/…`.
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    (!version.is_empty()).then_some((group, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_highest_version_places_its_group() {
        let (clock, _simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
        let service = |name: &str, group_priority: i64, version_priority: i64| {
            let (version, group) = name.split_once('.').expect("a name");
            let spec = json!({
                "group": group, "version": version, "service": { "namespace": "n", "name": "s" },
                "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            });
            ApiService::read(&json!({ "metadata": { "name": name }, "spec": spec }), None, &clock)
        };
        let services = Services::new(vec![
            service("v1.b.io", 1000, 100),
            service("v1.first.io", 17_850, 15),
            service("v1.a.io", 1000, 100),
            service("v1beta1.b.io", 2000, 100),
            service("v2.b.io", 1000, 100),
            service("v1alpha1.b.io", 1000, 200),
        ]);
        let groups = groups(&Kinds::built_in(), &services);
        let shown: Vec<String> = groups
            .iter()
            .map(|group| {
                let versions: Vec<&str> = group.versions.iter().map(|version| version.name.as_str()).collect();
                format!("{}:{}", group.name, versions.join(","))
            })
            .collect();
        assert_eq!(shown[..4], ["apiregistration.k8s.io:v1", ":v1", "first.io:v1", "apps:v1"]);
        assert_eq!(shown[shown.len() - 2..], ["b.io:v1alpha1,v2,v1,v1beta1", "a.io:v1"]);
        assert_eq!(services.of("b.io", "v2").map(|service| service.path()), Some("/apis/b.io/v2".to_owned()));
        let alone: Vec<String> =
            super::groups(&Kinds::built_in(), &Services::default()).into_iter().map(|group| group.name).collect();
        let kinds = Kinds::built_in();
        let mut known: Vec<&str> = kinds.groups().iter().map(|group| group.name.as_str()).collect();
        known.swap(0, 1);
        assert_eq!(alone, known);
    }

    #[test]
    fn paths_have_groups_and_versions() {
        assert_eq!(group_version("/apis/a.io/v1/things"), Some(("a.io", "v1")));
        assert_eq!(group_version("/apis/a.io/v1"), Some(("a.io", "v1")));
        assert_eq!(group_version("/api/v1/pods"), Some(("", "v1")));
        for none in ["/apis/a.io", "/apis/a.io/", "/version", "/openapi/v3/apis/a.io/v1"] {
            assert_eq!(group_version(none), None, "{none}");
        }
    }
}
