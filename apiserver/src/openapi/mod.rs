//! # OpenAPI
//!
//! What `kubectl explain` shows and what clients that know no kinds learn from: version 3, one document per group and
//! version behind an index, and version 2, one document of everything. Both are made from the rows of kinds, the types of
//! `minik8s_api::schema`, and the descriptions that `k8s_openapi` carries.
//!
//! - [`definitions`]: types as JSON schemas. [`custom`]: those that definitions bring. [`paths`]: what can be asked.
//!   [`aggregated`]: what other servers add to version 2; to version 3 they add a line of the index each.
//!   [`descriptions`]: what Kubernetes says of it. [`gnostic`]: version 2 in protobuf.
//!
//! Documents are made when they are first asked for, and kept for the snapshot of kinds they describe.

mod aggregated;
pub mod custom;
pub mod definitions;
pub mod descriptions;
pub mod gnostic;
pub mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use minik8s_api::kinds::{Kind, Kinds};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::definitions::{Definitions, Dialect};
use crate::aggregator::{Documents as Others, services};
use crate::documents::{Document, Documents, Surface};
use crate::version::GIT_VERSION;

/// The version of the documents: that of the API, without its patches.
const VERSION: &str = "1.37";

/// OpenAPI documents of the present snapshot of kinds.
#[derive(Default)]
pub struct OpenApi {
    /// Of this server alone.
    documents: Documents<Arc<Kinds>>,
    /// Of this server and others.
    merged: Documents<Surface>,
}

impl OpenApi {
    /// `/openapi/v3`: where each group and version is described, with a hash that changes with the description.
    pub fn index(&self, surface: &Surface, others: &Others) -> Option<Document> {
        self.merged.get(surface, "index", || {
            let own = places(&surface.kinds).into_iter().filter(|(place, _)| !is_others(surface, place));
            let information = information(&surface.kinds).into_iter().map(|place| (place, Vec::new()));
            let mut paths: Map<String, Value> = own
                .chain(information)
                .map(|(place, rows)| {
                    let url = format!("/openapi/v3/{place}?hash={}", hash(&place, &rows));
                    (place, json!({ "serverRelativeURL": url }))
                })
                .collect();
            for (service, _) in surface.services.others() {
                if let Some(described) = others.of(&service.name).and_then(|fetched| fetched.openapi_v3) {
                    paths.insert(service.path().trim_start_matches('/').to_owned(), described);
                }
            }
            Some(json!({ "paths": paths }))
        })
    }

    /// The description of `api/v1` or `apis/{group}/{version}`, or of what stands above: `api`, `apis`, `apis/{group}`.
    pub fn v3(&self, kinds: &Arc<Kinds>, place: &str) -> Option<Document> {
        let place = place.trim_end_matches('/');
        self.documents.get(kinds, place, || {
            let mut definitions = Definitions::new(Dialect::V3);
            let (paths, custom) = match places(kinds).remove(place) {
                Some(rows) => (paths::of(&rows, &mut definitions), rows.iter().all(|kind| kind.custom)),
                None if information(kinds).iter().any(|one| one == place) => {
                    (paths::information(place, &mut definitions), false)
                }
                None => return None,
            };
            let info = match custom {
                true => json!({ "title": "Kubernetes CRD Swagger", "version": "v0.1.0" }),
                false => json!({ "title": "Kubernetes", "version": VERSION }),
            };
            let mut components = json!({ "schemas": definitions.finish(kinds) });
            if !custom {
                components["securitySchemes"] = bearer_token();
            }
            Some(json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": components }))
        })
    }

    /// `/openapi/v2`: everything.
    pub fn v2(&self, surface: &Surface, others: &Others) -> Option<Document> {
        self.merged.get(surface, "v2", || Some(merged(surface, others)))
    }

    /// The same in protobuf.
    pub fn v2_protobuf(&self, surface: &Surface, others: &Others) -> Option<Document> {
        let encode = || Some(Bytes::from(gnostic::encode(&merged(surface, others))));
        self.merged.get_encoded(surface, "v2 in protobuf", encode)
    }
}

/// Whether `apis/{group}/{version}` is another server's.
fn is_others(surface: &Surface, place: &str) -> bool {
    let service = services::group_version(place).and_then(|(group, version)| surface.services.of(group, version));
    service.is_some_and(|service| service.remote.is_some())
}

fn merged(surface: &Surface, others: &Others) -> Value {
    let mut document = everything(&surface.kinds);
    for (service, _) in surface.services.others() {
        if let Some(described) = others.of(&service.name).and_then(|fetched| fetched.openapi_v2) {
            aggregated::merge(&mut document, &described, &service.path());
        }
    }
    document
}

fn everything(kinds: &Arc<Kinds>) -> Value {
    let mut definitions = Definitions::new(Dialect::V2);
    let rows: Vec<Arc<Kind>> = kinds.iter().cloned().collect();
    let mut paths = paths::of(&rows, &mut definitions);
    paths::add_information(&mut paths, &information(kinds), &mut definitions);
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "definitions": definitions.finish(kinds),
        "securityDefinitions": bearer_token(),
        "security": [{ "BearerToken": [] }],
    })
}

