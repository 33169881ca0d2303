//! CustomResourceDefinitions and APIServices: kinds that make kinds.
//! Of `apiextensions-apiserver/pkg/apis/apiextensions/validation` the rules on names and versions; schemas are checked
//! where they are built.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::pod::volumes::required;
use super::{Context, Subresource, edit, names, webhooks};
use crate::custom::schema::{JsonType, Schema};
use crate::custom::structural;
use crate::status::FieldPath;

/// `apiextensions.k8s.io/v1` CustomResourceDefinition.
pub struct CustomResourceDefinition;

impl Behavior for CustomResourceDefinition {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        let names = edit::child(spec, "names");
        let kind = edit::text(names, "kind").to_owned();
        edit::default_text(names, "singular", &kind.to_lowercase());
        if !kind.is_empty() {
            edit::default_text(names, "listKind", &format!("{kind}List"));
        }
        let conversion = edit::child(spec, "conversion");
        edit::default_text(conversion, "strategy", "None");
        if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service") {
            edit::default(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        let storage = storage_versions(object);
        edit::set(
            object,
            "status",
            json!({
                "conditions": null,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": storage,
            }),
        );
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, _: &Value) {
        if subresource == Subresource::Status {
            return;
        }
        // A version that stores objects from now on joins those that may be found in the store.
        for version in storage_versions(new) {
            let stored = edit::child(new, "status");
            edit::default(stored, "storedVersions", json!([]));
            if let Some(list) = stored["storedVersions"].as_array_mut()
                && !list.contains(&version)
            {
                list.push(version);
            }
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (spec, name) = (object.get("spec"), object.get("metadata").get("name"));
        let wanted = format!("{}.{}", spec.get("names").get("plural").str(), spec.get("group").str());
        if name.str() != wanted {
            errors.push(name.invalid("must be spec.names.plural+\".\"+spec.group"));
        }
        group(&spec.get("group"), errors);
        approval(object, errors);
        let scope = spec.get("scope");
        scope.one_of(&["Cluster", "Namespaced"], errors);
        versions(&spec, errors);
        names_of(&spec.get("names"), errors);
        conversion(&spec.get("conversion"), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            return;
        }
        self.validate(new, errors);
        let (spec, before) = (new.get("spec"), old.get("spec"));
        let established =
            old.get("status").get("conditions").items().any(|condition| {
                condition.get("type").str() == "Established" && condition.get("status").str() == "True"
            });
        spec.get("group").immutable(&before.get("group"), errors);
        spec.get("names").get("plural").immutable(&before.get("names").get("plural"), errors);
        if established {
            spec.get("scope").immutable(&before.get("scope"), errors);
            spec.get("names").get("kind").immutable(&before.get("names").get("kind"), errors);
        }
        let served: BTreeSet<&str> = spec.get("versions").items().map(|version| version.get("name").str()).collect();
        for stored in new.get("status").get("storedVersions").items().filter(|stored| !served.contains(stored.str())) {
            errors.push(stored.invalid("must appear in spec.versions"));
        }
    }
}

fn storage_versions(object: &Value) -> Vec<Value> {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["storage"] == true).map(|version| version["name"].clone()).collect()
}

fn group(group: &Field<'_>, errors: &mut Errors) {
    if group.is_empty() {
        errors.push(group.required(""));
        return;
    }
    group.check(names::dns1123_subdomain(group.str()), errors);
    if !group.str().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
}

