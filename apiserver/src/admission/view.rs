//! A write as webhooks and policies see it: in the version that their rules name, as an `AdmissionRequest`.

use std::sync::Arc;

use minik8s_api::decode::{Expected, FieldValidation, Format, decode};
use minik8s_api::kinds::{GroupVersionKind, Kind, Kinds, split_api_version};
use minik8s_api::status::Status;
use minik8s_api::strategy::strategy_for;
use serde_json::{Value, json};

use super::Attributes;
use crate::crd::Converter;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The resource, in the version asked for.
    pub row: Arc<Kind>,
    /// `Null` where there is none.
    pub object: Value,
    /// `Null` where there is none.
    pub old_object: Value,
}

/// The row that a write came in by.
pub(super) fn row_of(write: &Attributes<'_>, kinds: &Kinds) -> Option<Arc<Kind>> {
    kinds.by_resource(write.group, write.version, write.resource).cloned()
}

/// The kind of the objects of a resource, or of one of its subresources.
fn kind_of(row: &Kind, write: &Attributes<'_>) -> GroupVersionKind {
    row.subresource(write.subresource).map_or_else(|| row.gvk(), |part| part.kind.clone())
}

impl View {
    /// A write in the version of `row`.
    pub(super) async fn new(
        write: &Attributes<'_>,
        kinds: &Kinds,
        converter: &Converter,
        row: Arc<Kind>,
    ) -> Result<View, Status> {
        let (mut object, mut old_object) = (Value::Null, Value::Null);
        for (place, from) in [(&mut object, write.object.as_ref()), (&mut old_object, write.old_object)] {
            if let Some(from) = from {
                let shown = shown(write, kinds, converter, &row, from).await;
                // As Kubernetes: whoever is to be asked cannot be.
                *place = shown.map_err(|status| Status::internal_error(status.message))?;
            }
        }
        Ok(View { object, old_object, row })
    }

    /// What is asked, as `admission.k8s.io/v1` puts it, without UID and objects.
    pub(super) fn request(&self, write: &Attributes<'_>, kinds: &Kinds) -> Value {
        let kind = |gvk: &GroupVersionKind| json!({ "group": gvk.group, "version": gvk.version, "kind": gvk.kind });
        let resource = |row: &Kind| json!({ "group": row.group, "version": row.version, "resource": row.plural });
        let asked = row_of(write, kinds).unwrap_or_else(|| Arc::clone(&self.row));
        let mut request = json!({
            "kind": kind(&kind_of(&self.row, write)),
            "resource": resource(&self.row),
            "requestKind": kind(&kind_of(&asked, write)),
            "requestResource": resource(&asked),
            "operation": write.operation.as_str(),
            "userInfo": write.user.to_value(),
            "dryRun": write.dry_run,
            "options": write.options,
        });
        // A namespace is in itself, as in Kubernetes.
        let is_namespace = write.group.is_empty() && write.resource == "namespaces";
        let namespace = if is_namespace { write.name } else { write.namespace };
        let texts = [
            ("subResource", write.subresource),
            ("requestSubResource", write.subresource),
            ("name", write.name),
            ("namespace", namespace),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            request[field] = json!(text);
        }
        request
    }

    /// Takes a changed object: checks it against its type and sets defaults.
    pub(super) fn accept(&mut self, write: &Attributes<'_>, changed: &Value) -> Result<(), String> {
        let kind = kind_of(&self.row, write);
        let own = kind == self.row.gvk();
        let expected = if own { Some(Expected::kind(&self.row)) } else { Expected::built_in(kind) };
        let expected = expected.ok_or("objects of this subresource cannot be changed")?;
        let bytes = changed.to_string();
        let decoded = decode(bytes.as_bytes(), Format::Json, &expected, FieldValidation::Ignore);
        let mut object = decoded.map_err(|error| error.to_string())?.object;
        if own {
            strategy_for(&self.row).set_defaults(&mut object);
        }
        self.object = object;
        Ok(())
    }

    /// The object in the version of the write.
    pub(super) async fn written(
        &self,
        write: &Attributes<'_>,
        kinds: &Kinds,
        converter: &Converter,
    ) -> Result<Value, Status> {
        let object = self.object.clone();
        if write.subresource == "scale" {
            let mut scaled = write.object.clone().unwrap_or_default();
            let replicas = object["spec"]["replicas"].as_i64().unwrap_or_default();
            strategy_for(&self.row).set_scale(&mut scaled, replicas);
            return Ok(scaled);
        }
        match row_of(write, kinds).filter(|_| kind_of(&self.row, write) == self.row.gvk()) {
            Some(asked) => converter.one(&self.row, &asked, object).await,
            None => Ok(object),
        }
    }
}

/// An object in the version of `row`, or the Scale of it.
async fn shown(
    write: &Attributes<'_>,
    kinds: &Kinds,
    converter: &Converter,
    row: &Kind,
    object: &Value,
) -> Result<Value, Status> {
    let (group, version) = split_api_version(object["apiVersion"].as_str().unwrap_or_default());
    let present = kinds.by_kind(group, version, object["kind"].as_str().unwrap_or_default());
    let object = match present {
        Some(present) => converter.one(present, row, object.clone()).await?,
        None => object.clone(),
    };
    if write.subresource == "scale"
        && let Some(scale) = strategy_for(row).scale(&object)
    {
        return Ok(scale);
    }
    Ok(object)
}
