//! Which cluster IPs and ports a Service wants, before any is allocated, and of which IP families.
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

/// NodePort and LoadBalancer; the latter may have some from before it was told to have none.
pub fn may_have_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
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

/// Fills in `ipFamilies` and `ipFamilyPolicy` for a cluster that has IPv4 only (`initIPFamilyFields`).
pub fn set_families(service: &mut Value) -> Result<(), Status> {
    if !needs_cluster_ip(service) {
        return Ok(());
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
