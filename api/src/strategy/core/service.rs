//! Services. Cluster IPs and node ports are allocated by the API server between preparation and validation.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::endpoints::not_special_ip;
use crate::strategy::built_in::Behavior;
use crate::strategy::field::{Errors, Field};
use crate::strategy::{Context, Subresource, edit, meta, names};

const AFFINITY_SECONDS: i64 = 10800;
const AFFINITY_SECONDS_MAX: i64 = 86400;
const NONE: &str = "None";

/// `v1` Service.
pub struct Service;

impl Behavior for Service {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default_text(spec, "sessionAffinity", NONE);
        if edit::text(spec, "sessionAffinity") == "ClientIP" {
            let client = edit::child(edit::child(spec, "sessionAffinityConfig"), "clientIP");
            edit::default(client, "timeoutSeconds", AFFINITY_SECONDS);
        } else {
            edit::take(spec, "sessionAffinityConfig");
        }
        edit::default_text(spec, "type", "ClusterIP");
        for port in edit::each(spec, "ports") {
            edit::default_text(port, "protocol", "TCP");
            let target = &port["targetPort"];
            if target.is_null() || target == &json!(0) || target == &json!("") {
                let number = port["port"].clone();
                edit::set(port, "targetPort", number);
            }
        }
        if externally_accessible(spec) {
            edit::default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if edit::text(spec, "type") != "ExternalName" {
            edit::default(spec, "internalTrafficPolicy", "Cluster");
        }
        if edit::text(spec, "type") == "LoadBalancer" {
            edit::default(spec, "allocateLoadBalancerNodePorts", true);
            let status = edit::child(object, "status");
            for point in edit::each(edit::child(status, "loadBalancer"), "ingress") {
                if !edit::text(point, "ip").is_empty() {
                    edit::default(point, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        carry_over(object, None);
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            return;
        }
        carry_over(new, Some(old));
        drop_type_dependent(edit::child(new, "spec"), &old["spec"]);
        // Nobody balances the load of what is no balancer any more.
        if edit::text(&new["spec"], "type") != "LoadBalancer" {
            edit::set(edit::child(new, "status"), "loadBalancer", json!({}));
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        validate_spec(&object.get("spec"), errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            load_balancer_status(new, old, errors);
            return;
        }
        let (ips, before) = (new.get("spec").get("clusterIPs"), old.get("spec").get("clusterIPs"));
        let is_name = |object: &Field<'_>| object.get("spec").get("type").str() == "ExternalName";
        if !is_name(new) && !is_name(old) {
            for (index, earlier) in before.items().enumerate() {
                let kept = ips.items().nth(index);
                let changed = kept.is_none_or(|ip| ip.value() != earlier.value());
                // A second family may be given up; the first address never.
                if changed && (index == 0 || ips.len() > index) {
                    errors.push(
                        ips.items()
                            .nth(index)
                            .unwrap_or(ips.clone())
                            .invalid_as(ips.value().clone(), "may not change once set"),
                    );
                }
            }
        }
        let (class, earlier) = (new.get("spec").get("loadBalancerClass"), old.get("spec").get("loadBalancerClass"));
        if earlier.is_set() && new.get("spec").get("type").str() == "LoadBalancer" && class.value() != earlier.value() {
            errors.push(class.invalid("may not change once set"));
        }
        self.validate(new, errors);
    }

    fn warnings(&self, object: &Field<'_>, _: Option<&Value>, warnings: &mut Vec<String>) {
        let spec = object.get("spec");
        let name = spec.get("type").str() == "ExternalName";
        let headless = spec.get("clusterIPs").items().next().is_some_and(|ip| ip.str() == NONE);
        let external = !spec.get("externalIPs").is_empty();
        let hints = "service.kubernetes.io/topology-aware-hints";
        if object.get("metadata").get("annotations").key(hints).is_set() {
            warnings.push(format!(
                "annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"
            ));
        }
        let said = [
            (
                headless && !spec.get("loadBalancerIP").is_empty(),
                "spec.loadBalancerIP is ignored for headless services",
            ),
            (headless && external, "spec.externalIPs is ignored for headless services"),
            (
                headless && spec.get("sessionAffinity").str() != NONE,
                "spec.SessionAffinity is ignored for headless services",
            ),
            (
                external && !headless && !name,
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ),
            (external && name, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
            (
                !name && !spec.get("externalName").is_empty(),
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ),
            (
                spec.get("trafficDistribution").str() == "PreferClose",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ),
        ];
        warnings.extend(said.into_iter().filter(|(applies, _)| *applies).map(|(_, sentence)| sentence.to_owned()));
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]
    }
}

fn externally_accessible(spec: &Value) -> bool {
    match edit::text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty()),
        _ => false,
    }
}

fn needs_node_port(spec: &Value) -> bool {
    match edit::text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn needs_health_port(spec: &Value) -> bool {
    edit::text(spec, "type") == "LoadBalancer" && edit::text(spec, "externalTrafficPolicy") == "Local"
}

/// Makes a Service say what it means before anything is allocated for it: what an update did not repeat is taken from `old`, and
/// `clusterIP` and `clusterIPs` agree. Doing it again changes nothing.
pub fn carry_over(service: &mut Value, old: Option<&Value>) {
    let spec = edit::child(service, "spec");
    let old = old.map(|old| &old["spec"]);
    if let Some(old) = old {
        keep_allocations(spec, old);
    }
    normalize_cluster_ips(spec, old);
}

/// `clusterIP` is the old spelling of the first of `clusterIPs`: whichever of the two the client wrote wins.
/// Mirrors `normalizeClusterIPs` of `pkg/registry/core/service/storage/storage.go`.
fn normalize_cluster_ips(spec: &mut Value, old: Option<&Value>) {
    let single = edit::text(spec, "clusterIP").to_owned();
    let many = spec["clusterIPs"].as_array().is_some_and(|list| !list.is_empty());
    let Some(old) = old else {
        match (single.is_empty(), many) {
            (false, false) => edit::set(spec, "clusterIPs", json!([single])),
            // Only the list: its first is checked against the empty clusterIP, so make them agree.
            (true, true) => {
                let first = spec["clusterIPs"][0].clone();
                edit::set(spec, "clusterIP", first);
            }
            _ => {}
        }
        return;
    };
    let before = edit::text(old, "clusterIP");
    if !single.is_empty() && !many {
        edit::set(spec, "clusterIPs", json!([single]));
        return;
    }
    if single != before && spec.get("clusterIPs") == old.get("clusterIPs") {
        match single.is_empty() {
            true => drop(edit::take(spec, "clusterIPs")),
            false => edit::set(spec, "clusterIPs", json!([single])),
        }
    }
}

/// The name of a port and its node port, 0 where it has none.
fn by_name(port: &Value) -> (&str, i64) {
    (edit::text(port, "name"), port["nodePort"].as_i64().unwrap_or(0))
}

fn node_ports(spec: &Value) -> BTreeSet<i64> {
    let numbers = spec["ports"].as_array().into_iter().flatten().map(|port| by_name(port).1);
    numbers.filter(|number| *number != 0).collect()
}

/// What was allocated and is still needed stays when the client leaves it out (`patchAllocatedValues`).
fn keep_allocations(spec: &mut Value, old: &Value) {
    let needs_ip = |spec: &Value| edit::text(spec, "type") != "ExternalName";
    if needs_ip(spec) && needs_ip(old) {
        if edit::text(spec, "clusterIP").is_empty() {
            edit::keep(spec, old, "clusterIP");
        }
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
            edit::keep(spec, old, "clusterIPs");
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(name).is_none() {
                edit::keep(spec, old, name);
            }
        }
    }
    if needs_node_port(spec) && needs_node_port(old) {
        let used = node_ports(spec);
        // Ports are known by their names, whatever else of them has changed.
        let known: BTreeMap<&str, i64> = old["ports"].as_array().into_iter().flatten().map(by_name).collect();
        for port in edit::each(spec, "ports") {
            let (name, number) = by_name(port);
            if let Some(earlier) = known.get(name).filter(|earlier| number == 0 && !used.contains(earlier)).copied()
                && earlier != 0
            {
                edit::set(port, "nodePort", earlier);
            }
        }
    }
    if needs_health_port(spec) && needs_health_port(old) && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        edit::keep(spec, old, "healthCheckNodePort");
    }
}

/// When the type changes, what only the old type needed goes, unless the client set it anew (`dropTypeDependentFields`).
fn drop_type_dependent(spec: &mut Value, old: &Value) {
    let same = |spec: &Value, name: &str| spec.get(name) == old.get(name);
    let is_name = |spec: &Value| edit::text(spec, "type") == "ExternalName";
    if !is_name(old) && is_name(spec) && same(spec, "clusterIP") && same(spec, "clusterIPs") {
        edit::take(spec, "clusterIP");
        edit::take(spec, "clusterIPs");
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, name) {
                edit::take(spec, name);
            }
        }
    }
    let has_node_ports = |spec: &Value| matches!(edit::text(spec, "type"), "LoadBalancer" | "NodePort");
    if has_node_ports(old) && !has_node_ports(spec) && node_ports(old).is_superset(&node_ports(spec)) {
        for port in edit::each(spec, "ports") {
            edit::take(port, "nodePort");
        }
    }
    let is_balancer = |spec: &Value| edit::text(spec, "type") == "LoadBalancer";
    let lost: [(bool, &[&str]); 4] = [
        (needs_health_port(old) && !needs_health_port(spec), &["healthCheckNodePort"]),
        (is_balancer(old) && !is_balancer(spec), &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
        (externally_accessible(old) && !externally_accessible(spec), &["externalTrafficPolicy"]),
        (!is_name(old) && is_name(spec), &["internalTrafficPolicy"]),
    ];
    for (gone, names) in lost {
        for name in names {
            if gone && same(spec, name) {
                edit::take(spec, name);
            }
        }
    }
}

