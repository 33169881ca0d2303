//! Delete and deletecollection: at once, after a grace period, or once finalizers are gone.
//!
//! `k8s.io/apiserver/pkg/registry/generic/registry/store.go` `Delete`, `updateForGracefulDeletionAndFinalizers`,
//! `pkg/registry/rest/delete.go` `BeforeDelete`; namespaces as in `pkg/registry/core/namespace/storage/storage.go`.

use std::sync::Arc;
use std::time::Duration;

use minik8s_api::kinds::{GroupResource, Kind};
use minik8s_api::meta;
use minik8s_api::status::{FieldError, FieldPath, Status};
use minik8s_api::strategy::{GarbageCollectionPolicy, scheduling, strategy_for};
use minik8s_api::time;
use minik8s_store::Txn;
use serde_json::{Map, Value};

use super::commit::Outcome;
use super::read::{ListQuery, Listing};
use super::{Context, Registry, Target};
use crate::admission::{Attributes, Operation};
use crate::cache::{Object, Selection, object};
use crate::crd;
use crate::options::{DeleteOptions, IGNORE_READ_ERRORS, Propagation};

/// How often one delete fits itself to an object that others keep changing.
const MAX_CONFLICTS: usize = 100;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Resources whose deletion answers with the object rather than a Status (`ReturnDeletedObject` of their stores).
const RETURN_DELETED: [(&str, &str); 16] = [
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// What is said to those who delete a Job and not what becomes of its pods (`pkg/registry/batch/job/storage/storage.go`).
const JOBS_LEAVE_PODS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
     remove them or set propagationPolicy=Orphan to suppress this warning";

fn is_job(kind: &Kind) -> bool {
    kind.group == "batch" && kind.plural == "jobs"
}

/// Whether the deletion of such an object answers with it.
pub fn returns_deleted(kind: &Kind) -> bool {
    RETURN_DELETED.contains(&(kind.group.as_str(), kind.plural.as_str()))
}

/// What a delete came to.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The object's last state: in the served version, or for the server itself in the stored one.
    pub object: Value,
    /// Whether it is gone, rather than marked.
    pub gone: bool,
    /// Whether the answer is the object; a Status otherwise.
    pub answer_object: bool,
}

/// What is to become of an object.
enum Fate {
    /// It goes now, and this is what it is at its end.
    Remove(Value),
    /// It is marked, and goes later.
    Mark(Value),
    /// It is marked already.
    Wait,
}

/// What one attempt came to; the error is the object as somebody else changed it meanwhile.
type Attempt = Result<Deleted, Option<Arc<Object>>>;

impl Registry {
    /// The answer to a delete. An object that is not gone is shown as it is now. The server itself takes it as it is stored.
    async fn deleted(
        &self,
        context: &Context,
        target: &Target,
        present: &Object,
        object: Value,
        gone: bool,
    ) -> Result<Deleted, Status> {
        let returned = returns_deleted(&target.kind);
        let object = match context.internal {
            true => object,
            false => self.converter.one(present.kind(), &target.kind, object).await?,
        };
        Ok(Deleted { object, gone, answer_object: returned || !gone })
    }

    /// Deletes one object.
    pub async fn delete(&self, context: &Context, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.delete_as(context, target, options, &target.name).await
    }

    /// Deletes one object; admission is told of it by the name that the request has for it.
    async fn delete_as(
        &self,
        context: &Context,
        target: &Target,
        options: &DeleteOptions,
        asked: &str,
    ) -> Result<Deleted, Status> {
        if is_job(&target.kind) && options.propagation.is_none() {
            context.warnings.add(JOBS_LEAVE_PODS);
        }
        let is_class = target.kind.group == "scheduling.k8s.io" && target.kind.plural == "priorityclasses";
        if is_class && scheduling::is_system_class(&target.name) {
            let why = "this is a system priority class and cannot be deleted";
            return Err(Status::forbidden(&target.resource(), &target.name, why));
        }
        let mut present = self.cached(target)?;
        let mut from_cache = true;
        for _ in 0..MAX_CONFLICTS {
            let attempt = match &present {
                Some(object) => self.delete_attempt(context, target, options, object, asked).await,
                None => Err(target.not_found()),
            };
            match attempt {
                Ok(Ok(deleted)) => return Ok(deleted),
                Ok(Err(current)) => present = current,
                Err(status) if from_cache => {
                    self.cache.wait_latest().await?;
                    let current = self.cached(target)?;
                    if current.as_ref().map(|object| object.revision())
                        == present.as_ref().map(|object| object.revision())
                    {
                        return Err(status);
                    }
                    present = current;
                }
                Err(status) => return Err(status),
            }
            from_cache = false;
        }
        Err(Status::modified(&target.resource(), &target.name))
    }

