//! Create.
//!
//! `k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `pkg/registry/rest/create.go`,
//! `pkg/registry/generic/registry/store.go` `Create`.

use minik8s_api::kinds::Kind;
use minik8s_api::meta;
use minik8s_api::status::{Status, StatusReason};
use minik8s_api::strategy::{self, strategy_for};
use serde_json::Value;

use super::commit::Outcome;
use super::owner_references::Found;
use super::{Context, Registry, Target, Written, hooks, owner_references};
use crate::admission::{Attributes, Operation};
use crate::cache::{Object, object};
use crate::options::{WriteOptions, connect_options};
use crate::query::Query;

/// Random characters of a generated name, and the length names are cut to before them
/// (`k8s.io/apiserver/pkg/storage/names/generate.go`).
const GENERATED_SUFFIX: usize = 5;
const MAX_GENERATED_BASE: usize = 63 - GENERATED_SUFFIX;

/// How many names are tried for one `generateName`.
const MAX_NAME_ATTEMPTS: usize = 8;

/// When a client should try another name.
const NAME_RETRY_SECONDS: u32 = 1;

impl Registry {
    /// Creates an object of `target`'s kind and namespace. `object` is decoded and defaulted, in the served version; the
    /// name comes from it.
    pub async fn create(
        &self,
        context: &Context,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut object = object;
        check_namespace(target, &mut object)?;
        // It is the store that refuses this in Kubernetes, and a dry run does not come so far.
        if !options.dry_run && !meta::resource_version(&object).is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        owner_references::name_once(context, &mut object, Found::Sent);
        self.record_manager(context, target, None, &mut object, options).await;
        let object = self.admit(context, target, Operation::Create, object, None, options).await?;
        let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
        if !generated {
            return self.insert(context, target, object, options).await;
        }
        for attempt in 1.. {
            match self.insert(context, target, object.clone(), options).await {
                Err(status) if status.reason == StatusReason::AlreadyExists => {
                    if attempt == MAX_NAME_ATTEMPTS {
                        let name = status.details.map(|details| details.name).unwrap_or_default();
                        return Err(Status::generate_name_conflict(&target.resource(), &name, NAME_RETRY_SECONDS));
                    }
                }
                done => return done,
            }
        }
        unreachable!("the loop returns")
    }

    /// From an admitted object on: names it, prepares it, validates it, stores it. Also what an update of an absent
    /// object does, where a kind allows that.
    pub(super) async fn insert(
        &self,
        context: &Context,
        target: &Target,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        self.stamp(&mut object);
        let finish = match self.hook(&target.resource()) {
            Some(hook) => hook.begin_create(&mut object, options.dry_run).await?,
            None => hooks::nothing_to_finish(),
        };
        let result = self.insert_prepared(context, target, object, options).await;
        finish(result.is_ok() && !options.dry_run).await;
        result
    }

    async fn insert_prepared(
        &self,
        context: &Context,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let (storage, acting) = (self.storage_kind(target)?, self.acting_kind(target)?);
        let mut object = self.converter.one(&target.kind, &acting, object).await?;
        let strategy = strategy_for(&acting);
        with_strategy_context(self, context, |context| strategy.prepare_for_create(context, &mut object));
        let errors = strategy.validate(&object);
        if !errors.is_empty() {
            return Err(Status::invalid(&target.kind.group_kind(), meta::name(&object), errors));
        }
        for warning in strategy.warnings(&object, None) {
            context.warnings.add(warning);
        }
        strategy.canonicalize(&mut object);

        let target = &target.named(meta::name(&object));
        self.admit_final(context, target, Operation::Create, &mut object, None, options).await?;
        if options.dry_run {
            if let Some(current) = self.cached(target)? {
                return Err(already_exists(target, Some(&current)));
            }
            // As far as it would come: to the form in which it would be stored, and back.
            let stored = to_store(self.converter.one(&acting, &storage, object).await?, &acting, &storage);
            let object = self.converter.one(&storage, &target.kind, stored).await?;
            return Ok(Written { object, stored: None, created: true });
        }
        let stored = to_store(self.converter.one(&acting, &storage, object).await?, &acting, &storage);
        match self.put(target, None, object::encode(&storage, &stored)).await? {
            Outcome::Committed(revision) => self.written(target, stored, revision, true).await,
            Outcome::Conflict(Some(current)) => {
                let current = self.after_conflict(target, Some(current)).ok().flatten();
                Err(already_exists(target, current.as_deref()))
            }
            Outcome::Conflict(None) => Err(Status::internal_error("the store refused a create without a reason")),
        }
    }

