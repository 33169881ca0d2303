//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going, and some namespaces never go
//! (`k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use minik8s_store::Store;

use super::{Attributes, Operation, Plugin};
use crate::cache::Objects;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module.
pub struct NamespaceLifecycle {
    objects: Arc<dyn Objects>,
    store: Arc<dyn Store>,
    namespaces: GroupResource,
}

impl NamespaceLifecycle {
    /// Namespaces are looked up in the cache, and in the store before one is said not to exist.
    pub fn new(objects: Arc<dyn Objects>, store: Arc<dyn Store>) -> NamespaceLifecycle {
        NamespaceLifecycle { objects, store, namespaces: GroupResource::new("", "namespaces") }
    }

    /// Another member may have created it a moment ago.
    async fn is_stored(&self, namespace: &str) -> bool {
        let key = format!("{}core/namespaces/{namespace}", crate::cache::REGISTRY_PREFIX);
        self.store.read_index().await.is_ok() && matches!(self.store.get(&key).await, Ok(Some(_)))
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        match write.operation {
            Operation::Delete => write.is("", "namespaces"),
            Operation::Connect => false,
            _ => {
                !write.namespace.is_empty()
                    && write.resource != "namespaces"
                    && write.resource != "localsubjectaccessreviews"
            }
        }
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        if write.operation == Operation::Delete {
            return if IMMORTAL.contains(&write.name) {
                Err(write.forbidden("this namespace may not be deleted"))
            } else {
                Ok(())
            };
        }
        let namespace = write.namespace;
        let Some(found) = self.objects.get(&self.namespaces, "", namespace) else {
            return if self.is_stored(namespace).await {
                Ok(())
            } else {
                Err(Status::not_found(&self.namespaces, namespace))
            };
        };
        if write.operation == Operation::Create && found.meta().deletion_timestamp.is_some() {
            let refusal = write.forbidden(format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ));
            return Err(refusal.with_cause(
                "NamespaceTerminating",
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace",
            ));
        }
        Ok(())
    }
}
