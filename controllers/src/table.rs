//! Which controllers there are. A new one is a file and a row here.

use crate::certificates::{approver, cleaner, pod_cleaner, signer};
use crate::manager::{Context, Controller, Keys};
use crate::{
    bootstrap_tokens, cluster_role_aggregation, cron_job, daemon_set, deployment, disruption, endpoint_slice_mirroring,
    endpoint_slices, endpoints, ephemeral_volume, garbage_collector, job, legacy_token_cleaner, namespace, node_ipam,
    node_lifecycle, node_ttl, persistent_volume, pod_gc, policy_status, replica_set, replication, resource_quota,
    root_ca_publisher, service_account, service_account_tokens, service_cidrs, stateful_set, taint_eviction,
    ttl_after_finished, volume_protection,
};

/// One controller.
pub struct Row {
    /// Its name, as kube-controller-manager's `--controllers` has it.
    pub name: &'static str,
    /// The ServiceAccount in `kube-system` under which it acts.
    pub service_account: &'static str,
    /// Asks for informers and answers the controller.
    pub build: fn(&Context) -> Box<dyn Controller>,
}

/// A controller that works with a key of the cluster. What it does not take out of [`Keys`] it never sees.
pub struct KeyHolder {
    /// Its name, as kube-controller-manager's `--controllers` has it.
    pub name: &'static str,
    /// The ServiceAccount in `kube-system` under which it acts; `None` is the controller manager's own identity.
    pub service_account: Option<&'static str>,
    /// Asks for informers and answers the controller; `None` without its key.
    pub build: fn(&Context, &Keys) -> Option<Box<dyn Controller>>,
}

/// Controllers that work with keys, by name.
pub const KEY_HOLDERS: &[KeyHolder] = &[
    KeyHolder {
        name: "certificatesigningrequest-signing-controller",
        service_account: Some("certificate-controller"),
        build: |context, keys| {
            let authority = keys.authority.clone()?;
            Some(Box::new(signer::CertificateSigner::new(context, authority)))
        },
    },
    KeyHolder {
        name: "serviceaccount-token-controller",
        service_account: None,
        build: |context, keys| {
            let sign = keys.tokens.clone()?;
            Some(Box::new(service_account_tokens::TokensController::new(context, sign)))
        },
    },
];

/// The names of all controllers.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEY_HOLDERS.iter().map(|row| row.name).chain(CONTROLLERS.iter().map(|row| row.name))
}

