//! Policies and their bindings, compiled once for each of their states (`plugin/policy/generic/policy_source.go`).

use std::sync::Arc;

use minik8s_api::admission::Policy;
use minik8s_api::kinds::GroupResource;
use parking_lot::Mutex;
use serde_json::Value;

use super::super::items;
use super::super::matching::Matching;
use crate::cache::Objects;

const GROUP: &str = "admissionregistration.k8s.io";

/// A policy and what binds it.
pub(super) struct Hook {
    pub name: String,
    pub matching: Result<Matching, String>,
    pub policy: Policy,
    /// Why it cannot be evaluated.
    pub fault: Option<String>,
    /// `failurePolicy: Ignore`
    pub ignores_failure: bool,
    /// `reinvocationPolicy: IfNeeded`
    pub reinvoked: bool,
    /// API version and kind.
    pub param_kind: Option<(String, String)>,
    pub bindings: Vec<Binding>,
}

/// Where a policy applies.
pub(super) struct Binding {
    pub name: String,
    /// `matchResources`, if it narrows the policy.
    pub matching: Option<Result<Matching, String>>,
    pub param_ref: Option<Value>,
    /// `validationActions`
    pub actions: Vec<String>,
}

/// The policies of one kind.
pub(super) struct Source {
    policies: GroupResource,
    bindings: GroupResource,
    objects: Arc<dyn Objects>,
    compiled: Mutex<Compiled>,
}

/// The hooks, and of which versions of policies and bindings they are.
type Compiled = ((u64, u64), Arc<[Hook]>);

impl Source {
    /// `validating…` or `mutating…`, as in the names of the resources.
    pub(super) fn new(prefix: &str, objects: Arc<dyn Objects>) -> Source {
        Source {
            policies: GroupResource::new(GROUP, format!("{prefix}admissionpolicies")),
            bindings: GroupResource::new(GROUP, format!("{prefix}admissionpolicybindings")),
            objects,
            compiled: Mutex::new(((0, 0), Arc::new([]))),
        }
    }

    /// What expressions and params are looked up in.
    pub(super) fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// The policies that something binds, in the order of their names.
    pub(super) fn hooks(&self) -> Arc<[Hook]> {
        let mut compiled = self.compiled.lock();
        let versions = (self.objects.version(&self.policies), self.objects.version(&self.bindings));
        if compiled.0 != versions {
            let bindings = self.objects.list(&self.bindings, None);
            let bindings: Vec<Value> = bindings.iter().map(|binding| binding.value()).collect();
            let policies = self.objects.list(&self.policies, None);
            let hooks =
                policies.iter().filter_map(|policy| Hook::new(policy.name(), &policy.value()["spec"], &bindings));
            *compiled = (versions, hooks.collect());
        }
        Arc::clone(&compiled.1)
    }
}

impl Hook {
    fn new(name: &str, spec: &Value, bindings: &[Value]) -> Option<Hook> {
        let own = bindings.iter().filter(|binding| binding["spec"]["policyName"] == name);
        let bindings: Vec<Binding> = own.map(Binding::new).collect();
        if bindings.is_empty() {
            return None;
        }
        let (policy, faults) = Policy::compile(spec);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let param_kind = &spec["paramKind"];
        Some(Hook {
            name: name.to_owned(),
            matching: Matching::of_policy(&spec["matchConstraints"]),
            policy,
            fault: faults.first().map(|fault| format!("{}: {}", fault.path, fault.message)),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            param_kind: param_kind.is_object().then(|| (text(&param_kind["apiVersion"]), text(&param_kind["kind"]))),
            bindings,
        })
    }
}

impl Binding {
    fn new(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        let given = |field: &str| spec.get(field).filter(|value| value.is_object());
        Binding {
            name: binding["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            matching: given("matchResources").map(Matching::of_binding),
            param_ref: given("paramRef").cloned(),
            actions: items(&spec["validationActions"]).filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}
