//! The rules of each built-in kind that are plain facts: a row a kind, in the order of the API groups.
//!
//! Sources: the `AllowCreateOnUpdate`, `AllowUnconditionalUpdate`, `DefaultGarbageCollectionPolicy`,
//! `PrepareForCreate` and name validation functions of `pkg/registry/*/*/strategy.go`.
use super::built_in::{Behavior, Plain};
use super::{GarbageCollectionPolicy, NameRule};
use super::{
    admissionregistration, apiextensions, apps, autoscaling, batch, certificates, coordination, core, discovery,
    flowcontrol, networking, node, pod, policy, rbac, resource, scheduling, storage, storagemigration,
};

/// When `metadata.generation` moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// With anything but metadata and status.
    Spec,
    /// The same, but a new object has none (CSIDrivers).
    SpecSinceFirstChange,
    /// 1, for good (PriorityClasses).
    Constant,
    /// With that, and with annotations.
    SpecAndAnnotations,
    /// With that, and with labels.
    SpecAndLabels,
}

/// When the `generateName` of an object is checked: where Kubernetes validates the metadata of a whole object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerateName {
    /// Never: only the name that came of it.
    Never,
    /// When it is created.
    OnCreate,
    /// Then, and with each update.
    OnUpdate,
    /// Then, and with each update through any door.
    Always,
}

/// The rules of one kind.
pub struct Row {
    group: &'static str,
    /// Empty where all versions share the row.
    version: &'static str,
    plural: &'static str,
    /// How names look.
    pub name: NameRule,
    /// When generation moves.
    pub generation: Generation,
    /// A PUT may create.
    pub create_on_update: bool,
    /// An update may leave out `resourceVersion`.
    pub unconditional_update: bool,
    /// A new object may bring a status (nodes: the kubelet registers with one).
    pub keeps_status_on_create: bool,
    /// The status door leaves labels, annotations, finalizers and owners alone.
    pub status_keeps_metadata: bool,
    /// When `generateName`, which has done its work by then, is looked at.
    pub generate_name: GenerateName,
    /// What happens to dependents by default.
    pub garbage_collection: GarbageCollectionPolicy,
    /// What else is the kind's own.
    pub behavior: &'static dyn Behavior,
}

const fn kind(group: &'static str, plural: &'static str, behavior: &'static dyn Behavior) -> Row {
    Row {
        group,
        version: "",
        plural,
        name: NameRule::Subdomain,
        generation: Generation::None,
        create_on_update: false,
        unconditional_update: true,
        keeps_status_on_create: false,
        status_keeps_metadata: false,
        generate_name: GenerateName::OnCreate,
        garbage_collection: GarbageCollectionPolicy::DeleteDependents,
        behavior,
    }
}

impl Row {
    /// Whether Kubernetes' own rules of finalizers hold, beyond those of all API servers (`pkg/apis/core/validation`); some of
    /// its groups go without.
    pub fn is_of_kubernetes(&self) -> bool {
        let foreign =
            [APIEXTENSIONS, "apiregistration.k8s.io", ADMISSION, "coordination.k8s.io", "node.k8s.io", "policy"];
        !foreign.contains(&self.group) && self.plural != "events"
    }

    /// Whether the kind is of an API server that has written rules only.
    pub fn has_no_declared_rules(&self) -> bool {
        matches!(self.group, APIEXTENSIONS | "apiregistration.k8s.io")
    }

    const fn version(mut self, version: &'static str) -> Row {
        self.version = version;
        self
    }

    const fn named(mut self, rule: NameRule) -> Row {
        self.name = rule;
        self
    }

    const fn generations(mut self) -> Row {
        self.generation = Generation::Spec;
        self
    }

    const fn generations_with(mut self, generation: Generation) -> Row {
        self.generation = generation;
        self
    }

    const fn put_creates(mut self) -> Row {
        self.create_on_update = true;
        self
    }

    const fn versioned_updates_only(mut self) -> Row {
        self.unconditional_update = false;
        self
    }

    const fn keeps_status(mut self) -> Row {
        self.keeps_status_on_create = true;
        self
    }

    const fn status_alone(mut self) -> Row {
        self.status_keeps_metadata = true;
        self
    }

    const fn generate_name(mut self, when: GenerateName) -> Row {
        self.generate_name = when;
        self
    }

