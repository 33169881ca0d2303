//! RBAC's policy rules: what one allows, whether some cover others, and how they are shown.
//!
//! Mirrors `pkg/apis/rbac/v1/evaluation_helpers.go` and `k8s.io/component-helpers/auth/rbac/validation`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Attributes;

const ALL: &str = "*";

/// One rule of a role: verbs on resources, or verbs on URL paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`; core is empty.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Names of objects; none means all.
    pub resource_names: Vec<String>,
    /// Paths, the last character may be `*`.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|own| own == wanted)
}

fn has_all(set: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| has(set, wanted))
}

/// Whether a rule's path (`/healthz`, `/api/*`, `*`) takes in another path.
fn path_covers(own: &str, path: &str) -> bool {
    own == ALL || own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
}

impl PolicyRule {
    /// Everything on everything, in two rules.
    pub fn full_authority() -> [PolicyRule; 2] {
        let all = || vec![ALL.to_owned()];
        [
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ]
    }

    /// Whether the rule allows what is asked.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !(has(&self.verbs, ALL) || has(&self.verbs, attributes.verb)) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|own| path_covers(own, attributes.path));
        }
        (has(&self.api_groups, ALL) || has(&self.api_groups, attributes.group))
            && self.resources.iter().any(|own| resource_matches(own, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, attributes.name))
    }

    /// The rules of one verb on one resource (or path) that it stands for (`BreakdownRule`).
    fn breakdown(&self) -> Vec<PolicyRule> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let rule = PolicyRule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..PolicyRule::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(rule);
                        continue;
                    }
                    parts.extend(
                        self.resource_names.iter().map(|name| PolicyRule { resource_names: one(name), ..rule.clone() }),
                    );
                }
            }
            parts.extend(self.non_resource_urls.iter().map(|path| PolicyRule {
                verbs: one(verb),
                non_resource_urls: one(path),
                ..PolicyRule::default()
            }));
        }
        parts
    }

    /// Whether all that `part` (a broken-down rule) allows is allowed by this one.
    fn covers(&self, part: &PolicyRule) -> bool {
        let names_match = match (part.resource_names.is_empty(), self.resource_names.is_empty()) {
            (_, true) => true,
            (true, false) => false,
            (false, false) => has_all(&self.resource_names, &part.resource_names),
        };
        names_match
            && (has(&self.verbs, ALL) || has_all(&self.verbs, &part.verbs))
            && (has(&self.api_groups, ALL) || has_all(&self.api_groups, &part.api_groups))
            && part.resources.iter().all(|wanted| self.covers_resource(wanted))
            && part.non_resource_urls.iter().all(|path| self.non_resource_urls.iter().any(|own| path_covers(own, path)))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        has(&self.resources, ALL)
            || has(&self.resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, subresource)| has(&self.resources, &format!("*/{subresource}")))
    }

    /// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
    fn compact_string(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", quoted_list(values)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    matches!(own.split_once('/'), Some((left, right)) if right == subresource && (left == resource || left == ALL))
}

/// A list as Go's `%q` shows it: `["a" "b"]`.
pub fn quoted_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// What of `wanted` is not covered by `held`, broken down to single verbs.
pub fn uncovered<'r>(held: impl Iterator<Item = &'r PolicyRule> + Clone, wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(PolicyRule::breakdown).filter(|part| !held.clone().any(|rule| rule.covers(part))).collect()
}

