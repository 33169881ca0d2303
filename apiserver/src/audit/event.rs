//! What is recorded: an `audit.k8s.io/v1` Event, in the order and shape in which Kubernetes writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minik8s_api::status::{Status, StatusDetails};
use minik8s_api::time::format_micro;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::policy::{Level, Stage};
use crate::identity::UserInfo;

/// What is known of a request so far.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub audit_id: String,
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    pub impersonated: Option<User>,
    /// The verb that allowed it; empty for the old one.
    pub impersonation_constraint: &'static str,
    pub source_ips: Vec<String>,
    pub user_agent: String,
    pub object_ref: Option<ObjectRef>,
    pub response_status: Option<ResponseStatus>,
    pub request_object: Option<Box<RawValue>>,
    pub response_object: Option<Box<RawValue>>,
    pub received: Timestamp,
    pub annotations: BTreeMap<String, String>,
}

/// A user, in the order in which Kubernetes writes one; nobody is `{}`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> User {
        let UserInfo { name, uid, groups, extra } = user.clone();
        User { username: name, uid, groups, extra }
    }
}

/// How a request was answered: the Status that was the answer, or only a code.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ResponseStatus {
    pub metadata: Nothing,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<StatusDetails>>,
    pub code: u16,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Nothing {}

impl From<&Status> for ResponseStatus {
    fn from(status: &Status) -> ResponseStatus {
        ResponseStatus {
            metadata: Nothing {},
            status: if status.success { "Success" } else { "Failure" },
            message: status.message.clone(),
            reason: status.reason.as_str().to_owned(),
            details: status.details.clone(),
            code: status.code,
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// How the request was authenticated.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationMetadata {
    impersonation_constraint: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[String]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Event {
    /// The event of a stage as a line of the log, its newline included.
    pub(super) fn line(&self, level: Level, stage: Stage, at: Timestamp) -> Vec<u8> {
        let line = Line {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: level.as_str(),
            audit_id: &self.audit_id,
            stage: stage.as_str(),
            request_uri: &self.request_uri,
            verb: &self.verb,
            user: &self.user,
            impersonated_user: self.impersonated.as_ref(),
            authentication_metadata: Some(self.impersonation_constraint)
                .filter(|constraint| !constraint.is_empty())
                .map(|impersonation_constraint| AuthenticationMetadata { impersonation_constraint }),
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: self.object_ref.as_ref(),
            response_status: self.response_status.as_ref(),
            request_object: self.request_object.as_deref(),
            response_object: self.response_object.as_deref(),
            request_received_timestamp: format_micro(self.received),
            stage_timestamp: format_micro(at),
            annotations: &self.annotations,
        };
        let mut bytes = serde_json::to_vec(&line).expect("an event has only string keys");
        bytes.push(b'\n');
        bytes
    }
}

/// Takes `managedFields` out of an object, of the items of a list and of the objects of a table.
pub(super) fn without_managed_fields(object: &mut Value) {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    let members = |object: &mut Value, field: &str, each: &dyn Fn(&mut Value)| {
        object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().for_each(each);
    };
    strip(object);
    members(object, "items", &strip);
    members(object, "rows", &|row| {
        if let Some(object) = row.get_mut("object") {
            strip(object);
        }
    });
}

/// A value as it stands in an event.
pub(super) fn raw(value: &impl Serialize) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

/// Text that is a JSON document as it stands in an event.
pub(super) fn raw_bytes(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok()
}

/// The object of a request that carries metadata completes what the request is about.
pub(super) fn complete(object_ref: &mut ObjectRef, metadata: &Map<String, Value>) {
    let fields = [
        (&mut object_ref.namespace, "namespace"),
        (&mut object_ref.name, "name"),
        (&mut object_ref.uid, "uid"),
        (&mut object_ref.resource_version, "resourceVersion"),
    ];
    for (field, name) in fields {
        if let (true, Some(value)) = (field.is_empty(), metadata.get(name).and_then(Value::as_str)) {
            field.push_str(value);
        }
    }
}
