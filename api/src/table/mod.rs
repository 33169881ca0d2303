//! Tables: the cells that `kubectl get` prints, computed by the server.
//!
//! [`column_definitions`] gives the columns of a kind (data rows of `kinds`), [`rows`] the cells of its objects, as
//! `pkg/printers/internalversion/printers.go` computes them, wide columns included. One function a kind, found by its
//! plural in [`printer_of`]; custom resources print what their columns' [`JsonPath`] finds. A kind that has neither
//! prints name and creation time.
mod cells;
mod cluster;
mod jsonpath;
mod network;
mod pods;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Kind;
use cells::Object;

pub use jsonpath::{JsonPath, JsonPathError};

type Printer = fn(&Object<'_>) -> Vec<Value>;

/// The `columnDefinitions` of a kind's Table.
pub fn column_definitions(kind: &Kind) -> Value {
    kind.columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.ty,
                "format": column.format,
                "description": if column.description.is_empty() { description(&column.name) } else { &column.description },
                "priority": column.priority,
            })
        })
        .collect()
}

/// A sentence for columns whose data row has none.
fn description(column: &str) -> &'static str {
    match column {
        "Name" => "Name of the object, unique within its namespace and kind.",
        "Age" | "Created At" => "Time since, or at which, the server created the object.",
        "Ready" => "How many of the wanted parts are ready.",
        "Status" => "What the object is doing, in a word.",
        "Containers" => "Names of the containers.",
        "Images" => "Images of the containers.",
        "Selector" => "Labels by which the object finds its pods.",
        _ => "",
    }
}

/// The cells of each object's row, in column order, wide columns (priority above 0) included. `now` decides ages.
pub fn rows<'a>(kind: &Kind, objects: impl IntoIterator<Item = &'a Value>, now: Timestamp) -> Vec<Vec<Value>> {
    if kind.custom {
        let paths: Vec<Option<JsonPath>> = kind
            .columns
            .iter()
            .map(|column| column.json_path.as_deref().and_then(|path| JsonPath::parse(path).ok()))
            .collect();
        return objects.into_iter().map(|object| custom_row(kind, &paths, &Object::new(object, now))).collect();
    }
    let printer = printer_of(&kind.plural);
    objects
        .into_iter()
        .map(|object| {
            let mut cells = printer(&Object::new(object, now));
            cells.resize(kind.columns.len(), Value::Null);
            cells
        })
        .collect()
}

/// The `columnDefinitions` of a Scale, which is no kind of its own (`kubectl get --subresource=scale`).
pub fn scale_column_definitions() -> Value {
    let column = |name: &str, ty: &str, description: &str| json!({ "name": name, "type": ty, "format": "", "description": description, "priority": 0 });
    json!([
        column("Name", "string", description("Name")),
        column("Desired", "integer", "How many are wanted."),
        column("Available", "integer", "How many there are."),
        column("Age", "string", description("Age")),
    ])
}

/// The cells of a Scale's row.
pub fn scale_row(scale: &Value, now: Timestamp) -> Vec<Value> {
    let scale = Object::new(scale, now);
    vec![scale.name(), scale.int("/spec/replicas").into(), scale.int("/status/replicas").into(), scale.age()]
}

/// The `conditions` of an object's row: ended pods carry one, by which kubectl tells them apart.
pub fn row_conditions(kind: &Kind, object: &Value) -> Option<Value> {
    if kind.plural != "pods" || kind.custom {
        return None;
    }
    let (reason, message) = match object["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// A custom resource: its name, then a cell a JSONPath; a definition without columns shows its age.
/// Mirrors `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.
fn custom_row(kind: &Kind, paths: &[Option<JsonPath>], object: &Object<'_>) -> Vec<Value> {
    kind.columns
        .iter()
        .zip(paths)
        .map(|(column, path)| match path {
            Some(path) => path.cell(object.value(), &column.ty, object.now()),
            None if column.name == "Age" => object.age(),
            None => object.name(),
        })
        .collect()
}

fn printer_of(plural: &str) -> Printer {
    match plural {
        "pods" => pods::pod,
        "podtemplates" => workloads::pod_template,
        "replicationcontrollers" | "replicasets" => workloads::replica_set,
        "deployments" => workloads::deployment,
        "statefulsets" => workloads::stateful_set,
        "daemonsets" => workloads::daemon_set,
        "controllerrevisions" => workloads::controller_revision,
        "jobs" => workloads::job,
        "cronjobs" => workloads::cron_job,
        "horizontalpodautoscalers" => workloads::autoscaler,
        "poddisruptionbudgets" => workloads::disruption_budget,
        "services" => network::service,
        "endpoints" => network::endpoints,
        "endpointslices" => network::endpoint_slice,
        "ingresses" => network::ingress,
        "ingressclasses" => network::ingress_class,
        "networkpolicies" => network::network_policy,
        "ipaddresses" => network::ip_address,
        "servicecidrs" => network::service_cidr,
        "persistentvolumes" => storage::volume,
        "persistentvolumeclaims" => storage::claim,
        "storageclasses" => storage::class,
        "volumeattachments" => storage::attachment,
        "volumeattributesclasses" => storage::attributes_class,
        "csidrivers" => storage::csi_driver,
        "csinodes" => storage::csi_node,
        "resourceclaims" => storage::resource_claim,
        "resourceslices" => storage::resource_slice,
        "devicetaintrules" => storage::device_taint_rule,
        "nodes" => cluster::node,
        "namespaces" => cluster::namespace,
        "componentstatuses" => cluster::component_status,
        "configmaps" => cluster::config_map,
        "secrets" => cluster::secret,
        "events" => cluster::event,
        "resourcequotas" => cluster::resource_quota,
        "roles" | "clusterroles" | "limitranges" | "csistoragecapacities" => cluster::name_and_creation,
        "rolebindings" | "clusterrolebindings" => cluster::role_binding,
        "certificatesigningrequests" => cluster::signing_request,
        "clustertrustbundles" => cluster::trust_bundle,
        "podcertificaterequests" => cluster::pod_certificate_request,
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => cluster::webhook_configuration,
        "mutatingadmissionpolicies" | "validatingadmissionpolicies" => cluster::admission_policy,
        "mutatingadmissionpolicybindings" | "validatingadmissionpolicybindings" => cluster::admission_policy_binding,
        "customresourcedefinitions" => cluster::custom_resource_definition,
        "apiservices" => cluster::api_service,
        "priorityclasses" => cluster::priority_class,
        "runtimeclasses" => cluster::runtime_class,
        "leases" => cluster::lease,
        "flowschemas" => cluster::flow_schema,
        "prioritylevelconfigurations" => cluster::priority_level,
        "storageversionmigrations" => cluster::storage_version_migration,
        // serviceaccounts, deviceclasses, resourceclaimtemplates and whatever else has no columns of its own.
        _ => cluster::name_and_age,
    }
}
