//! The entries of `metadata.managedFields`: who owns which fields, by which verb, since when
//! (apimachinery `util/managedfields/internal/managedfields.go`).

use serde_json::{Map, Value};

use super::field_set::FieldSet;

/// The most entries of [`Operation::Update`] that an object keeps; the oldest are merged into one.
pub const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that the oldest updates are merged into.
const ANCIENT_CHANGES: &str = "ancient-changes";
/// The manager of a write that names none.
const UNKNOWN: &str = "unknown";
/// The longest name of a manager, in bytes (apimachinery `FieldManagerMaxLength`).
const MAX_NAME_BYTES: usize = 128;

/// By which verb a manager wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Server-side apply: the manager says which fields it wants.
    Apply,
    /// Any other write: the manager owns what it changed.
    Update,
}

/// Who an entry speaks for. An applier stays the same when it applies in another version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// The name the client gave.
    pub name: String,
    /// The verb.
    pub operation: Operation,
    /// The version in which the fields are named; not part of the identity of an applier.
    pub api_version: String,
    /// The subresource that was written through, or empty.
    pub subresource: String,
}

/// One entry of `metadata.managedFields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When it last changed, in RFC 3339; empty where unknown.
    pub time: String,
    /// What.
    pub(super) fields: Fields,
}

/// The set of an entry, parsed only when a write needs to know what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fields {
    /// In canonical form.
    Raw(Value),
    Parsed(FieldSet),
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        let name = if name.is_empty() { UNKNOWN } else { name };
        Manager {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// Whether both name the same manager (`BuildManagerIdentifier`).
    pub fn is_same(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// The name of a writer: the field manager it gave, else what its `User-Agent` says before the first slash, as in
/// `kubectl/v1.37.1 (linux/amd64) …` (apiserver `managerOrUserAgent`).
pub fn manager_or_user_agent(manager: &str, user_agent: &str) -> String {
    if !manager.is_empty() {
        return manager.to_owned();
    }
    let mut name = String::new();
    let program = user_agent.split('/').next().unwrap_or_default();
    for c in program.chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        name.push(c);
    }
    name
}

/// Why `metadata.managedFields` cannot be read, in apimachinery's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EntryError(String);

impl Entry {
    /// The fields.
    ///
    /// # Errors
    /// When the entry holds no field set.
    pub fn fields(&self) -> Result<FieldSet, EntryError> {
        match &self.fields {
            Fields::Parsed(set) => Ok(set.clone()),
            Fields::Raw(value) => FieldSet::from_value(value).map_err(|error| EntryError(error.to_string())),
        }
    }

    /// Whether a field of the entry may be in the set; what is not parsed yet need not be for the answer "no".
    pub(super) fn may_share(&self, fields: &FieldSet) -> bool {
        match &self.fields {
            Fields::Raw(raw) => fields.overlaps(raw),
            Fields::Parsed(_) => true,
        }
    }

    /// The entry that an element of `metadata.managedFields` is.
    fn read(entry: &Value, index: usize) -> Result<Entry, EntryError> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => {
                return Err(EntryError("operation must be `Apply` or `Update`".to_owned()));
            }
        };
        if text("apiVersion").is_empty() {
            return Err(EntryError("apiVersion must not be empty".to_owned()));
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => {
                return Err(EntryError(format!("missing fieldsType in managed fields entry {index}")));
            }
            other => {
                return Err(EntryError(format!("invalid fieldsType {other:?} in managed fields entry {index}")));
            }
        }
        let fields = entry.get("fieldsV1").filter(|fields| !fields.is_null());
        Ok(Entry {
            manager: Manager {
                name: text("manager").to_owned(),
                operation,
                api_version: text("apiVersion").to_owned(),
                subresource: text("subresource").to_owned(),
            },
            time: text("time").to_owned(),
            fields: Fields::Raw(fields.cloned().unwrap_or_else(|| Value::Object(Map::new()))),
        })
    }

    fn into_value(self) -> Value {
        let Entry { manager, time, fields } = self;
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
        put("operation", Value::from(if manager.operation == Operation::Apply { "Apply" } else { "Update" }));
        put("apiVersion", manager.api_version.into());
        put("fieldsType", Value::from("FieldsV1"));
        put(
            "fieldsV1",
            match fields {
                Fields::Raw(value) => value,
                Fields::Parsed(set) => set.to_value(),
            },
        );
        for (key, text) in [("manager", manager.name), ("time", time), ("subresource", manager.subresource)] {
            if !text.is_empty() {
                put(key, text.into());
            }
        }
        Value::Object(entry)
    }
}

/// The entries of a `metadata.managedFields` list.
///
/// # Errors
/// When an entry is not valid.
pub fn read(list: Option<&Value>) -> Result<Vec<Entry>, EntryError> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.enumerate().map(|(i, entry)| Entry::read(entry, i)).collect()
}

/// The same, every set parsed: for lists that a client wrote, whose sets need not be in canonical form.
pub(super) fn read_parsed(list: Option<&Value>) -> Result<Vec<Entry>, EntryError> {
    let mut entries = read(list)?;
    for entry in &mut entries {
        entry.fields = Fields::Parsed(entry.fields()?);
    }
    Ok(entries)
}

/// The `metadata.managedFields` list of these entries, in Kubernetes' order: appliers first, then by time, then by name.
pub(super) fn write(mut entries: Vec<Entry>) -> Option<Value> {
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| {
            let Manager { name, operation, api_version, subresource } = entry.manager.clone();
            (operation, entry.time.clone(), name, api_version, subresource)
        };
        key(a).cmp(&key(b))
    });
    (!entries.is_empty()).then(|| entries.into_iter().map(Entry::into_value).collect())
}

/// Merges the oldest updates of a version into one entry until no more than [`MAX_UPDATE_MANAGERS`] are left
/// (`capmanagers.go`).
///
/// # Errors
/// When a set that has to be merged cannot be read.
pub(super) fn cap_update_managers(entries: &mut Vec<Entry>) -> Result<(), EntryError> {
    let is_update = |entry: &Entry| entry.manager.operation == Operation::Update;
    let mut updates = entries.iter().filter(|entry| is_update(entry)).count();
    if updates <= MAX_UPDATE_MANAGERS {
        return Ok(());
    }
    entries.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut at = 0;
    while updates > MAX_UPDATE_MANAGERS && at < entries.len() {
        let oldest = &entries[at];
        let same_version = |entry: &Entry| is_update(entry) && entry.manager.api_version == oldest.manager.api_version;
        let bucket = entries[..at].iter().position(same_version);
        match bucket {
            Some(bucket) if is_update(oldest) => {
                let fields = entries[bucket].fields()?.union(&oldest.fields()?);
                let time = entries.remove(at).time;
                let entry = &mut entries[bucket];
                entry.manager.name = ANCIENT_CHANGES.to_owned();
                entry.manager.subresource = String::new();
                entry.fields = Fields::Parsed(fields);
                entry.time = time;
                updates -= 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_writers() {
        for (manager, user_agent, expected) in [
            ("me", "kubectl/v1.37.1", "me"),
            ("", "kubectl/v1.37.1 (linux/amd64) kubernetes/abc", "kubectl"),
            ("", "curl", "curl"),
            ("", "a\u{7}b/c", "ab"),
            ("", "", ""),
        ] {
            assert_eq!(manager_or_user_agent(manager, user_agent), expected);
        }
        assert_eq!(manager_or_user_agent("", &"é".repeat(100)).len(), MAX_NAME_BYTES);
    }
}