/// Rules as messages list them: those of one resource joined, each shown once, in order of text (`CompactRules`, `CompactString`).
pub fn describe(rules: &[PolicyRule]) -> Vec<String> {
    let mut joined: BTreeMap<(&str, &str, Option<&str>), PolicyRule> = BTreeMap::new();
    let mut shown = BTreeSet::new();
    for rule in rules {
        let ([group], [resource], true) = (&rule.api_groups[..], &rule.resources[..], rule.resource_names.len() <= 1)
        else {
            shown.insert(rule.compact_string());
            continue;
        };
        let key = (group.as_str(), resource.as_str(), rule.resource_names.first().map(String::as_str));
        joined
            .entry(key)
            .and_modify(|existing| existing.verbs.extend(rule.verbs.iter().cloned()))
            .or_insert_with(|| rule.clone());
    }
    shown.extend(joined.values().map(PolicyRule::compact_string));
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserInfo;

    /// `verbs groups resources [names]`, comma-separated; or `verbs /path`.
    fn rule(text: &str) -> PolicyRule {
        let list = |text: &str| text.split(',').map(|item| item.trim_matches('-').to_owned()).collect::<Vec<_>>();
        let parts: Vec<&str> = text.split(' ').collect();
        if parts.len() == 2 {
            return PolicyRule { verbs: list(parts[0]), non_resource_urls: list(parts[1]), ..PolicyRule::default() };
        }
        PolicyRule {
            verbs: list(parts[0]),
            api_groups: list(parts[1]),
            resources: list(parts[2]),
            resource_names: parts.get(3).map(|names| list(names)).unwrap_or_default(),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn rules_match_as_in_kubernetes() {
        let user = UserInfo::anonymous();
        // rule, verb, group, resource, subresource, name, expected
        for (text, verb, group, resource, subresource, name, expect) in [
            ("get - pods", "get", "", "pods", "", "p", true),
            ("get - pods", "list", "", "pods", "", "", false),
            ("* - pods", "delete", "", "pods", "", "p", true),
            ("get apps pods", "get", "", "pods", "", "p", false),
            ("get * pods", "get", "apps", "pods", "", "p", true),
            ("get - pods", "get", "", "pods", "log", "p", false),
            ("get - pods/log", "get", "", "pods", "log", "p", true),
            ("get - pods/log", "get", "", "pods", "", "p", false),
            ("get - */scale", "get", "", "pods", "scale", "p", true),
            ("get - */scale", "get", "", "pods", "", "p", false),
            ("get - *", "get", "", "pods", "log", "p", true),
            ("get - pods/*", "get", "", "pods", "log", "p", false),
            ("get - pods a,b", "get", "", "pods", "", "a", true),
            ("get - pods a,b", "get", "", "pods", "", "c", false),
            ("list - pods a", "list", "", "pods", "", "", false),
            ("list - pods a", "list", "", "pods", "", "a", true),
        ] {
            let attributes = Attributes { subresource, name, ..Attributes::resource(&user, verb, group, resource) };
            assert_eq!(rule(text).allows(&attributes), expect, "{text} {verb} {group} {resource}/{subresource} {name}");
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        let user = UserInfo::anonymous();
        for (text, path, expect) in [
            ("get /healthz", "/healthz", true),
            ("get /healthz", "/healthz/ping", false),
            ("get /healthz/*", "/healthz/ping", true),
            ("get /api*", "/apis", true),
            ("get *", "/metrics", true),
            ("post *", "/metrics", false),
        ] {
            let attributes = Attributes { is_resource: false, path, ..Attributes::resource(&user, "get", "", "") };
            assert_eq!(rule(text).allows(&attributes), expect, "{text} {path}");
        }
    }

    #[test]
    fn what_is_not_held_is_named() {
        for (held, wanted, expect) in [
            (vec!["* * *", "* *"], vec!["get - pods", "get /x"], vec![]),
            (
                vec!["get - pods"],
                vec!["get,list - pods"],
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#],
            ),
            (
                vec!["get - pods"],
                vec!["list,watch - pods,secrets"],
                vec![
                    r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
                    r#"{APIGroups:[""], Resources:["secrets"], Verbs:["list" "watch"]}"#,
                ],
            ),
            (vec!["get - */log"], vec!["get - pods/log"], vec![]),
            (vec!["get - pods a"], vec!["get - pods a"], vec![]),
            (vec!["get - pods a"], vec!["get - pods"], vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#]),
            (vec!["get /api/*"], vec!["get /api/v1"], vec![]),
            (vec!["get /api"], vec!["get /api/*"], vec![r#"{NonResourceURLs:["/api/*"], Verbs:["get"]}"#]),
        ] {
            let held: Vec<PolicyRule> = held.into_iter().map(rule).collect();
            let wanted: Vec<PolicyRule> = wanted.into_iter().map(rule).collect();
            assert_eq!(describe(&uncovered(held.iter(), &wanted)), expect);
        }
    }
}