/// All other controllers, by name.
pub const CONTROLLERS: &[Row] = &[
    Row {
        name: "bootstrap-signer-controller",
        service_account: "bootstrap-signer",
        build: |context| Box::new(bootstrap_tokens::signer::BootstrapSigner::new(context)),
    },
    Row {
        name: "certificatesigningrequest-approving-controller",
        service_account: "certificate-controller",
        build: |context| Box::new(approver::CertificateApprover::new(context)),
    },
    Row {
        name: "certificatesigningrequest-cleaner-controller",
        service_account: "certificate-controller",
        build: |context| Box::new(cleaner::CertificateCleaner::new(context)),
    },
    Row {
        name: "clusterrole-aggregation-controller",
        service_account: "clusterrole-aggregation-controller",
        build: |context| Box::new(cluster_role_aggregation::ClusterRoleAggregation::new(context)),
    },
    Row {
        name: "cronjob-controller",
        service_account: "cronjob-controller",
        build: |context| Box::new(cron_job::CronJobController::new(context)),
    },
    Row {
        name: "daemonset-controller",
        service_account: "daemon-set-controller",
        build: |context| Box::new(daemon_set::DaemonSetController::new(context)),
    },
    Row {
        name: "deployment-controller",
        service_account: "deployment-controller",
        build: |context| Box::new(deployment::DeploymentController::new(context)),
    },
    Row {
        name: "disruption-controller",
        service_account: "disruption-controller",
        build: |context| Box::new(disruption::DisruptionController::new(context)),
    },
    Row {
        name: "endpoints-controller",
        service_account: "endpoint-controller",
        build: |context| Box::new(endpoints::EndpointsController::new(context)),
    },
    Row {
        name: "endpointslice-controller",
        service_account: "endpointslice-controller",
        build: |context| Box::new(endpoint_slices::EndpointSliceController::new(context)),
    },
    Row {
        name: "endpointslice-mirroring-controller",
        service_account: "endpointslicemirroring-controller",
        build: |context| Box::new(endpoint_slice_mirroring::EndpointSliceMirroring::new(context)),
    },
    Row {
        name: "ephemeral-volume-controller",
        service_account: "ephemeral-volume-controller",
        build: |context| Box::new(ephemeral_volume::EphemeralVolumeController::new(context)),
    },
    Row {
        name: "garbage-collector-controller",
        service_account: "generic-garbage-collector",
        build: |context| Box::new(garbage_collector::GarbageCollector::new(context)),
    },
    Row {
        name: "job-controller",
        service_account: "job-controller",
        build: |context| Box::new(job::JobController::new(context)),
    },
    Row {
        name: "legacy-serviceaccount-token-cleaner-controller",
        service_account: "legacy-service-account-token-cleaner",
        build: |context| Box::new(legacy_token_cleaner::LegacyTokenCleaner::new(context)),
    },
    Row {
        name: "namespace-controller",
        service_account: "namespace-controller",
        build: |context| Box::new(namespace::NamespaceController::new(context)),
    },
    Row {
        name: "node-ipam-controller",
        service_account: "node-controller",
        build: |context| Box::new(node_ipam::NodeIpam::new(context)),
    },
    Row {
        name: "node-lifecycle-controller",
        service_account: "node-controller",
        build: |context| Box::new(node_lifecycle::NodeLifecycle::new(context)),
    },
    Row {
        name: "persistentvolume-binder-controller",
        service_account: "persistent-volume-binder",
        build: |context| Box::new(persistent_volume::PersistentVolumeController::new(context)),
    },
    Row {
        name: "persistentvolume-protection-controller",
        service_account: "pv-protection-controller",
        build: |context| Box::new(volume_protection::VolumeProtection::new(context)),
    },
    Row {
        name: "persistentvolumeclaim-protection-controller",
        service_account: "pvc-protection-controller",
        build: |context| Box::new(volume_protection::ClaimProtection::new(context)),
    },
    Row {
        name: "pod-garbage-collector-controller",
        service_account: "pod-garbage-collector",
        build: |context| Box::new(pod_gc::PodGarbageCollector::new(context)),
    },
    Row {
        name: "podcertificaterequest-cleaner-controller",
        service_account: "podcertificaterequestcleaner",
        build: |context| Box::new(pod_cleaner::PodCertificateCleaner::new(context)),
    },
    Row {
        name: "replicaset-controller",
        service_account: "replicaset-controller",
        build: |context| Box::new(replica_set::ReplicaController::new(replica_set::replica_sets(), context)),
    },
    Row {
        name: "replicationcontroller-controller",
        service_account: "replication-controller",
        build: |context| Box::new(replica_set::ReplicaController::new(replication::replication_controllers(), context)),
    },
    Row {
        name: "resourcequota-controller",
        service_account: "resourcequota-controller",
        build: |context| Box::new(resource_quota::ResourceQuotaController::new(context)),
    },
    Row {
        name: "root-ca-certificate-publisher-controller",
        service_account: "root-ca-cert-publisher",
        build: |context| Box::new(root_ca_publisher::RootCaPublisher::new(context)),
    },
    Row {
        name: "service-cidr-controller",
        service_account: "service-cidrs-controller",
        build: |context| Box::new(service_cidrs::ServiceCidrController::new(context)),
    },
    Row {
        name: "serviceaccount-controller",
        service_account: "service-account-controller",
        build: |context| Box::new(service_account::ServiceAccountController::new(context)),
    },
    Row {
        name: "statefulset-controller",
        service_account: "statefulset-controller",
        build: |context| Box::new(stateful_set::StatefulSetController::new(context)),
    },
    Row {
        name: "taint-eviction-controller",
        service_account: "node-controller",
        build: |context| Box::new(taint_eviction::TaintEviction::new(context)),
    },
    Row {
        name: "token-cleaner-controller",
        service_account: "token-cleaner",
        build: |context| Box::new(bootstrap_tokens::cleaner::TokenCleaner::new(context)),
    },
    Row {
        name: "ttl-controller",
        service_account: "ttl-controller",
        build: |context| Box::new(node_ttl::NodeTtl::new(context)),
    },
    Row {
        name: "ttl-after-finished-controller",
        service_account: "ttl-after-finished-controller",
        build: |context| Box::new(ttl_after_finished::TtlAfterFinished::new(context)),
    },
    Row {
        name: "validatingadmissionpolicy-status-controller",
        service_account: "validatingadmissionpolicy-status-controller",
        build: |context| Box::new(policy_status::PolicyStatus::new(context)),
    },
    Row {
        name: "volumeattributesclass-protection-controller",
        service_account: "volumeattributesclass-protection-controller",
        build: |context| Box::new(volume_protection::ClassProtection::new(context)),
    },
];
