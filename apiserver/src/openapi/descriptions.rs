//! What Kubernetes says of its types and fields: the descriptions in `k8s_openapi`'s schemas, read once when somebody asks.

use std::collections::HashMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// Type → (its description, field → description).
type Texts = HashMap<String, (Option<String>, HashMap<String, String>)>;

/// The types from which all others are reached.
macro_rules! roots {
    ($generator:ident; $($($module:ident)::+: $($kind:ident),+;)+) => {
        $($( register::<k8s_openapi::$($module)::+::$kind>(&mut $generator); )+)+
    };
}

fn register<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn read() -> Texts {
    let mut generator = SchemaSettings::default().into_generator();
    roots! { generator;
        api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount;
        kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
        api::events::v1: Event;
        api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
        api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
        api::batch::v1: CronJob, Job;
        api::certificates::v1: CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest;
        api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
        api::policy::v1: Eviction, PodDisruptionBudget;
        api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
        api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;
        api::admissionregistration::v1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
        apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        api::scheduling::v1: PriorityClass;
        api::coordination::v1: Lease;
        api::node::v1: RuntimeClass;
        api::discovery::v1: EndpointSlice;
        api::resource::v1: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
        api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration;
        api::storagemigration::v1: StorageVersionMigration;
        apimachinery::pkg::apis::meta::v1: DeleteOptions, Status;
    }
    let text = |schema: &Value| schema["description"].as_str().map(str::to_owned);
    let mut texts = Texts::new();
    for (name, schema) in generator.take_definitions(true) {
        let fields = schema["properties"].as_object();
        let fields = fields.into_iter().flatten().filter_map(|(field, schema)| Some((field.clone(), text(schema)?))).collect();
        texts.insert(name, (text(&schema), fields));
    }
    texts
}

fn texts() -> &'static Texts {
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    TEXTS.get_or_init(read)
}

/// What a type is.
pub fn of_type(name: &str) -> Option<&'static str> {
    texts().get(name)?.0.as_deref()
}

/// What a field of a type is.
pub fn of_field(name: &str, field: &str) -> Option<&'static str> {
    texts().get(name)?.1.get(field).map(String::as_str)
}
