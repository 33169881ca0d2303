//! Documents computed from a snapshot: made when they are first asked for, kept until the snapshot changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use minik8s_api::kinds::Kinds;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha512};

use crate::aggregator::Services;

/// A document and its entity tag.
#[derive(Debug, Clone)]
pub struct Document {
    /// JSON, unless whoever made it says otherwise.
    pub bytes: Bytes,
    /// For `If-None-Match`.
    pub etag: String,
}

impl Document {
    fn new(bytes: Bytes) -> Document {
        let hash: String = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Document { bytes, etag: format!("\"{hash}\"") }
    }
}

/// What documents are made of.
pub trait Snapshot: Clone {
    /// Whether documents made of `other` are good for this one.
    fn is_same(&self, other: &Self) -> bool;
}

/// This server's kinds.
impl Snapshot for Arc<Kinds> {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

/// This server's kinds, and what others serve.
#[derive(Clone)]
pub struct Surface {
    /// This server's kinds.
    pub kinds: Arc<Kinds>,
    /// Who serves what.
    pub services: Arc<Services>,
    /// Which of the others' documents: their generation.
    pub fetched: u64,
}

impl Surface {
    /// A server alone.
    pub fn of(kinds: Arc<Kinds>) -> Surface {
        Surface { kinds, services: Arc::default(), fetched: 0 }
    }
}

impl Snapshot for Surface {
    fn is_same(&self, other: &Self) -> bool {
        self.kinds.is_same(&other.kinds)
            && Arc::ptr_eq(&self.services, &other.services)
            && self.fetched == other.fetched
    }
}

/// The documents of the present snapshot.
pub struct Documents<S> {
    made: Mutex<Made<S>>,
}

struct Made<S> {
    of: Option<S>,
    documents: BTreeMap<String, Document>,
}

impl<S> Default for Documents<S> {
    fn default() -> Documents<S> {
        Documents { made: Mutex::new(Made { of: None, documents: BTreeMap::new() }) }
    }
}

impl<S: Snapshot> Documents<S> {
    /// A JSON document by its key. What `make` has nothing for is not remembered: keys come from clients, without end.
    pub fn get(&self, of: &S, key: &str, make: impl FnOnce() -> Option<Value>) -> Option<Document> {
        self.get_encoded(of, key, || Some(Bytes::from(make()?.to_string())))
    }

    /// The same for a document in another encoding.
    pub fn get_encoded(&self, of: &S, key: &str, make: impl FnOnce() -> Option<Bytes>) -> Option<Document> {
        let mut made = self.made.lock();
        if !made.of.as_ref().is_some_and(|own| own.is_same(of)) {
            *made = Made { of: Some(of.clone()), documents: BTreeMap::new() };
        }
        if let Some(document) = made.documents.get(key) {
            return Some(document.clone());
        }
        let document = Document::new(make()?);
        made.documents.insert(key.to_owned(), document.clone());
        Some(document)
    }
}
