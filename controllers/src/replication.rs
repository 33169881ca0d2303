//! ReplicationControllers, the elder brothers of ReplicaSets: the same engine, looking at them as ReplicaSets.
//! (Kubernetes: `pkg/controller/replication/conversion.go`.)

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::replica_set::Flavor;

/// The flavor of ReplicationControllers.
pub fn replication_controllers() -> Flavor<ReplicationController> {
    Flavor { component: "replication-controller", view, with_status }
}

fn view(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().map(|status| ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        // ReplicationControllers do not tell; what the engine counts is compared with itself.
        terminating_replicas: None,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|all| {
            all.into_iter()
                .map(|condition| ReplicaSetCondition {
                    type_: Some(condition.type_),
                    status: Some(condition.status),
                    reason: condition.reason,
                    message: condition.message,
                    last_transition_time: condition.last_transition_time,
                })
                .collect()
        }),
    });
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        },
        status,
    }
}

fn with_status(controller: &ReplicationController, status: ReplicaSetStatus) -> ReplicationController {
    let conditions = status.conditions.map(|all| {
        all.into_iter()
            .map(|condition| ReplicationControllerCondition {
                type_: condition.type_.unwrap_or_default(),
                status: condition.status.unwrap_or_default(),
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            })
            .collect()
    });
    ReplicationController {
        status: Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        }),
        ..controller.clone()
    }
}
