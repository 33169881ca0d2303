//! Which requests are recorded, and how much of them: the `audit.k8s.io/v1` Policy.
//!
//! The first rule that matches decides; a request that none matches is not recorded.
//! `k8s.io/apiserver/pkg/audit/policy/{reader,checker}.go`, `pkg/apis/audit/validation/validation.go`.

use minik8s_api::status::{FieldError, FieldPath};
use minik8s_api::strategy::names::dns1123_subdomain;
use serde::Deserialize;
use serde_json::Value;

use crate::authz::Attributes;
use crate::errors::Error;
use crate::identity::UserInfo;

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

/// How much of a request is recorded. Ordered: each level records what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, when, and how it was answered.
    Metadata,
    /// The object of the request besides.
    Request,
    /// The object of the answer besides.
    RequestResponse,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    /// As policies and events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When in the life of a request an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has come, and it is known from whom.
    RequestReceived,
    /// Its answer begins; only of answers that may take long, such as a watch's.
    ResponseStarted,
    /// Its answer is complete.
    ResponseComplete,
    /// Its handler panicked.
    Panic,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    /// As policies and events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages(u8);

impl Stages {
    /// Whether a stage is in it.
    pub fn contains(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }

    fn insert(&mut self, stage: Stage) {
        self.0 |= 1 << stage as u8;
    }
}

/// What a policy says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// How much is recorded.
    pub level: Level,
    /// Stages without an event.
    pub omit_stages: Stages,
    /// Whether objects are recorded without their `managedFields`.
    pub omit_managed_fields: bool,
}

/// A policy, read and validated.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    decision: Decision,
    matches: RuleFile,
}

/// A Policy as its file spells it. Fields that Kubernetes does not know are errors.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Means nothing, and is often there.
    #[serde(default)]
    #[expect(dead_code, reason = "read so that it is not unknown")]
    metadata: Value,
    #[serde(default)]
    rules: Vec<RuleFile>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy (YAML or JSON). The error says what is wrong with it, by field.
    pub fn from_yaml(text: &str) -> Result<Policy, Error> {
        Policy::read(text).map_err(|why| Error::Config(format!("audit policy: {why}")))
    }

    fn read(text: &str) -> Result<Policy, String> {
        let file: PolicyFile = serde_yaml::from_str(text).map_err(|error| format!("failed decoding: {error}"))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(format!(
                "unknown group version field {}, Kind={} in policy: it must be {API_VERSION}, Kind={KIND}",
                file.api_version, file.kind
            ));
        }
        let mut errors = Vec::new();
        let omitted = stages(&file.omit_stages, &FieldPath::new("omitStages"), &mut errors);
        let path = FieldPath::new("rules");
        let rules: Vec<Rule> = file
            .rules
            .into_iter()
            .enumerate()
            .map(|(at, rule)| rule.compile(omitted, file.omit_managed_fields, &path.index(at), &mut errors))
            .collect();
        if !errors.is_empty() {
            return Err(FieldError::aggregate(&errors));
        }
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        Ok(Policy { rules })
    }

    /// What is recorded of a request; `user` is `None` where nobody could be told by the credentials.
    pub fn decide(&self, user: Option<&UserInfo>, request: &Attributes<'_>) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches.matches(user, request));
        rule.map(|rule| rule.decision).unwrap_or_default()
    }
}

fn stages(names: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) -> Stages {
    let mut found = Stages::default();
    for (at, name) in names.iter().enumerate() {
        match Stage::ALL.into_iter().find(|stage| stage.as_str() == name) {
            Some(stage) => found.insert(stage),
            None => {
                let allowed = Stage::ALL.map(Stage::as_str).join(",");
                let error =
                    FieldError::invalid(&path.index(at), name.as_str(), format!("allowed stages are {allowed}"));
                errors.push(error);
            }
        }
    }
    found
}

