//! Get and list, from the cache wherever it can answer, from the store's history otherwise.
//!
//! `k8s.io/apiserver/pkg/storage/cacher/cacher.go` `GetList`, `pkg/storage/etcd3/store.go` `GetList`.

use std::sync::Arc;

use minik8s_api::kinds::Kind;
use minik8s_api::status::Status;
use minik8s_store::{Error as StoreError, Range, Revision};

use super::continuation::Continuation;
use super::{Registry, Target, keys};
use crate::cache::{Object, ResourceCache, Selection};
use crate::errors::store_status;

/// Keys read from the store's history at once while a selection filters them.
const HISTORY_PAGE: usize = 1_000;

/// Which state a read wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Everything acknowledged before the request (`resourceVersion` unset).
    #[default]
    Latest,
    /// Whatever the cache has (`resourceVersion=0`).
    Any,
    /// At least this revision.
    NotOlderThan(Revision),
    /// Exactly this revision.
    Exact(Revision),
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Which state.
    pub freshness: Freshness,
    /// At most so many objects; 0 for all.
    pub limit: usize,
    /// Where a chunked list goes on.
    pub continuation: Option<Continuation>,
}

/// A list, or a chunk of one.
#[derive(Debug)]
pub struct Listing {
    /// Ordered by namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// The revision whose state this is.
    pub revision: Revision,
    /// The token of the next chunk.
    pub next: Option<String>,
    /// How many objects follow, if it is known.
    pub remaining: Option<u64>,
}

impl Registry {
    /// One object.
    pub async fn get(&self, target: &Target, freshness: Freshness) -> Result<Arc<Object>, Status> {
        self.wait(freshness).await?;
        self.cached(target)?.ok_or_else(|| target.not_found())
    }

    /// Waits until the cache is as fresh as a read wants it.
    pub async fn wait(&self, freshness: Freshness) -> Result<(), Status> {
        match freshness {
            Freshness::Latest => self.cache.wait_latest().await.map(|_| ()),
            Freshness::Any => Ok(()),
            Freshness::NotOlderThan(revision) => self.cache.wait_applied(revision).await,
            // A state that has not happened yet is not waited for (etcd refuses it at once).
            Freshness::Exact(revision) => match self.cache.wait_latest().await? {
                latest if revision > latest => Err(Status::too_large_resource_version(revision, latest)),
                _ => Ok(()),
            },
        }
    }

    /// The objects of a kind that a selection means.
    pub async fn list(&self, kind: &Kind, selection: &Selection, query: &ListQuery) -> Result<Listing, Status> {
        let cache = self.cache.resource(kind).ok_or_else(Status::unknown_resource)?;
        let found = match &query.continuation {
            Some(continuation) => self.found_after(&cache, selection, continuation).await?,
            None => {
                self.wait(query.freshness).await?;
                match query.freshness {
                    Freshness::Exact(revision) => self.found_at(&cache, selection, revision, None).await?,
                    _ => self.found_now(&cache, selection),
                }
            }
        };
        // A list that takes any state is answered whole, as Kubernetes' cache does.
        let whole = query.continuation.is_none() && query.freshness == Freshness::Any;
        let limit = if whole { 0 } else { query.limit };
        if selection.served_fields.is_everything() {
            return Ok(chunk(cache.kind(), selection, limit, found, |_, object| selection.matches(object)));
        }
        let meant = self.meant_as_served(kind, selection, &found.objects).await?;
        Ok(chunk(cache.kind(), selection, limit, found, |at, _| meant[at]))
    }

    /// Which of the objects a selection means by fields of the version asked for.
    pub(super) async fn meant_as_served(
        &self,
        kind: &Kind,
        selection: &Selection,
        objects: &[Arc<Object>],
    ) -> Result<Vec<bool>, Status> {
        let mut meant: Vec<bool> = objects.iter().map(|object| selection.matches(object)).collect();
        let asked = objects.iter().zip(&meant).filter(|(_, meant)| **meant);
        let asked = asked.map(|(object, _)| (Arc::clone(object.kind()), object.value())).collect();
        let mut served = self.converter.all(asked, kind).await?.into_iter();
        for meant in meant.iter_mut().filter(|meant| **meant) {
            *meant = served.next().is_some_and(|object| selection.matches_served(kind, &object));
        }
        Ok(meant)
    }

