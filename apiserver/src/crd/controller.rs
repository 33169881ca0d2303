//! Follows definitions: their names, their rows in the snapshot of kinds, their caches.
//!
//! `apiextensions-apiserver/pkg/apiserver/customresource_handler.go` with the controllers beside it, in one place.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use minik8s_api::custom::{self, Rows};
use minik8s_api::kinds::{GroupVersionResource, Kinds};
use minik8s_api::meta;
use minik8s_api::status::Status;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::names::{self, Taken};
use crate::cache::watch::{CacheWatch, From, Item};
use crate::cache::{Object, Selection};
use crate::options::WriteOptions;
use crate::registry::hooks::{Finish, Hook};
use crate::registry::{Context, Registry, Target};

/// How long until a definition is looked at again whose objects do not go, or whose status could not be written.
const RETRY: Duration = Duration::from_secs(5);

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// The definitions that are served.
pub struct Definitions {
    pub(super) registry: Arc<Registry>,
    /// By the definition's name. Held while one of them changes, so that names are given out one after the other.
    served: Mutex<BTreeMap<String, Served>>,
}

/// What of a definition is in the snapshot.
struct Served {
    /// Spec and names: what rows are made of.
    made_of: Value,
    /// Whether it ends: nothing is created any more.
    terminating: bool,
    rows: Rows,
}

impl Definitions {
    /// Follows all definitions until `shutdown`. Those that are there already are served when this returns.
    pub async fn start(
        registry: Arc<Registry>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Arc<Definitions>, Status> {
        let definitions = Arc::new(Definitions { registry, served: Mutex::default() });
        for name in definitions.names()? {
            definitions.sync(&name).await?;
        }
        let kind = definitions.target("")?.kind;
        definitions.registry.set_hook(kind.group_resource(), Arc::new(DefinitionHook(Arc::downgrade(&definitions))));
        tasks.spawn(Arc::clone(&definitions).follow(shutdown));
        Ok(definitions)
    }

    pub(super) fn target(&self, name: &str) -> Result<Target, Status> {
        self.registry.target(GROUP, "v1", PLURAL, "", name)
    }

    fn all(&self) -> Result<Vec<Arc<Object>>, Status> {
        let kind = self.target("")?.kind;
        let cache = self.registry.cache().resource(&kind).ok_or_else(Status::unknown_resource)?;
        Ok(cache.candidates(&Selection::everything(""), None).objects)
    }

    fn names(&self) -> Result<Vec<String>, Status> {
        Ok(self.all()?.iter().map(|object| object.name().to_owned()).collect())
    }

    async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let again = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                again = self.watch() => again,
            };
            if let Err(status) = again {
                tracing::error!(message = status.message, "custom resource definitions cannot be followed");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.registry.clock().sleep(RETRY) => {}
            }
        }
    }

    /// One watch, from the present state to its end.
    async fn watch(&self) -> Result<(), Status> {
        let (kind, cache) = (self.target("")?.kind, self.registry.cache());
        let cache_of = cache.resource(&kind).ok_or_else(Status::unknown_resource)?;
        let watch = CacheWatch::start(&cache_of, Selection::everything(""), From::Now, cache.applied());
        let mut watch = watch.map_err(|_| Status::internal_error("a watch from now on cannot expire"))?;
        let known: Vec<String> = self.served.lock().await.keys().cloned().collect();
        for name in known {
            self.follow_one(&name).await;
        }
        let mut open = Vec::new();
        loop {
            let name = tokio::select! {
                biased;
                item = watch.next() => match item {
                    None => return Ok(()),
                    Some(Item::Initial(object)) => object.name().to_owned(),
                    Some(Item::Event(event_type, event)) => event.shown(event_type).name().to_owned(),
                    Some(Item::Synced(_)) => continue,
                },
                () = self.registry.clock().sleep(RETRY), if !open.is_empty() => open.remove(0),
            };
            if !self.follow_one(&name).await && !open.contains(&name) {
                open.push(name);
            }
        }
    }

    /// Whether there is nothing left to do about a definition.
    async fn follow_one(&self, name: &str) -> bool {
        match self.sync(name).await {
            Ok(done) => done,
            Err(status) => {
                tracing::warn!(name, message = status.message, "a custom resource definition is not served yet");
                false
            }
        }
    }

    /// Makes of a definition what its present state says. `false` where objects of it still have to go.
    pub async fn sync(&self, name: &str) -> Result<bool, Status> {
        let mut served = self.served.lock().await;
        let target = self.target(name)?;
        if self.registry.cached(&target)?.is_none() {
            self.withdraw(&mut served, name).await;
            // A name has become free.
            for other in self.names()? {
                self.settle(&mut served, &other).await?;
            }
            return Ok(true);
        }
        let definition = self.settle(&mut served, name).await?;
        if definition["metadata"].get("deletionTimestamp").is_none() {
            return Ok(true);
        }
        let done = self.clean_up(&definition, served.get(name).map(|served| &served.rows)).await?;
        if done {
            self.withdraw(&mut served, name).await;
        }
        Ok(done)
    }

    /// Names, conditions, rows; the definition as it stands then.
    async fn settle(&self, served: &mut BTreeMap<String, Served>, name: &str) -> Result<Value, Status> {
        let target = self.target(name)?.subresource("status");
        let Some(object) = self.registry.cached(&target)? else { return Ok(Value::Null) };
        let mut definition = object.value();
        let mut taken = Taken::default();
        for other in self.all()? {
            if other.name() != name {
                let other = other.value();
                if other["spec"]["group"] == definition["spec"]["group"] {
                    taken.add(&other);
                }
            }
        }
        let now = self.registry.now();
        let before = definition.clone();
        names::settle(&mut definition, &taken, &now);
        if definition != before && before["metadata"].get("deletionTimestamp").is_none() {
            let mut change = |present: &mut Value| {
                names::settle(present, &taken, &now);
                Ok(())
            };
            let written =
                self.registry.modify(&Context::internal(), &target, &WriteOptions::default(), &mut change).await?;
            definition = written.object;
        } else {
            definition = before;
        }
        if names::is_true(&definition, "Established") {
            self.serve(served, &definition).await?;
        }
        Ok(definition)
    }

    /// Puts a definition's rows into the snapshot, unless they are there.
    async fn serve(&self, served: &mut BTreeMap<String, Served>, definition: &Value) -> Result<(), Status> {
        let name = meta::name(definition);
        let made_of = serde_json::json!([definition["spec"], definition["status"]["acceptedNames"]]);
        let terminating = names::is_true(definition, "Terminating");
        let same = served.get(name).filter(|served| served.made_of == made_of);
        if same.is_some_and(|served| served.terminating == terminating) {
            return Ok(());
        }
        let Some(rows) = custom::rows(definition) else {
            return Err(Status::internal_error(format!("{name}: the definition has no storage version or no names")));
        };
        let cache = self.registry.cache();
        // Watches go on to the end of the last object.
        if same.is_none() {
            cache.add_resource(&rows.storage, &rows.others).await.map_err(Status::internal_error)?;
        }
        let before = served.get(name).map(|served| &served.rows);
        cache.set_kinds(|kinds| with_rows(&without_rows(kinds, before), &rows));
        tracing::info!(name, "a custom resource is served");
        served.insert(name.to_owned(), Served { made_of, terminating, rows });
        Ok(())
    }

    /// Takes a definition's rows out of the snapshot, then its cache away.
    async fn withdraw(&self, served: &mut BTreeMap<String, Served>, name: &str) {
        let Some(gone) = served.remove(name) else { return };
        let cache = self.registry.cache();
        cache.set_kinds(|kinds| without_rows(kinds, Some(&gone.rows)));
        cache.remove_resource(&gone.rows.storage.group_resource()).await;
        tracing::info!(name, "a custom resource is no longer served");
    }
}

