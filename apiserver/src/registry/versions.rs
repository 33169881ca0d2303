//! What the tracking of field owners has to know of an object in other versions.
//!
//! It asks while it computes, and cannot wait; a webhook can only be waited for. So it computes with what is known, what it
//! missed is fetched, and it computes again: what it asks for follows from the object alone, so the second pass finds all
//! that the first one asked for. (Kubernetes: `util/managedfields/internal/versionconverter.go`.)

use std::collections::VecDeque;
use std::sync::Arc;

use minik8s_api::kinds::{Kind, Kinds, split_api_version};
use minik8s_api::managed::Versions;
use minik8s_api::schema::Type;
use minik8s_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::Target;
use crate::crd::Converter;
use crate::crd::conversion::by_webhook;

/// How many passes a computation may take: each asks for objects that the one before it made.
const MAX_PASSES: usize = 4;

/// Objects of one target in other versions, as far as they are known.
pub struct OtherVersions {
    kind: Arc<Kind>,
    kinds: Arc<Kinds>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    passes: usize,
    known: Vec<Known>,
    missing: VecDeque<(Arc<Kind>, Value)>,
}

struct Known {
    version: String,
    object: Value,
    converted: Value,
}

impl OtherVersions {
    /// Nothing known yet.
    pub fn of(target: &Target, kinds: Arc<Kinds>) -> OtherVersions {
        OtherVersions { kind: Arc::clone(&target.kind), kinds, state: Mutex::default() }
    }

    /// Whether versions differ in more than their names.
    pub fn differ(&self) -> bool {
        by_webhook(&self.kind).is_some()
    }

    /// Fetches what was missed; whether there was anything.
    pub async fn fetch(&self, converter: &Converter) -> Result<bool, Status> {
        let missing = {
            let mut state = self.state.lock();
            state.passes += 1;
            std::mem::take(&mut state.missing)
        };
        if missing.is_empty() {
            return Ok(false);
        }
        if self.state.lock().passes > MAX_PASSES {
            return Err(Status::internal_error("the owners of fields cannot be told in all versions"));
        }
        for (row, object) in missing {
            let converted = converter.one(&self.kind, &row, object.clone()).await?;
            self.state.lock().known.push(Known { version: row.api_version(), object, converted });
        }
        Ok(true)
    }
}

impl Versions for OtherVersions {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Type, Value)> {
        let (group, version) = split_api_version(api_version);
        let row = self.kinds.by_kind(group, version, &self.kind.kind)?;
        let mut state = self.state.lock();
        let known = state.known.iter().find(|known| known.version == api_version && known.object == *object);
        let known = known.map(|known| known.converted.clone());
        let converted = known.unwrap_or_else(|| {
            state.missing.push_back((Arc::clone(row), object.clone()));
            object.clone()
        });
        Some((row.ty(), converted))
    }
}
