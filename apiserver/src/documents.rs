//! Documents computed from a snapshot of kinds: made when they are first asked for, kept until the kinds change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use minik8s_api::kinds::Kinds;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha512};

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

/// The documents of the present snapshot.
#[derive(Default)]
pub struct Documents {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    kinds: Option<Arc<Kinds>>,
    documents: BTreeMap<String, Document>,
}

impl Documents {
    /// A JSON document by its key. What `make` has nothing for is not remembered: keys come from clients, without end.
    pub fn get(&self, kinds: &Arc<Kinds>, key: &str, make: impl FnOnce() -> Option<Value>) -> Option<Document> {
        self.get_encoded(kinds, key, || Some(Bytes::from(make()?.to_string())))
    }

    /// The same for a document in another encoding.
    pub fn get_encoded(&self, kinds: &Arc<Kinds>, key: &str, make: impl FnOnce() -> Option<Bytes>) -> Option<Document> {
        let mut made = self.made.lock();
        if !made.kinds.as_ref().is_some_and(|own| Arc::ptr_eq(own, kinds)) {
            *made = Made { kinds: Some(Arc::clone(kinds)), documents: BTreeMap::new() };
        }
        if let Some(document) = made.documents.get(key) {
            return Some(document.clone());
        }
        let document = Document::new(make()?);
        made.documents.insert(key.to_owned(), document.clone());
        Some(document)
    }
}