impl RuleFile {
    fn compile(
        self,
        omitted: Stages,
        omit_managed_fields: bool,
        path: &FieldPath,
        errors: &mut Vec<FieldError>,
    ) -> Rule {
        let level = Level::ALL.into_iter().find(|level| level.as_str() == self.level);
        match (level, self.level.as_str()) {
            (Some(_), _) => {}
            (None, "") => errors.push(FieldError::required(&path.child("level"), "")),
            (None, level) => {
                errors.push(FieldError::not_supported(&path.child("level"), level, &Level::ALL.map(Level::as_str)));
            }
        }
        self.validate_urls(&path.child("nonResourceURLs"), errors);
        self.validate_resources(&path.child("resources"), errors);
        let own = stages(&self.omit_stages, &path.child("omitStages"), errors);
        let decision = Decision {
            level: level.unwrap_or_default(),
            omit_stages: Stages(omitted.0 | own.0),
            omit_managed_fields: self.omit_managed_fields.unwrap_or(omit_managed_fields),
        };
        Rule { decision, matches: self }
    }

    fn validate_urls(&self, path: &FieldPath, errors: &mut Vec<FieldError>) {
        for (at, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let mut wrong = |why: &str| errors.push(FieldError::invalid(&path.index(at), url.as_str(), why));
            if !url.starts_with('/') {
                wrong("non-resource URL rules must begin with a '/' character");
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(path, Value::from(self.non_resource_urls.clone()), why));
        }
    }

    fn validate_resources(&self, path: &FieldPath, errors: &mut Vec<FieldError>) {
        for resources in &self.resources {
            let complaints = if resources.group.is_empty() { Vec::new() } else { dns1123_subdomain(&resources.group) };
            if !complaints.is_empty() {
                let group = resources.group.as_str();
                errors.push(FieldError::invalid(&path.child("group"), group, complaints.join(",")));
            }
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                let names = Value::from(resources.resource_names.clone());
                let why = "using resourceNames requires at least one resource";
                errors.push(FieldError::invalid(&path.child("resourceNames"), names, why));
            }
        }
    }

    fn matches(&self, user: Option<&UserInfo>, request: &Attributes<'_>) -> bool {
        let any = |list: &[String], value: &str| list.iter().any(|own| own == value);
        if !self.users.is_empty() && !user.is_some_and(|user| any(&self.users, &user.name)) {
            return false;
        }
        if !self.user_groups.is_empty()
            && !user.is_some_and(|user| user.groups.iter().any(|group| any(&self.user_groups, group)))
        {
            return false;
        }
        if !self.verbs.is_empty() && !any(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                // A resource without namespace is in the namespace "".
                && (self.namespaces.is_empty() || any(&self.namespaces, request.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(request)));
        }
        self.non_resource_urls.is_empty()
            || !request.is_resource && self.non_resource_urls.iter().any(|url| url_matches(url, request.path))
    }
}

