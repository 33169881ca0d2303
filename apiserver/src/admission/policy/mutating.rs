//! MutatingAdmissionPolicy (`plugin/policy/mutating/{dispatcher.go,patch}`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::admission::{Expression, Mutation};
use minik8s_api::custom::cel::values;
use minik8s_api::managed::{atomics_of, merge_values, validate_value};
use minik8s_api::patch::{PatchError, json};
use minik8s_api::status::{Status, StatusReason};
use serde_json::Value;

use super::super::expressions::Activation;
use super::super::view::View;
use super::super::{Attributes, Plugin, matching};
use super::source::Source;
use super::{Invocation, Misconfigured, activation, invocations};
use crate::authz::Authorizer;
use crate::cache::Objects;
use crate::crd::Converter;

const NAME: &str = "MutatingAdmissionPolicy";

/// The plugin `MutatingAdmissionPolicy`.
pub struct MutatingPolicies {
    source: Source,
    authorizer: Arc<dyn Authorizer>,
    converter: Arc<Converter>,
}

impl MutatingPolicies {
    /// The policies that a cluster's objects hold; expressions may ask the authorizer.
    pub fn new(
        objects: Arc<dyn Objects>,
        authorizer: Arc<dyn Authorizer>,
        converter: Arc<Converter>,
    ) -> MutatingPolicies {
        MutatingPolicies { source: Source::new("mutating", objects), authorizer, converter }
    }

    /// Applies a policy to the write; the errors of its expressions.
    async fn invoke(&self, invocation: &Invocation<'_>, write: &mut Attributes<'_>) -> Result<Vec<String>, Status> {
        let kinds = self.source.objects().kinds();
        let mut view = View::new(write, &kinds, &self.converter, Arc::clone(&invocation.row)).await?;
        let before = view.object.clone();
        let (called, mut errors) = self.mutate(invocation, write, &mut view)?;
        if !called {
            return Ok(errors);
        }
        let mut changed = false;
        if view.object != before {
            match view.written(write, &kinds, &self.converter).await {
                Ok(object) => {
                    changed = write.object.as_ref() != Some(&object);
                    write.object = Some(object);
                }
                Err(status) => errors.push(status.message),
            }
        }
        write.reinvocation.called(NAME, &id(invocation), changed, invocation.hook.reinvoked);
        Ok(errors)
    }

    /// Applies the mutations of a policy to a view, each on what those before it have made. Whether it was called, and the
    /// errors of its expressions.
    fn mutate(
        &self,
        invocation: &Invocation<'_>,
        write: &Attributes<'_>,
        view: &mut View,
    ) -> Result<(bool, Vec<String>), Status> {
        let mut activation = activation(invocation, write, self.source.objects(), &self.authorizer, view)?;
        match activation.conditions(&invocation.hook.policy.match_conditions) {
            Ok(true) => {}
            Ok(false) => return Ok((false, Vec::new())),
            Err(error) => return Ok((false, vec![error])),
        }
        if !write.reinvocation.calls(NAME, &id(invocation)) {
            return Ok((false, Vec::new()));
        }
        let mut errors = Vec::new();
        for mutation in invocation.hook.policy.mutations.iter().filter(|_| write.object.is_some()) {
            activation.set_object(&view.object);
            activation.define(&invocation.hook.policy.variables);
            let mutated = mutate(mutation, view, &mut activation);
            if let Err(error) = mutated.and_then(|object| view.accept(write, &object)) {
                errors.push(error);
            }
        }
        Ok((true, errors))
    }
}

/// An invocation as the second pass knows it again.
fn id(invocation: &Invocation<'_>) -> String {
    let param = invocation.param.as_ref().map_or(&Value::Null, |param| &param["metadata"]);
    let text = |field: &str| param[field].as_str().unwrap_or_default();
    format!("{}/{}/{}/{}", invocation.hook.name, invocation.binding.name, text("namespace"), text("name"))
}

/// The object after a mutation.
fn mutate(mutation: &Mutation, view: &View, activation: &mut Activation) -> Result<Value, String> {
    let mut evaluate = |expression: &Expression| {
        let value = activation.evaluate(expression)?;
        values::to_json(&value)
            .ok_or_else(|| format!("expression '{}' evaluates to what is no JSON", expression.source))
    };
    match mutation {
        Mutation::ApplyConfiguration(expression) => {
            let configuration = evaluate(expression)?;
            apply(view, configuration).map_err(|error| format!("error applying patch: {error}"))
        }
        Mutation::JsonPatch(expression) => {
            let operations = evaluate(expression)?;
            let mut object = view.object.clone();
            match json::apply(&mut object, &operations) {
                // A patch whose test does not hold changes nothing; `apply` left the object as it was.
                Ok(()) | Err(PatchError::TestFailed(_)) => Ok(object),
                Err(error) => Err(format!("JSON Patch: {error}")),
            }
        }
    }
}

/// Merges a configuration into the object, by the rules of server-side apply but without owners.
fn apply(view: &View, mut configuration: Value) -> Result<Value, String> {
    if view.object["kind"] != view.row.kind.as_str() {
        return Err("an ApplyConfiguration changes objects of the resource itself only".to_owned());
    }
    if let Some(fields) = configuration.as_object_mut() {
        fields.insert("apiVersion".to_owned(), view.object["apiVersion"].clone());
        fields.insert("kind".to_owned(), view.object["kind"].clone());
    }
    let ty = view.row.ty();
    validate_value(&ty, &configuration)
        .map_err(|error| format!("failed to convert patch object to typed object: {error}"))?;
    let atomics = atomics_of(&ty, &configuration);
    if !atomics.is_empty() {
        let places = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {places}"));
    }
    merge_values(&ty, &view.object, &configuration).map_err(|error| format!("failed to merge patch: {error}"))
}

/// The refusal of a write; the first error is its message, each is a cause.
fn refusal(write: &Attributes<'_>, wrong: &[Misconfigured<'_>]) -> Status {
    let messages: Vec<String> = wrong
        .iter()
        .map(|wrong| match wrong.binding {
            Some(binding) => {
                format!(
                    "policy '{}' with binding '{}' denied request: {}",
                    wrong.hook.name, binding.name, wrong.message
                )
            }
            None => format!("policy {:?} denied request: {}", wrong.hook.name, wrong.message),
        })
        .collect();
    let mut status = write.forbidden("");
    status.message = messages.first().cloned().unwrap_or_default();
    status.reason = StatusReason::Invalid;
    messages.into_iter().fold(status, |status, message| status.with_cause("", message, ""))
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        !matching::is_exempt(write) && !self.source.hooks().is_empty()
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let hooks = self.source.hooks();
        let (found, mut wrong) = invocations(&hooks, write, self.source.objects(), &self.converter).await;
        write.reinvocation.begin(NAME, write.object.as_ref());
        for invocation in &found {
            let errors = self.invoke(invocation, write).await?;
            wrong.extend(errors.into_iter().map(|message| Misconfigured {
                hook: invocation.hook,
                binding: Some(invocation.binding),
                message,
            }));
        }
        write.reinvocation.end(NAME, write.object.as_ref());
        wrong.retain(|wrong| !wrong.hook.ignores_failure);
        if wrong.is_empty() { Ok(()) } else { Err(refusal(write, &wrong)) }
    }
}
