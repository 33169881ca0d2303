//! Decoding for informers: each version of an object once in a process, whoever holds it.
//!
//! The scheduler, the controllers and the kubelets of one process watch the same pods, each under its own identity. A typed
//! pod takes several times the room of its JSON, so they share it: an [`ObjectPool`] knows the versions that somebody holds,
//! by UID and resource version, without holding them itself.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::informer::Watched;

/// Versions are spread over this many locks: the same one is decoded once, others at the same time.
const SHARDS: usize = 16;
/// Entries looked at whenever one is added, to forget what nobody holds any more: so many that the dead stay few.
const SWEPT_EACH: usize = 4;

/// The one time that a type cannot be without, and Go's zero of it.
const CONDITION_TIME: &str = "lastTransitionTime";
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A version of an object: resource version, type, UID.
type Version = (u64, TypeId, Box<str>);

#[derive(Default)]
struct Shard {
    held: BTreeMap<Version, Weak<dyn Any + Send + Sync>>,
    /// Where the next sweep goes on.
    swept: Option<Version>,
}

/// The objects that informers of one process hold. Clones are the same pool.
#[derive(Clone, Default)]
pub struct ObjectPool {
    shards: Arc<[Mutex<Shard>; SHARDS]>,
}

/// What is read of an object before it is decoded, in one pass without building anything.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow)]
    managed_fields: Option<&'a RawValue>,
}

impl ObjectPool {
    /// Decodes an object, or finds it decoded. It comes without managedFields: nobody who reads a cache asks who wrote
    /// which field, they are the larger part of many objects, and an update that leaves them out keeps what the API has.
    pub fn decode<K: Watched>(&self, json: &str) -> serde_json::Result<Arc<K>> {
        let head: Head<'_> = serde_json::from_str(json)?;
        let Ok(revision) = head.metadata.resource_version.parse::<u64>() else {
            return decode(json, &head).map(Arc::new);
        };
        let version: Version = (revision, TypeId::of::<K>(), Box::from(&*head.metadata.uid));
        let mut shard = self.shards[(revision % SHARDS as u64) as usize].lock();
        if let Some(held) = shard.held.get(&version).and_then(Weak::upgrade)
            && let Ok(object) = held.downcast::<K>()
        {
            return Ok(object);
        }
        // Decoding leaves each vector room for four elements, of which most hold one: half of what a pod takes. A clone has
        // no such room.
        let object = Arc::new(decode::<K>(json, &head)?.clone());
        let held: Arc<dyn Any + Send + Sync> = object.clone();
        shard.held.insert(version, Arc::downgrade(&held));
        shard.sweep();
        Ok(object)
    }

    /// How many versions are known, those not yet forgotten included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().held.len()).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    /// Goes round and round the entries, a few at a time, and forgets those that nobody holds.
    fn sweep(&mut self) {
        let from = self.swept.take().map_or(Bound::Unbounded, Bound::Excluded);
        let seen: Vec<(Version, bool)> = self
            .held
            .range((from, Bound::Unbounded))
            .take(SWEPT_EACH)
            .map(|(version, held)| (version.clone(), held.strong_count() > 0))
            .collect();
        for (version, alive) in &seen {
            if !alive {
                self.held.remove(version);
            }
        }
        // At the end it begins anew; else it would follow the newest entries, which are alive, and see no other.
        self.swept = seen.into_iter().nth(SWEPT_EACH - 1).map(|(version, _)| version);
    }
}

fn decode<K: Watched>(json: &str, head: &Head<'_>) -> serde_json::Result<K> {
    let Some(managed) = head.metadata.managed_fields.map(RawValue::get) else {
        return decode_as_go(json);
    };
    // The raw value borrows from `json`, so the distance of their starts is where it stands.
    let start = managed.as_ptr() as usize - json.as_ptr() as usize;
    decode_as_go(&[&json[..start], "null", &json[start + managed.len()..]].concat())
}

/// In Go null is the zero of any type, and is written where a time is not set.
fn decode_as_go<K: Watched>(json: &str) -> serde_json::Result<K> {
    serde_json::from_str(json).or_else(|error| {
        let mut value: Value = serde_json::from_str(json)?;
        replace_nulls(&mut value);
        serde_json::from_value(value).map_err(|_| error)
    })
}

fn replace_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(time) = fields.get_mut(CONDITION_TIME).filter(|time| time.is_null()) {
                *time = Value::from(ZERO_TIME);
            }
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(replace_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(replace_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};

    use super::*;

    fn config_map(uid: &str, revision: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"c","uid":"{uid}","managedFields":[{{"manager":"m","fieldsV1":{{"f:data":{{}}}}}}],"resourceVersion":"{revision}"}},"data":{{"k":"v"}}}}"#
        )
    }

    #[test]
    fn a_version_is_decoded_once_and_without_its_managers() {
        let pool = ObjectPool::default();
        let first: Arc<ConfigMap> = pool.decode(&config_map("a", "7")).unwrap();
        assert_eq!(first.data.as_ref().unwrap()["k"], "v");
        assert_eq!(first.metadata.managed_fields, None);
        assert!(Arc::ptr_eq(&first, &pool.decode(&config_map("a", "7")).unwrap()));
        assert!(!Arc::ptr_eq(&first, &pool.decode(&config_map("a", "8")).unwrap()), "another version");
        assert!(!Arc::ptr_eq(&first, &pool.decode(&config_map("b", "7")).unwrap()), "another object");
        let other: Arc<Pod> = pool.decode(&config_map("a", "7")).unwrap();
        assert_eq!(other.metadata.uid.as_deref(), Some("a"), "another type");
    }

    #[test]
    fn null_is_the_zero_of_any_type() {
        let pool = ObjectPool::default();
        let json = r#"{"metadata":{"name":"s","uid":"a","resourceVersion":"7"},"spec":{"ports":null},
            "status":{"conditions":[{"type":"T","status":"True","reason":"R","message":null,"lastTransitionTime":null}]}}"#;
        let service: Arc<Service> = pool.decode(json).unwrap();
        assert_eq!(service.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].reason, "R");
        assert!(pool.decode::<Service>(r#"{"metadata":{"name":"s"},"spec":{"ports":7}}"#).is_err());
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let pool = ObjectPool::default();
        let held: Arc<ConfigMap> = pool.decode(&config_map("held", "1")).unwrap();
        for revision in 2..10_000 {
            let _: Arc<ConfigMap> = pool.decode(&config_map("gone", &revision.to_string())).unwrap();
        }
        assert!(pool.len() < 200, "{} versions are known", pool.len());
        assert!(Arc::ptr_eq(&held, &pool.decode(&config_map("held", "1")).unwrap()));
    }

    #[test]
    fn an_object_without_a_version_is_decoded_each_time() {
        let pool = ObjectPool::default();
        let decode = || pool.decode::<ConfigMap>(r#"{"metadata":{"name":"c"}}"#).unwrap();
        assert!(!Arc::ptr_eq(&decode(), &decode()));
        assert!(pool.is_empty());
        assert!(pool.decode::<ConfigMap>("[]").is_err());
    }
}
