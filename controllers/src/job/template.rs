//! The pods of a Job, as its template and their index make them. Pure.
//! (Kubernetes: `pkg/controller/job/indexed_job_utils.go`.)

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::indexes::COMPLETION_INDEX;
use super::look::{FAILURE_COUNT, Look, TRACKING};
use crate::owners::controller_reference;
use crate::pod_control::pod_from_template;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest prefix of a generated name of an indexed pod, so that its host name is one label.
const MAX_INDEXED_PREFIX: usize = 63 - 6;

/// A pod for `job`: of an index, where the Job has indexes, and with the failures of that index, where they are limited.
pub(super) fn pod(job: &Job, look: &Look, index: Option<u32>, failures: Option<i32>) -> Pod {
    let owner = controller_reference(job);
    let mut pod = pod_from_template(&look.spec.template, &owner);
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    let Some(index) = index else { return pod };
    let number = index.to_string();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), number.clone());
    if let Some(failures) = failures {
        annotations.insert(FAILURE_COUNT.to_owned(), failures.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), number.clone());
    let prefix: String = format!("{}-{number}", owner.name).chars().take(MAX_INDEXED_PREFIX).collect();
    pod.metadata.generate_name = Some(format!("{prefix}-"));
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert_with(|| format!("{}-{number}", owner.name));
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        containers.for_each(add_variable);
    }
    pod
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
