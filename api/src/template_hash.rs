//! The hashes that controllers put into names: `pod-template-hash` of ReplicaSets, `controller-revision-hash` of DaemonSets
//! and StatefulSets. They are exactly those that Kubernetes computes, so that a Deployment brought here with its
//! ReplicaSets from another cluster keeps them.
//!
//! ```text
//!   template ──GoText──► (v1.PodTemplateSpec){ObjectMeta:(v1.ObjectMeta){Name:(string) …  ──FNV-1a──► 2304…  ──► 5b8b574799
//!     JSON      ▲
//!               └── data/go-types.tsv: the Go structs, their fields in order, the names of their types
//! ```
//!
//! Kubernetes hashes what go-spew prints of the Go struct (`pkg/controller/controller_utils.go` `ComputeHash`, `k8s.io/utils/dump`
//! `ForHash`), private fields of `time.Time` and `resource.Quantity` included. So the hash depends on every field that the
//! types have, on the names of their types, and on how a quantity was read: a Kubernetes version with one more field
//! gives other hashes, and so does another version of the table.
//!
//! The struct is the one that a controller has: decoded from protobuf. There an empty list or map is not told from none,
//! times are in the local zone in whole seconds, and quantities were read from their canonical text.
//!
//! A template that sets one of its own times (`metadata.creationTimestamp`) hashes as in a controller manager whose zone is
//! UTC for want of a zone file; Kubernetes' own hash depends on the machine then.

mod go_quantity;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::time;

use go_quantity::GoQuantity;

/// Go's structs and named types under a PodTemplateSpec, as in `k8s.io/api` v0.37.
const GO_TYPES: &str = include_str!("../data/go-types.tsv");

/// In place of a field's name: the row says what a named type is made of.
const NAMED: &str = "-";
/// In place of a JSON name: the fields of the embedded struct stand beside the others.
const INLINE: &str = "-";

/// Kubernetes' `ComputeHash`: the value of `pod-template-hash`, and of `controller-revision-hash` of a DaemonSet.
///
/// `template` is a PodTemplateSpec as the API gives it, with its defaults; `collisions` the `collisionCount` of the status.
pub fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new().with_1a(go_text(template).as_bytes());
    if let Some(collisions) = collisions {
        // Go puts the four bytes into a buffer of eight.
        hash = hash.with_1a(&collisions.to_le_bytes()).with_1a(&[0; 4]);
    }
    hash.safe_encoded()
}

/// Kubernetes' `HashControllerRevision` (`pkg/controller/history/controller_history.go`): the hash in the name of a
/// ControllerRevision of a StatefulSet. `data` is the revision's data, byte for byte.
pub fn revision_hash(data: &[u8], collisions: Option<i32>) -> String {
    let mut hash = Fnv::new().with_1(data);
    if let Some(collisions) = collisions {
        hash = hash.with_1(collisions.to_string().as_bytes());
    }
    hash.safe_encoded()
}

/// FNV of 32 bits, in both orders of its two steps.
struct Fnv(u32);

impl Fnv {
    const PRIME: u32 = 0x0100_0193;

    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn with_1(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| hash.wrapping_mul(Self::PRIME) ^ u32::from(*byte)))
    }

    fn with_1a(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(Self::PRIME)))
    }

    /// The decimal number in letters that spell no words (apimachinery `pkg/util/rand` `SafeEncodeString`).
    fn safe_encoded(self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.0.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
    }
}

/// What Go knows of a type that has a name.
enum GoType {
    Struct(Vec<GoField>),
    /// Another name for this type.
    Named(&'static str),
}

struct GoField {
    name: &'static str,
    json: &'static str,
    go_type: &'static str,
}

static TYPES: LazyLock<BTreeMap<&'static str, GoType>> = LazyLock::new(|| {
    let mut types = BTreeMap::new();
    for row in GO_TYPES.lines().skip(1) {
        let mut cells = row.split('\t');
        let mut cell = || cells.next().expect("a row of go-types.tsv has four cells");
        let (owner, name, json, go_type) = (cell(), cell(), cell(), cell());
        if name == NAMED {
            types.insert(owner, GoType::Named(go_type));
            continue;
        }
        let entry = types.entry(owner).or_insert_with(|| GoType::Struct(Vec::new()));
        if let GoType::Struct(fields) = entry {
            fields.push(GoField { name, json, go_type });
        }
    }
    types
});

/// What go-spew prints for `%#v` of the template's Go struct.
fn go_text(template: &Value) -> String {
    let mut text = GoText(String::new());
    text.typed("v1.PodTemplateSpec", template);
    text.0
}

/// A text in the form of go-spew's `%#v` without methods, addresses and capacities: `(type)value`, where elements of lists
/// and maps leave out their type.
struct GoText(String);

impl GoText {
    fn push(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn typed(&mut self, go_type: &str, value: &Value) {
        self.push("(");
        self.push(go_type);
        self.push(")");
        self.content(go_type, value);
    }

    /// A value of that type, `null` for a field that is not set.
    fn content(&mut self, go_type: &str, value: &Value) {
        if let Some(pointee) = go_type.strip_prefix('*') {
            match value {
                Value::Null => self.push("<nil>"),
                value => self.content(pointee, value),
            }
        } else if let Some(element) = go_type.strip_prefix("[]") {
            self.list(element, value);
        } else if let Some((_, element)) = go_type.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            self.map(element, value);
        } else {
            self.single(go_type, value);
        }
    }

