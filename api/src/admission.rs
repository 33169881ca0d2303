//! Expressions of admission: those of policies, and the match conditions of webhooks, compiled once.
//!
//! ```text
//!  spec of a policy ── Policy::compile ──► Policy    what the API server evaluates for each request
//!                           └────────────► faults    what a write of the policy is refused for
//! ```
//! Both sides compile alike, so that what is stored is what runs. `object` and `params` have no type here: one policy
//! speaks of many kinds. `k8s.io/apiserver/pkg/admission/plugin/cel/compile.go`.

use std::sync::Arc;

use serde_json::Value;

use crate::custom::cel::Expr;
use crate::custom::cel::authorizer::AUTHORIZER;
use crate::custom::cel::check::{Ty, of_type};
use crate::kinds::Kind;
use crate::schema::Type;
use crate::status::FieldPath;

/// An expression that is wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Where it stands.
    pub path: FieldPath,
    /// Its text.
    pub source: String,
    /// What is wrong, in cel-go's words.
    pub message: String,
}

/// A compiled expression and its text.
#[derive(Debug)]
pub struct Expression {
    /// As it was written, without the space around it.
    pub source: String,
    /// What evaluates it.
    pub program: Expr,
}

/// A named expression: a match condition, a variable, an audit annotation.
#[derive(Debug)]
pub struct Named {
    /// Its name, or key.
    pub name: String,
    /// What it says.
    pub expression: Expression,
}

/// One validation of a ValidatingAdmissionPolicy.
#[derive(Debug)]
pub struct Validation {
    /// What must hold.
    pub expression: Expression,
    /// `message`
    pub message: String,
    /// `messageExpression`
    pub message_expression: Option<Expression>,
    /// `reason`, empty if not said.
    pub reason: String,
}

/// One mutation of a MutatingAdmissionPolicy.
#[derive(Debug)]
pub enum Mutation {
    /// An object that is merged into the one at hand.
    ApplyConfiguration(Expression),
    /// Operations of a JSON patch.
    JsonPatch(Expression),
}

/// The expressions of a policy, validating or mutating.
#[derive(Debug, Default)]
pub struct Policy {
    /// All must hold, else the policy does not apply.
    pub match_conditions: Vec<Named>,
    /// Each may use those before it.
    pub variables: Vec<Named>,
    /// Of a ValidatingAdmissionPolicy.
    pub validations: Vec<Validation>,
    /// Of a ValidatingAdmissionPolicy.
    pub audit_annotations: Vec<Named>,
    /// Of a MutatingAdmissionPolicy.
    pub mutations: Vec<Mutation>,
}

/// What expressions may name.
struct Scope {
    names: Vec<(&'static str, Ty<'static>)>,
    /// Only policies have these.
    variables: Option<Vec<(String, Ty<'static>)>>,
}

impl Scope {
    fn new(params: bool, mutating: bool) -> Scope {
        Scope::of(Ty::Dyn, params.then_some(Ty::Dyn), mutating)
    }

    fn of(object: Ty<'static>, params: Option<Ty<'static>>, mutating: bool) -> Scope {
        let mut names = vec![
            ("object", object.clone()),
            ("oldObject", object),
            ("request", request()),
            ("namespaceObject", namespace()),
            ("authorizer", Ty::Named(AUTHORIZER)),
        ];
        names.extend(params.map(|params| ("params", params)));
        if mutating {
            names.extend([("Object", Ty::Named("Object")), ("JSONPatch", Ty::Named("JSONPatch"))]);
        }
        Scope { names, variables: None }
    }

    fn typed(&self, source: &str) -> Result<(Expr, Ty<'static>), String> {
        let mut names = self.names.clone();
        if let Some(variables) = &self.variables {
            names.push(("variables", Ty::Record("kubernetes.variables", variables.clone().into())));
        }
        Expr::typed(source, &names)
    }
}

fn record(name: &'static str, fields: Vec<(&str, Ty<'static>)>) -> Ty<'static> {
    Ty::Record(name, fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect::<Arc<[_]>>())
}

