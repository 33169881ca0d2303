//! The options of a request, as Kubernetes' `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions` and
//! `ListOptions`, read from the query (or, for deletes, the body) and validated in Kubernetes' words
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`, `pkg/apis/meta/internalversion/validation`).

use std::num::IntErrorKind;
use std::time::Duration;

use minik8s_api::decode::FieldValidation;
use minik8s_api::kinds::GroupVersionKind;
use minik8s_api::patch::unclassified;
use minik8s_api::status::{FieldError, FieldPath, Status};
use minik8s_store::Revision;
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::query::Query;
use crate::registry::continuation::Continuation;
use crate::registry::read::{Freshness, ListQuery};

/// Longest name in managedFields.
const MAX_MANAGER_LENGTH: usize = 128;

/// Options of create, update and patch, which share most.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// `dryRun=All`: everything but the write.
    pub dry_run: bool,
    /// What unknown and duplicate fields mean.
    pub field_validation: FieldValidation,
    /// Whether the caller said what they mean.
    pub says_validation: bool,
    /// Name in managedFields, if the caller gave one.
    pub field_manager: Option<String>,
    /// Server-side apply takes fields from their owners.
    pub force: bool,
}

/// What a write is, for the options it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// PATCH with an apply configuration.
    Apply,
}

impl WriteOptions {
    /// Reads and validates the options of a write.
    pub fn parse(query: &Query, write: Write) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let manager = query.get("fieldManager").filter(|manager| !manager.is_empty());
        let force = query.get("force").is_some();
        match write {
            Write::Apply if manager.is_none() => {
                errors.push(FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch"));
            }
            Write::Patch if force => {
                errors
                    .push(FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch"));
            }
            _ => {}
        }
        if let Some(manager) = manager {
            manager_errors(manager, &mut errors);
        }
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let path = FieldPath::new("fieldValidation");
                errors.push(FieldError::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        let kind = match write {
            Write::Create => "CreateOptions",
            Write::Update => "UpdateOptions",
            Write::Patch | Write::Apply => "PatchOptions",
        };
        refuse(kind, errors)?;
        Ok(WriteOptions {
            dry_run,
            field_validation,
            says_validation: query.get("fieldValidation").is_some_and(|said| !said.is_empty()),
            field_manager: manager.map(str::to_owned),
            force: query.flag("force"),
        })
    }

    /// The options as admission sees them.
    pub fn to_value(&self, operation: Operation) -> Value {
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let mut value = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if let Some(manager) = &self.field_manager {
            value["fieldManager"] = json!(manager);
        }
        if self.says_validation {
            value["fieldValidation"] = json!(format!("{:?}", self.field_validation));
        }
        value
    }
}

/// What happens to an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay, without owner.
    Orphan,
    /// The object goes first.
    Background,
    /// Dependents go first.
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// Seconds until a pod is killed; 0 at once; unset is the object's own.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object has this UID.
    pub uid: Option<String>,
    /// Only if the object is at this resourceVersion.
    pub resource_version: Option<String>,
    /// What happens to dependents.
    pub propagation: Option<Propagation>,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`: for objects that cannot be read, and no others.
    pub ignores_read_errors: bool,
}

/// The option that deletes what cannot be read.
pub const IGNORE_READ_ERRORS: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

