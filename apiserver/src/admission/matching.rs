//! Which writes a webhook or a policy is asked about (`k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`,
//! `plugin/policy/matching/matching.go`).

use std::sync::Arc;

use minik8s_api::kinds::{GroupResource, Kind};
use minik8s_api::selector::LabelSelector;
use minik8s_api::status::Status;
use serde_json::{Value, json};

use super::view::row_of;
use super::{Attributes, items};
use crate::cache::Objects;

/// The group whose objects are never asked about: what is broken there must stay mendable.
const EXEMPT: &str = "admissionregistration.k8s.io";

/// Rules and selectors, parsed.
#[derive(Debug)]
pub(super) struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Without rules: all writes, rather than none.
    open: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
    equivalent: bool,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    /// Empty for all.
    names: Vec<String>,
    scope: String,
}

/// Whether a write can be asked about at all.
pub(super) fn is_exempt(write: &Attributes<'_>) -> bool {
    write.group == EXEMPT
}

impl Matching {
    /// Of a webhook.
    pub(super) fn of_webhook(webhook: &Value) -> Result<Matching, String> {
        Matching::new(webhook, &webhook["rules"], &Value::Null, false)
    }

    /// Of a policy's `matchConstraints`.
    pub(super) fn of_policy(constraints: &Value) -> Result<Matching, String> {
        Matching::new(constraints, &constraints["resourceRules"], &constraints["excludeResourceRules"], false)
    }

    /// Of a binding's `matchResources`; what it does not say it does not narrow.
    pub(super) fn of_binding(resources: &Value) -> Result<Matching, String> {
        Matching::new(resources, &resources["resourceRules"], &resources["excludeResourceRules"], true)
    }

    fn new(from: &Value, rules: &Value, excluded: &Value, open: bool) -> Result<Matching, String> {
        let everything = json!({});
        let selector = |name: &str| {
            let selector = from.get(name).filter(|selector| !selector.is_null()).unwrap_or(&everything);
            LabelSelector::from_value(Some(selector)).map_err(|error| error.to_string())
        };
        Ok(Matching {
            rules: items(rules).map(Rule::new).collect(),
            excluded: items(excluded).map(Rule::new).collect(),
            open,
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
            equivalent: from["matchPolicy"] != "Exact",
        })
    }

    /// The resource by which a write matches: its own, or one of another version of the same objects.
    pub(super) fn matches(&self, write: &Attributes<'_>, world: &dyn Objects) -> Result<Option<Arc<Kind>>, Status> {
        if is_exempt(write) {
            return Ok(None);
        }
        let kinds = world.kinds();
        let Some(own) = row_of(write, &kinds) else { return Ok(None) };
        let mut rows = vec![Arc::clone(&own)];
        if self.equivalent {
            rows.extend(kinds.iter().filter(|row| row.storage == own.storage && row.gvr() != own.gvr()).cloned());
        }
        let found =
            |rules: &[Rule]| rows.iter().find(|row| rules.iter().any(|rule| rule.matches(row, write))).map(Arc::clone);
        if found(&self.excluded).is_some() {
            return Ok(None);
        }
        let found = if self.rules.is_empty() && self.open { Some(own.clone()) } else { found(&self.rules) };
        let Some(row) = found else { return Ok(None) };
        let selected = self.selects_object(write) && self.selects_namespace(write, world)?;
        Ok(selected.then_some(row))
    }

    fn selects_object(&self, write: &Attributes<'_>) -> bool {
        // A Scale has no labels, whatever it is the Scale of.
        let has_labels = write.subresource != "scale";
        let selects = |object: &Value| {
            self.objects.matches_labels(object["metadata"]["labels"].as_object().filter(|_| has_labels))
        };
        self.objects.is_everything() || write.object.iter().chain(write.old_object).any(selects)
    }

    fn selects_namespace(&self, write: &Attributes<'_>, world: &dyn Objects) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        let selects = |object: &Value| self.namespaces.matches_labels(object["metadata"]["labels"].as_object());
        if write.resource == "namespaces" && write.group.is_empty() {
            return Ok(write.object.as_ref().or(write.old_object).is_none_or(selects));
        }
        if write.namespace.is_empty() {
            return Ok(true);
        }
        Ok(selects(&namespace(write.namespace, world)?))
    }
}

/// A namespace, or its 404.
pub(super) fn namespace(name: &str, world: &dyn Objects) -> Result<Value, Status> {
    let namespaces = GroupResource::new("", "namespaces");
    let found = world.get(&namespaces, "", name);
    found.map(|namespace| namespace.value()).ok_or_else(|| Status::not_found(&namespaces, name))
}

impl Rule {
    fn new(rule: &Value) -> Rule {
        let texts = |name: &str| items(&rule[name]).filter_map(Value::as_str).map(str::to_owned).collect();
        let split = |resource: &str| {
            let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
            (resource.to_owned(), part.to_owned())
        };
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: items(&rule["resources"]).filter_map(Value::as_str).map(split).collect(),
            names: texts("resourceNames"),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, row: &Kind, write: &Attributes<'_>) -> bool {
        let named = |list: &[String], name: &str| list.iter().any(|own| own == "*" || own == name);
        let is = |own: &str, name: &str| own == "*" || own == name;
        let resource = |(resource, part): &(String, String)| is(resource, &row.plural) && is(part, write.subresource);
        let scope = match self.scope.as_str() {
            "Namespaced" => row.namespaced,
            "Cluster" => !row.namespaced,
            _ => true,
        };
        scope
            && named(&self.operations, write.operation.as_str())
            && named(&self.groups, &row.group)
            && named(&self.versions, &row.version)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == write.name))
    }
}
