//! Discovery: which groups, versions and resources are served.
//!
//! Plain (`/api`, `/apis`, `/apis/{group}`, `/apis/{group}/{version}`) and aggregated, in one document of each root
//! (`k8s.io/apiserver/pkg/endpoints/discovery`). All of it is computed from a snapshot of this server's kinds and of what
//! other servers said of theirs, once per snapshot; another server's `/apis/{group}/{version}` is its own to answer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minik8s_api::kinds::{Kind, Kinds, api_version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregator::services::{self, Group, Version};
use crate::aggregator::{Documents as Others, Fetched};
use crate::documents::{Document, Documents, Surface};

/// The group of aggregated discovery.
pub const GROUP: &str = "apidiscovery.k8s.io";
/// The kind of aggregated discovery.
pub const LIST: &str = "APIGroupDiscoveryList";
/// Its versions, the newest first.
pub const VERSIONS: [&str; 1] = ["v2"];

/// Discovery documents.
#[derive(Default)]
pub struct Discovery {
    documents: Documents<Surface>,
}

impl Discovery {
    /// The document of a path (`/apis/apps/v1`), or with `aggregated` that version of the aggregated form of `/api` and `/apis`.
    pub fn document(
        &self,
        surface: &Surface,
        others: &Others,
        path: &str,
        aggregated: Option<&str>,
        address: &str,
    ) -> Option<Document> {
        let path = path.trim_end_matches('/');
        let key = format!("{path}#{}", aggregated.unwrap_or_default());
        self.documents.get(surface, &key, || match aggregated {
            Some(version) => self::aggregated(surface, others, path, version),
            None => plain(surface, path, address),
        })
    }
}

fn plain(surface: &Surface, path: &str, address: &str) -> Option<Value> {
    let kinds = &*surface.kinds;
    match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": kinds.group("").map(|group| group.versions.clone()).unwrap_or_default(),
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
        })),
        ["apis"] => {
            let groups = services::groups(kinds, &surface.services);
            let groups: Vec<Value> = groups.iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["api", version] => resource_list(kinds, "", version),
        ["apis", group] => {
            let groups = services::groups(kinds, &surface.services);
            let mut value = group_value(groups.iter().find(|own| own.name == *group && !own.name.is_empty())?);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            Some(value)
        }
        ["apis", group, version] if !group.is_empty() => resource_list(kinds, group, version),
        _ => None,
    }
}

fn group_value(group: &Group) -> Value {
    let version =
        |version: &Version| json!({ "groupVersion": api_version(&group.name, &version.name), "version": version.name });
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({ "name": group.name, "versions": versions, "preferredVersion": versions.first() })
}

fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    if !kinds.has_version(group, version) {
        return None;
    }
    let mut resources = Vec::new();
    for kind in kinds.of_version(group, version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if kind.allows("list") && kind.allows("create") {
            resource["storageVersionHash"] = json!(storage_version_hash(kind));
        }
        resources.push(resource);
        for part in &kind.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, part.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": part.kind.kind,
                "verbs": part.verbs,
            });
            if (part.kind.group.as_str(), part.kind.version.as_str()) != (group, version) {
                resource["group"] = json!(part.kind.group);
                resource["version"] = json!(part.kind.version);
            }
            resources.push(resource);
        }
    }
    let mut list =
        json!({ "kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": resources });
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Some(list)
}

/// `k8s.io/apiserver/pkg/endpoints/discovery/storageversionhash.go`.
fn storage_version_hash(kind: &Kind) -> String {
    let stored = &kind.storage.kind;
    let hash = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    BASE64_STANDARD.encode(&hash[..8])
}

fn aggregated(surface: &Surface, others: &Others, path: &str, version: &str) -> Option<Value> {
    let kinds = &*surface.kinds;
    let core = match path {
        "/api" => true,
        "/apis" => false,
        _ => return None,
    };
    let groups = services::groups(kinds, &surface.services);
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| match &version.other {
                    Some(service) => others_version(others.of(&service.name), &version.name),
                    None => {
                        let resources = kinds.of_version(&group.name, &version.name);
                        let resources: Vec<Value> = resources.map(|kind| aggregated_resource(kind)).collect();
                        json!({ "version": version.name, "resources": resources, "freshness": "Current" })
                    }
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({ "name": group.name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    Some(json!({ "kind": LIST, "apiVersion": format!("{GROUP}/{version}"), "metadata": {}, "items": items }))
}

/// A version of another server, as far as it is known; one that does not answer is there, but stale.
fn others_version(fetched: Option<Fetched>, name: &str) -> Value {
    let fetched = fetched.unwrap_or(Fetched { stale: true, ..Fetched::default() });
    let stale = fetched.stale || fetched.discovery.is_none();
    let mut version = fetched.discovery.unwrap_or_else(|| json!({ "version": name }));
    version["freshness"] = json!(if stale { "Stale" } else { "Current" });
    version
}

fn aggregated_resource(kind: &Kind) -> Value {
    // A kind of the resource's own group and version is named without them.
    let kind_value = |group: &str, version: &str, named: &str| {
        let own = (group, version) == (kind.group.as_str(), kind.version.as_str());
        let (group, version) = if own { ("", "") } else { (group, version) };
        json!({ "group": group, "version": version, "kind": named })
    };
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": kind_value(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let parts: Vec<Value> = kind
        .subresources
        .iter()
        .map(|part| {
            let response = kind_value(&part.kind.group, &part.kind.version, &part.kind.kind);
            json!({ "subresource": part.name, "responseKind": response, "verbs": part.verbs })
        })
        .collect();
    if !parts.is_empty() {
        resource["subresources"] = json!(parts);
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_exist_have_documents() {
        let (surface, discovery) = (Surface::of(Kinds::built_in()), Discovery::default());
        let get = |path: &str, aggregated| {
            let document = discovery.document(&surface, &Others::default(), path, aggregated, "127.0.0.1:6443")?;
            Some(serde_json::from_slice::<Value>(&document.bytes).expect("JSON"))
        };
        let apps = get("/apis/apps", None).expect("apps");
        let expect = json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": "apps",
            "versions": [{ "groupVersion": "apps/v1", "version": "v1" }],
            "preferredVersion": { "groupVersion": "apps/v1", "version": "v1" },
        });
        assert_eq!(apps, expect);
        let core = get("/api/v1", None).expect("core");
        let pods = core["resources"]
            .as_array()
            .expect("list")
            .iter()
            .find(|resource| resource["name"] == "pods")
            .expect("pods");
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=");
        let all = get("/apis", Some("v2")).expect("aggregated");
        assert_eq!(all["items"][0]["versions"][0]["freshness"], "Current");
        assert!(get("/apis/nope.io", None).is_none() && get("/apis/apps/v9", None).is_none());
    }
}
