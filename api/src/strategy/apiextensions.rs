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
use crate::custom::{formats, rules, structural, vocabulary};
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
        if !spec["conversion"].is_object() {
            edit::set(spec, "conversion", json!({ "strategy": "None" }));
        }
        let conversion = edit::child(spec, "conversion");
        // Kubernetes keeps what is in a webhook, not the webhook itself.
        let webhook = &conversion["webhook"];
        if webhook["clientConfig"].is_null() && webhook["conversionReviewVersions"].as_array().is_none_or(Vec::is_empty)
        {
            conversion.as_object_mut().map(|conversion| conversion.remove("webhook"));
        }
        if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service") {
            edit::default(service, "port", 443);
        }
        // There is a version that objects are stored in, or will be.
        if object["status"]["storedVersions"].as_array().is_none_or(Vec::is_empty)
            && let Some(storage) = storage_versions(object).into_iter().next()
        {
            edit::set(edit::child(object, "status"), "storedVersions", json!([storage]));
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
        validate_spec(object, errors);
        stored_versions(object, errors);
        approval(object, errors);
        preserve_unknown_fields(object, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            return names_of(&new.get("status").get("acceptedNames"), errors);
        }
        let (spec, before) = (new.get("spec"), old.get("spec"));
        // Rules that came later do not make what is there unchangeable.
        let had_schemas = before.get("versions").items().all(|version| schema_of(&version).is_set());
        validate_parts(new, had_schemas, Some(&before.get("versions")), errors);
        let established =
            old.get("status").get("conditions").items().any(|condition| {
                condition.get("type").str() == "Established" && condition.get("status").str() == "True"
            });
        if established {
            spec.get("scope").immutable(&before.get("scope"), errors);
            spec.get("names").get("kind").immutable(&before.get("names").get("kind"), errors);
        }
        spec.get("group").immutable(&before.get("group"), errors);
        spec.get("names").get("plural").immutable(&before.get("names").get("plural"), errors);
        names_of(&new.get("status").get("acceptedNames"), errors);
        stored_versions(new, errors);
        if approval_state(new) != approval_state(old) {
            approval(new, errors);
        }
        if !before.get("preserveUnknownFields").bool() {
            preserve_unknown_fields(new, errors);
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        let before: BTreeSet<String> = old.map(warnings_of).unwrap_or_default().into_iter().collect();
        warnings.extend(warnings_of(object.value()).into_iter().filter(|warning| !before.contains(warning)));
    }
}

/// Formats that nothing checks, and sets whose items have no identity.
fn warnings_of(definition: &Value) -> Vec<String> {
    let (mut formats, mut known, mut sets) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    for version in versions {
        vocabulary::each(&version["schema"]["openAPIV3Schema"], &mut |schema| {
            let (ty, format) = (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str());
            let unknown = format.filter(|format| !format.is_empty() && !formats::is_of_type(format, ty));
            if let Some(format) = unknown.filter(|format| known.insert((*format).to_owned())) {
                formats.push(format!("unrecognized format {format:?}"));
            }
            let items = schema["items"]["type"].as_str().unwrap_or_default();
            if schema["x-kubernetes-list-type"] == "set" && matches!(items, "object" | "array") {
                sets.insert(format!(
                    "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL validation rules"
                ));
            }
        });
    }
    formats.extend(sets);
    formats
}

fn validate_spec(object: &Field<'_>, errors: &mut Errors) {
    let (spec, name) = (object.get("spec"), object.get("metadata").get("name"));
    let wanted = format!("{}.{}", spec.get("names").get("plural").str(), spec.get("group").str());
    if !name.is_empty() && name.str() != wanted {
        errors.push(name.invalid("must be spec.names.plural+\".\"+spec.group"));
    }
    validate_parts(object, true, None, errors);
}

/// `validateCustomResourceDefinitionSpec`
fn validate_parts(object: &Field<'_>, wants_schemas: bool, before: Option<&Field<'_>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let preserves = spec.get("preserveUnknownFields").bool();
    group(&spec.get("group"), errors);
    spec.get("scope").one_of(&["Cluster", "Namespaced"], errors);
    for version in spec.get("versions").items() {
        let schema = schema_of(&version);
        if wants_schemas && !schema.is_set() {
            errors.push(schema.required(""));
        } else if !preserves && version.get("served").bool() && !schema.is_set() {
            errors.push(schema.required("because otherwise all fields are pruned"));
        }
    }
    versions(&spec, before, errors);
    let conversion = spec.get("conversion");
    if preserves && conversion.is_set() && conversion.get("strategy").str() != "None" {
        let strategy = conversion.get("strategy");
        errors.push(strategy.invalid("must be None if spec.preserveUnknownFields is true"));
    }
    if conversion.is_set() {
        validate_conversion(&conversion, errors);
    }
}