impl DeleteOptions {
    /// Reads the query of a delete without a body.
    pub fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
        let mut value = json!({});
        if let Some(seconds) = query.get("gracePeriodSeconds") {
            let seconds = integer(seconds)?;
            value["gracePeriodSeconds"] = json!(seconds);
        }
        for field in ["propagationPolicy", "orphanDependents"] {
            if let Some(text) = query.get(field) {
                value[field] = if field == "orphanDependents" { json!(query.flag(field)) } else { json!(text) };
            }
        }
        for field in ["uid", "resourceVersion"] {
            if let Some(text) = query.get(field).filter(|text| !text.is_empty()) {
                value["preconditions"][field] = json!(text);
            }
        }
        if query.flag(IGNORE_READ_ERRORS) {
            value[IGNORE_READ_ERRORS] = json!(true);
        }
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        if !dry_run.is_empty() {
            value["dryRun"] = json!(dry_run);
        }
        DeleteOptions::from_value(&value)
    }

    /// Reads a decoded `DeleteOptions` (or null).
    pub fn from_value(value: &Value) -> Result<DeleteOptions, Status> {
        let mut errors = Vec::new();
        let list = value["dryRun"].as_array();
        let policy = value["propagationPolicy"].as_str();
        let orphan = value["orphanDependents"].as_bool();
        let path = FieldPath::new("propagationPolicy");
        if policy.is_some() && orphan.is_some() {
            errors.push(FieldError::invalid(
                &path,
                policy.unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        let propagation = match policy {
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                errors.push(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
            None => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        };
        let dry_run = dry_run(list.into_iter().flatten().filter_map(Value::as_str), &mut errors);
        let ignores_read_errors = value[IGNORE_READ_ERRORS] == true;
        for other in ["dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"] {
            let is_set = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
            if ignores_read_errors && is_set(&value[other]) {
                let why = format!("cannot be set together with .{other}");
                errors.push(FieldError::invalid(&FieldPath::new(IGNORE_READ_ERRORS), true, why));
            }
        }
        refuse("DeleteOptions", errors)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(DeleteOptions {
            dry_run,
            grace_period_seconds: value["gracePeriodSeconds"].as_i64(),
            uid: text(&value["preconditions"]["uid"]),
            resource_version: text(&value["preconditions"]["resourceVersion"]),
            propagation,
            ignores_read_errors,
        })
    }

    /// The options as admission sees them.
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1" });
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if let Some(seconds) = self.grace_period_seconds {
            value["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        value
    }
}

/// Options of list, watch and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Label selector, unparsed.
    pub labels: String,
    /// Field selector, unparsed.
    pub fields: String,
    /// `limit`, 0 for all.
    pub limit: usize,
    /// `continue`.
    pub token: Option<String>,
    /// `resourceVersion`; empty is unset.
    pub resource_version: String,
    /// `resourceVersionMatch`; empty is unset.
    pub version_match: String,
    /// `watch`.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`, if it was given.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout: Option<Duration>,
}

const NOT_OLDER_THAN: &str = "NotOlderThan";
const EXACT: &str = "Exact";

impl ListOptions {
    /// Reads and validates the query of a list or (if the verb says so) a watch.
    pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        // A negative number is no limit, as 0 is.
        let number = |name: &str| -> Result<u64, Status> {
            let number = query.get(name).map(integer).transpose()?;
            Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
        };
        let mut options = ListOptions {
            labels: text("labelSelector"),
            fields: text("fieldSelector"),
            limit: usize::try_from(number("limit")?).unwrap_or(usize::MAX),
            token: query.get("continue").filter(|token| !token.is_empty()).map(str::to_owned),
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            watch,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout: Some(number("timeoutSeconds")?).filter(|seconds| *seconds > 0).map(Duration::from_secs),
        };
        // The end of such a watch is over when it begins.
        if watch && query.get("timeoutSeconds").is_some_and(|seconds| seconds.starts_with('-')) {
            options.timeout = Some(Duration::ZERO);
        }
        options.set_defaults();
        refuse("ListOptions", options.errors(watch))?;
        Ok(options)
    }

    /// A watch from now on is one that begins with what there is (`internalversion.SetListOptionsDefaults`).
    fn set_defaults(&mut self) {
        let says_nothing = self.send_initial_events.is_none() && self.version_match.is_empty();
        if self.watch && says_nothing && matches!(self.resource_version.as_str(), "" | "0") {
            self.send_initial_events = Some(true);
            NOT_OLDER_THAN.clone_into(&mut self.version_match);
        }
    }

    /// `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation/validation.go`.
    fn errors(&self, watch: bool) -> Vec<FieldError> {
        if watch { self.watch_errors() } else { self.list_errors() }
    }

    fn list_errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("resourceVersionMatch");
        let mut forbid = |why: &str| errors.push(FieldError::forbidden(&path, why));
        if !self.version_match.is_empty() {
            if self.resource_version.is_empty() {
                forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if self.token.is_some() {
                forbid("resourceVersionMatch is forbidden when continue is provided");
            }
            if self.version_match == EXACT && self.resource_version == "0" {
                forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if !matches!(self.version_match.as_str(), EXACT | NOT_OLDER_THAN) {
                errors.push(FieldError::not_supported(
                    &path,
                    self.version_match.as_str(),
                    &[EXACT, NOT_OLDER_THAN, ""],
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(
                &FieldPath::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        errors
    }

    fn watch_errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("resourceVersionMatch");
        if self.send_initial_events.is_some() && self.version_match != NOT_OLDER_THAN {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(&path, why));
        }
        if !self.version_match.is_empty() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(&path, why));
            }
            if self.version_match != NOT_OLDER_THAN {
                errors.push(FieldError::not_supported(&path, self.version_match.as_str(), &[NOT_OLDER_THAN]));
            }
            if self.token.is_some() {
                errors
                    .push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        errors
    }

    /// Only the object of this name, if there is one: `/watch/…/{name}`, where the path says what a field selector would.
    pub fn pin_name(&mut self, name: &str) {
        let term = format!("metadata.name={name}");
        if !name.is_empty() && !self.fields.split(',').any(|own| own.replace("==", "=") == term) {
            self.fields = if self.fields.is_empty() { term } else { format!("{},{term}", self.fields) };
        }
    }

    /// `resourceVersion` as a number; `None` if it is unset.
    pub fn revision(&self) -> Result<Option<Revision>, Status> {
        revision(&self.resource_version)
    }

    /// What to list.
    pub fn list_query(&self) -> Result<ListQuery, Status> {
        let continuation = self.token.as_deref().map(Continuation::decode).transpose()?;
        if continuation.is_some() && !matches!(self.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let revision = self
            .revision()
            .map_err(|status| Status::bad_request(format!("invalid resource version: {}", status.message)))?;
        let freshness = match (revision, self.version_match.as_str()) {
            (None, _) => Freshness::Latest,
            (Some(0), _) => Freshness::Any,
            (Some(revision), EXACT) => Freshness::Exact(revision),
            // A chunked list at a revision is exact, as it always was ("legacy" behaviour of limit with resourceVersion).
            (Some(revision), "") if self.limit > 0 => Freshness::Exact(revision),
            (Some(revision), _) => Freshness::NotOlderThan(revision),
        };
        Ok(ListQuery { freshness, limit: self.limit, continuation })
    }
}

/// The freshness a get asks for.
pub fn get_freshness(query: &Query) -> Result<Freshness, Status> {
    Ok(match revision(query.get("resourceVersion").unwrap_or_default())? {
        None => Freshness::Latest,
        Some(0) => Freshness::Any,
        Some(revision) => Freshness::NotOlderThan(revision),
    })
}

/// A revision as `storage.APIObjectVersioner.ParseResourceVersion` reads it; its error has no class there.
fn revision(text: &str) -> Result<Option<Revision>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    // Go takes no sign here, Rust would.
    let parsed = if text.starts_with('+') { "".parse::<Revision>() } else { text.parse::<Revision>() };
    parsed.map(Some).map_err(|error| {
        let why = go_number_error("ParseUint", text, error.kind());
        let error = FieldError::invalid(&FieldPath::new("resourceVersion"), text, why);
        unclassified(error.to_string())
    })
}

/// An integer of a query (`apimachinery/pkg/runtime/converter.go` and the conversions of `url.Values`).
fn integer(text: &str) -> Result<i64, Status> {
    text.parse()
        .map_err(|error: std::num::ParseIntError| Status::bad_request(go_number_error("ParseInt", text, error.kind())))
}

/// A number that Go's `strconv` does not take, in its words.
fn go_number_error(function: &str, text: &str, kind: &IntErrorKind) -> String {
    let why = match kind {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), json!(values), &["All"]));
    }
    !values.is_empty()
}

fn manager_errors(manager: &str, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("fieldManager");
    if manager.len() > MAX_MANAGER_LENGTH {
        errors.push(FieldError::too_long(&path, MAX_MANAGER_LENGTH));
    }
    // Go's `unicode.IsPrint`, of what a header can hold: no control characters, no spaces but the ASCII one.
    let unprintable = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
    for (position, c) in manager.char_indices().filter(|(_, c)| unprintable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {position})", u32::from(c));
        errors.push(FieldError::invalid(&path, manager, why));
    }
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid_options(kind, errors)) }
}

