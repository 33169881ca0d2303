//! Reviews: questions about identity and permission, asked by POST and answered without storing anything.
//!
//! | resource | question |
//! |---|---|
//! | `tokenreviews` | whose token is this? |
//! | `selfsubjectreviews` | who am I? |
//! | `subjectaccessreviews`, `localsubjectaccessreviews` | may that user do this? |
//! | `selfsubjectaccessreviews` | may I do this? |
//! | `selfsubjectrulesreviews` | what may I do in this namespace? |
//!
//! Mirrors `pkg/registry/{authentication,authorization}`.

use std::{collections::BTreeMap, sync::Arc};

use minik8s_api::{
    kinds::GroupKind,
    status::{FieldError, FieldPath, Status},
};
use minik8s_clock::Clock;
use serde_json::{Map, Value, json};

use crate::{
    authn::Authenticator,
    authz::{Attributes, Authorizer, Decision},
    identity::UserInfo,
};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers reviews.
pub struct Reviews {
    authenticator: Arc<Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    clock: Clock,
}

impl Reviews {
    /// Reviews by the authenticator and authorizer that also judge requests.
    pub fn new(authenticator: Arc<Authenticator>, authorizer: Arc<dyn Authorizer>, clock: Clock) -> Reviews {
        Reviews { authenticator, authorizer, clock }
    }

    /// Whether a resource is a review, which only this answers.
    pub fn serves(group: &str, resource: &str) -> bool {
        match group {
            AUTHENTICATION => matches!(resource, "tokenreviews" | "selfsubjectreviews"),
            AUTHORIZATION => {
                matches!(
                    resource,
                    "subjectaccessreviews"
                        | "localsubjectaccessreviews"
                        | "selfsubjectaccessreviews"
                        | "selfsubjectrulesreviews"
                )
            }
            _ => false,
        }
    }

    /// Answers a decoded review for `user`; `namespace` is the URL's.
    pub async fn create(
        &self,
        resource: &str,
        namespace: &str,
        mut review: Value,
        user: &UserInfo,
    ) -> Result<Value, Status> {
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        match resource {
            "tokenreviews" => self.token(review).await,
            "selfsubjectreviews" => Ok(self.self_subject(review, user)),
            "subjectaccessreviews" => self.access(review, "SubjectAccessReview"),
            "localsubjectaccessreviews" => self.local_access(review, namespace),
            "selfsubjectaccessreviews" => self.self_access(review, user),
            "selfsubjectrulesreviews" => self.self_rules(&review, user),
            _ => Err(Status::bad_request(format!("{resource} is not a review"))),
        }
    }

    async fn token(&self, mut review: Value) -> Result<Value, Status> {
        let token = text(&review, "/spec/token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let wanted: Vec<String> = list(&review, "/spec/audiences");
        let own = self.authenticator.service_accounts.audiences();
        let audiences = if wanted.is_empty() { own } else { &wanted };
        review["status"] = match self.authenticator.authenticate_token(token, audiences).await {
            Ok(Some(found)) => {
                json!({ "authenticated": true, "user": found.user.to_value(), "audiences": found.audiences })
            }
            Ok(None) => json!({ "user": {} }),
            Err(reason) => {
                json!({ "user": {}, "error": format!("[invalid bearer token, {reason}]") })
            }
        };
        Ok(review)
    }

    fn self_subject(&self, mut review: Value, user: &UserInfo) -> Value {
        review["metadata"]["creationTimestamp"] = json!(self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        review["status"] = json!({ "userInfo": user.to_value() });
        review
    }

    fn access(&self, mut review: Value, kind: &str) -> Result<Value, Status> {
        let mut errors = attribute_errors(&review);
        let groups = list(&review, "/spec/groups");
        let name = text(&review, "/spec/user");
        if name.is_empty() && groups.is_empty() {
            errors.push(FieldError::invalid(
                &FieldPath::new("spec.user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        errors.extend(metadata_errors(&review, kind));
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new(AUTHORIZATION, kind), "", errors));
        }
        let extra: BTreeMap<String, Vec<String>> = review
            .pointer("/spec/extra")
            .cloned()
            .and_then(|extra| serde_json::from_value(extra).ok())
            .unwrap_or_default();
        let user = UserInfo { name: name.to_owned(), uid: text(&review, "/spec/uid").to_owned(), groups, extra };
        review["status"] = self.decide(&review, &user);
        Ok(review)
    }

    fn local_access(&self, review: Value, namespace: &str) -> Result<Value, Status> {
        let asked = text(&review, "/spec/resourceAttributes/namespace");
        if asked != namespace {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {namespace}"
            )));
        }
        if review.pointer("/spec/nonResourceAttributes").is_some() {
            let error = FieldError::invalid(
                &FieldPath::new("spec.nonResourceAttributes"),
                review["spec"]["nonResourceAttributes"].clone(),
                "disallowed on this kind of request",
            );
            return Err(Status::invalid(&GroupKind::new(AUTHORIZATION, "LocalSubjectAccessReview"), "", vec![error]));
        }
        self.access(review, "LocalSubjectAccessReview")
    }