    /// Name, UID and creation time (`rest.FillObjectMetaSystemFields`), as nobody but the server sets them.
    fn stamp(&self, object: &mut Value) {
        if meta::name(object).is_empty() {
            let mut base = meta::generate_name(object).to_owned();
            if !base.is_empty() {
                base.truncate(base.floor_char_boundary(MAX_GENERATED_BASE));
                object["metadata"]["name"] = Value::from(format!("{base}{}", self.random.suffix(GENERATED_SUFFIX)));
            }
        }
        let metadata = meta::metadata_mut(object);
        metadata.insert("uid".into(), Value::from(self.random.uuid()));
        metadata.insert("creationTimestamp".into(), Value::from(self.now()));
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(field);
        }
    }

    /// Mutating admission.
    pub(super) async fn admit(
        &self,
        context: &Context,
        target: &Target,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        if context.internal {
            return Ok(object);
        }
        let name = if target.name.is_empty() { meta::name(&object).to_owned() } else { target.name.clone() };
        let ends = target.kind.definition.as_ref().is_some_and(|definition| definition.terminating);
        if ends && operation == Operation::Create {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&target.resource(), &name, why));
        }
        let mut attributes = attributes(context, target, &name, operation, Some(object), old, options);
        let admitted = self.chain().admit(&mut attributes).await;
        for warning in attributes.take_warnings() {
            context.warnings.add(warning);
        }
        admitted?;
        let admitted = attributes.object.take();
        let mut object = admitted.ok_or_else(|| Status::internal_error("admission took the object away"))?;
        owner_references::name_once(context, &mut object, Found::Admitted);
        // Admission moves nothing to another namespace.
        check_namespace(target, &mut object)?;
        Ok(object)
    }

    /// Admission of a body that is posted to a subresource and not stored itself. Validating admission sees what `prepare`
    /// makes of what the mutating one leaves.
    pub async fn admit_subresource(
        &self,
        context: &Context,
        target: &Target,
        object: Value,
        options: &WriteOptions,
        prepare: impl FnOnce(&mut Value) -> Result<(), Status>,
    ) -> Result<Value, Status> {
        let mut object = self.admit(context, target, Operation::Create, object, None, options).await?;
        prepare(&mut object)?;
        self.admit_final(context, target, Operation::Create, &mut object, None, options).await?;
        Ok(object)
    }

    /// Admission of a connection.
    pub async fn admit_connect(
        &self,
        context: &Context,
        target: &Target,
        query: &Query,
        rest: &str,
    ) -> Result<(), Status> {
        let part = target.kind.subresource(&target.subresource);
        let mut object = part.map(|part| connect_options(&part.kind, query));
        if let Some(options) = object.as_mut().filter(|_| target.subresource == "proxy") {
            options["path"] = Value::from(format!("/{rest}"));
        }
        let (name, operation) = (&target.name, Operation::Connect);
        let mut attributes = attributes(context, target, name, operation, object, None, &WriteOptions::default());
        attributes.options = Value::Null;
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

    /// Validating admission, on the object as it will be stored.
    pub(super) async fn admit_final(
        &self,
        context: &Context,
        target: &Target,
        operation: Operation,
        object: &mut Value,
        old: Option<&Value>,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        if context.internal {
            return Ok(());
        }
        let attributes =
            attributes(context, target, &target.name, operation, Some(std::mem::take(object)), old, options);
        let validated = self.chain().validate(&attributes).await;
        for warning in attributes.take_warnings() {
            context.warnings.add(warning);
        }
        *object = attributes.object.unwrap_or_default();
        validated
    }
}

fn attributes<'a>(
    context: &'a Context,
    target: &'a Target,
    name: &'a str,
    operation: Operation,
    object: Option<Value>,
    old_object: Option<&'a Value>,
    options: &WriteOptions,
) -> Attributes<'a> {
    let part = target.kind.subresource(&target.subresource);
    Attributes {
        operation,
        kind: part.map_or(&target.kind.kind, |part| &part.kind.kind),
        group: &target.kind.group,
        version: &target.kind.version,
        resource: &target.kind.plural,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name,
        object,
        old_object,
        options: options.to_value(operation),
        user: &context.user,
        dry_run: options.dry_run,
        warnings: parking_lot::Mutex::default(),
        audit: context.audit.clone(),
        reinvocation: Default::default(),
    }
}

/// A custom resource as it is stored when it was written in another version: whoever reads it finds the defaults of the version
/// that stores it.
pub(super) fn to_store(mut object: Value, written: &Kind, storage: &Kind) -> Value {
    if storage.custom && written.version != storage.version {
        strategy_for(storage).set_defaults_of_applied(&mut object);
    }
    object
}

/// The refusal of a name that an object has, perhaps not for long.
fn already_exists(target: &Target, current: Option<&Object>) -> Status {
    let mut status = Status::already_exists(&target.resource(), &target.name);
    if current.is_some_and(|current| current.meta().deletion_timestamp.is_some()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// The object's namespace is the request's, by default or by agreement (`rest.EnsureObjectNamespaceMatchesRequestNamespace`).
pub(super) fn check_namespace(target: &Target, object: &mut Value) -> Result<(), Status> {
    let metadata = meta::metadata_mut(object);
    let own = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if own == target.namespace {
        return Ok(());
    }
    if own.is_empty() {
        metadata.insert("namespace".into(), Value::from(target.namespace.as_str()));
        return Ok(());
    }
    if target.kind.namespaced && !target.namespace.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    // A cluster-scoped object that names a namespace loses it, as in Kubernetes.
    metadata.remove("namespace");
    Ok(())
}

/// Calls a strategy with the time and the user of a request.
pub(super) fn with_strategy_context<T>(
    registry: &Registry,
    context: &Context,
    call: impl FnOnce(&strategy::Context<'_>) -> T,
) -> T {
    let extra: Vec<(String, Vec<String>)> =
        context.user.extra.iter().map(|(key, values)| (key.clone(), values.clone())).collect();
    let user = strategy::RequestUser {
        name: &context.user.name,
        uid: &context.user.uid,
        groups: &context.user.groups,
        extra: extra.into(),
    };
    call(&strategy::Context { now: registry.clock.now(), user: Some(user) })
}