/// How many storage versions that are not among the stored ones are told of.
const STORAGE_VERSIONS_TOLD: usize = 8;

/// `ValidateCustomResourceDefinitionStoredVersions`
fn stored_versions(object: &Field<'_>, errors: &mut Errors) {
    let stored = object.get("status").get("storedVersions");
    if stored.is_empty() {
        errors.push(stored.invalid_as(Value::Null, "must have at least one stored version"));
        return;
    }
    let versions = object.get("spec").get("versions");
    let stored_names: BTreeSet<&str> = stored.items().map(|one| one.str()).collect();
    let version_names: BTreeSet<&str> = versions.items().map(|version| version.get("name").str()).collect();
    // Each shows the whole list; no definition with more than one storage version is valid anyway.
    for version in versions.items().filter(|version| version.get("storage").bool()).take(STORAGE_VERSIONS_TOLD) {
        let name = version.get("name").str();
        if !stored_names.contains(name) {
            errors.push(stored.invalid(format!("must have the storage version {name}")));
        }
    }
    for one in stored.items() {
        let name = one.str();
        if !version_names.contains(name) {
            errors.push(one.invalid(format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            )));
        }
    }
}

fn preserve_unknown_fields(object: &Field<'_>, errors: &mut Errors) {
    let field = object.get("spec").get("preserveUnknownFields");
    if field.bool() {
        errors.push(field.invalid(
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
}

fn storage_versions(object: &Value) -> Vec<Value> {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["storage"] == true).take(1).map(|version| version["name"].clone()).collect()
}

fn group(group: &Field<'_>, errors: &mut Errors) {
    if group.is_empty() {
        errors.push(group.required(""));
        return;
    }
    let faults = names::dns1123_subdomain(group.str());
    if !faults.is_empty() {
        errors.push(group.invalid(faults.join(",")));
    } else if !group.str().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
}

const APPROVED: &str = "api-approved.kubernetes.io";

/// What a definition says of the approval of its group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Approval {
    Missing,
    Invalid,
    Bypassed,
    Approved,
}

fn approval_state(object: &Field<'_>) -> Approval {
    let said = object.get("metadata").get("annotations").key(APPROVED).str();
    match said {
        "" => Approval::Missing,
        _ if said.starts_with("unapproved") => Approval::Bypassed,
        _ if said.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/') && !rest.is_empty())
            && formats::is_uri(said) =>
        {
            Approval::Approved
        }
        _ => Approval::Invalid,
    }
}

/// Groups of Kubernetes itself want a word of approval (`ValidateAPIApproval`).
fn approval(object: &Field<'_>, errors: &mut Errors) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = object.get("spec").get("group").str();
    let is_below = |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !is_below("k8s.io") && !is_below("kubernetes.io") {
        return;
    }
    let annotation = object.get("metadata").get("annotations").key(APPROVED);
    match approval_state(object) {
        Approval::Missing => errors
            .push(annotation.required(format!("protected groups must have approval annotation {APPROVED:?}, {SEE}"))),
        Approval::Invalid => errors.push(annotation.invalid(format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
        ))),
        Approval::Bypassed | Approval::Approved => {}
    }
}

fn schema_of<'a>(version: &Field<'a>) -> Field<'a> {
    version.get("schema").get("openAPIV3Schema")
}

/// What all versions say alike stands, in Kubernetes' internal version, in the spec; there it is checked, and that
/// place errors name.
struct Common {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Common {
    fn of(versions: &Field<'_>) -> Common {
        let alike = |member: &'static str| {
            let first = versions.element(0).get(member);
            let empty = first.value().as_array().is_some_and(Vec::is_empty);
            first.is_set() && !empty && versions.items().all(|version| version.get(member).value() == first.value())
        };
        Common {
            schema: alike("schema"),
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            selectable: alike("selectableFields"),
        }
    }
}

