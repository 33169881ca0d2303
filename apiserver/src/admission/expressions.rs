//! What the expressions of a policy or of match conditions see of one write, and what they say to it
//! (`k8s.io/apiserver/pkg/admission/plugin/cel/{activation,condition}.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use minik8s_api::admission::{Expression, Named};
use minik8s_api::custom::cel::authorizer::{self, Authorize, Question};
use minik8s_api::custom::cel::construct::REQUEST_RESOURCE;
use minik8s_api::custom::cel::{EXPRESSION_BUDGET, Failure, Value as Cel, values};
use serde_json::Value;

use super::view::View;
use super::{Attributes, Operation};
use crate::authz::{self, Authorizer};
use crate::cache::Objects;
use crate::identity::UserInfo;

/// What all expressions of one policy may cost for one request (`RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;

/// The variables of one evaluation, and what is left to spend.
pub(super) struct Activation {
    variables: Vec<(&'static str, Cel)>,
    /// Fields of `variables`, and those that could not be had.
    defined: Vec<(String, Cel)>,
    failed: BTreeMap<String, String>,
    budget: u64,
}

impl Activation {
    /// A write, in the version of a rule; `namespace` is the object, `Null` where there is none.
    pub(super) fn new(
        write: &Attributes<'_>,
        view: &View,
        world: &dyn Objects,
        authorizer: &Arc<dyn Authorizer>,
        mut namespace: Value,
        params: Option<&Value>,
    ) -> Activation {
        if let Some(metadata) = namespace.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("ownerReferences");
        }
        let asker: Arc<dyn Authorize> =
            Arc::new(Asker { user: write.user.clone(), authorizer: Arc::clone(authorizer) });
        let about = Question {
            group: view.row.group.clone(),
            resource: view.row.plural.clone(),
            subresource: write.subresource.to_owned(),
            namespace: write.namespace.to_owned(),
            name: write.name.to_owned(),
            ..Question::default()
        };
        let variables = vec![
            ("object", values::plain(&view.object)),
            ("oldObject", values::plain(&view.old_object)),
            ("request", values::plain(&view.request(write, &world.kinds()))),
            ("namespaceObject", values::plain(&namespace)),
            ("params", params.map_or(Cel::Null, values::plain)),
            ("authorizer", authorizer::authorizer(Arc::clone(&asker))),
            (REQUEST_RESOURCE, authorizer::request_resource(asker, about)),
        ];
        Activation { variables, defined: Vec::new(), failed: BTreeMap::new(), budget: BUDGET }
    }

    /// Puts a changed object in place of `object`.
    pub(super) fn set_object(&mut self, object: &Value) {
        self.variables.retain(|(name, _)| *name != "object");
        self.variables.push(("object", values::plain(object)));
    }

    /// Evaluates the variables of a policy. One that fails is told of by those who ask for it.
    pub(super) fn define(&mut self, variables: &[Named]) {
        (self.defined, self.failed) = (Vec::new(), BTreeMap::new());
        self.publish();
        for variable in variables {
            match self.run(&variable.expression) {
                Ok(value) => self.defined.push((variable.name.clone(), value)),
                Err(error) => drop(self.failed.insert(variable.name.clone(), error)),
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.variables.retain(|(name, _)| *name != "variables");
        self.variables.push(("variables", values::map(self.defined.clone())));
    }

    /// The value of an expression, or Kubernetes' words for why it has none.
    pub(super) fn evaluate(&mut self, expression: &Expression) -> Result<Cel, String> {
        self.run(expression).map_err(|error| format!("expression '{}' resulted in error: {error}", expression.source))
    }

    fn run(&mut self, expression: &Expression) -> Result<Cel, String> {
        let before = self.budget;
        let error = match expression.program.evaluate(&self.variables, &mut self.budget) {
            Ok(value) => return Ok(value),
            // What it may cost by itself, or what is left of what all may.
            Err(Failure::Cost) if before >= EXPRESSION_BUDGET => {
                return Err("operation cancelled: actual cost limit exceeded".to_owned());
            }
            Err(Failure::Cost) => {
                return Err(
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned(),
                );
            }
            Err(Failure::Error(error) | Failure::Overload(error)) => error,
        };
        let missing = error.strip_prefix("no such key: ").and_then(|name| Some((name, self.failed.get(name)?)));
        Err(match missing {
            Some((name, cause)) => format!("composited variable {name:?} fails to evaluate: {cause}"),
            None => error,
        })
    }

    /// Whether all conditions hold. One that does not settles it, whatever the errors of others.
    pub(super) fn conditions(&mut self, conditions: &[Named]) -> Result<bool, String> {
        let mut errors = Vec::new();
        for condition in conditions {
            match self.evaluate(&condition.expression) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(format!("expression '{}' did not evaluate to bool", condition.expression.source)),
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

/// Asks the authorizer of requests.
struct Asker {
    user: UserInfo,
    authorizer: Arc<dyn Authorizer>,
}

impl Authorize for Asker {
    fn decide(&self, question: &Question) -> (bool, String) {
        let account = question.service_account.as_ref();
        let account = account.map(|(namespace, name)| UserInfo::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(&self.user);
        let attributes = authz::Attributes {
            namespace: &question.namespace,
            subresource: &question.subresource,
            name: &question.name,
            field_selector: &question.field_selector,
            is_resource: question.path.is_none(),
            path: question.path.as_deref().unwrap_or_default(),
            ..authz::Attributes::resource(user, &question.verb, &question.group, &question.resource)
        };
        let verdict = self.authorizer.authorize(&attributes);
        (verdict.allowed(), verdict.reason.into_owned())
    }
}

/// The namespace of a write, for expressions; `Null` for what is in none.
pub(super) fn namespace_of(write: &Attributes<'_>, world: &dyn Objects) -> Result<Value, minik8s_api::status::Status> {
    let own = write.group.is_empty() && write.resource == "namespaces";
    if write.namespace.is_empty() || own {
        return Ok(Value::Null);
    }
    // A namespace that goes may be gone before the last of what is in it.
    match super::matching::namespace(write.namespace, world) {
        Err(_) if write.operation == Operation::Delete => Ok(Value::Null),
        found => found,
    }
}
