//! Admission policies: rules in CEL that refuse writes (validating) or change them (mutating), without a server to ask.
//!
//! ```text
//!  policy ── matching ─► its bindings ── matching ─► its params ──► one Invocation each
//!                                                                     │ match conditions, variables
//!                           validations, or mutations  ◄──────────────┘
//! ```
//! [`source`] reads and compiles policies, [`params`] finds what bindings refer to, [`validating`] and [`mutating`] are the
//! plugins. What does not compile was refused when the policy was written (`minik8s_api::admission`).
//! `k8s.io/apiserver/pkg/admission/plugin/policy`.
//!
//! Left out, compared with Kubernetes: `status.typeChecking` (policies are checked against no schema); variables are
//! evaluated whether they are used or not.

mod mutating;
mod params;
mod permissions;
mod source;
mod validating;

pub use mutating::MutatingPolicies;
pub use permissions::ParamPermissions;
pub use validating::ValidatingPolicies;

use std::sync::Arc;

use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use serde_json::Value;

use self::source::{Binding, Hook};
use super::Attributes;
use super::expressions::{Activation, namespace_of};
use super::view::View;
use crate::authz::Authorizer;
use crate::cache::Objects;
use crate::crd::Converter;

/// A policy that applies to a write by a binding, with one of its params.
struct Invocation<'h> {
    hook: &'h Hook,
    binding: &'h Binding,
    /// The resource, in the version that the policy's rules name.
    row: Arc<Kind>,
    param: Option<Value>,
}

/// What is wrong with a policy, for this write.
struct Misconfigured<'h> {
    hook: &'h Hook,
    binding: Option<&'h Binding>,
    message: String,
}

/// All that applies to a write, in order, and what cannot be told.
async fn invocations<'h>(
    hooks: &'h [Hook],
    write: &Attributes<'_>,
    world: &dyn Objects,
    converter: &Converter,
) -> (Vec<Invocation<'h>>, Vec<Misconfigured<'h>>) {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for hook in hooks {
        let of_policy = |error: String| Misconfigured {
            hook,
            binding: None,
            message: format!("failed to configure policy: {error}"),
        };
        let matched = match &hook.matching {
            Ok(matching) => matching.matches(write, world).map_err(|status| status.message),
            Err(error) => Err(error.clone()),
        };
        let row = match matched {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(error) => {
                wrong.push(of_policy(error));
                continue;
            }
        };
        if let Some(fault) = &hook.fault {
            wrong.push(of_policy(fault.clone()));
            continue;
        }
        for binding in &hook.bindings {
            match binding_params(hook, binding, write, world, converter).await {
                Ok(params) => found.extend(params.into_iter().map(|param| {
                    let row = Arc::clone(&row);
                    Invocation { hook, binding, row, param }
                })),
                Err(error) => wrong.push(Misconfigured {
                    hook,
                    binding: Some(binding),
                    message: format!("failed to configure binding: {error}"),
                }),
            }
        }
    }
    (found, wrong)
}

/// The params of a binding that applies; none if it does not, or is content without.
async fn binding_params(
    hook: &Hook,
    binding: &Binding,
    write: &Attributes<'_>,
    world: &dyn Objects,
    converter: &Converter,
) -> Result<Vec<Option<Value>>, String> {
    if let Some(matching) = &binding.matching {
        let matched = matching.as_ref().map_err(Clone::clone)?.matches(write, world);
        if matched.map_err(|status| status.message)?.is_none() {
            return Ok(Vec::new());
        }
    }
    match (&hook.param_kind, &binding.param_ref) {
        (Some(kind), Some(reference)) => params::find(kind, reference, write.namespace, world, converter).await,
        _ => Ok(vec![None]),
    }
}

/// What the expressions of an invocation see, of a view of the write as it is now.
fn activation(
    invocation: &Invocation<'_>,
    write: &Attributes<'_>,
    world: &dyn Objects,
    authorizer: &Arc<dyn Authorizer>,
    view: &View,
) -> Result<Activation, Status> {
    let namespace = namespace_of(write, world)?;
    Ok(Activation::new(write, view, world, authorizer, namespace, invocation.param.as_ref()))
}
