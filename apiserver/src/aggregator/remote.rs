//! What other servers say of themselves: discovery and OpenAPI, fetched while they are available
//! (`kube-aggregator/pkg/apiserver/handler_discovery.go`, `pkg/controllers/openapi{,v3}`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Aggregator;
use super::proxy::Answer;
use super::services::{ApiService, Remote};
use crate::discovery::{GROUP, LIST};
use crate::negotiate::JSON;
use crate::outgoing::ServicePort;

/// How long another server may take for one document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long its documents may be.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The documents of one APIService.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fetched {
    /// Its version in aggregated discovery, without `freshness`.
    pub discovery: Option<Value>,
    /// It could not be asked lately.
    pub stale: bool,
    /// Where its version is described, as the index of OpenAPI version 3 has it.
    pub openapi_v3: Option<Value>,
    /// Its description in OpenAPI version 2.
    pub openapi_v2: Option<Arc<Value>>,
}

/// The documents of all, by the name of the APIService.
#[derive(Default)]
pub struct Documents {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Changes with what is held.
    generation: u64,
    held: BTreeMap<String, Fetched>,
}

impl Documents {
    /// A number that changes whenever a document does.
    pub fn generation(&self) -> u64 {
        self.state.read().generation
    }

    /// The documents of an APIService.
    pub fn of(&self, name: &str) -> Option<Fetched> {
        self.state.read().held.get(name).cloned()
    }

    fn put(&self, name: &str, fetched: Fetched) {
        let mut state = self.state.write();
        if state.held.get(name) != Some(&fetched) {
            state.held.insert(name.to_owned(), fetched);
            state.generation += 1;
        }
    }

    /// What is known of an APIService is of earlier.
    pub(super) fn outdate(&self, name: &str) {
        let fetched = Fetched { stale: true, ..self.of(name).unwrap_or_default() };
        self.put(name, fetched);
    }

    /// Forgets all but some.
    pub(super) fn retain(&self, keeps: impl Fn(&str) -> bool) {
        let mut state = self.state.write();
        let before = state.held.len();
        state.held.retain(|name, _| keeps(name));
        if state.held.len() != before {
            state.generation += 1;
        }
    }
}

impl Aggregator {
    /// Fetches the documents of another server. What cannot be had leaves what there was.
    pub(super) async fn fetch(&self, service: &ApiService, remote: &Remote) {
        let (discovery, v3, v2) = tokio::join!(
            self.fetch_discovery(service, remote),
            self.fetch_json(remote, "/openapi/v3"),
            self.fetch_json(remote, "/openapi/v2"),
        );
        let mut fetched = self.documents.of(&service.name).unwrap_or_default();
        fetched.stale = discovery.is_err();
        match discovery {
            Ok(discovery) => fetched.discovery = discovery,
            Err(error) => tracing::debug!(apiservice = service.name, error, "discovery could not be fetched"),
        }
        if let Ok(index) = v3 {
            let place = service.path().trim_start_matches('/').to_owned();
            fetched.openapi_v3 = index.and_then(|index| index["paths"].get(place).cloned());
        }
        if let Ok(document) = v2 {
            fetched.openapi_v2 = document.map(Arc::new);
        }
        self.documents.put(&service.name, fetched);
    }

    /// A document within bounds; `None` where there is none.
    async fn fetch_json(&self, remote: &Remote, path: &str) -> Result<Option<Value>, String> {
        let answer = self.fetch_one(remote, path, JSON).await?;
        match answer.code {
            200 => serde_json::from_slice(&answer.body).map(Some).map_err(|error| error.to_string()),
            403 | 404 | 406 => Ok(None),
            code => Err(format!("{path}: status {code}")),
        }
    }

    async fn fetch_one(&self, remote: &Remote, path: &str, accept: &str) -> Result<Answer, String> {
        let port = ServicePort::Number(remote.port);
        let endpoint = self.outgoing.resolve(&remote.namespace, &remote.service, port);
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let asked = self.ask(remote, &endpoint, path, accept, MAX_DOCUMENT_BYTES);
        let answer = self.outgoing.clock().timeout(FETCH_TIMEOUT, asked).await;
        answer.unwrap_or_else(|_| Err(format!("{path}: no answer in time")))
    }

    /// The version of an APIService: from aggregated discovery, or from the plain form of it.
    async fn fetch_discovery(&self, service: &ApiService, remote: &Remote) -> Result<Option<Value>, String> {
        let root = if service.group.is_empty() { "/api" } else { "/apis" };
        let accept = format!("application/json;g={GROUP};v=v2;as={LIST}");
        let answer = self.fetch_one(remote, root, &accept).await?;
        let media_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if answer.code == 200 && media_type.contains(LIST) {
            let all: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            return find_version(&all, &service.group, &service.version).map(checked).transpose();
        }
        let plain = self.fetch_json(remote, &service.path()).await?;
        plain.map(|list| checked(version_of(&list, service))).transpose()
    }
}