/// The type of a user, as requests and authenticators show one.
pub fn user_info() -> Ty<'static> {
    let texts = || Ty::List(Box::new(Ty::String));
    let fields =
        vec![("username", Ty::String), ("uid", Ty::String), ("groups", texts()), ("extra", Ty::Map(Box::new(texts())))];
    record("kubernetes.UserInfo", fields)
}

/// The type of `namespaceObject` (`compile.go` `BuildNamespaceType`), the spelling of `UID` included.
fn namespace() -> Ty<'static> {
    let texts = || Ty::List(Box::new(Ty::String));
    let pairs = || Ty::Map(Box::new(Ty::String));
    let metadata = vec![
        ("name", Ty::String),
        ("generateName", Ty::String),
        ("namespace", Ty::String),
        ("labels", pairs()),
        ("annotations", pairs()),
        ("UID", Ty::String),
        ("creationTimestamp", Ty::Timestamp),
        ("deletionGracePeriodSeconds", Ty::Int),
        ("deletionTimestamp", Ty::Timestamp),
        ("generation", Ty::Int),
        ("resourceVersion", Ty::String),
        ("finalizers", texts()),
    ];
    let condition = vec![
        ("status", Ty::String),
        ("type", Ty::String),
        ("lastTransitionTime", Ty::Timestamp),
        ("message", Ty::String),
        ("reason", Ty::String),
    ];
    let conditions = Ty::List(Box::new(record("kubernetes.NamespaceCondition", condition)));
    let fields = vec![
        ("metadata", record("kubernetes.NamespaceMetadata", metadata)),
        ("spec", record("kubernetes.NamespaceSpec", vec![("finalizers", texts())])),
        ("status", record("kubernetes.NamespaceStatus", vec![("conditions", conditions), ("phase", Ty::String)])),
    ];
    record("kubernetes.Namespace", fields)
}

/// The type of `request` (`compile.go` `BuildRequestType`); `userInfo.extra` and `options` are open.
fn request() -> Ty<'static> {
    let kind = || {
        let fields = vec![("group", Ty::String), ("version", Ty::String), ("kind", Ty::String)];
        record("kubernetes.GroupVersionKind", fields)
    };
    let resource = || {
        let fields = vec![("group", Ty::String), ("version", Ty::String), ("resource", Ty::String)];
        record("kubernetes.GroupVersionResource", fields)
    };
    let fields = vec![
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", Ty::String),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", Ty::String),
        ("name", Ty::String),
        ("namespace", Ty::String),
        ("operation", Ty::String),
        ("userInfo", user_info()),
        ("dryRun", Ty::Bool),
        ("options", Ty::Dyn),
    ];
    record("kubernetes.AdmissionRequest", fields)
}

/// Compiles, and remembers what is wrong.
struct Compiler {
    scope: Scope,
    faults: Vec<Fault>,
}

