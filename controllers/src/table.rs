//! Which controllers there are. A new one is a file and a row here.

use crate::manager::{Context, Controller};
use crate::{deployment, replica_set, replication, service_account};

/// One controller.
pub struct Row {
    /// Its name, as kube-controller-manager's `--controllers` has it.
    pub name: &'static str,
    /// The ServiceAccount in `kube-system` under which it acts.
    pub service_account: &'static str,
    /// Asks for informers and answers the controller.
    pub build: fn(&Context) -> Box<dyn Controller>,
}

/// All controllers, by name.
pub const CONTROLLERS: &[Row] = &[
    Row {
        name: "deployment-controller",
        service_account: "deployment-controller",
        build: |context| Box::new(deployment::DeploymentController::new(context)),
    },
    Row {
        name: "replicaset-controller",
        service_account: "replicaset-controller",
        build: |context| {
            Box::new(replica_set::ReplicaController::new(
                replica_set::replica_sets(),
                context,
            ))
        },
    },
    Row {
        name: "replicationcontroller-controller",
        service_account: "replication-controller",
        build: |context| {
            Box::new(replica_set::ReplicaController::new(
                replication::replication_controllers(),
                context,
            ))
        },
    },
    Row {
        name: "serviceaccount-controller",
        service_account: "service-account-controller",
        build: |context| Box::new(service_account::ServiceAccountController::new(context)),
    },
];
