//! Which objects of a resource a list or a watch means.

use minik8s_api::kinds::Kind;
use minik8s_api::selector::{FieldSelector, LabelSelector};
use minik8s_api::status::Status;
use minik8s_api::strategy::strategy_for;
use serde_json::Value;

use super::Object;
use crate::crd::conversion::by_webhook;

/// The field by which a resource's objects and watchers are indexed, besides namespace and name
/// (`pkg/registry/core/pod/strategy.go` `Indexers`, `NodeNameTriggerFunc`).
const INDEXED_FIELDS: [(&str, &str, &str); 1] = [("", "pods", "spec.nodeName")];

/// The indexed field of a kind, if it has one.
pub fn indexed_field(kind: &Kind) -> Option<&'static str> {
    INDEXED_FIELDS
        .iter()
        .find(|(group, plural, _)| *group == kind.group && *plural == kind.plural)
        .map(|(_, _, field)| *field)
}

/// Namespace, labels and fields of the objects that are meant.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Only this namespace; empty means all.
    pub namespace: String,
    /// Labels.
    pub labels: LabelSelector,
    /// Fields of the objects as they are stored.
    pub fields: FieldSelector,
    /// Fields of the objects in the version asked for, where that may be another than the stored one: a definition has fields to
    /// select by for each of its versions. [`Selection::matches`] leaves them open, see [`Selection::matches_served`].
    pub served_fields: FieldSelector,
    /// The name `fields` pins.
    pub name: Option<String>,
    /// The value of the indexed field that `fields` pins.
    pub indexed: Option<String>,
    /// Fields other than metadata.name, metadata.namespace and the indexed one have to be computed.
    needs_fields: bool,
}

/// The label of a core Event, as which it is stored, that a label of `events.k8s.io` means; core's own labels are none there
/// (`pkg/apis/events/v1/conversion.go`).
fn event_label(label: &str) -> Option<String> {
    match label {
        "reportingController" => Some("reportingComponent".to_owned()),
        "reason" | "type" | "metadata.name" | "metadata.namespace" => Some(label.to_owned()),
        _ => label.strip_prefix("regarding.").map(|field| format!("involvedObject.{field}")),
    }
}

impl Selection {
    /// Everything in a namespace (or everywhere, if it is empty).
    pub fn everything(namespace: &str) -> Selection {
        Selection {
            namespace: namespace.to_owned(),
            labels: LabelSelector::everything(),
            fields: FieldSelector::everything(),
            served_fields: FieldSelector::everything(),
            name: None,
            indexed: None,
            needs_fields: false,
        }
    }

    /// Parses selectors for a kind; a field that the kind cannot be selected by is refused.
    pub fn parse(kind: &Kind, namespace: &str, labels: &str, fields: &str) -> Result<Selection, Status> {
        let bad = |error: minik8s_api::selector::SelectorError| Status::bad_request(error.to_string());
        let mut selection = Selection::everything(namespace);
        if !labels.is_empty() {
            selection.labels = LabelSelector::parse(labels).map_err(bad)?;
        }
        if !fields.is_empty() {
            selection.fields = FieldSelector::parse(fields).map_err(bad)?;
            if kind.group == "events.k8s.io" {
                if let Some(field) = selection.fields.unsupported(|label| event_label(label).is_some()) {
                    return Err(Status::bad_request(format!("field label not supported: {field}")));
                }
                selection.fields = selection.fields.renamed(|label| event_label(label).unwrap_or_default());
            }
            selection.read_fields(kind)?;
        }
        Ok(selection)
    }

    fn read_fields(&mut self, kind: &Kind) -> Result<(), Status> {
        let supported = strategy_for(kind).field_labels();
        // A kind without labels of its own can be asked for a namespace even where it has none
        // (`apimachinery/pkg/runtime/conversion.go` `DefaultMetaV1FieldSelectorConversion`).
        let only_metadata = !kind.custom && supported.is_empty();
        let known = |field: &str| match field {
            "metadata.name" => true,
            "metadata.namespace" => kind.namespaced || only_metadata,
            _ => supported.contains(&field),
        };
        if let Some(field) = self.fields.unsupported(known) {
            return Err(Status::bad_request(match only_metadata {
                true => {
                    let known = "only \"metadata.name\", \"metadata.namespace\"";
                    format!("{field:?} is not a known field selector: {known}")
                }
                false => match (kind.group.as_str(), kind.kind.as_str()) {
                    ("batch", "Job") => format!("field label {field:?} not supported for Job"),
                    ("resource.k8s.io", "ResourceSlice") => {
                        format!(
                            "field label not supported for {}/{}, Kind=ResourceSlice: {field}",
                            kind.group, kind.version
                        )
                    }
                    _ => format!("field label not supported: {field}"),
                },
            }));
        }
        let index = indexed_field(kind);
        // A webhook's objects may be stored in an earlier version even where the stored one is asked for.
        if kind.custom && (!kind.is_storage_version() || by_webhook(kind).is_some()) {
            let of_metadata = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
            (self.fields, self.served_fields) = std::mem::take(&mut self.fields).split(of_metadata);
        }
        self.name = self.fields.exact_match("metadata.name").map(str::to_owned);
        self.indexed = index.and_then(|field| self.fields.exact_match(field)).map(str::to_owned);
        // A namespace pinned by a field selector narrows a list across namespaces.
        if let (true, Some(namespace)) = (self.namespace.is_empty(), self.fields.exact_match("metadata.namespace")) {
            self.namespace = namespace.to_owned();
        }
        self.needs_fields = self.fields.terms().iter().any(|term| {
            !matches!(term.field.as_str(), "metadata.name" | "metadata.namespace") && Some(term.field.as_str()) != index
        });
        Ok(())
    }

    /// Whether nothing is left out, within the namespace.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.served_fields.is_everything()
    }

    /// Whether an object that [`Selection::matches`], now in the version asked for, is meant.
    pub fn matches_served(&self, kind: &Kind, object: &Value) -> bool {
        if self.served_fields.is_everything() {
            return true;
        }
        let fields = strategy_for(kind).selectable_fields(object);
        self.served_fields
            .matches(|field| fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str()))
    }

    /// Whether an object is meant, as far as what is stored tells.
    pub fn matches(&self, object: &Object) -> bool {
        if !self.namespace.is_empty() && self.namespace != object.namespace() {
            return false;
        }
        self.labels.matches(|key| object.label(key)) && (self.fields.is_everything() || self.fields_match(object))
    }

    fn fields_match(&self, object: &Object) -> bool {
        let computed = if self.needs_fields { object.fields() } else { &[] };
        let index = indexed_field(object.kind());
        self.fields.matches(|field| match field {
            "metadata.name" => Some(object.name()),
            "metadata.namespace" => Some(object.namespace()),
            _ if Some(field) == index => object.indexed(),
            _ => computed.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str()),
        })
    }
}