impl Compiler {
    /// An expression that must be of one of some types.
    fn expression(&mut self, source: &Value, path: FieldPath, wanted: &[Ty<'static>]) -> Option<Expression> {
        self.typed(source, path, wanted).map(|(expression, _)| expression)
    }

    fn typed(&mut self, source: &Value, path: FieldPath, wanted: &[Ty<'static>]) -> Option<(Expression, Ty<'static>)> {
        // What is missing is refused as missing, with the other fields.
        let source = source.as_str()?.trim();
        let message = match self.scope.typed(source) {
            Ok((program, ty)) if wanted.is_empty() || wanted.iter().any(|wanted| ty.is(wanted)) => {
                return Some((Expression { source: source.to_owned(), program }, ty));
            }
            Ok((_, ty)) => match wanted {
                [one] => format!("must evaluate to {} but got {}", one.result_name(), ty.result_name()),
                several => {
                    let names: Vec<String> = several.iter().map(Ty::result_name).collect();
                    format!("must evaluate to one of [{}] but got {}", names.join(" "), ty.result_name())
                }
            },
            Err(message) => message,
        };
        self.faults.push(Fault { path, source: source.to_owned(), message });
        None
    }

    fn named(&mut self, list: &Value, path: &FieldPath, field: [&str; 2], wanted: &[Ty<'static>]) -> Vec<Named> {
        let [name, expression] = field;
        let mut named = Vec::new();
        for (at, item) in items(list).enumerate() {
            let path = path.index(at).child(expression.to_owned());
            if let Some(expression) = self.expression(&item[expression], path, wanted) {
                named.push(Named { name: item[name].as_str().unwrap_or_default().to_owned(), expression });
            }
        }
        named
    }

    fn variables(&mut self, list: &Value, path: &FieldPath) -> Vec<Named> {
        let mut named = Vec::new();
        // A policy that has none has no such name either.
        self.scope.variables = items(list).next().is_some().then(Vec::new);
        for (at, item) in items(list).enumerate() {
            let path = path.index(at).child("expression");
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            let compiled = self.typed(&item["expression"], path, &[]);
            let ty = compiled.as_ref().map_or(Ty::Dyn, |(_, ty)| ty.clone());
            if let Some(declared) = &mut self.scope.variables {
                declared.push((name.clone(), ty));
            }
            named.extend(compiled.map(|(expression, _)| Named { name, expression }));
        }
        named
    }

    fn validations(&mut self, list: &Value, path: &FieldPath) -> Vec<Validation> {
        let mut validations = Vec::new();
        for (at, item) in items(list).enumerate() {
            let path = path.index(at);
            let text = |field: &str| item[field].as_str().unwrap_or_default().trim().to_owned();
            let expression = self.expression(&item["expression"], path.child("expression"), &[Ty::Bool]);
            let spoken = Some(&item["messageExpression"]).filter(|_| !text("messageExpression").is_empty());
            let message_expression =
                spoken.and_then(|source| self.expression(source, path.child("messageExpression"), &[Ty::String]));
            validations.extend(expression.map(|expression| Validation {
                expression,
                message: text("message"),
                message_expression,
                reason: text("reason"),
            }));
        }
        validations
    }

    fn mutations(&mut self, list: &Value, path: &FieldPath) -> Vec<Mutation> {
        let mut mutations = Vec::new();
        for (at, item) in items(list).enumerate() {
            let path = path.index(at);
            let wanted = Ty::Named("Object");
            let configuration = path.child("applyConfiguration").child("expression");
            let expression = self.expression(&item["applyConfiguration"]["expression"], configuration, &[wanted]);
            mutations.extend(expression.map(Mutation::ApplyConfiguration));
            let wanted = Ty::List(Box::new(Ty::Named("JSONPatch")));
            let operations = path.child("jsonPatch").child("expression");
            let expression = self.expression(&item["jsonPatch"]["expression"], operations, &[wanted]);
            mutations.extend(expression.map(Mutation::JsonPatch));
        }
        mutations
    }
}

impl Policy {
    /// Compiles the expressions of a policy's `spec`, validating or mutating.
    pub fn compile(spec: &Value) -> (Policy, Vec<Fault>) {
        let path = FieldPath::new("spec");
        let scope = Scope::new(spec["paramKind"].is_object(), spec["mutations"].is_array());
        let mut compiler = Compiler { scope, faults: Vec::new() };
        let policy = Policy {
            match_conditions: compiler.named(
                &spec["matchConditions"],
                &path.child("matchConditions"),
                ["name", "expression"],
                &[Ty::Bool],
            ),
            variables: compiler.variables(&spec["variables"], &path.child("variables")),
            validations: compiler.validations(&spec["validations"], &path.child("validations")),
            audit_annotations: compiler.named(
                &spec["auditAnnotations"],
                &path.child("auditAnnotations"),
                ["key", "valueExpression"],
                &[Ty::String, Ty::Null],
            ),
            mutations: compiler.mutations(&spec["mutations"], &path.child("mutations")),
        };
        (policy, compiler.faults)
    }

    /// Compiles the match conditions of a webhook that stands at `path`.
    pub fn compile_webhook(webhook: &Value, path: &FieldPath) -> (Policy, Vec<Fault>) {
        let mut compiler = Compiler { scope: Scope::new(false, false), faults: Vec::new() };
        let list = path.child("matchConditions");
        let match_conditions = compiler.named(&webhook["matchConditions"], &list, ["name", "expression"], &[Ty::Bool]);
        (Policy { match_conditions, ..Policy::default() }, compiler.faults)
    }
}

/// A kind that a policy speaks of.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As in `apps/v1, Kind=Deployment`.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

impl Checked {
    /// The kind of a row.
    pub fn of(kind: &Kind) -> Checked {
        Checked { name: format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind), ty: kind.ty() }
    }
}

/// What is wrong with an expression for some of the kinds that it would see (`status.typeChecking.expressionWarnings`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionWarning {
    /// Where it stands.
    pub field_ref: String,
    /// In Kubernetes' and cel-go's words, a paragraph a kind.
    pub warning: String,
}

/// Checks the validations of a ValidatingAdmissionPolicy's `spec` against the types of the kinds that it matches, and of
/// its parameters if that is known. What it says changes nothing of what the policy does.
/// (`k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`)
pub fn type_check(spec: &Value, kinds: &[Checked], params: Option<&Type>) -> Vec<ExpressionWarning> {
    let mut compilers: Vec<(&str, Compiler)> = kinds
        .iter()
        .map(|kind| {
            let scope = Scope::of(of_type(&kind.ty), params.map(of_type), false);
            let mut compiler = Compiler { scope, faults: Vec::new() };
            compiler.variables(&spec["variables"], &FieldPath::new("spec").child("variables"));
            (kind.name.as_str(), compiler)
        })
        .collect();
    let path = FieldPath::new("spec").child("validations");
    let mut warnings = Vec::new();
    for (at, item) in items(&spec["validations"]).enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = item[field].as_str().unwrap_or_default();
            if source.is_empty() {
                continue;
            }
            let wrong = compilers.iter_mut().filter_map(|(name, compiler)| {
                let words = compiler.scope.typed(source.trim()).err()?;
                Some(format!("{name}: {}\n", words.trim_start_matches("compilation failed: ")))
            });
            let wrong: Vec<String> = wrong.collect();
            if !wrong.is_empty() {
                let field_ref = path.index(at).child(field).to_string();
                warnings.push(ExpressionWarning { field_ref, warning: wrong.join("\n") });
            }
        }
    }
    warnings
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(spec: Value) -> Vec<(String, String)> {
        let (_, faults) = Policy::compile(&spec);
        faults.into_iter().map(|fault| (fault.path.to_string(), fault.message)).collect()
    }

    #[test]
    fn what_policies_of_the_documentation_say_compiles() {
        let spec = json!({
            "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
            "matchConditions": [
                { "name": "exclude-leases", "expression": "!(request.resource.group == 'coordination.k8s.io' && request.resource.resource == 'leases')" },
                { "name": "exclude-kubelet", "expression": "!('system:nodes' in request.userInfo.groups)" },
                { "name": "rbac", "expression": "request.namespace != 'x' && authorizer.group('admissionregistration.k8s.io').resource('validatingwebhookconfigurations').name('my').check('breakglass').allowed()" },
            ],
            "variables": [
                { "name": "environment", "expression": "'environment' in namespaceObject.metadata.labels ? namespaceObject.metadata.labels['environment'] : 'prod'" },
                { "name": "exempt", "expression": "variables.environment == 'exempt'" },
                { "name": "containers", "expression": "object.spec.template.spec.containers" },
            ],
            "validations": [
                { "expression": "variables.exempt || variables.containers.all(c, c.image.startsWith(variables.environment + '.example.com/'))",
                  "messageExpression": "'only ' + variables.environment + ' images are allowed'" },
                { "expression": "object.spec.replicas <= int(params.data.maxReplicas)", "reason": "Invalid" },
                { "expression": "authorizer.requestResource.check('custom').allowed() && authorizer.path('/healthz').check('get').allowed()" },
                { "expression": "authorizer.serviceAccount('default', 'x').group('').resource('pods').subresource('log').namespace(object.metadata.namespace).check('get').reason() == ''" },
                { "expression": "has(object.metadata.labels) && oldObject == null && request.?subResource.orValue('') == ''" },
            ],
            "auditAnnotations": [{ "key": "high", "valueExpression": "'Deployment spec.replicas set to ' + string(object.spec.replicas)" }],
        });
        assert_eq!(faults(spec), []);
        let mutating = json!({ "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh-proxy', restartPolicy: 'Always'}]}}" } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression": "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}, JSONPatch{op: 'add', path: '/spec/initContainers/-', value: Object.spec.initContainers{name: 'a'}}]" } },
        ] });
        assert_eq!(faults(mutating), []);
    }

    #[test]
    fn expressions_are_checked_against_the_kinds_they_see() {
        let kinds = crate::kinds::Kinds::built_in();
        let of = |group: &str, kind: &str| Checked::of(kinds.by_kind(group, "v1", kind).expect("a built-in kind"));
        let (deployment, pod) = (of("apps", "Deployment"), of("", "Pod"));
        let map = of("", "ConfigMap").ty;
        let check = |expression: &str, kinds: &[Checked], params: Option<&Type>| {
            let spec = json!({
                "variables": [{ "name": "containers", "expression": "object.spec.template.spec.containers" }],
                "validations": [{ "expression": expression }],
            });
            let warnings = type_check(&spec, kinds, params);
            warnings.into_iter().map(|warning| (warning.field_ref, warning.warning)).collect::<Vec<_>>()
        };
        let one = std::slice::from_ref(&deployment);
        for good in [
            "object.spec.replicas > 1",
            "object.metadata.labels['a'] == 'b' && has(object.metadata.annotations)",
            "variables.containers.all(c, c.image.startsWith('x') && !has(c.resources.limits) || c.ports[0].containerPort < 80)",
            "oldObject == null || object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
            "request.userInfo.username != '' && authorizer.path('/x').check('get').allowed()",
            "object.spec.strategy.rollingUpdate.maxSurge == '25%'",
        ] {
            assert_eq!(check(good, one, None), [], "{good}");
        }
        let field = "spec.validations[0].expression".to_owned();
        let words = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
        assert_eq!(check("object.replicas > 1", one, None), [(field.clone(), words.to_owned())]);
        let both = check("object.spec.replicas > 1", &[pod, deployment.clone()], None);
        assert!(both[0].1.starts_with("/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'"), "{both:?}");
        assert!(!both[0].1.contains("Deployment"), "{both:?}");
        let wrong = check("object.spec.replicas == 'many'", one, None);
        assert!(wrong[0].1.contains("found no matching overload for '_==_' applied to '(int, string)'"), "{wrong:?}");
        assert_eq!(check("params.data['a'] == 'b'", one, Some(&map)), []);
        assert!(check("params.dat['a'] == 'b'", one, Some(&map))[0].1.contains("undefined field 'dat'"));
        assert!(check("params.data == null", one, None)[0].1.contains("undeclared reference to 'params'"));
        assert_eq!(check("object.anything", &[], None), [], "of no kind there is nothing to say");
    }

    #[test]
    fn what_cannot_be_is_said_where_it_stands() {
        let one = |expression: &str| faults(json!({ "validations": [{ "expression": expression }] }));
        let path = "spec.validations[0].expression".to_owned();
        assert_eq!(one("1 + 1"), [(path.clone(), "must evaluate to bool but got int".to_owned())]);
        for (expression, words) in [
            ("object.spec.replicas <= params.max", "undeclared reference to 'params' (in container '')"),
            ("request.verb == 'x'", "undefined field 'verb'"),
            ("variables.a == 1", "undeclared reference to 'variables' (in container '')"),
            ("Object{}", "undeclared reference to 'Object' (in container '')"),
            ("object.", "Syntax error"),
        ] {
            let [(at, message)] = &one(expression)[..] else { panic!("{expression}: {:?}", one(expression)) };
            assert_eq!(*at, path, "{expression}");
            assert!(
                message.starts_with("compilation failed: ERROR: <input>:1:") && message.contains(words),
                "{message}"
            );
        }
        let faults = faults(
            json!({ "mutations": [{ "jsonPatch": { "expression": "Object{}" } }], "auditAnnotations": [{ "key": "k", "valueExpression": "1" }] }),
        );
        assert_eq!(faults[0].1, "must evaluate to one of [string null_type] but got int");
        assert_eq!(faults[1].1, "must evaluate to list(JSONPatch) but got Object");
    }
}
