//! ValidatingAdmissionPolicy (`plugin/policy/validating/{dispatcher,validator}.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::admission::Validation;
use minik8s_api::custom::cel::Value as Cel;
use minik8s_api::status::{Status, StatusReason};
use serde::Serialize;

use super::super::expressions::Activation;
use super::super::view::View;
use super::super::{Attributes, Plugin, matching};
use super::source::{Binding, Hook, Source};
use super::{Invocation, activation, invocations};
use crate::authz::Authorizer;
use crate::cache::Objects;
use crate::crd::Converter;

/// Longest text of a `messageExpression` that is shown, in bytes (`maxMessageExpressionLength`).
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The annotation of what was violated where a binding says `Audit`.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Longest value of an audit annotation, in bytes (`maxAuditAnnotationValueLength`).
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

/// A no, and how it is said.
struct Denied {
    message: String,
    reason: String,
    /// Which of the validations says it; the first where none in particular does.
    index: usize,
}

/// What the audit log says of a no (`validationFailureValue`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureRecord<'a> {
    message: String,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

/// What policies say to the audit log, by key; a policy that applies several times says several things.
type Annotations = BTreeMap<String, Vec<String>>;

/// The plugin `ValidatingAdmissionPolicy`.
pub struct ValidatingPolicies {
    source: Source,
    authorizer: Arc<dyn Authorizer>,
    converter: Arc<Converter>,
}

impl ValidatingPolicies {
    /// The policies that a cluster's objects hold; expressions may ask the authorizer.
    pub fn new(
        objects: Arc<dyn Objects>,
        authorizer: Arc<dyn Authorizer>,
        converter: Arc<Converter>,
    ) -> ValidatingPolicies {
        ValidatingPolicies { source: Source::new("validating", objects), authorizer, converter }
    }

    /// All that an invocation says no to.
    fn evaluate(
        &self,
        invocation: &Invocation<'_>,
        write: &Attributes<'_>,
        view: &View,
        annotations: &mut Annotations,
    ) -> Result<Vec<Denied>, Status> {
        let hook = invocation.hook;
        let mut activation = activation(invocation, write, self.source.objects(), &self.authorizer, view)?;
        // An expression that cannot be evaluated counts as the failure policy says.
        let failed = |index: usize, message: String| {
            let denied = Denied { message, reason: String::new(), index };
            if hook.ignores_failure { Vec::new() } else { vec![denied] }
        };
        match activation.conditions(&hook.policy.match_conditions) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(error) => return Ok(failed(0, error)),
        }
        activation.define(&hook.policy.variables);
        let mut denied = Vec::new();
        for (index, validation) in hook.policy.validations.iter().enumerate() {
            match activation.evaluate(&validation.expression) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    let (message, reason) = (message(validation, &mut activation), validation.reason.clone());
                    denied.push(Denied { message, reason, index });
                }
                Ok(_) => {
                    let source = &validation.expression.source;
                    denied.extend(failed(index, format!("expression '{source}' did not evaluate to bool")));
                }
                Err(error) => denied.extend(failed(index, error)),
            }
        }
        for annotation in &hook.policy.audit_annotations {
            match activation.evaluate(&annotation.expression) {
                Ok(Cel::String(text)) => annotate(annotations, &format!("{}/{}", hook.name, annotation.name), &text),
                Ok(Cel::Null) => {}
                Ok(_) => {
                    let source = &annotation.expression.source;
                    denied.extend(failed(0, format!("valueExpression '{source}' must result in string or null")));
                }
                Err(error) => denied.extend(failed(0, error)),
            }
        }
        Ok(denied)
    }
}

/// Notes what a policy says, once.
fn annotate(annotations: &mut Annotations, key: &str, text: &str) {
    let text = text.trim();
    let text = &text[..text.floor_char_boundary(MAX_ANNOTATION_BYTES)];
    if !text.is_empty() {
        let values = annotations.entry(key.to_owned()).or_default();
        if !values.iter().any(|value| value == text) {
            values.push(text.to_owned());
        }
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
        let world = self.source.objects();
        let (found, wrong) = invocations(&hooks, write, world, &self.converter).await;
        let (mut refused, mut annotations, mut audited) = (None, Annotations::new(), Vec::new());
        for invocation in &found {
            let (hook, binding) = (invocation.hook, invocation.binding);
            let view = View::new(write, &world.kinds(), &self.converter, Arc::clone(&invocation.row)).await?;
            for denied in self.evaluate(invocation, write, &view, &mut annotations)? {
                let acts = |action: &str| binding.actions.iter().any(|own| own == action);
                if acts("Warn") {
                    write.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        hook.name, binding.name, denied.message
                    ));
                }
                if acts("Audit") {
                    audited.push(FailureRecord {
                        message: denied.message.clone(),
                        policy: &hook.name,
                        binding: &binding.name,
                        expression_index: denied.index,
                        validation_actions: &binding.actions,
                    });
                }
                if acts("Deny") && refused.is_none() {
                    refused = Some(refusal(write, hook, Some(binding), &denied));
                }
            }
        }
        for wrong in wrong.into_iter().filter(|wrong| !wrong.hook.ignores_failure) {
            let denied = Denied { message: wrong.message, reason: String::new(), index: 0 };
            refused.get_or_insert_with(|| refusal(write, wrong.hook, wrong.binding, &denied));
        }
        for (key, values) in annotations {
            write.audit.annotate(key, values.join(", "));
        }
        if !audited.is_empty() {
            let text = serde_json::to_string(&audited).expect("records have only string keys");
            write.audit.annotate(VALIDATION_FAILURE, text);
        }
        refused.map_or(Ok(()), Err)
    }
}
