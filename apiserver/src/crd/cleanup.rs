//! The end of a definition: its objects go first.
//!
//! `apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`, and what its registry's `Delete` does before.

use std::sync::Arc;

use minik8s_api::custom::Rows;
use minik8s_api::meta;
use minik8s_api::status::Status;
use serde_json::{Value, json};

use super::controller::Definitions;
use super::names::is_true;
use crate::cache::Selection;
use crate::conditions::set_condition;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::read::ListQuery;
use crate::registry::{Context, Target};

/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const TERMINATING: &str = "Terminating";

/// The first state of a definition that is being deleted: marked, with the finalizer, saying so.
pub fn mark(definition: &Value, now: &str) -> Value {
    let mut marked = definition.clone();
    let metadata = meta::metadata_mut(&mut marked);
    metadata.insert("deletionTimestamp".into(), now.into());
    let mut finalizers = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.contains(&json!(FINALIZER)) {
        finalizers.push(FINALIZER.into());
    }
    metadata.insert("finalizers".into(), finalizers.into());
    let words = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut marked, TERMINATING, "True", "InstanceDeletionPending", words, now);
    marked
}

impl Definitions {
    /// Deletes the objects of a definition that is being deleted, then lets it go. `false` while some of them stay.
    pub(super) async fn clean_up(&self, definition: &Value, rows: Option<&Rows>) -> Result<bool, Status> {
        let finalizers = definition["metadata"]["finalizers"].as_array();
        if !finalizers.is_some_and(|list| list.contains(&json!(FINALIZER))) {
            return Ok(true);
        }
        let name = meta::name(definition);
        if !is_true(definition, "Established") {
            return self.release(name, "NeverEstablished", "resource was never established").await;
        }
        self.say(name, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
        let Some(rows) = rows else { return Ok(false) };
        let everything = Target::new(Arc::clone(&rows.storage), "", "");
        let selection = Selection::everything("");
        self.registry
            .delete_collection(
                &Context::internal(),
                &everything,
                &selection,
                &ListQuery::default(),
                &DeleteOptions::default(),
            )
            .await?;
        let cache = self.registry.cache().resource(&rows.storage).ok_or_else(Status::unknown_resource)?;
        if !cache.is_empty() {
            return Ok(false);
        }
        self.release(name, "InstanceDeletionCompleted", "removed all instances").await
    }

    async fn say(&self, name: &str, status: &str, reason: &str, message: &str) -> Result<(), Status> {
        let now = self.registry.now();
        let target = self.target(name)?.subresource("status");
        let mut change = |definition: &mut Value| {
            set_condition(definition, TERMINATING, status, reason, message, &now);
            Ok(())
        };
        self.registry.modify(&Context::internal(), &target, &WriteOptions::default(), &mut change).await.map(|_| ())
    }

    /// Takes the finalizer off. The definition is gone then, unless others hold it.
    async fn release(&self, name: &str, reason: &str, message: &str) -> Result<bool, Status> {
        self.say(name, "False", reason, message).await?;
        // Not through the door of the status, which leaves metadata alone, nor as a client, whose write waits for us.
        let target = self.target(name)?.subresource("finalize");
        let mut change = |definition: &mut Value| {
            let metadata = meta::metadata_mut(definition);
            if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                list.retain(|finalizer| finalizer != FINALIZER);
                if list.is_empty() {
                    metadata.remove("finalizers");
                }
            }
            Ok(())
        };
        self.registry.modify(&Context::internal(), &target, &WriteOptions::default(), &mut change).await?;
        Ok(true)
    }
}