    fn list(&mut self, element: &str, value: &Value) {
        let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
            return self.push("<nil>");
        };
        self.push("[");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.push(" ");
            }
            self.content(element, item);
        }
        self.push("]");
    }

    fn map(&mut self, element: &str, value: &Value) {
        let Some(entries) = value.as_object().filter(|entries| !entries.is_empty()) else {
            return self.push("<nil>");
        };
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.as_str());
        self.push("map[");
        for (at, (key, item)) in entries.into_iter().enumerate() {
            if at > 0 {
                self.push(" ");
            }
            self.push(key);
            self.push(":");
            self.content(element, item);
        }
        self.push("]");
    }

    fn single(&mut self, go_type: &str, value: &Value) {
        match go_type {
            "string" => self.scalar("", value),
            "bool" => self.scalar("false", value),
            "int32" | "int64" => self.scalar("0", value),
            "resource.Quantity" => self.quantity(value),
            "intstr.IntOrString" => self.int_or_string(value),
            "v1.Time" => self.time(value),
            "v1.FieldsV1" => self.fields_v1(value),
            _ => match TYPES.get(go_type).expect("go-types.tsv has every type that it names") {
                GoType::Named(underlying) => self.content(underlying, value),
                GoType::Struct(fields) => self.fields(fields, value),
            },
        }
    }

    fn fields(&mut self, fields: &[GoField], value: &Value) {
        self.push("{");
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                self.push(" ");
            }
            self.push(field.name);
            self.push(":");
            let inner = if field.json == INLINE { value } else { value.get(field.json).unwrap_or(&Value::Null) };
            self.typed(field.go_type, inner);
        }
        self.push("}");
    }

    /// Strings are not quoted. A value of a wrong type, which decoding lets none through, still tells templates apart.
    fn scalar(&mut self, zero: &str, value: &Value) {
        match value {
            Value::Null => self.push(zero),
            Value::String(text) => self.push(text),
            other => self.push(&other.to_string()),
        }
    }

    /// A quantity that is not set was written as `0` by the API server, as it is no pointer in protobuf.
    fn quantity(&mut self, value: &Value) {
        let quantity = match value {
            Value::Null => Ok(Quantity::ZERO),
            value => Quantity::from_value(value),
        };
        match quantity {
            Ok(quantity) => self.push(&GoQuantity::read(&quantity.to_string()).to_string()),
            Err(_) => self.scalar("", value),
        }
    }

    fn int_or_string(&mut self, value: &Value) {
        self.push("{Type:(intstr.Type)");
        let (int, string) = match value {
            Value::String(_) => (&Value::Null, value),
            value => (value, &Value::Null),
        };
        self.push(if string.is_null() { "0" } else { "1" });
        self.push(" IntVal:(int32)");
        self.scalar("0", int);
        self.push(" StrVal:(string)");
        self.scalar("", string);
        self.push("}");
    }

    fn time(&mut self, value: &Value) {
        /// Seconds from the year 1, where Go's times begin, to 1970.
        const UNIX_EPOCH: i64 = 62_135_596_800;
        const UTC: &str = "{name:(string)UTC zone:([]time.zone)<nil> tx:([]time.zoneTrans)<nil> extend:(string) \
                           cacheStart:(int64)0 cacheEnd:(int64)0 cacheZone:(*time.zone)<nil>}";
        let set = value.as_str().and_then(|text| time::parse(text).ok());
        let seconds = set.map_or(0, |time| time.as_second() + UNIX_EPOCH);
        let zone = if set.is_some() { UTC } else { "<nil>" };
        let _ =
            write!(self.0, "{{Time:(time.Time){{wall:(uint64)0 ext:(int64){seconds} loc:(*time.Location){zone}}}}}");
    }

    fn fields_v1(&mut self, value: &Value) {
        let bytes: Vec<String> = value.to_string().bytes().map(|byte| byte.to_string()).collect();
        let _ = write!(self.0, "{{Raw:([]uint8)[{}]}}", bytes.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Templates and their hashes as Kubernetes' own packages compute them (`k8s.io/api` v0.37, by way of protobuf).
    const VECTORS: &str = include_str!("../tests/template_hash/vectors.jsonl");

    #[test]
    fn hashes_are_those_of_kubernetes() {
        let mut wrong = Vec::new();
        for line in VECTORS.lines() {
            let vector: Value = serde_json::from_str(line).unwrap();
            let collisions = vector.get("collisions").map(|count| count.as_i64().unwrap() as i32);
            let hash = template_hash(&vector["template"], collisions);
            if hash != vector["hash"] {
                wrong.push(format!(
                    "{}: {hash} instead of {}\n{}",
                    vector["name"],
                    vector["hash"],
                    go_text(&vector["template"])
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_type_that_the_table_names_is_known() {
        for go_type in TYPES.keys() {
            GoText(String::new()).typed(go_type, &Value::Null);
        }
    }

    #[test]
    fn revisions_hash_their_bytes() {
        let data = br#"{"spec":{"template":{"$patch":"replace"}}}"#;
        assert_eq!(revision_hash(data, None), "5c7586484");
        assert_eq!(revision_hash(data, Some(0)), "589f85db5b");
        assert_eq!(revision_hash(data, Some(12)), "7f56c4fd77");
    }
}