fn url_matches(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl GroupResources {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        if self.group != request.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|name| name == request.name) {
            return false;
        }
        let (resource, subresource) = (request.resource, request.subresource);
        self.resources.iter().any(|rule| match rule.split_once('/') {
            None if rule == "*" => true,
            None => subresource.is_empty() && rule == resource,
            Some((own, "*")) if own == resource => true,
            Some(("*", own)) => !subresource.is_empty() && own == subresource,
            Some((own, part)) => !subresource.is_empty() && own == resource && part == subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use crate::request::RequestInfo;

    fn check(policy: &str, expect: &str) {
        let found = match Policy::read(policy) {
            Ok(policy) => format!("{} rules", policy.rules.len()),
            Err(error) => error,
        };
        assert_eq!(found, expect, "{policy}");
    }

    #[test]
    fn what_is_no_policy_is_refused_by_field() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let rules = |rules: &str| format!("{head}rules: {rules}");
        check(&rules("[{level: Metadata}, {level: None, omitManagedFields: true}]"), "2 rules");
        check(&rules("[]"), "loaded illegal policy with 0 rules");
        check(
            "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]",
            "unknown group version field audit.k8s.io/v1beta1, Kind=Policy in policy: it must be audit.k8s.io/v1, Kind=Policy",
        );
        check(&rules("[{}]"), "rules[0].level: Required value");
        check(
            &rules("[{level: Some}]"),
            r#"rules[0].level: Unsupported value: "Some": supported values: "None", "Metadata", "Request", "RequestResponse""#,
        );
        check(
            &rules("[{level: None, nonResourceURLs: [logs, '/a*b'], namespaces: [x]}]"),
            r#"[rules[0].nonResourceURLs[0]: Invalid value: "logs": non-resource URL rules must begin with a '/' character, rules[0].nonResourceURLs[1]: Invalid value: "/a*b": non-resource URL wildcards '*' must be the final character of the rule, rules[0].nonResourceURLs: Invalid value: ["logs","/a*b"]: rules cannot apply to both regular resources and non-resource URLs]"#,
        );
        check(
            &rules("[{level: None, resources: [{resourceNames: [x]}], omitStages: [Never]}]"),
            r#"[rules[0].resources.resourceNames: Invalid value: ["x"]: using resourceNames requires at least one resource, rules[0].omitStages[0]: Invalid value: "Never": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic]"#,
        );
        let unknown = Policy::read(&rules("[{level: None, resourceURLs: [x]}]")).expect_err("an unknown field");
        assert!(unknown.contains("unknown field `resourceURLs`"), "{unknown}");
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::read(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [robot], verbs: [get]}
- {level: None, nonResourceURLs: [/healthz*, /version]}
- {level: RequestResponse, resources: [{resources: [pods/log, "services/*"]}], omitStages: [Panic]}
- {level: Request, resources: [{resources: [pods], resourceNames: [one]}], omitManagedFields: false}
- {level: Metadata, resources: [{group: apps}, {group: "", resources: ["*/scale"]}], namespaces: [a, ""]}
- {level: Request, userGroups: [auditors]}
"#,
        )
        .expect("a policy");
        let check = |user: &str, method: &str, path: &str, expect: &str| {
            let (query, user) = (Query::default(), UserInfo::new(user, [format!("{user}s")]));
            let info = RequestInfo::parse(&method.parse().expect("method"), path, &query);
            let decided = policy.decide(Some(&user), &Attributes::of_request(&user, &info, &query));
            let omitted = Stage::ALL.into_iter().filter(|stage| decided.omit_stages.contains(*stage));
            let omitted: Vec<&str> = omitted.map(Stage::as_str).collect();
            let seen = format!("{} {} {}", decided.level.as_str(), omitted.join("+"), decided.omit_managed_fields);
            assert_eq!(seen, expect, "{method} {path}");
        };
        check("robot", "GET", "/api/v1/namespaces/a/pods/one/log", "None RequestReceived true");
        check("u", "GET", "/healthz/ping", "None RequestReceived true");
        check("u", "GET", "/versions", "None  false");
        check("u", "GET", "/api/v1/namespaces/a/pods/one/log", "RequestResponse RequestReceived+Panic true");
        check("u", "GET", "/api/v1/namespaces/a/pods/one", "Request RequestReceived false");
        check("u", "GET", "/api/v1/namespaces/a/pods/two", "None  false");
        check("u", "GET", "/api/v1/namespaces/a/services/x", "RequestResponse RequestReceived+Panic true");
        check("u", "GET", "/apis/apps/v1/deployments", "Metadata RequestReceived true");
        check("u", "GET", "/apis/apps/v1/namespaces/b/deployments", "None  false");
        check("u", "GET", "/api/v1/namespaces/a/replicationcontrollers/x/scale", "Metadata RequestReceived true");
        check("auditor", "GET", "/apis/batch/v1/jobs", "Request RequestReceived true");
    }
}