fn bearer_token() -> Value {
    json!({
        "BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey",
            "name": "authorization",
            "in": "header",
        },
    })
}

/// What stands above the versions of groups: `api`, `apis`, and `apis/{group}` of the groups that come with the server.
fn information(kinds: &Kinds) -> Vec<String> {
    let groups: BTreeSet<&str> = kinds.iter().filter(|kind| !kind.custom).map(|kind| kind.group.as_str()).collect();
    let named = groups.into_iter().filter(|group| !group.is_empty()).map(|group| format!("apis/{group}"));
    ["api", "apis"].into_iter().map(str::to_owned).chain(named).collect()
}

/// The rows of each `api/v1`, `apis/{group}/{version}`.
fn places(kinds: &Kinds) -> BTreeMap<String, Vec<Arc<Kind>>> {
    let mut places: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in kinds.iter() {
        let prefix = if kind.group.is_empty() { "api" } else { "apis" };
        places.entry(format!("{prefix}/{}", kind.api_version())).or_default().push(Arc::clone(kind));
    }
    places
}

/// What is described follows from the version of this program and the rows; so does the hash, without describing anything.
fn hash(place: &str, rows: &[Arc<Kind>]) -> String {
    let mut hash = Sha256::new();
    hash.update(place);
    hash.update(GIT_VERSION);
    hash.update(env!("CARGO_PKG_VERSION"));
    for kind in rows {
        let parts: Vec<&str> = kind.subresources.iter().map(|part| part.name.as_str()).collect();
        hash.update(format!("{} {} {:?} {parts:?}\n", kind.plural, kind.kind, kind.verbs));
        if let Some(definition) = &kind.definition {
            hash.update(definition.published.to_string());
        }
    }
    hash.finalize().iter().take(32).map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(place: &str) -> Value {
        let document = OpenApi::default().v3(&Kinds::built_in(), place).expect("served");
        serde_json::from_slice(&document.bytes).expect("JSON")
    }

    #[test]
    fn deployments_are_described() {
        let document = v3("apis/apps/v1");
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["x-kubernetes-group-version-kind"],
            json!([{ "group": "apps", "kind": "Deployment", "version": "v1" }])
        );
        assert_eq!(deployment["properties"]["kind"]["type"], "string");
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(spec["x-kubernetes-list-map-keys"], json!(["name"]));
        assert!(spec["description"].as_str().is_some_and(|text| !text.is_empty()));
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert!(
            patch["parameters"].as_array().is_some_and(|list| list.iter().any(|one| one["name"] == "fieldValidation"))
        );
    }

    #[test]
    fn every_reference_is_defined() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        match value.as_str() {
                            Some(target) if key == "$ref" => found.push(target),
                            _ => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let kinds = Kinds::built_in();
        for place in places(&kinds).keys() {
            let document = v3(place);
            let mut found = Vec::new();
            references(&document, &mut found);
            for target in found {
                let name = target.trim_start_matches("#/components/schemas/");
                assert!(document["components"]["schemas"].get(name).is_some(), "{place}: {target}");
            }
        }
    }

    #[test]
    fn version_two_has_all_kinds() {
        let kinds = Kinds::built_in();
        let document: Value = serde_json::from_slice(
            &OpenApi::default().v2(&Surface::of(kinds.clone()), &Others::default()).expect("served").bytes,
        )
        .expect("JSON");
        for kind in kinds.iter() {
            let definition = &document["definitions"][kind.schema.name()];
            assert!(definition["x-kubernetes-group-version-kind"].is_array(), "{}", kind.schema.name());
        }
    }
}
