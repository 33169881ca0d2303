//! Update, and whatever else changes an object that is there: patches, subresources, the server's own read-modify-write.
//!
//! Each is a function from the present object to the wanted one, applied until the store accepts the result.
//! `k8s.io/apiserver/pkg/registry/generic/registry/store.go` `Update`, `pkg/registry/rest/update.go` `BeforeUpdate`.

use std::sync::Arc;

use minik8s_api::kinds::{GroupKind, Kind};
use minik8s_api::managed;
use minik8s_api::meta;
use minik8s_api::status::{FieldError, FieldPath, Status};
use minik8s_api::strategy::strategy_for;
use minik8s_store::{Revision, Txn};
use serde_json::Value;

use super::commit::Outcome;
use super::create::{check_namespace, to_store, with_strategy_context};
use super::owner_references::Found;
use super::versions::OtherVersions;
use super::{Context, Registry, Target, Written, hooks, owner_references};
use crate::admission::Operation;
use crate::cache::{Object, object};
use crate::options::WriteOptions;

/// How often one request fits its change to an object that others keep changing.
const MAX_CONFLICTS: usize = 100;

/// From the present object (in the served version; `None` if it is absent) to the wanted one. Called once an attempt.
pub type Change<'a> = dyn FnMut(Option<&Value>) -> Result<Value, Status> + Send + 'a;

/// Whether this write records who owns which field.
#[derive(Clone, Copy)]
pub enum Ownership<'a> {
    /// An ordinary write.
    Record,
    /// The change gives it.
    Given,
    /// The change records it itself (server-side apply), and says what it has to know of other versions.
    Recorded(&'a OtherVersions),
}

/// What one attempt came to.
enum Attempt {
    Done(Written),
    /// Somebody was faster; the object now.
    Again(Option<Arc<Object>>),
}

impl Registry {
    /// Replaces an object by a decoded, defaulted one in the served version.
    pub async fn update(
        &self,
        context: &Context,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut object = object;
        check_namespace(target, &mut object)?;
        check_name(target, &object)?;
        let create = strategy_for(&target.kind).allow_create_on_update() && target.subresource.is_empty();
        self.change(context, target, options, create, Ownership::Record, &mut |_| Ok(object.clone())).await
    }

    /// Reads, changes and writes an object in process, again if somebody was faster.
    pub async fn modify(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        change: &mut (dyn FnMut(&mut Value) -> Result<(), Status> + Send),
    ) -> Result<Written, Status> {
        let mut whole = |present: Option<&Value>| {
            let mut object = present.cloned().ok_or_else(|| target.not_found())?;
            change(&mut object)?;
            Ok(object)
        };
        self.change(context, target, options, false, Ownership::Record, &mut whole).await
    }

    /// Reads, changes and writes an object as it is stored, past admission, strategy and field owners: for subresources
    /// that are a rule of their own (binding, eviction). The answer is the revision, unless nothing was to be written.
    pub(super) async fn modify_stored(
        &self,
        target: &Target,
        dry_run: bool,
        change: &mut (dyn FnMut(&mut Value) -> Result<(), Status> + Send),
    ) -> Result<Option<Revision>, Status> {
        self.cache.wait_latest().await?;
        let mut present = self.cached(target)?;
        for _ in 0..MAX_CONFLICTS {
            let object = present.as_ref().ok_or_else(|| target.not_found())?;
            let mut new = object.value();
            change(&mut new)?;
            if dry_run {
                return Ok(None);
            }
            match self.put(target, Some(object.revision()), object::encode(object.kind(), &new)).await? {
                Outcome::Committed(revision) => return Ok(Some(revision)),
                Outcome::Conflict(current) => present = self.after_conflict(target, current)?,
            }
        }
        Err(Status::modified(&target.resource(), &target.name))
    }

