//! RuntimeClasses: which of the runtime's handlers a pod's sandbox is made by.
//!
//! A class is asked for when a sandbox is made, and only if the pod names one; nothing is watched. (kubelet:
//! `runtimeclass/runtimeclass_manager.go`.)

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use minik8s_client::{Client, is_not_found, words};

use crate::error::{Error, Result};
use crate::spec::PodExt as _;

/// The handler that the pod's RuntimeClass names; the empty one, the runtime's default, for a pod without a class.
///
/// # Errors
/// The class is not there, or cannot be read.
pub async fn runtime_handler(client: &Client, pod: &Pod) -> Result<String> {
    let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    match client.all::<RuntimeClass>().get(name).await {
        Ok(class) => Ok(class.handler),
        Err(error) if is_not_found(&error) => {
            Err(Error::MissingObject(format!("runtimeclass.node.k8s.io \"{name}\" not found")))
        }
        Err(error) => Err(Error::MissingObject(format!("failed to lookup RuntimeClass {name}: {}", words(&error)))),
    }
}