fn with_rows(kinds: &Arc<Kinds>, rows: &Rows) -> Arc<Kinds> {
    rows.served.iter().fold(Arc::clone(kinds), |kinds, row| kinds.with(Arc::clone(row)))
}

fn without_rows(kinds: &Arc<Kinds>, rows: Option<&Rows>) -> Arc<Kinds> {
    let gone: Vec<GroupVersionResource> = rows.into_iter().flat_map(|rows| &rows.served).map(|row| row.gvr()).collect();
    gone.iter().fold(Arc::clone(kinds), |kinds, row| kinds.without(row))
}

/// Lets the writer of a definition wait until this server serves it.
pub struct DefinitionHook(Weak<Definitions>);

impl DefinitionHook {
    fn finish(&self, object: &Value) -> Finish {
        let (definitions, name) = (self.0.clone(), meta::name(object).to_owned());
        Box::new(move |committed| {
            Box::pin(async move {
                // Should it fail, the watch tries again.
                if let (true, Some(definitions)) = (committed, definitions.upgrade()) {
                    definitions.follow_one(&name).await;
                }
            })
        })
    }
}

#[async_trait]
impl Hook for DefinitionHook {
    async fn begin_create(&self, object: &mut Value, _: bool) -> Result<Finish, Status> {
        Ok(self.finish(object))
    }

    async fn begin_update(&self, new: &mut Value, _: &Value, _: bool) -> Result<Finish, Status> {
        Ok(self.finish(new))
    }

    /// A definition leaves through [`Definitions::sync`], which takes its rows away itself.
    async fn after_delete(&self, _: &Value) {}
}
