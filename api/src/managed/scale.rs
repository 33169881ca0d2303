//! The owners of an object's replicas, as its Scale shows them (apimachinery `util/managedfields/scalehandler.go`).

use serde_json::Value;

use super::entries::{self, Entry, EntryError, Fields, Manager};
use super::field_set::{FieldSet, PathElement};

/// The version that a Scale is written in.
const SCALE_VERSION: &str = "autoscaling/v1";

/// Carries `metadata.managedFields` between an object and its Scale.
#[derive(Debug, Clone)]
pub struct ScaleOwners<'a> {
    /// The group of the object's kind: entries in other groups are of a time that nobody knows.
    pub group: &'a str,
    /// The version that the object is written in, `apps/v1`.
    pub api_version: &'a str,
    /// The names of the fields that lead to the object's replicas.
    pub replicas: &'a [String],
}

impl ScaleOwners<'_> {
    /// The Scale's managed fields: those who own the object's replicas.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn of_scale(&self, object: Option<&Value>) -> Result<Option<Value>, EntryError> {
        let path = self.path();
        let mut owners = Vec::new();
        for entry in entries::read(object)? {
            if self.is_known(&entry) && entry.fields()?.contains(&path) {
                owners.push(as_owner(entry.manager, SCALE_VERSION, &in_scale(), entry.time));
            }
        }
        Ok(entries::write(owners))
    }

    /// The object's managed fields, after its Scale was written and has these.
    ///
    /// As in Kubernetes, who owned the replicas by an update owns them by an entry of its own afterwards, and updates through a Scale
    /// have no time: the manager is not the same when it names the Scale's version.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn of_object(&self, object: Option<&Value>, scale: Option<&Value>) -> Result<Option<Value>, EntryError> {
        let path = self.path();
        let (before, mut left) = (entries::read(object)?, entries::read(scale)?);
        let mut kept = Vec::new();
        for entry in before.iter().filter(|entry| self.is_known(entry)) {
            let fields = entry.fields()?;
            let still = left.iter().position(|scale| scale.manager.is_same(&entry.manager));
            match still {
                _ if !fields.contains(&path) => kept.push(entry.clone()),
                Some(at) => {
                    left.remove(at);
                    kept.push(entry.clone());
                }
                None => {
                    let rest = fields.difference(&FieldSet::of_path(&path));
                    if !rest.is_empty() {
                        kept.push(Entry { fields: Fields::Parsed(rest), ..entry.clone() });
                    }
                }
            }
        }
        for entry in left {
            if entry.fields()?.contains(&in_scale()) {
                let earlier = before.iter().find(|earlier| earlier.manager.is_same(&entry.manager));
                let time = earlier.map(|earlier| earlier.time.clone()).unwrap_or_default();
                kept.push(as_owner(entry.manager, self.api_version, &path, time));
            }
        }
        Ok(entries::write(kept))
    }

    fn path(&self) -> Vec<PathElement> {
        self.replicas.iter().map(|name| PathElement::field(name)).collect()
    }

    fn is_known(&self, entry: &Entry) -> bool {
        entry.manager.api_version.rsplit_once('/').map_or("", |(group, _)| group) == self.group
    }
}

/// Where a Scale has the replicas.
fn in_scale() -> [PathElement; 2] {
    ["spec", "replicas"].map(PathElement::field)
}

fn as_owner(manager: Manager, api_version: &str, path: &[PathElement], time: String) -> Entry {
    let manager = Manager { api_version: api_version.to_owned(), ..manager };
    Entry { manager, time, fields: Fields::Parsed(FieldSet::of_path(path)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::entries::Operation;
    use super::*;

    fn entry(operation: Operation, manager: &str, version: &str, subresource: &str, fields: Value) -> Value {
        let operation = if operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = json!({
            "manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields,
        });
        if subresource.is_empty() {
            entry["time"] = json!("2026-01-01T00:00:00Z");
        } else {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    #[test]
    fn who_owns_replicas_owns_them_in_the_scale_and_back() {
        let (replicas, both) =
            (json!({"f:spec": {"f:replicas": {}}}), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
        let paused = json!({"f:spec": {"f:paused": {}}});
        let path = ["spec".to_owned(), "replicas".to_owned()];
        let owners = ScaleOwners { group: "apps", api_version: "apps/v1", replicas: &path };
        let of = |list: &[Value]| Value::from(list.to_vec());
        use Operation::{Apply, Update};
        let object = of(&[
            entry(Apply, "helm", "apps/v1", "", both.clone()),
            entry(Update, "old", "extensions/v1beta1", "", both.clone()),
            entry(Update, "kubectl", "apps/v1", "", both.clone()),
        ]);
        let scale = owners.of_scale(Some(&object)).expect("read").expect("owners");
        let shown = |manager: &str, operation| entry(operation, manager, "autoscaling/v1", "", replicas.clone());
        assert_eq!(scale, of(&[shown("helm", Apply), shown("kubectl", Update)]));

        // Somebody else scaled: both have lost the replicas, and the one that nobody knows is dropped.
        let taken = of(&[entry(Update, "hpa", "autoscaling/v1", "scale", replicas.clone())]);
        assert_eq!(
            owners.of_object(Some(&object), Some(&taken)).expect("read").expect("owners"),
            of(&[
                entry(Apply, "helm", "apps/v1", "", paused.clone()),
                entry(Update, "hpa", "apps/v1", "scale", replicas.clone()),
                entry(Update, "kubectl", "apps/v1", "", paused),
            ])
        );
        // An applier that still owns them keeps its entry.
        let kept = owners.of_object(Some(&object), Some(&of(&[shown("helm", Apply)]))).expect("read").expect("owners");
        assert_eq!(kept[0], entry(Apply, "helm", "apps/v1", "", both));
    }
}
