//! Which cluster IPs and ports a Service wants, before any is allocated: type changes, and IP families.
//!
//! Values that cannot be right are left as they are: validation, which comes after, names them.

use minik8s_api::{
    kinds::GroupKind,
    status::{FieldError, FieldPath, Status},
};
use serde_json::{Map, Value, json};

const NONE: &str = "None";
const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";

fn text<'v>(service: &'v Value, field: &str) -> &'v str {
    service["spec"][field].as_str().unwrap_or_default()
}

/// `spec.type`, which defaults to ClusterIP.
pub fn service_type(service: &Value) -> &str {
    match text(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

/// All types but ExternalName have cluster IPs (or `None`).
pub fn needs_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

/// NodePort, and LoadBalancer unless it is told not to.
pub fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// A load balancer that sends only to nodes with pods asks each node which it is.
pub fn needs_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local"
}

/// Whether the Service has names but no virtual IP.
pub fn is_headless(service: &Value) -> bool {
    text(service, "clusterIP") == NONE || service["spec"]["clusterIPs"][0] == NONE
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or_default()
}

/// Makes an update say what it means: values that the client did not repeat are taken from `old`, values that the new
/// type does not have are dropped if they are only repeated (`patchAllocatedValues`, `normalizeClusterIPs`, `dropTypeDependentFields`).
pub fn carry_over(service: &mut Value, old: Option<&Value>) {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    if let Some(old) = old {
        if needs_cluster_ip(old) && needs_cluster_ip(service) {
            if text(service, "clusterIP").is_empty() {
                copy(service, old, &["clusterIP"]);
            }
            if service["spec"]["clusterIPs"].get(0).is_none() {
                copy(service, old, &["clusterIPs"]);
            }
        }
        if needs_node_ports(old) && needs_node_ports(service) {
            carry_node_ports(service, old);
        }
        if needs_health_check_port(old)
            && needs_health_check_port(service)
            && service["spec"]["healthCheckNodePort"].as_i64().unwrap_or_default() == 0
        {
            copy(service, old, &["healthCheckNodePort"]);
        }
        drop_dependent(service, old);
    }
    normalize_cluster_ips(service, old);
}

fn copy(service: &mut Value, old: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = old["spec"].get(*field) {
            service["spec"][*field] = value.clone();
        }
    }
}

/// Ports keep their node port by name, unless another port has taken it.
fn carry_node_ports(service: &mut Value, old: &Value) {
    let held: Vec<i64> = ports(old).map(node_port).collect();
    let mut used: Vec<i64> = ports(service).map(node_port).filter(|port| held.contains(port)).collect();
    let by_name: Map<String, Value> =
        ports(old).map(|port| (port["name"].as_str().unwrap_or_default().to_owned(), json!(node_port(port)))).collect();
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let before = by_name.get(port["name"].as_str().unwrap_or_default()).and_then(Value::as_i64).unwrap_or_default();
        if node_port(port) == 0 && before != 0 && !used.contains(&before) {
            port["nodePort"] = json!(before);
            used.push(before);
        }
    }
}

fn drop_dependent(service: &mut Value, old: &Value) {
    let same = |service: &Value, field: &str| service["spec"].get(field) == old["spec"].get(field);
    let remove = |service: &mut Value, fields: &[&str]| {
        for field in fields {
            service["spec"].as_object_mut().map(|spec| spec.remove(*field));
        }
    };
    if needs_cluster_ip(old)
        && !needs_cluster_ip(service)
        && (same(service, "clusterIPs") || same(service, "clusterIP"))
    {
        remove(service, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if needs_node_ports(old) && !needs_node_ports(service) && service_type(service) != "LoadBalancer" {
        let before: Vec<i64> = ports(old).map(node_port).collect();
        if ports(service).map(node_port).eq(before.iter().copied()) {
            for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(service) && same(service, "healthCheckNodePort") {
        remove(service, &["healthCheckNodePort"]);
    }
    if service_type(old) == "LoadBalancer" && service_type(service) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(service, field) {
                remove(service, &[field]);
            }
        }
    }
    let external = |service: &Value| matches!(service_type(service), "NodePort" | "LoadBalancer");
    if external(old) && !external(service) && same(service, "externalTrafficPolicy") {
        remove(service, &["externalTrafficPolicy"]);
    }
}

/// `clusterIP` and `clusterIPs[0]` are one value with two names; a client may have set either.
fn normalize_cluster_ips(service: &mut Value, old: Option<&Value>) {
    let single = text(service, "clusterIP").to_owned();
    let before = old.map(|old| text(old, "clusterIP").to_owned()).unwrap_or_default();
    let list_unchanged = old.is_some_and(|old| old["spec"]["clusterIPs"] == service["spec"]["clusterIPs"]);
    let list_empty = service["spec"]["clusterIPs"].as_array().is_none_or(Vec::is_empty);
    if list_empty && !single.is_empty() && (old.is_none() || single != before) {
        service["spec"]["clusterIPs"] = json!([single]);
    } else if list_unchanged && single != before {
        let fields = service["spec"].as_object_mut();
        if single.is_empty() {
            fields.map(|fields| fields.remove("clusterIPs"));
        } else {
            fields.map(|fields| fields.insert("clusterIPs".to_owned(), json!([single])));
        }
    } else if single.is_empty()
        && let Some(first) = service["spec"]["clusterIPs"].get(0).and_then(Value::as_str).map(str::to_owned)
    {
        service["spec"]["clusterIP"] = json!(first);
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy` for a cluster that has IPv4 only (`initIPFamilyFields`).
pub fn set_families(service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if !needs_cluster_ip(service) {
        return Ok(());
    }
    if let Some(old) = old
        && needs_cluster_ip(old)
        && service["spec"].get("ipFamilies").is_none_or(Value::is_null)
    {
        copy(service, old, &["ipFamilies"]);
    }
    let mut families: Vec<String> = service["spec"]["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let policy = service["spec"]["ipFamilyPolicy"].as_str().map(str::to_owned);
    let selectorless = service["spec"]["selector"].as_object().is_none_or(Map::is_empty);
    if is_headless(service) && selectorless {
        // Its endpoints are the user's own and may be of any family.
        let policy =
            policy.unwrap_or_else(|| if families.len() == 1 { "SingleStack" } else { "RequireDualStack" }.to_owned());
        if families.is_empty() {
            families.push(IPV4.to_owned());
        }
        if families.len() < 2 && policy != "SingleStack" {
            families.push(if families[0] == IPV4 { IPV6 } else { IPV4 }.to_owned());
        }
        service["spec"]["ipFamilyPolicy"] = json!(policy);
        service["spec"]["ipFamilies"] = json!(families);
        return Ok(());
    }
    check_families(service, &families, policy.as_deref())?;
    service["spec"]["ipFamilyPolicy"] = json!(policy.as_deref().unwrap_or("SingleStack"));
    if families.is_empty() {
        service["spec"]["ipFamilies"] = json!([IPV4]);
    }
    Ok(())
}

fn check_families(service: &Value, families: &[String], policy: Option<&str>) -> Result<(), Status> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    if policy == Some("RequireDualStack") {
        errors.push(FieldError::invalid(
            &spec.child("ipFamilyPolicy"),
            "RequireDualStack",
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| *family == IPV6) {
        errors.push(FieldError::invalid(
            &spec.child("ipFamilies").index(index),
            family.as_str(),
            "not configured on this cluster",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(
        &GroupKind::new("", "Service"),
        service["metadata"]["name"].as_str().unwrap_or_default(),
        errors,
    ))
}
