//! The order of merged lists: items that the client knows of as the client orders them, the server's own between them where
//! they stood (apimachinery `strategicpatch`, `normalizeElementOrder`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::PatchError;
use super::strategic::identity;

/// Where the items of a list stand, by what tells them from others; of equals, the first.
pub(super) struct Places<'a> {
    merge_key: Option<&'a str>,
    places: BTreeMap<String, usize>,
}

impl<'a> Places<'a> {
    /// The places in this list. Items that cannot be told from others have none.
    pub fn of(items: &[Value], merge_key: Option<&'a str>) -> Places<'a> {
        let mut places = Places { merge_key, places: BTreeMap::new() };
        for (place, item) in items.iter().enumerate() {
            places.add(item, place);
        }
        places
    }

    /// Where the item stands that is the same as this one.
    pub fn find(&self, item: &Value) -> Option<usize> {
        self.places.get(&identity(item, self.merge_key).ok()?.to_string()).copied()
    }

    /// Adds one item; whether it is the first of its sort.
    pub fn add(&mut self, item: &Value, place: usize) -> bool {
        let Ok(identity) = identity(item, self.merge_key) else { return false };
        match self.places.entry(identity.to_string()) {
            Entry::Vacant(entry) => {
                entry.insert(place);
                true
            }
            Entry::Occupied(_) => false,
        }
    }
}

/// The items that `known` names, and the others.
pub(super) fn partition(
    items: Vec<Value>,
    known: &[Value],
    merge_key: Option<&str>,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let places = Places::of(known, merge_key);
    let mut found = (Vec::new(), Vec::new());
    for item in items {
        identity(&item, merge_key)?;
        if places.find(&item).is_some() { found.0.push(item) } else { found.1.push(item) }
    }
    Ok(found)
}

/// The known items in the client's order, with the server's own, in the server's order, each before the first known item that
/// followed it on the server.
pub(super) fn in_element_order(
    mut known: Vec<Value>,
    mut server_only: Vec<Value>,
    client_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let (client, server) = (Places::of(client_order, merge_key), Places::of(server_order, merge_key));
    known.sort_by_cached_key(|item| client.find(item).unwrap_or(usize::MAX));
    server_only.sort_by_cached_key(|item| server.find(item).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(known.len() + server_only.len());
    let (mut known, mut server_only) = (known.into_iter().peekable(), server_only.into_iter().peekable());
    loop {
        let server_first = match (server_only.peek(), known.peek()) {
            (None, None) => return merged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(known)) => match (server.find(own), server.find(known)) {
                (Some(own), Some(known)) => own < known,
                _ => false,
            },
        };
        merged.extend(if server_first { server_only.next() } else { known.next() });
    }
}
