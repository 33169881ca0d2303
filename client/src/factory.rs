//! Who shares an informer: within one component, all who ask for the same kind with the same selectors get the same one.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::informer::{Informer, ListOptions, ObjectMetadata, Watched};

type Synced = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Informers of the same type on the same collection with the same selectors are one.
type Key = (TypeId, String, ListOptions);

struct Entry {
    informer: Box<dyn Any + Send>,
    start: Box<dyn Fn(CancellationToken) + Send>,
    synced: Box<dyn Fn() -> Synced + Send>,
}

/// The informers of one component. Clones share them.
#[derive(Clone)]
pub struct InformerFactory {
    client: Client,
    cancel: CancellationToken,
    /// In the order in which they were asked for: they are started in that order, every time.
    entries: Arc<Mutex<Vec<(Key, Entry)>>>,
}

impl InformerFactory {
    /// A factory whose informers end with `cancel`.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, entries: Arc::default() }
    }

    /// The client that the informers use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer on all objects of a kind.
    pub fn informer<K>(&self) -> Informer<K>
    where
        K: Watched + kube::Resource<DynamicType = ()>,
    {
        self.informer_with(ListOptions::default())
    }

    /// The informer on those objects of a kind that the selectors admit.
    pub fn informer_with<K>(&self, options: ListOptions) -> Informer<K>
    where
        K: Watched + kube::Resource<DynamicType = ()>,
    {
        let path = K::url_path(&(), None);
        self.shared(path.clone(), options.clone(), |client| Informer::new(client, path, options))
    }

    /// The informer on the metadata of all objects at `path` (`/apis/apps/v1/deployments`).
    pub fn metadata(&self, path: &str) -> Informer<ObjectMetadata> {
        self.shared(path.to_owned(), ListOptions::default(), |client| Informer::metadata(client, path))
    }

    fn shared<K: Watched>(
        &self,
        path: String,
        options: ListOptions,
        make: impl FnOnce(Client) -> Informer<K>,
    ) -> Informer<K> {
        let key = (TypeId::of::<K>(), path, options);
        let mut entries = self.entries.lock();
        let at = entries.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            let informer = make(self.client.clone());
            let (starting, waiting) = (informer.clone(), informer.clone());
            let entry = Entry {
                informer: Box::new(informer),
                start: Box::new(move |cancel| starting.start(cancel)),
                synced: Box::new(move || {
                    let informer = waiting.clone();
                    Box::pin(async move { informer.wait_synced().await })
                }),
            };
            entries.push((key, entry));
            entries.len() - 1
        });
        let entry = &entries[at].1;
        match entry.informer.downcast_ref::<Informer<K>>() {
            Some(informer) => informer.clone(),
            None => unreachable!("the type is part of the key"),
        }
    }

    /// Starts every informer asked for so far; those that run already go on.
    pub fn start(&self) {
        for (_, entry) in self.entries.lock().iter() {
            (entry.start)(self.cancel.clone());
        }
    }

    /// Waits until every informer asked for so far holds its first list.
    pub async fn wait_synced(&self) {
        let waits: Vec<Synced> = self.entries.lock().iter().map(|(_, entry)| (entry.synced)()).collect();
        join_all(waits).await;
    }
}