fn versions(spec: &Field<'_>, before: Option<&Field<'_>>, errors: &mut Errors) {
    let versions = spec.get("versions");
    let unchanged = |version: &Field<'_>| {
        let past = before.and_then(|all| all.items().find(|one| one.get("name").str() == version.get("name").str()));
        past.is_some_and(|past| schema_of(&past).value() == schema_of(version).value())
    };
    let common = Common::of(&versions);
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for version in versions.items() {
        let name = version.get("name");
        unique &= seen.insert(name.str());
        joined(&name, names::dns1035_label(name.str()), errors);
        deprecation(&version, errors);
        let has_status = version.get("subresources").get("status").is_set();
        if !common.schema {
            let of_version = schema_of(&version);
            schema(&of_version, &of_version, has_status, unchanged(&version), errors);
        }
        if !common.subresources {
            scale(&version.get("subresources"), errors);
        }
        if !common.columns {
            version.get("additionalPrinterColumns").items().for_each(|column| printer_column(&column, errors));
        }
        if !common.selectable {
            selectable_fields(&version.get("selectableFields"), &schema_of(&version), errors);
        }
    }
    let whole = |detail: &str| versions.invalid(detail).showing(internal_versions(&versions));
    if !unique {
        errors.push(whole("must contain unique version names"));
    }
    if storage_count(&versions) != 1 {
        errors.push(whole("must have exactly one version marked as storage version"));
    }
    let first = versions.element(0);
    if !first.get("name").is_empty() {
        let name = spec.get("version");
        let name = name.with(first.get("name").value()).value().clone();
        let faults = names::dns1035_label(name.as_str().unwrap_or_default());
        if !faults.is_empty() {
            errors.push(spec.get("version").invalid_as(name, faults.join(",")));
        }
    }
    required_names(&spec.get("names"), errors);
    names_of(&spec.get("names"), errors);
    if common.schema {
        let at = spec.get("validation").get("openAPIV3Schema");
        let has_status = versions.items().any(|version| version.get("subresources").get("status").is_set());
        schema(&at, &schema_of(&first), has_status, unchanged(&first), errors);
    }
    if common.subresources {
        scale(&spec.get("subresources").with(first.get("subresources").value()), errors);
    }
    if common.columns {
        let columns = first.get("additionalPrinterColumns");
        spec.get("additionalPrinterColumns").with(columns.value()).items().for_each(|one| printer_column(&one, errors));
    }
    if common.selectable {
        let fields = first.get("selectableFields");
        selectable_fields(&spec.get("selectableFields").with(fields.value()), &schema_of(&first), errors);
    }
}

/// One error for all complaints of a format function.
fn joined(field: &Field<'_>, faults: Vec<String>, errors: &mut Errors) {
    if !faults.is_empty() {
        errors.push(field.invalid(faults.join(",")));
    }
}

fn deprecation(version: &Field<'_>, errors: &mut Errors) {
    const MAX_BYTES: usize = 256;
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").bool() {
        errors.push(warning.invalid("can only be set for deprecated versions"));
        return;
    }
    let text = warning.str();
    if text.len() > MAX_BYTES {
        errors.push(warning.invalid(format!("must be <= {MAX_BYTES} characters long")));
    }
    if text.is_empty() {
        errors.push(warning.invalid("must not be an empty string"));
    }
    let unprintable = |one: char| one.is_control() || (one.is_whitespace() && one != ' ');
    if let Some(at) = text.find(unprintable) {
        errors.push(warning.invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        )));
    }
}

fn schema(shown: &Field<'_>, schema: &Field<'_>, has_status: bool, unchanged: bool, errors: &mut Errors) {
    if schema.is_set() {
        structural::validate(schema.value(), &FieldPath::new(shown.path()), has_status, unchanged, errors);
    }
}

/// The versions as Kubernetes has them inside, without what all of them share.
fn internal_versions(versions: &Field<'_>) -> String {
    if versions.is_empty() {
        return "null".to_owned();
    }
    let one = |version: Field<'_>| {
        version.internal(&[
            ("Name", "name", json!("")),
            ("Served", "served", json!(false)),
            ("Storage", "storage", json!(false)),
            ("Deprecated", "deprecated", json!(false)),
            ("DeprecationWarning", "deprecationWarning", Value::Null),
            ("Schema", "", Value::Null),
            ("Subresources", "", Value::Null),
            ("AdditionalPrinterColumns", "", Value::Null),
            ("SelectableFields", "", Value::Null),
        ])
    };
    format!("[{}]", versions.items().map(one).collect::<Vec<_>>().join(","))
}