/// Groups of Kubernetes itself want a word of approval (`ValidateAPIApproval`).
fn approval(object: &Field<'_>, errors: &mut Errors) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = object.get("spec").get("group").str();
    let is_below = |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !is_below("k8s.io") && !is_below("kubernetes.io") {
        return;
    }
    let annotation = object.get("metadata").get("annotations").key(ANNOTATION);
    let said = annotation.str();
    if said.is_empty() {
        errors
            .push(annotation.required(format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}")));
    } else if !said.starts_with("unapproved") && !crate::custom::formats::is_uri(said) {
        let words = format!(
            "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
        );
        errors.push(annotation.invalid(words));
    }
}

fn versions(spec: &Field<'_>, errors: &mut Errors) {
    let versions = spec.get("versions");
    if versions.is_empty() {
        errors.push(versions.required("must have exactly one version marked as storage version"));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        let name = version.get("name");
        name.check(names::dns1035_label(name.str()), errors);
        if !seen.insert(name.str()) {
            errors.push(versions.invalid("must contain unique version names"));
        }
        let schema = version.get("schema").get("openAPIV3Schema");
        if !schema.is_set() {
            errors.push(schema.required("schemas are required"));
        }
        selectable_fields(&version, errors);
        for column in version.get("additionalPrinterColumns").items() {
            printer_column(&column, errors);
        }
        if let Some(scale) = version.get("subresources").get("scale").set() {
            for (member, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let path = scale.get(member);
                if path.is_empty() {
                    errors.push(path.required(""));
                } else if !path.str().starts_with(prefix) {
                    errors.push(path.invalid(format!("should be a json path under {}", prefix.trim_end_matches('.'))));
                }
            }
        }
    }
    schemas(spec, errors);
    if storage_count(&versions) != 1 {
        errors.push(versions.invalid("must have exactly one version marked as storage version"));
    }
}

fn storage_count(versions: &Field<'_>) -> usize {
    versions.items().filter(|version| version.get("storage").bool()).count()
}

/// The schemas themselves. Where all versions share one, errors name the place it had in v1beta1, as Kubernetes' do.
fn schemas(spec: &Field<'_>, errors: &mut Errors) {
    let versions = spec.get("versions");
    let found: Vec<Field<'_>> = versions
        .items()
        .map(|version| version.get("schema").get("openAPIV3Schema"))
        .filter(|schema| schema.is_set())
        .collect();
    let one_for_all = found.len() == versions.len() && found.iter().all(|schema| schema.value() == found[0].value());
    if let (true, Some(schema)) = (one_for_all, found.first()) {
        let path = FieldPath::new("spec").child("validation").child("openAPIV3Schema");
        structural::validate(schema.value(), &path, errors);
        return;
    }
    for schema in found {
        structural::validate(schema.value(), &FieldPath::new(schema.path()), errors);
    }
}

/// `selectableFields`: scalar fields below `spec` and `status`, each once.
fn selectable_fields(version: &Field<'_>, errors: &mut Errors) {
    const MAX: usize = 8;
    let fields = version.get("selectableFields");
    if fields.len() > MAX {
        errors.push(fields.too_many(MAX));
    }
    let schema = Schema::parse_without_rules(version.get("schema").get("openAPIV3Schema").value());
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        let text = path.str();
        if text.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        if !seen.insert(text) {
            errors.push(path.duplicate());
        }
        let names = text.strip_prefix('.').map(|rest| rest.split('.').collect::<Vec<_>>());
        let place = names.iter().flatten().try_fold(&schema, |place, name| place.properties.get(*name));
        let scalar =
            |place: &Schema| matches!(place.ty, Some(JsonType::String | JsonType::Boolean | JsonType::Integer));
        match (names, place) {
            (None, _) => errors.push(path.invalid("is an invalid path: does not start with a dot")),
            (_, None) => errors.push(path.invalid("is an invalid path: does not refer to a valid field")),
            (Some(names), _) if names.first() == Some(&"metadata") => {
                errors.push(path.invalid("must not point to fields in metadata"));
            }
            (_, Some(place)) if !scalar(place) => errors.push(path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            )),
            _ => {}
        }
    }
}

