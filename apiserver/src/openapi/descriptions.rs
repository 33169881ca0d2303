//! What Kubernetes says of its types and fields: the descriptions in `k8s_openapi`'s schemas, read once when somebody asks.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// Type → (its description, field → description).
type Texts = BTreeMap<String, (Option<String>, BTreeMap<String, String>)>;

/// The types of some modules, from which all others are reached.
macro_rules! roots {
    ($generator:ident; $($module:path: $($kind:ident),+;)+) => {
        $({
            use $module as module;
            $( register::<module::$kind>(&mut $generator); )+
        })+
    };
}

fn register<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn read() -> Texts {
    let mut generator = SchemaSettings::default().into_generator();
    roots! { generator;
        k8s_openapi::api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount;
        k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        k8s_openapi::api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
        k8s_openapi::api::events::v1: Event;
        k8s_openapi::api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
        k8s_openapi::api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
        k8s_openapi::api::autoscaling::v2: HorizontalPodAutoscaler;
        k8s_openapi::api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
        k8s_openapi::api::batch::v1: CronJob, Job;
        k8s_openapi::api::certificates::v1: CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest;
        k8s_openapi::api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
        k8s_openapi::api::policy::v1: Eviction, PodDisruptionBudget;
        k8s_openapi::api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
        k8s_openapi::api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;
        k8s_openapi::api::admissionregistration::v1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        k8s_openapi::api::scheduling::v1: PriorityClass;
        k8s_openapi::api::coordination::v1: Lease;
        k8s_openapi::api::node::v1: RuntimeClass;
        k8s_openapi::api::discovery::v1: EndpointSlice;
        k8s_openapi::api::resource::v1: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
        k8s_openapi::api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration;
        k8s_openapi::api::storagemigration::v1: StorageVersionMigration;
        k8s_openapi::apimachinery::pkg::apis::meta::v1: DeleteOptions, Status;
    }
    let text = |schema: &Value| schema["description"].as_str().map(str::to_owned);
    let mut texts = Texts::new();
    for (name, schema) in generator.take_definitions(true) {
        let fields = schema["properties"].as_object();
        let fields =
            fields.into_iter().flatten().filter_map(|(field, schema)| Some((field.clone(), text(schema)?))).collect();
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
