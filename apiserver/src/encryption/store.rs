//! A store whose values are encrypted, to those who use it a store like any other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use minik8s_clock::Random;
use minik8s_store::{
    Error, KeyValue, LeaseId, Operation, Range, RangeResponse, Result, Revision, Snapshot, Store, StoreStatus,
    Translate, Txn, TxnResponse, Watch,
};

use super::Configuration;

/// Encrypts what is written to a store, and decrypts what is read from it.
pub struct EncryptedStore {
    store: Arc<dyn Store>,
    configuration: Configuration,
    random: Random,
}

impl EncryptedStore {
    /// A layer over a store. Nonces come from `random`.
    pub fn new(store: Arc<dyn Store>, configuration: Configuration, random: Random) -> Arc<EncryptedStore> {
        Arc::new(EncryptedStore { store, configuration, random })
    }

    fn encrypted(&self, key: &str, value: &Bytes) -> Bytes {
        let providers = self.configuration.providers(key);
        let encrypted = providers.and_then(|providers| providers.write(value, key, &self.random));
        encrypted.map_or_else(|| value.clone(), Bytes::from)
    }

    fn decrypted(&self, kv: KeyValue) -> Result<KeyValue> {
        Ok(read(&self.configuration, &kv)?.unwrap_or(kv))
    }

    fn decrypted_each(&self, kvs: Vec<Option<KeyValue>>) -> Result<Vec<Option<KeyValue>>> {
        kvs.into_iter().map(|kv| kv.map(|kv| self.decrypted(kv)).transpose()).collect()
    }
}

/// The plain form of what is stored; `None` where that is what it is.
fn read(configuration: &Configuration, kv: &KeyValue) -> Result<Option<KeyValue>> {
    // What a deletion leaves holds nothing.
    let Some(providers) = configuration.providers(&kv.key).filter(|_| !kv.value.is_empty()) else {
        return Ok(None);
    };
    let read = providers.read(&kv.value, &kv.key);
    let read = read.map_err(|why| Error::Unreadable { key: kv.key.to_string(), why })?;
    Ok(read.plain.map(|plain| KeyValue { value: plain.into(), ..kv.clone() }))
}

#[async_trait]
impl Store for EncryptedStore {
    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.store.get(key).await?.map(|kv| self.decrypted(kv)).transpose()
    }

    async fn range(&self, range: Range) -> Result<RangeResponse> {
        let mut page = self.store.range(range).await?;
        page.key_values = page.key_values.into_iter().map(|kv| self.decrypted(kv)).collect::<Result<_>>()?;
        Ok(page)
    }

    async fn commit(&self, mut txn: Txn) -> Result<TxnResponse> {
        for operation in &mut txn.operations {
            if let Operation::Put { key, value, .. } = operation {
                *value = self.encrypted(key, value);
            }
        }
        Ok(match self.store.commit(txn).await? {
            TxnResponse::Committed { revision, previous } => {
                TxnResponse::Committed { revision, previous: self.decrypted_each(previous)? }
            }
            TxnResponse::Conflict { revision, current } => {
                TxnResponse::Conflict { revision, current: self.decrypted_each(current)? }
            }
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let configuration = self.configuration.clone();
        let translate: Translate = Arc::new(move |kv| read(&configuration, kv));
        Ok(self.store.watch(prefix, after)?.translated(translate))
    }

    async fn is_stale(&self, key: &str) -> Result<bool> {
        let (Some(providers), Some(kv)) = (self.configuration.providers(key), self.store.get(key).await?) else {
            return Ok(false);
        };
        let read = providers.read(&kv.value, key).map_err(|why| Error::Unreadable { key: key.to_owned(), why })?;
        Ok(read.stale)
    }

    async fn read_index(&self) -> Result<Revision> {
        self.store.read_index().await
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.store.compact(at).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.store.grant_lease(ttl).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.store.revoke_lease(lease).await
    }

    /// As it is kept: encrypted.
    async fn snapshot(&self) -> Result<Snapshot> {
        self.store.snapshot().await
    }

    fn status(&self) -> StoreStatus {
        self.store.status()
    }

    async fn shutdown(&self) {
        self.store.shutdown().await;
    }
}