    fn self_access(&self, mut review: Value, user: &UserInfo) -> Result<Value, Status> {
        let mut errors = attribute_errors(&review);
        errors.extend(metadata_errors(&review, "SelfSubjectAccessReview"));
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new(AUTHORIZATION, "SelfSubjectAccessReview"), "", errors));
        }
        review["status"] = self.decide(&review, user);
        Ok(review)
    }

    fn self_rules(&self, review: &Value, user: &UserInfo) -> Result<Value, Status> {
        let namespace = text(review, "/spec/namespace");
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let held = self.authorizer.rules_for(user, namespace);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in &held.rules {
            if !rule.resources.is_empty() {
                resources.push(present([
                    ("verbs", &rule.verbs),
                    ("apiGroups", &rule.api_groups),
                    ("resources", &rule.resources),
                    ("resourceNames", &rule.resource_names),
                ]));
            }
            if !rule.non_resource_urls.is_empty() {
                paths.push(present([("verbs", &rule.verbs), ("nonResourceURLs", &rule.non_resource_urls)]));
            }
        }
        let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": held.incomplete || !held.errors.is_empty() });
        if !held.errors.is_empty() {
            status["evaluationError"] = json!(held.errors.join(", "));
        }
        Ok(
            json!({ "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": status }),
        )
    }

    fn decide(&self, review: &Value, user: &UserInfo) -> Value {
        let at = |field: &str| text(review, &format!("/spec/resourceAttributes/{field}"));
        let attributes = match review.pointer("/spec/nonResourceAttributes") {
            Some(_) => Attributes {
                is_resource: false,
                path: text(review, "/spec/nonResourceAttributes/path"),
                ..Attributes::resource(user, text(review, "/spec/nonResourceAttributes/verb"), "", "")
            },
            None => Attributes {
                namespace: at("namespace"),
                version: at("version"),
                subresource: at("subresource"),
                name: at("name"),
                field_selector: text(review, "/spec/resourceAttributes/fieldSelector/rawSelector"),
                ..Attributes::resource(user, at("verb"), at("group"), at("resource"))
            },
        };
        let verdict = self.authorizer.authorize(&attributes);
        let mut status = json!({ "allowed": verdict.allowed() });
        if verdict.decision == Decision::Deny {
            status["denied"] = json!(true);
        }
        if !verdict.reason.is_empty() {
            status["reason"] = json!(verdict.reason);
        }
        status
    }
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value, path: &str) -> Vec<String> {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// An object of the lists that are not empty.
fn present<const N: usize>(fields: [(&str, &Vec<String>); N]) -> Value {
    let fields = fields.into_iter().filter(|(name, list)| *name == "verbs" || !list.is_empty());
    Value::Object(fields.map(|(name, list)| (name.to_owned(), json!(list))).collect::<Map<_, _>>())
}

/// `pkg/apis/authorization/validation/validation.go`.
fn attribute_errors(review: &Value) -> Vec<FieldError> {
    let at = |field: &str| review.pointer(&format!("/spec/{field}")).cloned();
    match (at("resourceAttributes"), at("nonResourceAttributes")) {
        (Some(_), Some(paths)) => {
            vec![FieldError::invalid(
                &FieldPath::new("spec.nonResourceAttributes"),
                paths,
                "cannot be specified in combination with resourceAttributes",
            )]
        }
        (None, None) => vec![FieldError::invalid(
            &FieldPath::new("spec.resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

/// A review is no object: it has no metadata, but for the namespace of a local one.
fn metadata_errors(review: &Value, kind: &str) -> Option<FieldError> {
    let metadata = review["metadata"].as_object()?;
    let allowed =
        |field: &str| field == "managedFields" || (kind == "LocalSubjectAccessReview" && field == "namespace");
    let filled = metadata.keys().any(|field| !allowed(field));
    filled.then(|| FieldError::invalid(&FieldPath::new("metadata"), review["metadata"].clone(), "must be empty"))
}