    /// Deletes the objects of a collection, or of a chunk of it, that a selection means; answers with them as they were listed.
    pub async fn delete_collection(
        &self,
        context: &Context,
        target: &Target,
        selection: &Selection,
        query: &ListQuery,
        options: &DeleteOptions,
    ) -> Result<(Listing, Vec<Value>), Status> {
        if options.ignores_read_errors {
            let why = "is not allowed with DELETECOLLECTION, try again after removing the option";
            let error = FieldError::invalid(&FieldPath::new(IGNORE_READ_ERRORS), true, why);
            return Err(Status::invalid_options("DeleteOptions", vec![error]));
        }
        let listing = self.list(&target.kind, selection, query).await?;
        let mut deleted = Vec::new();
        for object in &listing.objects {
            let one = Target::new(Arc::clone(&target.kind), object.namespace(), object.name());
            let listed = self.served(target, object).await?;
            // Who asks for a collection names none of its objects.
            match self.delete_as(context, &one, options, "").await {
                Ok(_) => deleted.push(listed),
                // Somebody else deleted it meanwhile, which is what was wanted.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok((listing, deleted))
    }

    /// One attempt.
    async fn delete_attempt(
        &self,
        context: &Context,
        target: &Target,
        options: &DeleteOptions,
        present: &Arc<Object>,
        asked: &str,
    ) -> Result<Attempt, Status> {
        check_preconditions(target, options, present)?;
        if options.ignores_read_errors {
            let why = "the object can be read: it is deleted without the option that is for those that cannot";
            return Err(Status::conflict(&target.resource(), &target.name, why));
        }
        let old = present.value();
        if !context.internal {
            let shown = self.converter.one(present.kind(), &target.kind, old.clone()).await?;
            self.admit_delete(context, target, options, &shown, asked).await?;
        }
        let fate = if target.kind.group.is_empty() && target.kind.plural == "namespaces" {
            self.fate_of_namespace(target, options, &old)
        } else if target.kind.group == "apiextensions.k8s.io" && old["metadata"].get("deletionTimestamp").is_none() {
            // Its objects go first (`apiextensions-apiserver/pkg/registry/customresourcedefinition/etcd.go`).
            Fate::Mark(crd::cleanup::mark(&old, &self.now()))
        } else {
            self.fate(target, options, &old)
        };
        match fate {
            Fate::Wait => self.deleted(context, target, present, old, false).await.map(Ok),
            Fate::Mark(marked) => self.mark(context, target, options, present, marked).await,
            Fate::Remove(last) if last == old => self.remove(context, target, options, present, last).await,
            // Watchers see how a pod ends before they see that it is gone (`updateForGracefulDeletionAndFinalizers`).
            Fate::Remove(mut last) if !options.dry_run => {
                let bytes = object::encode(present.kind(), &last);
                match self.put(target, Some(present.revision()), bytes).await? {
                    Outcome::Committed(revision) => {
                        meta::set(&mut last, "resourceVersion", revision.to_string());
                        let present = present.at_revision(revision);
                        self.remove(context, target, options, &present, last).await
                    }
                    Outcome::Conflict(current) => Ok(Err(self.after_conflict(target, current)?)),
                }
            }
            Fate::Remove(last) => self.deleted(context, target, present, last, true).await.map(Ok),
        }
    }

    /// Removes an object of which `present` is the revision and `last` the contents.
    async fn remove(
        &self,
        context: &Context,
        target: &Target,
        options: &DeleteOptions,
        present: &Object,
        last: Value,
    ) -> Result<Attempt, Status> {
        if !options.dry_run {
            match self.commit(Txn::delete(target.key(), present.revision())).await? {
                Outcome::Committed(_) => self.released(target, &last).await,
                Outcome::Conflict(current) => return Ok(Err(self.after_conflict(target, current)?)),
            }
        }
        self.deleted(context, target, present, last, true).await.map(Ok)
    }

    /// Stores an object that is marked for deletion.
    async fn mark(
        &self,
        context: &Context,
        target: &Target,
        options: &DeleteOptions,
        present: &Arc<Object>,
        mut marked: Value,
    ) -> Result<Attempt, Status> {
        if !options.dry_run {
            let bytes = object::encode(present.kind(), &marked);
            match self.put(target, Some(present.revision()), bytes).await? {
                Outcome::Committed(revision) => {
                    meta::set(&mut marked, "resourceVersion", revision.to_string());
                }
                Outcome::Conflict(current) => {
                    return Ok(Err(self.after_conflict(target, current)?));
                }
            }
        }
        self.deleted(context, target, present, marked, false).await.map(Ok)
    }

    async fn admit_delete(
        &self,
        context: &Context,
        target: &Target,
        options: &DeleteOptions,
        old: &Value,
        asked: &str,
    ) -> Result<(), Status> {
        let mut attributes = Attributes {
            operation: Operation::Delete,
            kind: &target.kind.kind,
            group: &target.kind.group,
            version: &target.kind.version,
            resource: &target.kind.plural,
            subresource: "",
            namespace: &target.namespace,
            name: asked,
            object: None,
            old_object: Some(old),
            options: options.to_value(),
            user: &context.user,
            dry_run: options.dry_run,
            warnings: parking_lot::Mutex::default(),
            audit: context.audit.clone(),
            reinvocation: Default::default(),
        };
        let chain = self.chain();
        let mut admitted = chain.admit(&mut attributes).await;
        if admitted.is_ok() {
            admitted = chain.validate(&attributes).await;
        }
        for warning in attributes.take_warnings() {
            context.warnings.add(warning);
        }
        admitted
    }

    fn fate(&self, target: &Target, options: &DeleteOptions, old: &Value) -> Fate {
        let strategy = strategy_for(&target.kind);
        let before = finalizers(old);
        let wanted = wanted_finalizers(&before, options, strategy.default_garbage_collection_policy());
        let mut marked = old.clone();
        let metadata = meta::metadata_mut(&mut marked);
        if let Some(wanted) = &wanted {
            set_finalizers(metadata, wanted);
        }
        let waiting = wanted.as_ref().map_or(!before.is_empty(), |wanted| !wanted.is_empty());

        let graceful = if metadata.contains_key("deletionTimestamp") {
            match shorten(metadata, options.grace_period_seconds) {
                Shortened::NotGraceful => None,
                Shortened::Pending if wanted.is_none() => return Fate::Wait,
                Shortened::Pending => return Fate::Mark(marked),
                Shortened::To(seconds) => Some(seconds),
            }
        } else {
            let seconds = strategy.graceful_delete(old, options.grace_period_seconds);
            if let Some(seconds) = seconds {
                self.mark_graceful(metadata, seconds);
            }
            seconds
        };
        match graceful {
            Some(seconds) if seconds > 0 || waiting => Fate::Mark(marked),
            Some(_) => Fate::Remove(marked),
            None if waiting => {
                self.mark_as_deleting(metadata);
                // Deleting again what only waits for its finalizers changes nothing.
                if marked == *old { Fate::Wait } else { Fate::Mark(marked) }
            }
            None => Fate::Remove(marked),
        }
    }

    /// A namespace is marked first; it goes when its contents are gone and `spec.finalizers` is empty.
    fn fate_of_namespace(&self, target: &Target, options: &DeleteOptions, old: &Value) -> Fate {
        if old["metadata"].get("deletionTimestamp").is_none() {
            let mut marked = old.clone();
            let metadata = meta::metadata_mut(&mut marked);
            metadata.insert("deletionTimestamp".into(), Value::from(self.now()));
            if let Some(wanted) =
                wanted_finalizers(&finalizers(old), options, GarbageCollectionPolicy::DeleteDependents)
            {
                set_finalizers(metadata, &wanted);
            }
            marked["status"]["phase"] = Value::from("Terminating");
            return Fate::Mark(marked);
        }
        let held = old["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if held { Fate::Wait } else { self.fate(target, options, old) }
    }

    fn mark_graceful(&self, metadata: &mut Map<String, Value>, seconds: i64) {
        let until = self.clock.now() + Duration::from_secs(seconds.unsigned_abs());
        metadata.insert("deletionTimestamp".into(), Value::from(time::format(until)));
        metadata.insert("deletionGracePeriodSeconds".into(), Value::from(seconds));
        bump_generation(metadata);
    }

    /// `markAsDeleting`: for objects that do not end gracefully but have finalizers.
    fn mark_as_deleting(&self, metadata: &mut Map<String, Value>) {
        if !metadata.contains_key("deletionTimestamp") {
            bump_generation(metadata);
            metadata.insert("deletionTimestamp".into(), Value::from(self.now()));
        }
        metadata.insert("deletionGracePeriodSeconds".into(), Value::from(0));
    }
}

/// What a further delete makes of a deletion that is under way.
enum Shortened {
    NotGraceful,
    Pending,
    To(i64),
}

/// A grace period may only become shorter.
fn shorten(metadata: &mut Map<String, Value>, requested: Option<i64>) -> Shortened {
    let Some(current) = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64) else {
        return Shortened::NotGraceful;
    };
    let Some(requested) = requested.map(|seconds| seconds.max(0)) else {
        return if current == 0 { Shortened::NotGraceful } else { Shortened::Pending };
    };
    if requested >= current {
        return if current == 0 { Shortened::NotGraceful } else { Shortened::Pending };
    }
    let until = metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|text| time::parse(text).ok());
    if let Some(until) = until {
        let earlier = until - Duration::from_secs((current - requested).unsigned_abs());
        metadata.insert("deletionTimestamp".into(), Value::from(time::format(earlier)));
    }
    metadata.insert("deletionGracePeriodSeconds".into(), Value::from(requested));
    Shortened::To(requested)
}

fn bump_generation(metadata: &mut Map<String, Value>) {
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0) {
        metadata.insert("generation".into(), Value::from(generation + 1));
    }
}

fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn set_finalizers(metadata: &mut Map<String, Value>, finalizers: &[String]) {
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), Value::from(finalizers));
    }
}

/// The finalizers by which the garbage collector learns what is wanted; `None` if they are there already
/// (`deletionFinalizersForGarbageCollection`).
fn wanted_finalizers(
    before: &[String],
    options: &DeleteOptions,
    policy: GarbageCollectionPolicy,
) -> Option<Vec<String>> {
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match (policy, options.propagation) {
        (GarbageCollectionPolicy::Unsupported, _) => (false, false),
        (_, Some(Propagation::Orphan)) => (true, false),
        (_, Some(Propagation::Foreground)) => (false, true),
        (_, Some(Propagation::Background)) => (false, false),
        (_, None) if has(ORPHAN) => (true, false),
        (_, None) if has(FOREGROUND) => (false, true),
        (policy, None) => (policy == GarbageCollectionPolicy::OrphanDependents, false),
    };
    let mut wanted: Vec<String> =
        before.iter().filter(|name| !matches!(name.as_str(), ORPHAN | FOREGROUND)).cloned().collect();
    if orphan {
        wanted.push(ORPHAN.to_owned());
    }
    if foreground {
        wanted.push(FOREGROUND.to_owned());
    }
    let (mut old, mut new) = (before.to_vec(), wanted.clone());
    old.sort();
    new.sort();
    (old != new).then_some(wanted)
}

/// What the client says of the object (`rest.BeforeDelete`, where the kind stands in for the resource).
fn check_preconditions(target: &Target, options: &DeleteOptions, present: &Object) -> Result<(), Status> {
    let failed = |what: &str, wanted: &str, is: &str, perhaps: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been {perhaps}"
        );
        let resource = GroupResource::new(target.kind.group.as_str(), target.kind.kind.as_str());
        Err(Status::conflict(&resource, &target.name, why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != present.uid()) {
        return failed("UID", uid, present.uid(), "deleted and then recreated");
    }
    let revision = present.revision().to_string();
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        return failed("ResourceVersion", wanted, &revision, "modified");
    }
    Ok(())
}
