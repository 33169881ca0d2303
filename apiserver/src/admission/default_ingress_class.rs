//! DefaultIngressClass: an Ingress that names no class gets the default one
//! (`plugin/pkg/admission/network/defaultingressclass/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, status::Status};
use serde_json::json;

use super::{Attributes, Operation, Plugin, default_class};
use crate::cache::Objects;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

/// See the module.
pub struct DefaultIngressClass {
    objects: Arc<dyn Objects>,
}

impl DefaultIngressClass {
    /// Classes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> DefaultIngressClass {
        DefaultIngressClass { objects }
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is("networking.k8s.io", "ingresses")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(ingress) = &mut write.object else {
            return Ok(());
        };
        let named = ingress["spec"]["ingressClassName"].is_string()
            || ingress["metadata"]["annotations"].get(LEGACY_CLASS).is_some();
        let classes = GroupResource::new("networking.k8s.io", "ingressclasses");
        if !named && let Some(class) = default_class(&*self.objects, &classes, DEFAULT_CLASS) {
            ingress["spec"]["ingressClassName"] = json!(class);
        }
        Ok(())
    }
}
