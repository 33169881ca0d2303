//! FlowSchemas: which requests belong together (`k8s.io/apiserver/pkg/util/flowcontrol/rule.go`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use http::HeaderValue;
use minik8s_metrics::Histogram;
use serde::Deserialize;
use serde_json::Value;

use super::level::Level;
use super::{Object, Rejection};
use crate::bootstrap;
use crate::identity::{UserInfo, split_service_account};
use crate::request::RequestInfo;

/// Matches everything.
const ANY: &str = "*";
/// Upper bounds of times that requests wait and are handled, in seconds.
const TIMES: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// An object that steers, as it is read.
pub(super) struct Source {
    pub name: String,
    pub uid: String,
    pub spec: Value,
}

impl Source {
    pub(super) fn of(object: &Object) -> Source {
        Source { name: object.name().to_owned(), uid: object.uid().to_owned(), spec: object.value()["spec"].take() }
    }
}

/// The objects of a resource that count even while they are not there.
pub(super) fn mandatory(resource: &str) -> impl Iterator<Item = Source> {
    bootstrap::flow_control(resource).into_iter().filter(is_mandatory).map(|mut object| Source {
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        uid: String::new(),
        spec: object["spec"].take(),
    })
}

/// Whether an object is one that must be there, as it is.
pub(super) fn is_mandatory(object: &Value) -> bool {
    matches!(object["metadata"]["name"].as_str(), Some("exempt" | "catch-all"))
}

/// The level that a schema's spec refers to.
pub(super) fn level_of(spec: &Value) -> &str {
    spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default()
}

/// A FlowSchema.
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Where its requests wait.
    pub level: Arc<Level>,
    /// The UID of the object.
    pub uid: HeaderValue,
    /// The UID of the level's object.
    pub level_uid: HeaderValue,
    /// What happened to its requests.
    pub counters: Arc<Counters>,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What became of the requests of a schema in a level.
#[derive(Debug)]
pub struct Counters {
    /// Got a seat.
    pub dispatched: AtomicU64,
    /// Got none, by [`Rejection`].
    pub rejected: [AtomicU64; Rejection::ALL.len()],
    /// Wait now.
    pub waiting: AtomicI64,
    /// Are handled now.
    pub executing: AtomicI64,
    /// Seats that these occupy.
    pub seats: AtomicI64,
    /// How long they waited, those that got a seat.
    pub waited: Histogram,
    /// How long they waited, those that got none.
    pub waited_in_vain: Histogram,
    /// How long they were handled.
    pub executed: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            waiting: AtomicI64::new(0),
            executing: AtomicI64::new(0),
            seats: AtomicI64::new(0),
            waited: Histogram::new(TIMES),
            waited_in_vain: Histogram::new(TIMES),
            executed: Histogram::new(TIMES),
        }
    }
}

impl Counters {
    pub(super) fn reject(&self, rejection: Rejection) {
        self.rejected[rejection as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    matching_precedence: i64,
    distinguisher_method: Option<Method>,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Method {
    r#type: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NonResourceRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

impl Schema {
    pub(super) fn compile(
        source: &Source,
        level: &Arc<Level>,
        level_uid: &str,
        known: Option<&Arc<Counters>>,
    ) -> Schema {
        // What is stored was validated.
        let spec = Spec::deserialize(&source.spec).unwrap_or_default();
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""));
        Schema {
            name: source.name.clone(),
            level: Arc::clone(level),
            uid: header(&source.uid),
            level_uid: header(level_uid),
            counters: known.cloned().unwrap_or_default(),
            precedence: spec.matching_precedence,
            distinguisher: match spec.distinguisher_method.as_ref().map(|method| method.r#type.as_str()) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec.rules,
        }
    }

    /// Whether this is the schema of that name, with requests in that level.
    pub(super) fn is(&self, name: &str, level: &Arc<Level>) -> bool {
        self.name == name && Arc::ptr_eq(&self.level, level)
    }

    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    /// Whether a request is one of this schema's.
    pub(super) fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// Which flow of the schema a request belongs to.
    pub fn flow(&self, user: &UserInfo, info: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.distinguisher {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => info.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && if info.is_resource {
                self.resource_rules.iter().any(|rule| rule.matches(info))
            } else {
                self.non_resource_rules.iter().any(|rule| rule.matches(info))
            }
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == ANY || self.user.name == user.name,
            "Group" => self.group.name == ANY || user.in_group(&self.group.name),
            "ServiceAccount" => {
                let Named { name, namespace } = &self.service_account;
                split_service_account(&user.name)
                    .is_some_and(|(own_namespace, own)| own_namespace == namespace && (name == ANY || name == own))
            }
            _ => false,
        }
    }
}

fn contains(list: &[String], value: &str) -> bool {
    list.iter().any(|own| own == ANY || own == value)
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = |own: &String| match own.split_once('/') {
            None => own == ANY || (info.subresource.is_empty() && *own == info.resource),
            Some((resource, part)) => resource == info.resource && part == info.subresource,
        };
        contains(&self.verbs, &info.verb)
            && self.resources.iter().any(resource)
            && contains(&self.api_groups, &info.group)
            && if info.namespace.is_empty() { self.cluster_scope } else { contains(&self.namespaces, &info.namespace) }
    }
}

impl NonResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let url = |own: &String| {
            let prefix = own.trim_end_matches('*').trim_end_matches('/');
            own == ANY || *own == info.path || info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        contains(&self.verbs, &info.verb) && self.urls.iter().any(url)
    }
}
