//! The order of merged lists: items that the client knows of as the client orders them, the server's own between them where
//! they stood (apimachinery `strategicpatch`, `normalizeElementOrder`).

use serde_json::Value;

use super::PatchError;
use super::strategic::identity;

/// The items that `known` names, and the others.
pub(super) fn partition(
    items: Vec<Value>,
    known: &[Value],
    merge_key: Option<&str>,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut found = (Vec::new(), Vec::new());
    for item in items {
        let key = identity(&item, merge_key)?;
        let is_known = known.iter().any(|other| identity(other, merge_key).is_ok_and(|other| other == key));
        if is_known { found.0.push(item) } else { found.1.push(item) }
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
    let index = |order: &[Value], item: &Value| {
        let key = identity(item, merge_key).ok()?;
        order.iter().position(|other| identity(other, merge_key).is_ok_and(|other| other == key))
    };
    known.sort_by_key(|item| index(client_order, item).unwrap_or(usize::MAX));
    server_only.sort_by_key(|item| index(server_order, item).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(known.len() + server_only.len());
    let (mut known, mut server_only) = (known.into_iter().peekable(), server_only.into_iter().peekable());
    loop {
        let server_first = match (server_only.peek(), known.peek()) {
            (None, None) => return merged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(known)) => match (index(server_order, own), index(server_order, known)) {
                (Some(own), Some(known)) => own < known,
                _ => false,
            },
        };
        merged.extend(if server_first { server_only.next() } else { known.next() });
    }
}