    /// Updates are validated as if the object were new.
    const fn checked_whole(self) -> Row {
        self.generate_name(GenerateName::OnUpdate)
    }

    const fn uncollected(mut self, policy: GarbageCollectionPolicy) -> Row {
        self.garbage_collection = policy;
        self
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const APIEXTENSIONS: &str = "apiextensions.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const FLOWCONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// What a kind without a row gets: a custom resource.
static CUSTOM: Row = kind("", "", &Plain).generations().versioned_updates_only().status_alone();

static ROWS: &[Row] = &[
    kind("", "configmaps", &core::ConfigMap).checked_whole(),
    kind("", "endpoints", &core::Endpoints).checked_whole().put_creates(),
    kind("", "events", &core::Event)
        .named(NameRule::PathSegment)
        .put_creates()
        .uncollected(GarbageCollectionPolicy::Unsupported),
    kind("", "limitranges", &core::LimitRange).checked_whole().put_creates(),
    kind("", "namespaces", &core::Namespace).checked_whole().named(NameRule::Label),
    kind("", "nodes", &core::Node).checked_whole().keeps_status(),
    kind("", "persistentvolumeclaims", &core::PersistentVolumeClaim).checked_whole(),
    kind("", "persistentvolumes", &core::PersistentVolume).checked_whole(),
    kind("", "pods", &pod::Pod).generations(),
    kind("", "podtemplates", &core::PodTemplate).generations(),
    kind("", "replicationcontrollers", &core::ReplicationController)
        .generate_name(GenerateName::Never)
        .generations()
        .uncollected(GarbageCollectionPolicy::OrphanDependents),
    kind("", "resourcequotas", &core::ResourceQuota),
    kind("", "secrets", &core::Secret).checked_whole(),
    kind("", "serviceaccounts", &core::ServiceAccount).checked_whole(),
    kind("", "services", &core::Service).named(NameRule::Label).put_creates(),
    kind("apps", "controllerrevisions", &apps::ControllerRevision).checked_whole(),
    kind("apps", "daemonsets", &apps::DaemonSet).generations(),
    kind("apps", "deployments", &apps::Deployment).generations_with(Generation::SpecAndAnnotations),
    kind("apps", "replicasets", &apps::ReplicaSet).generations(),
    kind("apps", "statefulsets", &apps::StatefulSet).generations(),
    kind("autoscaling", "horizontalpodautoscalers", &autoscaling::HorizontalPodAutoscalerV1)
        .version("v1")
        .generations(),
    kind("autoscaling", "horizontalpodautoscalers", &autoscaling::HorizontalPodAutoscaler).generations(),
    kind("batch", "cronjobs", &batch::CronJob).generations(),
    kind("batch", "jobs", &batch::Job).generations().uncollected(GarbageCollectionPolicy::OrphanDependents),
    kind("policy", "poddisruptionbudgets", &policy::PodDisruptionBudget).generations().versioned_updates_only(),
    kind(NETWORKING, "ingressclasses", &networking::IngressClass).checked_whole().generations(),
    kind(NETWORKING, "ingresses", &networking::Ingress).checked_whole().generations(),
    kind(NETWORKING, "ipaddresses", &networking::IpAddress).named(NameRule::Ip),
    kind(NETWORKING, "networkpolicies", &networking::NetworkPolicy).generations(),
    kind(NETWORKING, "servicecidrs", &networking::ServiceCidr).status_alone(),
    kind(RBAC, "clusterrolebindings", &rbac::Binding).checked_whole().named(NameRule::PathSegment).put_creates(),
    kind(RBAC, "clusterroles", &rbac::Role).checked_whole().named(NameRule::PathSegment).put_creates(),
    kind(RBAC, "rolebindings", &rbac::Binding).checked_whole().named(NameRule::PathSegment).put_creates(),
    kind(RBAC, "roles", &rbac::Role).checked_whole().named(NameRule::PathSegment).put_creates(),
    kind(STORAGE, "csidrivers", &storage::CsiDriver)
        .generations_with(Generation::SpecSinceFirstChange)
        .versioned_updates_only(),
    kind(STORAGE, "csinodes", &storage::CsiNode).checked_whole().versioned_updates_only(),
    kind(STORAGE, "csistoragecapacities", &storage::CsiStorageCapacity).checked_whole().versioned_updates_only(),
    kind(STORAGE, "storageclasses", &storage::StorageClass).checked_whole(),
    kind(STORAGE, "volumeattachments", &storage::VolumeAttachment)
        .checked_whole()
        .versioned_updates_only()
        .status_alone(),
    kind(STORAGE, "volumeattributesclasses", &storage::VolumeAttributesClass).checked_whole(),
    kind("scheduling.k8s.io", "priorityclasses", &scheduling::PriorityClass).generations_with(Generation::Constant),
    kind("coordination.k8s.io", "leases", &coordination::Lease).put_creates().versioned_updates_only(),
    kind("node.k8s.io", "runtimeclasses", &node::RuntimeClass).checked_whole().put_creates().versioned_updates_only(),
    kind("discovery.k8s.io", "endpointslices", &discovery::EndpointSlice)
        .checked_whole()
        .generations_with(Generation::SpecAndLabels),
    kind("events.k8s.io", "events", &core::Event)
        .named(NameRule::PathSegment)
        .put_creates()
        .uncollected(GarbageCollectionPolicy::Unsupported),
    kind(CERTIFICATES, "certificatesigningrequests", &certificates::CertificateSigningRequest)
        .generate_name(GenerateName::Always)
        .named(NameRule::PathSegment),
    kind(CERTIFICATES, "clustertrustbundles", &certificates::ClusterTrustBundle)
        .checked_whole()
        .named(NameRule::PathSegment)
        .versioned_updates_only(),
    kind(CERTIFICATES, "podcertificaterequests", &certificates::PodCertificateRequest).versioned_updates_only(),
    kind(ADMISSION, "mutatingwebhookconfigurations", &admissionregistration::WebhookConfiguration)
        .checked_whole()
        .generations()
        .versioned_updates_only(),
    kind(ADMISSION, "validatingwebhookconfigurations", &admissionregistration::WebhookConfiguration)
        .checked_whole()
        .generations()
        .versioned_updates_only(),
    kind(ADMISSION, "mutatingadmissionpolicies", &admissionregistration::AdmissionPolicy)
        .checked_whole()
        .generations()
        .versioned_updates_only(),
    kind(ADMISSION, "mutatingadmissionpolicybindings", &admissionregistration::AdmissionPolicyBinding)
        .checked_whole()
        .generations()
        .versioned_updates_only(),
    kind(ADMISSION, "validatingadmissionpolicies", &admissionregistration::AdmissionPolicy)
        .checked_whole()
        .generations()
        .versioned_updates_only()
        .status_alone(),
    kind(ADMISSION, "validatingadmissionpolicybindings", &admissionregistration::AdmissionPolicyBinding)
        .checked_whole()
        .generations()
        .versioned_updates_only(),
    kind(APIEXTENSIONS, "customresourcedefinitions", &apiextensions::CustomResourceDefinition)
        .generations()
        .versioned_updates_only()
        .status_alone(),
    kind("apiregistration.k8s.io", "apiservices", &apiextensions::ApiService)
        .named(NameRule::PathSegment)
        .versioned_updates_only()
        .status_alone(),
    kind(FLOWCONTROL, "flowschemas", &flowcontrol::FlowSchema).checked_whole().generations().status_alone(),
    kind(FLOWCONTROL, "prioritylevelconfigurations", &flowcontrol::PriorityLevelConfiguration)
        .checked_whole()
        .generations()
        .status_alone(),
    kind(RESOURCE, "deviceclasses", &resource::DeviceClass).generate_name(GenerateName::Never).generations(),
    kind(RESOURCE, "devicetaintrules", &resource::DeviceTaintRule)
        .generations()
        .versioned_updates_only()
        .status_alone(),
    kind(RESOURCE, "resourceclaims", &resource::ResourceClaim).checked_whole().status_alone(),
    kind(RESOURCE, "resourceclaimtemplates", &resource::ResourceClaimTemplate).checked_whole(),
    kind(RESOURCE, "resourceslices", &resource::ResourceSlice).generations(),
    kind("storagemigration.k8s.io", "storageversionmigrations", &storagemigration::StorageVersionMigration)
        .checked_whole()
        .versioned_updates_only()
        .status_alone(),
];

/// The row of a kind, or that of custom resources.
pub fn row_of(group: &str, version: &str, plural: &str) -> &'static Row {
    let fits =
        |row: &&Row| row.group == group && row.plural == plural && (row.version.is_empty() || row.version == version);
    ROWS.iter().find(fits).unwrap_or(&CUSTOM)
}