/// A query parameter: its name, its type.
pub type Parameter = (&'static str, &'static str);

/// What connections are asked with, by the kind of their options.
pub const CONNECT_OPTIONS: &[(&str, &[Parameter])] = &[
    (
        "PodAttachOptions",
        &[
            ("container", "string"),
            ("stderr", "boolean"),
            ("stdin", "boolean"),
            ("stdout", "boolean"),
            ("tty", "boolean"),
        ],
    ),
    (
        "PodExecOptions",
        &[
            ("command", "string"),
            ("container", "string"),
            ("stderr", "boolean"),
            ("stdin", "boolean"),
            ("stdout", "boolean"),
            ("tty", "boolean"),
        ],
    ),
    ("PodPortForwardOptions", &[("ports", "integer")]),
    ("PodProxyOptions", &[("path", "string")]),
    ("ServiceProxyOptions", &[("path", "string")]),
    ("NodeProxyOptions", &[("path", "string")]),
];
/// The query of a connection as the object that it is in Kubernetes, for admission to look at.
pub fn connect_options(kind: &GroupVersionKind, query: &Query) -> Value {
    let mut object = json!({ "kind": kind.kind, "apiVersion": kind.api_version() });
    let known = CONNECT_OPTIONS.iter().find(|(options, _)| *options == kind.kind);
    for (name, ty) in known.into_iter().flat_map(|(_, parameters)| parameters.iter()) {
        let Some(first) = query.get(name) else { continue };
        match (*name, *ty) {
            ("command", _) => object[*name] = query.all(name).collect(),
            ("ports", _) => object[*name] = query.all(name).filter_map(|port| port.parse::<i32>().ok()).collect(),
            // As Go reads it; what is false is not written.
            (_, "boolean") if first != "0" && !first.eq_ignore_ascii_case("false") => object[*name] = json!(true),
            (_, "boolean") => {}
            _ if first.is_empty() => {}
            _ => object[*name] = json!(first),
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str, watch: bool) -> String {
        match ListOptions::parse(&Query::parse(query), watch).and_then(|options| options.list_query()) {
            Ok(query) => format!("{:?} limit {}", query.freshness, query.limit),
            Err(status) => format!("{} {}", status.code, status.message),
        }
    }

    #[test]
    fn a_connection_is_an_object_for_admission() {
        let kind = GroupVersionKind::new("", "v1", "PodExecOptions");
        let query = Query::parse("command=sh&command=-c&stdin=true&tty=False&stdout=1&container=c&other=x");
        let expected = json!({
            "kind": "PodExecOptions", "apiVersion": "v1",
            "command": ["sh", "-c"], "container": "c", "stdin": true, "stdout": true,
        });
        assert_eq!(connect_options(&kind, &query), expected);
    }

    #[test]
    fn numbers_of_a_list_read_as_go_reads_them() {
        assert_eq!(list("limit=-1&timeoutSeconds=-1", false), "Latest limit 0");
        assert_eq!(list("limit=", false), r#"400 strconv.ParseInt: parsing "": invalid syntax"#);
        assert_eq!(
            list("limit=9999999999999999999", false),
            r#"400 strconv.ParseInt: parsing "9999999999999999999": value out of range"#
        );
        assert_eq!(
            list("resourceVersion=%2B1", false),
            r#"400 invalid resource version: resourceVersion: Invalid value: "+1": strconv.ParseUint: parsing "+1": invalid syntax"#
        );
        let got = get_freshness(&Query::parse("resourceVersion=abc")).unwrap_err();
        assert_eq!((got.code, got.reason), (400, minik8s_api::status::StatusReason::Unknown));
    }

    #[test]
    fn a_watch_from_now_on_begins_with_what_there_is() {
        let watch = |query| ListOptions::parse(&Query::parse(query), true);
        for query in ["watch=1", "watch=1&resourceVersion=0"] {
            assert_eq!(watch(query).unwrap().send_initial_events, Some(true), "{query}");
        }
        assert_eq!(watch("watch=1&resourceVersion=7").unwrap().send_initial_events, None);
        assert_eq!(watch("watch=1&continue=x").unwrap_err().code, 422);
    }

    #[test]
    fn a_delete_takes_its_preconditions_from_the_query_too() {
        let options = DeleteOptions::from_query(&Query::parse("uid=u&resourceVersion=3")).unwrap();
        assert_eq!((options.uid.as_deref(), options.resource_version.as_deref()), (Some("u"), Some("3")));
    }

    #[test]
    fn a_manager_is_printable() {
        let refused = WriteOptions::parse(&Query::parse("fieldManager=a%07"), Write::Create).unwrap_err();
        assert!(refused.message.ends_with("invalid character U+0007 (at position 1)"), "{}", refused.message);
    }
}