fn printer_column(column: &Field<'_>, errors: &mut Errors) {
    let (name, kind, path) = (column.get("name"), column.get("type"), column.get("jsonPath"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    let kinds = ["boolean", "date", "integer", "number", "string"];
    if kind.is_empty() {
        errors.push(kind.required("must be one of boolean,date,integer,number,string"));
    } else if !kinds.contains(&kind.str()) {
        errors.push(kind.invalid("must be one of boolean,date,integer,number,string"));
    }
    if path.is_empty() {
        errors.push(path.required(""));
    } else if let Err(error) = crate::table::JsonPath::parse(path.str()) {
        errors.push(path.invalid(error.to_string()));
    }
}

fn names_of(names_field: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular", "kind", "listKind"] {
        let field = names_field.get(name);
        if field.is_empty() {
            errors.push(field.required(""));
        } else {
            field.check(names::dns1035_label(&field.str().to_lowercase()), errors);
        }
    }
    for short in names_field.get("shortNames").items() {
        short.check(names::dns1035_label(short.str()), errors);
    }
    for category in names_field.get("categories").items() {
        category.check(names::dns1035_label(category.str()), errors);
    }
    let (kind, list) = (names_field.get("kind"), names_field.get("listKind"));
    if !kind.is_empty() && kind.str() == list.str() {
        errors.push(list.invalid("kind and listKind may not be the same"));
    }
}

/// `ValidateCustomResourceConversion`. Errors name the fields as Kubernetes' internal version has them.
fn conversion(conversion: &Field<'_>, errors: &mut Errors) {
    let (strategy, webhook) = (conversion.get("strategy"), conversion.get("webhook"));
    strategy.one_of(&["None", "Webhook"], errors);
    let at_client = conversion.get("webhookClientConfig");
    let at_versions = conversion.get("conversionReviewVersions");
    let versions = at_versions.with(webhook.get("conversionReviewVersions").value());
    let client = at_client.with(webhook.get("clientConfig").value());
    if strategy.str() == "Webhook" {
        match client.set() {
            None => errors.push(at_client.required("required when strategy is set to Webhook")),
            Some(client) => webhooks::client_config(&client, webhooks::Missing::ByHand, errors),
        }
        review_versions(&versions, errors);
        return;
    }
    const NO_WEBHOOK: &str = "should not be set when strategy is not set to Webhook";
    if client.is_set() {
        errors.push(at_client.forbidden(NO_WEBHOOK));
    }
    if !versions.is_empty() {
        errors.push(at_versions.forbidden(NO_WEBHOOK));
    }
}

fn review_versions(versions: &Field<'_>, errors: &mut Errors) {
    const KNOWN: [&str; 2] = ["v1", "v1beta1"];
    if versions.is_empty() {
        errors.push(versions.required(""));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if !seen.insert(version.str()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        version.check(names::dns1035_label(version.str()), errors);
    }
    if !KNOWN.iter().any(|known| seen.contains(known)) {
        errors.push(versions.invalid(format!("must include at least one of {}", KNOWN.join(", "))));
    }
}

/// `apiregistration.k8s.io/v1` APIService.
pub struct ApiService;

impl Behavior for ApiService {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service") {
            edit::default(service, "port", 443);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let (spec, name) = (object.get("spec"), object.get("metadata").get("name"));
        let (group, version) = (spec.get("group"), spec.get("version"));
        let wanted = format!("{}.{}", version.str(), group.str());
        if name.str() != wanted {
            errors.push(name.invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}")));
        }
        if group.is_empty() && version.str() != "v1" {
            errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
        } else if !group.is_empty() {
            group.check(names::dns1123_subdomain(group.str()), errors);
        }
        version.check(names::dns1035_label(version.str()), errors);
        for (member, top) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let priority = spec.get(member);
            let number = priority.int().unwrap_or(0);
            if !(1..=top).contains(&number) {
                errors.push(priority.invalid_as(number, format!("must be positive and less than {}", top)));
            }
        }
        let bundle = spec.get("caBundle");
        match spec.get("service").set() {
            Some(service) => required(&service, &["namespace", "name"], errors),
            None if !bundle.is_empty() => errors.push(bundle.invalid("local APIServices may not have a caBundle")),
            None => {}
        }
        if spec.get("insecureSkipTLSVerify").bool() && !bundle.is_empty() {
            errors.push(spec.get("insecureSkipTLSVerify").invalid("may not be true if caBundle is present"));
        }
    }
}
