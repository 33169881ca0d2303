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

use minik8s_api::strategy::names;
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
        review["metadata"] = json!({});
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
            Ok(None) => json!({ "user": {}, "error": "invalid bearer token" }),
            Err(reason) => json!({ "user": {}, "error": format!("[invalid bearer token, {reason}]") }),
        };
        Ok(review)
    }

    fn self_subject(&self, mut review: Value, user: &UserInfo) -> Value {
        let now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        review["metadata"] = json!({ "creationTimestamp": now });
        review["status"] = json!({ "userInfo": user.to_value() });
        review
    }

    fn access(&self, mut review: Value, kind: &str) -> Result<Value, Status> {
        let mut errors = union_errors(&review);
        let groups = list(&review, "/spec/groups");
        let name = text(&review, "/spec/user");
        if name.is_empty() && groups.is_empty() {
            errors.push(FieldError::invalid(
                &FieldPath::new("spec.user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        errors.extend(attribute_errors(&review));
        let is_local = kind == "LocalSubjectAccessReview";
        errors.extend(metadata_errors(&review, is_local));
        if is_local {
            errors.extend(local_errors(&review));
        }
        refuse(errors)?;
        let extra: BTreeMap<String, Vec<String>> = review
            .pointer("/spec/extra")
            .cloned()
            .and_then(|extra| serde_json::from_value(extra).ok())
            .unwrap_or_default();
        let user = UserInfo { name: name.to_owned(), uid: text(&review, "/spec/uid").to_owned(), groups, extra };
        review["status"] = self.decide(&review, &user);
        Ok(review)
    }

    fn local_access(&self, mut review: Value, namespace: &str) -> Result<Value, Status> {
        let own = text(&review, "/metadata/namespace");
        if !own.is_empty() && own != namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        review["metadata"]["namespace"] = json!(namespace);
        self.access(review, "LocalSubjectAccessReview")
    }

    fn self_access(&self, mut review: Value, user: &UserInfo) -> Result<Value, Status> {
        let mut errors = union_errors(&review);
        errors.extend(attribute_errors(&review));
        errors.extend(metadata_errors(&review, false));
        refuse(errors)?;
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
        let mut status =
            json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": held.incomplete });
        if !held.errors.is_empty() {
            status["evaluationError"] = json!(held.errors.join(", "));
        }
        Ok(
            json!({ "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": status }),
        )
    }

    fn decide(&self, review: &Value, user: &UserInfo) -> Value {
        let at = |field: &str| text(review, &format!("/spec/resourceAttributes/{field}"));
        let field_selector = raw_field_selector(review);
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
                field_selector: &field_selector,
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

/// The field selector of a question as a list has it.
fn raw_field_selector(review: &Value) -> String {
    let selector = review.pointer("/spec/resourceAttributes/fieldSelector").unwrap_or(&Value::Null);
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    // Others than these cannot be written so, and nothing is decided by them.
    let written = selector["requirements"].as_array().into_iter().flatten().filter_map(|requirement| {
        let [value] = &requirement["values"].as_array()?[..] else { return None };
        let operator = match requirement["operator"].as_str()? {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        Some(format!("{}{operator}{}", requirement["key"].as_str()?, value.as_str()?))
    });
    written.collect::<Vec<_>>().join(",")
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Status> {
    // These are refused without their kind, as in Kubernetes.
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupKind::new(AUTHORIZATION, ""), "", errors)) }
}

/// `pkg/apis/authorization/validation/validation.go`.
fn union_errors(review: &Value) -> Vec<FieldError> {
    let at = |field: &str| review.pointer(&format!("/spec/{field}")).cloned();
    let (resource, path) = (at("resourceAttributes"), at("nonResourceAttributes"));
    if resource.is_some() != path.is_some() {
        return Vec::new();
    }
    let words = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    vec![FieldError::invalid(&FieldPath::new("spec"), path.unwrap_or_default(), words)]
}

fn attribute_errors(review: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec.resourceAttributes");
    for name in ["fieldSelector", "labelSelector"] {
        let Some(selector) = review.pointer(&format!("/spec/resourceAttributes/{name}")) else { continue };
        let path = path.child(name);
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let requirements: Vec<&Value> = selector["requirements"].as_array().into_iter().flatten().collect();
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                let words = "may not specified at the same time as requirements";
                errors.push(FieldError::invalid(&path.child("rawSelector"), raw, words));
            }
            (true, true) => {
                let words = format!("when {path} is specified, requirements or rawSelector is required");
                errors.push(FieldError::required(&path.child("requirements"), words));
            }
            _ => {}
        }
        for (index, requirement) in requirements.into_iter().enumerate() {
            requirement_errors(requirement, &path.child("requirements").index(index), name, &mut errors);
        }
    }
    errors
}

/// Operators that are not known are let pass: who asks may know more than this server.
fn requirement_errors(requirement: &Value, path: &FieldPath, selector: &str, errors: &mut Vec<FieldError>) {
    let key = requirement["key"].as_str().unwrap_or_default();
    let values: Vec<&str> = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (of_labels, key_path, value_path) = (selector == "labelSelector", path.child("key"), path.child("values"));
    if key.is_empty() && !of_labels {
        errors.push(FieldError::required(&key_path, "must be specified"));
    }
    let key_errors = |errors: &mut Vec<FieldError>| {
        let wrong = if of_labels { names::qualified_name(key) } else { Vec::new() };
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&key_path, key, why)));
    };
    match requirement["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if values.is_empty() => {
            let words = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&value_path, words));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let words = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&value_path, words));
        }
        _ => {}
    }
    key_errors(errors);
    for (index, value) in values.iter().enumerate().filter(|_| of_labels) {
        let wrong = names::label_value(value).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(&value_path.index(index), *value, why)));
    }
}

fn local_errors(review: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(attributes) = review.pointer("/spec/resourceAttributes") {
        let asked = text(attributes, "/namespace");
        if asked != text(review, "/metadata/namespace") {
            let path = FieldPath::new("spec.resourceAttributes.namespace");
            errors.push(FieldError::invalid(&path, asked, "must match metadata.namespace"));
        }
    }
    if let Some(paths) = review.pointer("/spec/nonResourceAttributes") {
        let path = FieldPath::new("spec.nonResourceAttributes");
        errors.push(FieldError::invalid(&path, paths.clone(), "disallowed on this kind of request"));
    }
    errors
}

/// A review is no object: it has no metadata, but for the namespace of a local one.
fn metadata_errors(review: &Value, is_local: bool) -> Option<FieldError> {
    let metadata = review["metadata"].as_object()?;
    let allowed = |field: &str| field == "managedFields" || (is_local && field == "namespace");
    let filled = metadata.keys().any(|field| !allowed(field));
    let words = if is_local { "must be empty except for namespace" } else { "must be empty" };
    filled.then(|| FieldError::invalid(&FieldPath::new("metadata"), review["metadata"].clone(), words))
}
