//! `authorizer.group('').resource('pods').namespace('rec').check('create').allowed()`: expressions that ask who may do
//! what. `k8s.io/apiserver/pkg/cel/library/authz.go`.

use std::fmt;
use std::sync::Arc;

use cel::common::types::{STRING_TYPE, Type};
use cel::common::value::CowVal;
use cel::objects::{Opaque, Value};
use cel::{Env, ExecutionError};

use super::library::{Answer, Function, overload, overloads, string, text};

/// The variable `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// What `path()` gives.
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
/// What `group()` gives.
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// What `resource()` gives.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// What `check()` gives.
pub const DECISION: &str = "kubernetes.authorization.Decision";

/// Answers such questions about the user of a request, or about a ServiceAccount.
pub trait Authorize: Send + Sync {
    /// Whether it is allowed, and why.
    fn decide(&self, question: &Question) -> (bool, String);
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name, where not the user of the request is meant.
    pub service_account: Option<(String, String)>,
    /// Of a question about a path.
    pub path: Option<String>,
    /// Empty for core.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Empty for the resource itself.
    pub subresource: String,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    /// Empty where no single object is meant.
    pub name: String,
    /// As in `create`.
    pub verb: String,
    /// As a list has it; empty where all objects are meant.
    pub field_selector: String,
    /// As a list has it; empty where all objects are meant.
    pub label_selector: String,
}

/// A question on its way, or its answer.
#[derive(Clone)]
struct Asking {
    stage: &'static str,
    authorize: Arc<dyn Authorize>,
    question: Question,
    decision: (bool, String),
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.stage).field("question", &self.question).finish_non_exhaustive()
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.stage == other.stage && self.question == other.question && self.decision == other.decision
    }
}

impl Eq for Asking {}

impl Opaque for Asking {
    fn runtime_type_name(&self) -> &str {
        self.stage
    }
}

/// The variable `authorizer`.
pub fn authorizer(authorize: Arc<dyn Authorize>) -> Value {
    value(Asking { stage: AUTHORIZER, authorize, question: Question::default(), decision: Default::default() })
}

/// The variable `authorizer.requestResource`: a question about what the request is about, but for the verb.
pub fn request_resource(authorize: Arc<dyn Authorize>, question: Question) -> Value {
    value(Asking { stage: RESOURCE_CHECK, authorize, question, decision: Default::default() })
}

fn value(asking: Asking) -> Value {
    Value::Opaque(Arc::new(asking))
}

fn asking(value: &Value) -> Result<Asking, ExecutionError> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Asking>().cloned().ok_or_else(overload),
        _ => Err(overload()),
    }
}

/// The question after another word of it.
fn step(of: &[Value], stage: &'static str, say: impl FnOnce(&mut Question, String)) -> Answer {
    let mut asking = asking(&of[0])?;
    asking.stage = stage;
    say(&mut asking.question, text(&of[1])?.to_owned());
    Ok(value(asking))
}

fn check(of: &[Value]) -> Answer {
    let mut asking = asking(&of[0])?;
    asking.stage = DECISION;
    text(&of[1])?.clone_into(&mut asking.question.verb);
    asking.decision = asking.authorize.decide(&asking.question);
    Ok(value(asking))
}

/// Declares the functions.
pub fn add_to(env: &mut Env) -> Result<(), cel::DeclarationError> {
    for name in [AUTHORIZER, PATH_CHECK, GROUP_CHECK, RESOURCE_CHECK, DECISION] {
        env.add_type(Type::new_opaque_type(name))?;
    }
    let authorizer = || Type::new_opaque_type(AUTHORIZER);
    let path_check = || Type::new_opaque_type(PATH_CHECK);
    let group_check = || Type::new_opaque_type(GROUP_CHECK);
    let resource_check = || Type::new_opaque_type(RESOURCE_CHECK);
    let decision = || Type::new_opaque_type(DECISION);
    overloads! { env;
        member "path" (authorizer(), STRING_TYPE) = |of| step(of, PATH_CHECK, |question, path| question.path = Some(path));
        member "group" (authorizer(), STRING_TYPE) = |of| step(of, GROUP_CHECK, |question, group| question.group = group);
        member "serviceAccount" (authorizer(), STRING_TYPE, STRING_TYPE) = |of| {
            let name = text(&of[2])?.to_owned();
            step(of, AUTHORIZER, |question, namespace| question.service_account = Some((namespace, name)))
        };
        member "resource" (group_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, resource| question.resource = resource);
        member "subresource" (resource_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, part| question.subresource = part);
        member "namespace" (resource_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, namespace| question.namespace = namespace);
        member "name" (resource_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, name| question.name = name);
        member "fieldSelector" (resource_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, text| question.field_selector = text);
        member "labelSelector" (resource_check(), STRING_TYPE) = |of| step(of, RESOURCE_CHECK, |question, text| question.label_selector = text);
        member "check" (path_check(), STRING_TYPE) = check;
        member "check" (resource_check(), STRING_TYPE) = check;
        member "allowed" (decision()) = |of| Ok(Value::Bool(asking(&of[0])?.decision.0));
        member "reason" (decision()) = |of| string(asking(&of[0])?.decision.1);
        member "errored" (decision()) = |of| asking(&of[0]).map(|_| Value::Bool(false));
        member "error" (decision()) = |of| asking(&of[0]).and_then(|_| string(""));
    }
    Ok(())
}
