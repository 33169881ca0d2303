//! The objects that a policy is evaluated with (`plugin/policy/generic/policy_dispatcher.go` `CollectParams`).

use std::sync::Arc;

use minik8s_api::kinds::split_api_version;
use minik8s_api::selector::LabelSelector;
use serde_json::Value;

use crate::cache::Objects;
use crate::crd::Converter;

/// The params that a binding refers to. None is an error or a reason not to evaluate, as `parameterNotFoundAction` says.
pub(super) async fn find(
    (api_version, kind): &(String, String),
    reference: &Value,
    namespace: &str,
    world: &dyn Objects,
    converter: &Converter,
) -> Result<Vec<Option<Value>>, String> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let kinds = world.kinds();
    let (group, version) = split_api_version(api_version);
    let row = kinds.by_kind(group, version, kind);
    let row = row.ok_or_else(|| format!("paramKind kind `{api_version}, Kind={kind}` not known"))?;
    let namespace = match (row.namespaced, text("namespace")) {
        (true, "") if namespace.is_empty() => {
            let words = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(words.to_owned());
        }
        (true, "") => namespace,
        (true, own) => own,
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
    };
    let selector = reference.get("selector").filter(|selector| !selector.is_null());
    // Objects are kept under the resource they are stored as.
    let stored = kinds.get(&row.storage.kind).unwrap_or(row);
    let resource = stored.group_resource();
    let found = match (text("name"), selector) {
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        ("", Some(_)) => {
            let selector = LabelSelector::from_value(selector).map_err(|error| error.to_string())?;
            let mut all = world.list(&resource, row.namespaced.then_some(namespace));
            all.retain(|object| selector.matches(|label| object.label(label)));
            all
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => world.get(&resource, namespace, name).into_iter().collect(),
    };
    let found = found.iter().map(|object| (Arc::clone(object.kind()), object.value())).collect();
    let params = converter.all(found, row).await.map_err(|status| status.message)?;
    if params.is_empty() && text("parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(params.into_iter().map(Some).collect())
}