    /// Applies a change until the store accepts it. `create`: what the change makes of nothing is created.
    pub(super) async fn change(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        create: bool,
        ownership: Ownership<'_>,
        change: &mut Change<'_>,
    ) -> Result<Written, Status> {
        let mut present = self.cached(target)?;
        let mut from_cache = true;
        for _ in 0..MAX_CONFLICTS {
            match self.attempt(context, target, options, create, ownership, present.as_ref(), change).await {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::Again(current)) => {
                    present = current;
                    from_cache = false;
                }
                // A refusal may rest on a state that is no longer: it counts only against the present one.
                Err(status) if from_cache => {
                    self.cache.wait_latest().await?;
                    let current = self.cached(target)?;
                    if current.as_ref().map(|object| object.revision())
                        == present.as_ref().map(|object| object.revision())
                    {
                        return Err(status);
                    }
                    present = current;
                    from_cache = false;
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(&target.resource(), &target.name))
    }

    /// What a change makes of the present object; again, as long as it finds that it has to know it in other versions.
    async fn changed(
        &self,
        ownership: Ownership<'_>,
        present: Option<&Value>,
        change: &mut Change<'_>,
    ) -> Result<Value, Status> {
        loop {
            let changed = change(present);
            match ownership {
                Ownership::Recorded(versions) if versions.fetch(&self.converter).await? => {}
                _ => return changed,
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one step of `change`, with all it knows
    async fn attempt(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        create: bool,
        ownership: Ownership<'_>,
        present: Option<&Arc<Object>>,
        change: &mut Change<'_>,
    ) -> Result<Attempt, Status> {
        let old = match present {
            Some(object) => Some(self.served(target, object).await?),
            None => None,
        };
        if old.is_none() && !create {
            return Err(target.not_found());
        }
        let mut new = self.changed(ownership, old.as_ref(), change).await?;
        check_namespace(target, &mut new)?;
        owner_references::name_once(context, &mut new, Found::Sent);
        let (Some(present), Some(old)) = (present, old) else {
            self.authorize_create(context, target)?;
            if matches!(ownership, Ownership::Record) {
                self.record_manager(context, target, None, &mut new, options).await;
            }
            let new = self.admit(context, target, Operation::Create, new, None, options).await?;
            return self.insert(context, target, new, options).await.map(Attempt::Done);
        };
        check_versions(target, present, &mut new)?;
        if matches!(ownership, Ownership::Record) {
            self.record_manager(context, target, Some(&old), &mut new, options).await;
        }
        let mut new = self.admit(context, target, Operation::Update, new, Some(&old), options).await?;
        check_versions(target, present, &mut new)?;

        let acting = self.acting_kind(target)?;
        let mut new = self.converter.one(&target.kind, &acting, new).await?;
        let old = if acting.gvk() == target.kind.gvk() { old } else { present.value() };
        let finish = match self.hook(&target.resource()) {
            Some(hook) if target.subresource.is_empty() => hook.begin_update(&mut new, &old, options.dry_run).await?,
            _ => hooks::nothing_to_finish(),
        };
        let result = self.replace(context, target, options, present, &old, new).await;
        finish(matches!(result, Ok(Attempt::Done(_))) && !options.dry_run).await;
        result
    }

    /// From an admitted object on: prepares, validates and stores it in place of `present`.
    async fn replace(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        present: &Arc<Object>,
        old: &Value,
        mut new: Value,
    ) -> Result<Attempt, Status> {
        let (storage, acting) = (self.storage_kind(target)?, self.acting_kind(target)?);
        self.prepare_update(context, target, &mut new, old)?;
        self.admit_final(context, target, Operation::Update, &mut new, Some(old), options).await?;

        let revision = present.revision();
        if delete_now(target, &new) {
            if options.dry_run {
                return self.done(target, &acting, new, None).await;
            }
            return match self.commit(Txn::delete(target.key(), revision)).await? {
                Outcome::Committed(_) => {
                    self.released(target, &new).await;
                    self.done(target, &acting, new, None).await
                }
                Outcome::Conflict(current) => Ok(Attempt::Again(self.after_conflict(target, current)?)),
            };
        }
        managed::ignore_timestamps(old, &mut new);
        let stored = to_store(self.converter.one(&acting, &storage, new.clone()).await?, &acting, &storage);
        let bytes = object::encode(&storage, &stored);
        // Writing what is there already changes nothing, not even the resourceVersion, unless it is to be encrypted anew.
        if bytes == *present.stored() && !self.is_stale(target).await? {
            return self.done(target, &acting, new, Some(Arc::clone(present))).await;
        }
        if options.dry_run {
            return self.done(target, &acting, new, None).await;
        }
        match self.put(target, Some(revision), bytes).await? {
            Outcome::Committed(revision) => self.written(target, stored, revision, false).await.map(Attempt::Done),
            Outcome::Conflict(current) => Ok(Attempt::Again(self.after_conflict(target, current)?)),
        }
    }

    /// An attempt that came to an end without a write, or with a deletion.
    async fn done(
        &self,
        target: &Target,
        acting: &Arc<Kind>,
        object: Value,
        stored: Option<Arc<Object>>,
    ) -> Result<Attempt, Status> {
        let object = self.converter.one(acting, &target.kind, object).await?;
        Ok(Attempt::Done(Written { object, stored, created: false }))
    }

    /// `rest.BeforeUpdate`: what an update may never change is put back, then the strategy has its say.
    fn prepare_update(&self, context: &Context, target: &Target, new: &mut Value, old: &Value) -> Result<(), Status> {
        let kind = self.acting_kind(target)?;
        let strategy = strategy_for(&kind);
        let (metadata, before) = (meta::metadata_mut(new), &old["metadata"]);
        keep(metadata, before, "generation");
        with_strategy_context(self, context, |context| strategy.prepare_for_update(context, target.door(), new, old));
        let metadata = meta::metadata_mut(new);
        if metadata.get("uid").and_then(Value::as_str).unwrap_or_default().is_empty() {
            keep(metadata, before, "uid");
        }
        keep(metadata, before, "creationTimestamp");
        if before.get("deletionTimestamp").is_some() {
            keep(metadata, before, "deletionTimestamp");
        }
        if metadata.get("deletionGracePeriodSeconds").is_none() {
            keep(metadata, before, "deletionGracePeriodSeconds");
        }
        let errors = strategy.validate_update(target.door(), new, old);
        if !errors.is_empty() {
            return Err(Status::invalid(&target.kind.group_kind(), &target.name, errors));
        }
        for warning in strategy.warnings(new, Some(old)) {
            context.warnings.add(warning);
        }
        strategy.canonicalize(new);
        Ok(())
    }

    /// The answer to a committed write of `object`, which is in the version that is stored.
    pub(super) async fn written(
        &self,
        target: &Target,
        mut object: Value,
        revision: u64,
        created: bool,
    ) -> Result<Written, Status> {
        let storage = self.storage_kind(target)?;
        object["metadata"]["resourceVersion"] = Value::from(revision.to_string());
        let stored =
            self.cached(target)?.filter(|stored| stored.revision() == revision && target.kind.is_storage_version());
        let object = self.converter.one(&storage, &target.kind, object).await?;
        Ok(Written { object, stored, created })
    }

    /// An object has left the store.
    pub(super) async fn released(&self, target: &Target, object: &Value) {
        if let Some(hook) = self.hook(&target.resource()) {
            hook.after_delete(object).await;
        }
    }
}

/// The name in a written object is that of the URL (`k8s.io/apiserver/pkg/endpoints/handlers/rest.go` `checkName`).
pub(super) fn check_name(target: &Target, object: &Value) -> Result<(), Status> {
    match meta::name(object) {
        name if name == target.name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        ))),
        name => Err(target.name_mismatch(name)),
    }
}

/// UID and resourceVersion in a write are conditions.
fn check_versions(target: &Target, present: &Object, new: &mut Value) -> Result<(), Status> {
    let resource = target.resource();
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != present.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", present.uid());
        return Err(target.storage_error(&why));
    }
    let revision = present.revision().to_string();
    match meta::resource_version(new) {
        "" | "0" => {
            if !strategy_for(&target.kind).allow_unconditional_update() {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, Value::from(0), "must be specified for an update");
                // The resource stands where the kind does elsewhere (`registry/rest`, `store.Update`).
                let resource = GroupKind::new(&target.kind.group, &target.kind.plural);
                return Err(Status::invalid(&resource, &target.name, vec![error]));
            }
            meta::metadata_mut(new).insert("resourceVersion".into(), Value::from(revision));
            Ok(())
        }
        asked if asked == revision => Ok(()),
        asked if asked.parse::<u64>().is_err() => {
            let path = FieldPath::new("metadata").child("resourceVersion");
            let why = format!("strconv.ParseUint: parsing {asked:?}: invalid syntax");
            let error = FieldError::invalid(&path, Value::from(asked), why);
            Err(Status::invalid(&target.kind.group_kind(), &target.name, vec![error]))
        }
        _ => Err(Status::modified(&resource, &target.name)),
    }
}

/// Puts back a field of metadata.
fn keep(metadata: &mut serde_json::Map<String, Value>, before: &Value, field: &str) {
    match before.get(field) {
        Some(value) => metadata.insert(field.to_owned(), value.clone()),
        None => metadata.remove(field),
    };
}

/// An update that takes the last finalizer of an object that waits for that deletes it
/// (`ShouldDeleteDuringUpdate`; for namespaces `ShouldDeleteNamespaceDuringUpdate`).
fn delete_now(target: &Target, new: &Value) -> bool {
    let metadata = &new["metadata"];
    let waits = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if metadata.get("deletionTimestamp").is_none() || waits(&metadata["finalizers"]) {
        return false;
    }
    if target.kind.group.is_empty() && target.kind.plural == "namespaces" {
        return !waits(&new["spec"]["finalizers"]);
    }
    metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
}
