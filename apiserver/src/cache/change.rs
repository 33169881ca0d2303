//! Resources that come and go while the cache follows the store.

use std::sync::Arc;

use minik8s_api::kinds::{GroupResource, Kind, Kinds};
use minik8s_store::Range;

use super::{Cache, LOAD_PAGE, ResourceCache};
use crate::crd::conversion::by_webhook;

impl Cache {
    /// Holds the objects of a resource from now on, in the form of `kind`, its storage version: those that the store has
    /// already, and every change from there. Objects that were stored in another version, one of `others`, stay in it where
    /// a webhook converts. Replaces the cache of an older form, whose watches end.
    pub async fn add_resource(&self, kind: &Arc<Kind>, others: &[Arc<Kind>]) -> Result<(), String> {
        // No change is applied meanwhile, so that none falls between what is read and what is followed.
        let _turn = self.applying.lock().await;
        let others = if by_webhook(kind).is_some() { others.to_vec() } else { Vec::new() };
        let cache = Arc::new(ResourceCache::new(Arc::clone(kind), others));
        let (mut from, mut at, mut objects) = (None::<String>, None, Vec::new());
        let revision = loop {
            let mut range = Range::prefix(kind.storage_prefix()).limit(LOAD_PAGE);
            range.from = from.take();
            range.at = at;
            let page = self.store.range(range).await.map_err(|error| error.to_string())?;
            for kv in &page.key_values {
                objects.push(Arc::new(cache.read(kv)?));
            }
            match page.key_values.last() {
                Some(last) if page.more => (from, at) = (Some(format!("{}\0", last.key)), Some(page.revision)),
                _ => break page.revision,
            }
        };
        cache.reset(objects, revision);
        if let Some(before) = self.resources.write().insert(kind.group_resource(), cache) {
            before.close();
        }
        Ok(())
    }

    /// Forgets a resource; its watches end.
    pub async fn remove_resource(&self, resource: &GroupResource) {
        let _turn = self.applying.lock().await;
        if let Some(cache) = self.resources.write().remove(resource) {
            cache.close();
        }
    }

    /// Puts another snapshot of kinds in place. Requests that began keep theirs.
    pub fn set_kinds(&self, change: impl FnOnce(&Arc<Kinds>) -> Arc<Kinds>) {
        self.kinds.modify(|kinds| *kinds = change(kinds));
    }
}
