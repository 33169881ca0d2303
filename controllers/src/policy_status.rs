//! ValidatingAdmissionPolicies say whether their expressions fit the kinds that they match.
//!
//! Watches ValidatingAdmissionPolicies and CustomResourceDefinitions; writes a policy's `status.observedGeneration` and
//! `status.typeChecking`, once a generation. Warnings change nothing of what the policy does.
//! (Kubernetes: `pkg/controller/validatingadmissionpolicystatus/controller.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use minik8s_api::admission::{Checked, type_check};
use minik8s_api::custom::definition;
use minik8s_api::kinds::{Kind, Kinds, split_api_version};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_not_found};
use serde_json::{Value, json};

use crate::manager::{Context, Reconciler};

const MANAGER: &str = "validatingadmissionpolicy-status";
/// Kinds against which one policy is checked.
const MAX_KINDS: usize = 10;

/// See the module.
#[derive(Clone)]
pub struct PolicyStatus {
    client: Client,
    policies: Lister<ValidatingAdmissionPolicy>,
    definitions: Lister<CustomResourceDefinition>,
    queue: WorkQueue<String>,
}

impl PolicyStatus {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let policies = context.informers.informer::<ValidatingAdmissionPolicy>();
        let definitions = context.informers.informer::<CustomResourceDefinition>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        policies.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), policies: policies.lister(), definitions: definitions.lister(), queue }
    }

    /// All kinds that are served, as far as the definitions are known here.
    fn kinds(&self) -> Result<Vec<Arc<Kind>>, serde_json::Error> {
        let mut kinds: Vec<Arc<Kind>> = Kinds::built_in().iter().cloned().collect();
        for own in self.definitions.list() {
            let rows = definition::rows(&serde_json::to_value(&*own)?);
            kinds.extend(rows.into_iter().flat_map(|rows| rows.served));
        }
        Ok(kinds)
    }
}

/// The kinds that the rules of a policy name, in order; rules with wildcards name none.
fn matched(spec: &Value, kinds: &[Arc<Kind>]) -> Vec<Arc<Kind>> {
    let mut found = BTreeMap::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let (groups, versions) = (texts(&rule["apiGroups"]), texts(&rule["apiVersions"]));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let mut resources = texts(&rule["resources"]);
        resources.retain(|resource| !resource.contains(['*', '/']));
        let named = |kind: &&Arc<Kind>| {
            groups.contains(&kind.group.as_str())
                && versions.contains(&kind.version.as_str())
                && resources.contains(&kind.plural.as_str())
        };
        for kind in kinds.iter().filter(named).take(MAX_KINDS) {
            found.insert((kind.group.clone(), kind.version.clone(), kind.kind.clone()), kind.clone());
        }
    }
    found.into_values().take(MAX_KINDS).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What the status of a policy should be.
fn calculate_status(generation: i64, spec: &Value, kinds: &[Arc<Kind>]) -> Value {
    let checked: Vec<Checked> = matched(spec, kinds).iter().map(|kind| Checked::of(kind)).collect();
    let params = &spec["paramKind"];
    let (group, version) = split_api_version(params["apiVersion"].as_str().unwrap_or_default());
    let name = params["kind"].as_str().unwrap_or_default();
    let of_params = |kind: &&Arc<Kind>| kind.group == group && kind.version == version && kind.kind == name;
    let params = kinds.iter().find(of_params).map(|kind| kind.ty());
    let warnings = type_check(spec, &checked, params.as_ref()).into_iter();
    let warnings = warnings.map(|found| json!({ "fieldRef": found.field_ref, "warning": found.warning }));
    let warnings: Vec<Value> = warnings.collect();
    let mut status = json!({ "observedGeneration": generation, "typeChecking": {} });
    if !warnings.is_empty() {
        status["typeChecking"]["expressionWarnings"] = json!(warnings);
    }
    status
}

impl Reconciler for PolicyStatus {
    const NAME: &'static str = "validatingadmissionpolicy-status";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(policy) = self.policies.get("", &name) else { return Ok(()) };
        let generation = policy.metadata.generation.unwrap_or(0);
        let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        if generation <= observed {
            return Ok(());
        }
        let spec = serde_json::to_value(&policy.spec).map_err(kube::Error::SerdeError)?;
        let kinds = self.kinds().map_err(kube::Error::SerdeError)?;
        let body = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name }, "status": calculate_status(generation, &spec, &kinds),
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let api = self.client.all::<ValidatingAdmissionPolicy>();
        match api.patch_status(&name, &parameters, &Patch::Apply(body)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: Value, expression: &str) -> Value {
        json!({ "matchConstraints": { "resourceRules": rules }, "validations": [{ "expression": expression }] })
    }

    #[test]
    fn rules_name_kinds_unless_they_name_all() {
        let kinds: Vec<Arc<Kind>> = Kinds::built_in().iter().cloned().collect();
        let names = |rules: Value| {
            let found = matched(&policy(rules, "true"), &kinds);
            found.iter().map(|kind| kind.kind.clone()).collect::<Vec<_>>()
        };
        let rule = |groups: Value, versions: Value, resources: Value| json!([{ "apiGroups": groups, "apiVersions": versions, "resources": resources }]);
        assert_eq!(
            names(rule(json!(["apps", ""]), json!(["v1"]), json!(["deployments", "pods", "pods/exec"]))),
            ["Pod", "Deployment"]
        );
        assert!(names(rule(json!(["*"]), json!(["v1"]), json!(["pods"]))).is_empty());
        assert!(names(rule(json!([""]), json!(["v1"]), json!(["*"]))).is_empty());
    }

    #[test]
    fn the_status_says_what_does_not_fit() {
        let kinds: Vec<Arc<Kind>> = Kinds::built_in().iter().cloned().collect();
        let rules = json!([{ "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"] }]);
        let good = calculate_status(2, &policy(rules.clone(), "object.spec.replicas > 1"), &kinds);
        assert_eq!(good, json!({ "observedGeneration": 2, "typeChecking": {} }));
        let wrong = calculate_status(1, &policy(rules, "object.replicas > 1"), &kinds);
        let warning = &wrong["typeChecking"]["expressionWarnings"][0];
        assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
        assert!(warning["warning"].as_str().is_some_and(|words| words.contains("undefined field 'replicas'")));
    }
}
