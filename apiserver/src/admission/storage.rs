//! What storage objects get on their way in: a default class, a finalizer while in use, and a check when claims grow.

use std::sync::Arc;

use async_trait::async_trait;
use minik8s_api::{kinds::GroupResource, quantity::Quantity, status::Status};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, default_class, items, push};
use crate::cache::Objects;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn storage_classes() -> GroupResource {
    GroupResource::new("storage.k8s.io", "storageclasses")
}

/// DefaultStorageClass: a claim that names no class gets the default one
/// (`plugin/pkg/admission/storage/storageclass/setdefault/admission.go`).
pub struct DefaultStorageClass {
    objects: Arc<dyn Objects>,
}

impl DefaultStorageClass {
    /// Classes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> DefaultStorageClass {
        DefaultStorageClass { objects }
    }
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is("", "persistentvolumeclaims")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(claim) = &mut write.object else {
            return Ok(());
        };
        // An empty name is an answer too: no class at all.
        let named =
            claim["spec"]["storageClassName"].is_string() || claim["metadata"]["annotations"].get(BETA_CLASS).is_some();
        if !named && let Some(class) = default_class(&*self.objects, &storage_classes(), DEFAULT_CLASS) {
            claim["spec"]["storageClassName"] = json!(class);
        }
        Ok(())
    }
}

/// StorageObjectInUseProtection: claims and volumes are kept while something uses them; a controller takes the finalizer away
/// (`plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`).
pub struct StorageObjectInUseProtection;

fn protection(write: &Attributes<'_>) -> Option<&'static str> {
    match (write.group, write.resource, write.subresource) {
        ("", "persistentvolumeclaims", "") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes", "") => Some("kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses", "") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && protection(write).is_some()
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let (Some(finalizer), Some(object)) = (protection(write), &mut write.object) else {
            return Ok(());
        };
        if items(&object["metadata"]["finalizers"]).all(|own| own != finalizer) {
            push(&mut object["metadata"]["finalizers"], json!(finalizer));
        }
        Ok(())
    }
}

/// PersistentVolumeClaimResize: only bound claims grow, and only where their class lets them
/// (`plugin/pkg/admission/storage/persistentvolume/resize/admission.go`).
pub struct PersistentVolumeClaimResize {
    objects: Arc<dyn Objects>,
}

impl PersistentVolumeClaimResize {
    /// Classes are read from `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> PersistentVolumeClaimResize {
        PersistentVolumeClaimResize { objects }
    }

    fn may_expand(&self, claim: &Value) -> bool {
        let class = claim["metadata"]["annotations"][BETA_CLASS]
            .as_str()
            .or_else(|| claim["spec"]["storageClassName"].as_str())
            .unwrap_or_default();
        !class.is_empty()
            && self
                .objects
                .get(&storage_classes(), "", class)
                .is_some_and(|class| class.parsed()["allowVolumeExpansion"] == true)
    }
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Update && write.is("", "persistentvolumeclaims")
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&write.object, write.old_object) else {
            return Ok(());
        };
        let size = |claim: &Value| {
            claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(|size| size.parse::<Quantity>().ok())
        };
        let (Some(wanted), Some(had)) = (size(new), size(old)) else {
            return Ok(());
        };
        if wanted <= had {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(write.forbidden("Only bound persistent volume claims can be expanded"));
        }
        if !self.may_expand(new) {
            return Err(write.forbidden("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"));
        }
        Ok(())
    }
}