    async fn found_after(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        continuation: &Continuation,
    ) -> Result<Found, Status> {
        let start = format!("{}{}", keys::prefix(cache.kind(), &selection.namespace), continuation.start);
        self.cache.wait_applied(continuation.revision).await?;
        let found = self.found_at(cache, selection, continuation.revision, Some(&start)).await;
        found.map_err(|status| if status.code == 410 { expired_continuation() } else { status })
    }

    /// The present state.
    fn found_now(&self, cache: &Arc<ResourceCache>, selection: &Selection) -> Found {
        // Read before the objects: they are complete up to here, and exact from their last change on.
        let applied = self.cache.applied();
        let snapshot = cache.candidates(selection, None);
        Found { revision: applied.max(snapshot.changed), objects: snapshot.objects }
    }

    /// The state at a revision: the cache's, if nothing has changed since, or the store's.
    async fn found_at(
        &self,
        cache: &Arc<ResourceCache>,
        selection: &Selection,
        revision: Revision,
        start: Option<&str>,
    ) -> Result<Found, Status> {
        let snapshot = cache.candidates(selection, start);
        if snapshot.changed <= revision {
            return Ok(Found { revision, objects: snapshot.objects });
        }
        let mut objects = Vec::new();
        let mut from = start.map(str::to_owned);
        loop {
            let mut range =
                Range::prefix(keys::prefix(cache.kind(), &selection.namespace)).at(revision).limit(HISTORY_PAGE);
            range.from = from.take();
            let page = self.store.range(range).await.map_err(|error| match error {
                StoreError::Compacted { .. } => {
                    Status::expired("The resourceVersion for the provided list is too old.")
                }
                StoreError::FutureRevision { requested, current } => {
                    Status::too_large_resource_version(requested, current)
                }
                other => store_status(other),
            })?;
            for kv in &page.key_values {
                let object = cache.read(kv).map_err(Status::internal_error)?;
                objects.push(Arc::new(object));
            }
            match page.key_values.last() {
                Some(last) if page.more => from = Some(format!("{}\0", last.key)),
                _ => break,
            }
        }
        Ok(Found { revision, objects })
    }
}

/// The objects among which are those that a list means, and the state of the store that they are of.
struct Found {
    revision: Revision,
    objects: Vec<Arc<Object>>,
}

/// Cuts a list after `limit` objects that are meant.
fn chunk(
    kind: &Kind,
    selection: &Selection,
    limit: usize,
    found: Found,
    is_meant: impl Fn(usize, &Object) -> bool,
) -> Listing {
    let Found { revision, objects } = found;
    let total = objects.len();
    let all = selection.is_everything();
    let mut taken = Vec::with_capacity(if limit == 0 { total } else { limit.min(total) });
    let mut rest = objects.into_iter().enumerate().filter(|(at, object)| is_meant(*at, object));
    let mut cut = None;
    for (at, object) in rest.by_ref() {
        taken.push(object);
        if limit > 0 && taken.len() == limit {
            cut = Some(at + 1);
            break;
        }
    }
    // There is a next chunk if there is a next object, whatever its labels (the selection is applied while reading).
    let next = cut.filter(|cut| *cut < total).and_then(|_| {
        let last = taken.last()?;
        let prefix = keys::prefix(kind, &selection.namespace);
        let start = format!("{}\0", last.key().strip_prefix(prefix.as_str())?);
        Some(Continuation { revision, start }.encode())
    });
    let remaining = match (&next, cut) {
        (Some(_), Some(cut)) if all => Some((total - cut) as u64),
        _ => None,
    };
    Listing { objects: taken, revision, next, remaining }
}

/// The 410 of a chunked list whose revision is gone: the client starts over.
fn expired_continuation() -> Status {
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list without \
         the continue parameter.",
    )
}