fn scale(subresources: &Field<'_>, errors: &mut Errors) {
    let Some(scale) = subresources.get("scale").set() else { return };
    for (member, parts) in [
        ("specReplicasPath", &["spec"][..]),
        ("statusReplicasPath", &["status"]),
        ("labelSelectorPath", &["spec", "status"]),
    ] {
        let path = scale.get(member);
        let text = path.str();
        if text.is_empty() {
            if parts.len() == 1 {
                errors.push(path.required(""));
            }
        } else if !text.starts_with('.') {
            errors.push(path.invalid("must be a simple json path starting with ."));
        } else if !parts.iter().any(|part| text.starts_with(&format!(".{part}."))) {
            errors.push(path.invalid(match parts {
                [part] => format!("should be a json path under .{part}"),
                _ => "should be a json path under either .spec or .status".to_owned(),
            }));
        }
    }
}

fn storage_count(versions: &Field<'_>) -> usize {
    versions.items().filter(|version| version.get("storage").bool()).count()
}

/// `selectableFields`: scalar fields below `spec` and `status`, each once.
fn selectable_fields(fields: &Field<'_>, schema: &Field<'_>, errors: &mut Errors) {
    const MAX: usize = 8;
    if fields.is_empty() {
        return;
    }
    if !schema.is_set() {
        errors.push(fields.invalid_as("", "may only be set when `version.schema.openAPIV3Schema` is not included"));
        return;
    }
    let schema = Schema::parse_without_rules(schema.value());
    let mut seen: BTreeSet<Vec<String>> = BTreeSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if path.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        let (names, place) = match rules::valid_path(path.str(), &schema, false) {
            Ok(found) => found,
            Err(words) => {
                errors.push(path.invalid(format!("is an invalid path: {words}")));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(place.ty, Some(JsonType::String | JsonType::Boolean | JsonType::Integer)) {
            errors.push(path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            ));
        }
        if !seen.insert(names) {
            errors.push(path.duplicate());
        }
    }
    if seen.len() > MAX {
        errors.push(fields.too_many(MAX));
    }
}

fn printer_column(column: &Field<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let (name, ty, format) = (column.get("name"), column.get("type"), column.get("format"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    let one_of = |names: &[&str]| format!("must be one of {}", names.join(","));
    if ty.is_empty() {
        errors.push(ty.required(one_of(&TYPES)));
    } else if !TYPES.contains(&ty.str()) {
        errors.push(ty.invalid(one_of(&TYPES)));
    }
    if !format.is_empty() && !FORMATS.contains(&format.str()) {
        errors.push(format.invalid(one_of(&FORMATS)));
    }
    let path = column.shown_as("jsonPath", "JSONPath");
    if path.is_empty() {
        errors.push(path.required(""));
    } else if !path.str().starts_with('.') {
        errors.push(path.invalid("must be a simple json path starting with ."));
    }
}

fn required_names(names: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular", "kind", "listKind"] {
        if names.get(name).is_empty() {
            errors.push(names.get(name).required(""));
        }
    }
}

/// `ValidateCustomResourceDefinitionNames`
fn names_of(names_field: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular"] {
        let field = names_field.get(name);
        if !field.is_empty() {
            joined(&field, names::dns1035_label(field.str()), errors);
        }
    }
    for name in ["kind", "listKind"] {
        let field = names_field.get(name);
        let faults = names::dns1035_label(&field.str().to_lowercase());
        if !field.is_empty() && !faults.is_empty() {
            let words = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
            errors.push(field.invalid(words));
        }
    }
    for short in names_field.get("shortNames").items() {
        joined(&short, names::dns1035_label(short.str()), errors);
    }
    let (kind, list) = (names_field.get("kind"), names_field.get("listKind"));
    if !kind.is_empty() && kind.str() == list.str() {
        errors.push(list.invalid("kind and listKind may not be the same"));
    }
    for category in names_field.get("categories").items() {
        joined(&category, names::dns1035_label(category.str()), errors);
    }
}

/// `ValidateCustomResourceConversion`. Errors name the fields as Kubernetes' internal version has them.
fn validate_conversion(conversion: &Field<'_>, errors: &mut Errors) {
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
