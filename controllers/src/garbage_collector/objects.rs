//! Asking the API itself about single objects, whatever their kind: the graph may be a moment behind, and nothing is
//! deleted on its word alone.

use std::collections::{BTreeSet, VecDeque};

use kube::client::Client;
use minik8s_client::{ObjectMetadata, is_not_found};
use parking_lot::Mutex;
use serde_json::Value;

/// How many owners that are known to be gone are remembered.
const ABSENT_OWNERS: usize = 500;

/// The metadata of the object at `path`, where there is one.
pub(super) async fn get(client: &Client, path: &str) -> Result<Option<ObjectMetadata>, kube::Error> {
    let request = http::Request::get(path)
        .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    match client.request(request).await {
        Err(error) if is_not_found(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Patches the metadata of the object at `path`. That it is gone is as good.
pub(super) async fn patch(client: &Client, path: &str, patch: &Value) -> Result<(), kube::Error> {
    let body = serde_json::to_vec(patch).map_err(kube::Error::SerdeError)?;
    let request = http::Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes the object at `path`. That it is gone is as good.
pub(super) async fn delete(client: &Client, path: &str, options: &Value) -> Result<(), kube::Error> {
    let body = serde_json::to_vec(options).map_err(kube::Error::SerdeError)?;
    let request = http::Request::delete(path)
        .header("content-type", "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

/// A UID and a namespace.
type Place = (String, String);

/// Owners that the API was found not to have: by UID, and by the namespace in which they were looked for.
#[derive(Default)]
pub(super) struct AbsentOwners {
    /// As a set, and in the order in which they came.
    known: Mutex<(BTreeSet<Place>, VecDeque<Place>)>,
}

impl AbsentOwners {
    pub(super) fn add(&self, uid: &str, namespace: &str) {
        let (known, order) = &mut *self.known.lock();
        let key = (uid.to_owned(), namespace.to_owned());
        if known.insert(key.clone()) {
            order.push_back(key);
        }
        if order.len() > ABSENT_OWNERS
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, uid: &str, namespace: &str) -> bool {
        self.known.lock().0.contains(&(uid.to_owned(), namespace.to_owned()))
    }
}
