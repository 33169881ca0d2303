//! ValidatingAdmissionPolicy (`plugin/policy/validating/{dispatcher,validator}.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::admission::Validation;
use minik8s_api::custom::cel::Value as Cel;
use minik8s_api::status::{Status, StatusReason};

use super::super::expressions::Activation;
use super::super::{Attributes, Plugin, matching};
use super::source::{Binding, Hook, Source};
use super::{Invocation, activation, invocations};
use crate::authz::Authorizer;
use crate::cache::Objects;

/// Longest text of a `messageExpression` that is shown, in bytes (`maxMessageExpressionLength`).
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// A no, and how it is said.
struct Denied {
    message: String,
    reason: String,
}

/// The plugin `ValidatingAdmissionPolicy`.
pub struct ValidatingPolicies {
    source: Source,
    authorizer: Arc<dyn Authorizer>,
}

impl ValidatingPolicies {
    /// The policies that a cluster's objects hold; expressions may ask the authorizer.
    pub fn new(objects: Arc<dyn Objects>, authorizer: Arc<dyn Authorizer>) -> ValidatingPolicies {
        ValidatingPolicies { source: Source::new("validating", objects), authorizer }
    }

    /// All that an invocation says no to.
    fn evaluate(&self, invocation: &Invocation<'_>, write: &Attributes<'_>) -> Result<Vec<Denied>, Status> {
        let hook = invocation.hook;
        let (_, mut activation) = activation(invocation, write, self.source.objects(), &self.authorizer)?;
        // An expression that cannot be evaluated counts as the failure policy says.
        let failed = |message: String| {
            let denied = Denied { message, reason: String::new() };
            if hook.ignores_failure { Vec::new() } else { vec![denied] }
        };
        match activation.conditions(&hook.policy.match_conditions) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(error) => return Ok(failed(error)),
        }
        activation.define(&hook.policy.variables);
        let mut denied = Vec::new();
        for validation in &hook.policy.validations {
            match activation.evaluate(&validation.expression) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => denied
                    .push(Denied { message: message(validation, &mut activation), reason: validation.reason.clone() }),
                Ok(_) => {
                    let source = &validation.expression.source;
                    denied.extend(failed(format!("expression '{source}' did not evaluate to bool")));
                }
                Err(error) => denied.extend(failed(error)),
            }
        }
        for annotation in &hook.policy.audit_annotations {
            if let Err(error) = activation.evaluate(&annotation.expression) {
                denied.extend(failed(error));
            }
        }
        Ok(denied)
    }
}

/// What `messageExpression` makes, if it makes a sensible line; else the message, else the expression.
fn message(validation: &Validation, activation: &mut Activation) -> String {
    if let Some(expression) = &validation.message_expression
        && let Ok(Cel::String(text)) = activation.evaluate(expression)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.source),
        message => message.to_owned(),
    }
}

/// The refusal of a write (`admission.NewForbidden`, with the reason of the validation).
fn refusal(write: &Attributes<'_>, hook: &Hook, binding: Option<&Binding>, denied: &Denied) -> Status {
    let binding = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{}'{binding} denied request: {}", hook.name, denied.message);
    let mut status = write.forbidden(message.as_str()).with_cause("", message, "");
    (status.reason, status.code) = match denied.reason.as_str() {
        "Unauthorized" => (StatusReason::Unauthorized, 401),
        "Forbidden" => (StatusReason::Forbidden, 403),
        "RequestEntityTooLarge" => (StatusReason::RequestEntityTooLarge, 413),
        _ => (StatusReason::Invalid, 422),
    };
    status
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        !matching::is_exempt(write) && !self.source.hooks().is_empty()
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let hooks = self.source.hooks();
        let (found, wrong) = invocations(&hooks, write, self.source.objects());
        let mut refused = None;
        for invocation in &found {
            let (hook, binding) = (invocation.hook, invocation.binding);
            for denied in self.evaluate(invocation, write)? {
                let acts = |action: &str| binding.actions.iter().any(|own| own == action);
                if acts("Warn") {
                    write.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        hook.name, binding.name, denied.message
                    ));
                }
                if acts("Deny") && refused.is_none() {
                    refused = Some(refusal(write, hook, Some(binding), &denied));
                }
            }
        }
        for wrong in wrong.into_iter().filter(|wrong| !wrong.hook.ignores_failure) {
            let denied = Denied { message: wrong.message, reason: String::new() };
            refused.get_or_insert_with(|| refusal(write, wrong.hook, wrong.binding, &denied));
        }
        refused.map_or(Ok(()), Err)
    }
}