/// A version in the shape that clients decode (`apidiscovery/v2`): what another server gets wrong is not passed on as this
/// server's document.
fn checked(version: Value) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "fields are there for their types")]
    struct Kind {
        group: String,
        version: String,
        kind: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "fields are there for their types")]
    struct Resource {
        #[serde(alias = "subresource")]
        resource: String,
        response_kind: Option<Kind>,
        #[serde(default)]
        scope: String,
        #[serde(default)]
        singular_resource: String,
        verbs: Option<Vec<String>>,
        short_names: Option<Vec<String>>,
        categories: Option<Vec<String>>,
        #[serde(default)]
        subresources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "fields are there for their types")]
    struct Version {
        version: String,
        #[serde(default)]
        resources: Vec<Resource>,
    }
    Version::deserialize(&version).map_err(|error| format!("discovery cannot be read: {error}"))?;
    Ok(version)
}

fn find_version(all: &Value, group: &str, version: &str) -> Option<Value> {
    let mut groups = all["items"].as_array()?.iter();
    let group = groups.find(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group)?;
    let mut found = group["versions"].as_array()?.iter().find(|item| item["version"] == version)?.clone();
    found.as_object_mut()?.remove("freshness");
    Some(found)
}

/// A plain list of resources in the form of aggregated discovery (`ConvertGroupVersionIntoToDiscovery`).
fn version_of(list: &Value, service: &ApiService) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    let text = |resource: &Value, field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    let kind = |resource: &Value| {
        let or = |own: String, other: &str| if own.is_empty() { other.to_owned() } else { own };
        json!({
            "group": or(text(resource, "group"), &service.group),
            "version": or(text(resource, "version"), &service.version),
            "kind": resource["kind"],
        })
    };
    for resource in list["resources"].as_array().into_iter().flatten() {
        let name = text(resource, "name");
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let (name, part) = name.split_once('/').map_or((name.as_str(), None), |(name, part)| (name, Some(part)));
        let at = resources.iter().position(|known| known["resource"] == name);
        let at = at.unwrap_or_else(|| {
            resources.push(json!({ "resource": name, "scope": scope }));
            resources.len() - 1
        });
        let known = &mut resources[at];
        if let Some(part) = part {
            let part = json!({ "subresource": part, "responseKind": kind(resource), "verbs": resource["verbs"] });
            match known.get_mut("subresources").and_then(Value::as_array_mut) {
                Some(parts) => parts.push(part),
                None => known["subresources"] = json!([part]),
            }
            continue;
        }
        known["responseKind"] = kind(resource);
        known["singularResource"] = resource["singularName"].clone();
        for field in ["verbs", "shortNames", "categories"] {
            if let Some(value) = resource.get(field) {
                known[field] = value.clone();
            }
        }
    }
    json!({ "version": service.version, "resources": resources })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_clock::Clock;

    #[test]
    fn plain_discovery_reads_as_aggregated() {
        let (clock, _simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
        let object = json!({ "metadata": { "name": "v1.a.io" }, "spec": { "group": "a.io", "version": "v1" } });
        let service = ApiService::read(&object, None, &clock);
        let list = json!({ "resources": [
            { "name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get"], "shortNames": ["th"] },
            { "name": "things/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "update"] },
        ] });
        let expect = json!({ "version": "v1", "resources": [{
            "resource": "things", "scope": "Namespaced", "singularResource": "thing", "shortNames": ["th"], "verbs": ["get"],
            "responseKind": { "group": "a.io", "version": "v1", "kind": "Thing" },
            "subresources": [{
                "subresource": "scale", "verbs": ["get", "update"],
                "responseKind": { "group": "autoscaling", "version": "v1", "kind": "Scale" },
            }],
        }] });
        assert_eq!(version_of(&list, &service), expect);
        let all = json!({ "items": [{ "metadata": { "name": "a.io" }, "versions": [{ "version": "v1", "freshness": "Current", "resources": [] }] }] });
        assert_eq!(find_version(&all, "a.io", "v1"), Some(json!({ "version": "v1", "resources": [] })));
        assert_eq!(find_version(&all, "a.io", "v2"), None);
        assert!(checked(expect).is_ok());
        assert!(checked(json!({ "version": "v1", "resources": [{ "resource": 7 }] })).is_err());
    }
}