fn validate_spec(spec: &Field<'_>, errors: &mut Errors) {
    let (kind, ports, ips) = (spec.get("type"), spec.get("ports"), spec.get("clusterIPs"));
    let headless = ips.items().next().is_some_and(|ip| ip.str() == NONE);
    if ports.is_empty() && !headless && kind.str() != "ExternalName" {
        errors.push(ports.required(""));
    }
    match kind.str() {
        of_nodes @ ("LoadBalancer" | "NodePort") if headless => {
            let words = format!("may not be set to 'None' for {of_nodes} services");
            errors.extend(ips.items().next().map(|ip| ip.invalid(words)));
        }
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
    validate_ports(&ports, errors);
    meta::labels(&spec.get("selector"), errors);
    session_affinity(spec, errors);
    cluster_ips(spec, errors);
    for ip in spec.get("externalIPs").items() {
        let complaints = names::ip(ip.str());
        if complaints.is_empty() {
            not_special_ip(&ip, errors);
        }
        ip.check(complaints, errors);
    }
    kind.one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    for port in ports.items().map(|port| port.get("nodePort")) {
        if kind.str() == "ClusterIP" && port.int().unwrap_or(0) != 0 {
            errors.push(port.forbidden("may not be used when `type` is 'ClusterIP'"));
        }
    }
    unique_ports(&ports, errors);
    load_balancer(spec, errors);
    traffic_policies(spec, errors);
}

fn load_balancer_status(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let [ingress, earlier] = [new, old].map(|service| service.get("status").get("loadBalancer").get("ingress"));
    if new.get("spec").get("type").str() != "LoadBalancer" && !ingress.is_empty() {
        return errors.push(ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
    }
    let known: BTreeSet<&str> = earlier.items().map(|point| point.get("ip").str()).collect();
    for point in ingress.items() {
        let (ip, mode, host) = (point.get("ip"), point.get("ipMode"), point.get("hostname"));
        if !ip.is_empty() && !known.contains(ip.str()) {
            ip.check(names::ip(ip.str()), errors);
        }
        match (!mode.value().is_null(), ip.is_empty()) {
            (false, false) => errors.push(mode.required("must be specified when `ip` is set")),
            (true, true) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            (true, false) => mode.one_of(&["Proxy", "VIP"], errors),
            (false, true) => {}
        }
        if !host.is_empty() {
            host.check(names::dns1123_subdomain(host.str()), errors);
            if host.str().parse::<std::net::IpAddr>().is_ok() {
                errors.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
}

fn external_name(spec: &Field<'_>, errors: &mut Errors) {
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.get(name).is_empty() {
            errors.push(spec.get(name).forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.get("externalName");
    let trimmed = name.str().strip_suffix('.').unwrap_or(name.str());
    if trimmed.is_empty() {
        errors.push(name.required(""));
    } else {
        name.check(names::dns1123_subdomain(trimmed), errors);
    }
}

fn validate_ports(ports: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(name.required(""));
            }
        } else {
            name.check(names::dns1123_label(name.str()), errors);
            if !seen.insert(name.str()) {
                errors.push(name.duplicate());
            }
        }
        let number = port.get("port");
        let complaints = names::port_number(number.int().unwrap_or(0));
        errors.extend(complaints.into_iter().map(|complaint| number.invalid_as(number.int().unwrap_or(0), complaint)));
        port.get("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
        crate::strategy::pod::port_number_or_name(&port.get("targetPort"), errors);
        if let Some(protocol) = port.get("appProtocol").set() {
            protocol.check(names::qualified_name(protocol.str()), errors);
        }
    }
}

fn unique_ports(ports: &Field<'_>, errors: &mut Errors) {
    let (mut node_ports, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in ports.items() {
        let protocol = port.get("protocol").str();
        if let Some(number) = port.get("nodePort").int().filter(|number| *number != 0)
            && !node_ports.insert((protocol, number))
        {
            errors.push(port.get("nodePort").duplicate());
        }
        let number = port.get("port").int().unwrap_or(0);
        if !numbers.insert((protocol, number)) {
            // The value shown is Kubernetes' internal struct, in its Go spelling.
            let shown = format!(
                r#"{{"Name":"","Protocol":"{protocol}","AppProtocol":null,"Port":{number},"TargetPort":0,"NodePort":0}}"#
            );
            errors.push(port.duplicate().showing(shown));
        }
    }
}

fn session_affinity(spec: &Field<'_>, errors: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.one_of(&["ClientIP", "None"], errors);
    match affinity.str() {
        "ClientIP" => {
            let seconds = config.get("clientIP").get("timeoutSeconds");
            match seconds.int() {
                None => errors.push(config.required("must not be empty when session affinity is ClientIP")),
                Some(number) if !(1..=AFFINITY_SECONDS_MAX).contains(&number) => {
                    errors
                        .push(seconds.invalid(format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}")));
                }
                Some(_) => {}
            }
        }
        NONE if config.is_set() => {
            errors.push(config.forbidden(format!("must not be set when session affinity is {NONE}")));
        }
        _ => {}
    }
}

fn cluster_ips(spec: &Field<'_>, errors: &mut Errors) {
    if spec.get("type").str() == "ExternalName" {
        return;
    }
    let (first, ips, families) = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("ipFamilies"));
    let mut seen = BTreeSet::new();
    for family in families.items() {
        if !["IPv4", "IPv6"].contains(&family.str()) {
            errors.push(family.not_supported(&["IPv4", "IPv6"]));
        }
        if !seen.insert(family.str()) {
            errors.push(family.duplicate());
        }
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.is_set() && !["PreferDualStack", "RequireDualStack", "SingleStack"].contains(&policy.str()) {
        errors.push(policy.not_supported(&["PreferDualStack", "RequireDualStack", "SingleStack"]));
    }
    if !ips.is_empty() && ips.items().next().is_some_and(|ip| ip.str() != first.str()) {
        errors.push(ips.invalid("first value must match `clusterIP`"));
    }
    for (index, ip) in ips.items().enumerate() {
        match ip.str() {
            NONE if index == 0 && ips.len() > 1 => errors.push(ips.invalid("'None' must be the first and only value")),
            NONE if index == 0 => {}
            text => ip.check(names::ip(text), errors),
        }
    }
    if ips.len() > 2 {
        errors.push(ips.invalid("may only hold up to 2 values"));
    }
}

fn load_balancer(spec: &Field<'_>, errors: &mut Errors) {
    let (balancer, ranges) = (
        spec.get("type").str() == "LoadBalancer",
        spec.shown_as("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
    );
    if !ranges.is_empty() && !balancer {
        errors.push(ranges.forbidden("may only be used when `type` is 'LoadBalancer'"));
    }
    for range in ranges.items() {
        range.check(names::cidr(range.str().trim()), errors);
    }
    let (allocate, class) = (spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass"));
    for field in [&allocate, &class] {
        if !balancer && field.is_set() {
            errors.push(field.forbidden("may only be used when `type` is 'LoadBalancer'"));
        }
    }
    if balancer && class.is_set() {
        class.check(names::qualified_name(class.str()), errors);
    }
}

fn traffic_policies(spec: &Field<'_>, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if !externally_accessible(spec.value()) {
        if !external.is_empty() {
            errors.push(external.invalid("may only be set for externally-accessible services"));
        }
    } else {
        external.one_of(&["Cluster", "Local"], errors);
    }
    let health = spec.get("healthCheckNodePort");
    if let Some(number) = health.int().filter(|number| *number != 0) {
        if needs_health_port(spec.value()) {
            health.check(names::port_number(number), errors);
        } else {
            errors.push(
                health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
            );
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_set() && !["Cluster", "Local"].contains(&internal.str()) {
        errors.push(internal.not_supported(&["Cluster", "Local"]));
    } else if !internal.is_set() && ["ClusterIP", "LoadBalancer", "NodePort"].contains(&spec.get("type").str()) {
        errors.push(internal.required(""));
    }
    let distribution = spec.get("trafficDistribution");
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if distribution.is_set() && !known.contains(&distribution.str()) {
        errors.push(distribution.not_supported(&known));
    }
}
