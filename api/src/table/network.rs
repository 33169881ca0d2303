//! Services and what traffic passes on its way to pods.
use serde_json::Value;

use super::cells::{NONE, Object, UNSET, first_few, labels, or_none, selector};

const SHOWN: usize = 3;

pub fn service(object: &Object<'_>) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port["port"].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or(""));
            match port["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        object.name(),
        object.text("/spec/type").into(),
        object.text_or("/spec/clusterIP", NONE),
        external_ip(object).into(),
        or_none(ports.join(",")).into(),
        object.age(),
        labels(object.at("/spec/selector")).into(),
    ]
}

fn external_ip(object: &Object<'_>) -> String {
    let given: Vec<&str> = object.list("/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match object.text("/spec/type") {
        "ClusterIP" | "NodePort" => or_none(given.join(",")),
        "LoadBalancer" => {
            let balancer = balancer_addresses(object);
            match [balancer, given.join(",")]
                .iter()
                .filter(|list| !list.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join(",")
            {
                list if list.is_empty() => "<pending>".to_owned(),
                list => list,
            }
        }
        "ExternalName" => object.text("/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(object: &Object<'_>) -> String {
    let mut addresses: Vec<&str> = object
        .list("/status/loadBalancer/ingress")
        .iter()
        .filter_map(|ingress| ingress["ip"].as_str().filter(|ip| !ip.is_empty()).or(ingress["hostname"].as_str()))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn host_and_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub fn endpoints(object: &Object<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in object.list("/subsets") {
        let addresses =
            || subset["addresses"].as_array().into_iter().flatten().filter_map(|address| address["ip"].as_str());
        let ports = subset["ports"].as_array().map_or(&[][..], Vec::as_slice);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|ip| host_and_port(ip, port["port"].as_i64().unwrap_or(0))));
        }
    }
    let shown = if object.list("/subsets").is_empty() { NONE.to_owned() } else { first_few(&all, SHOWN, ",") };
    vec![object.name(), shown.into(), object.age()]
}

pub fn endpoint_slice(object: &Object<'_>) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("/ports")
        .iter()
        .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            _ => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = object
        .list("/endpoints")
        .iter()
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let shown = |list: &[String]| {
        if list.is_empty() { UNSET.to_owned() } else { first_few(list, SHOWN, ",") }
    };
    vec![
        object.name(),
        object.text("/addressType").into(),
        shown(&ports).into(),
        shown(&addresses).into(),
        object.age(),
    ]
}

pub fn ingress(object: &Object<'_>) -> Vec<Value> {
    let rules = object.list("/spec/rules");
    let hosts: Vec<&str> =
        rules.iter().take(SHOWN).filter_map(|rule| rule["host"].as_str()).filter(|host| !host.is_empty()).collect();
    let hosts = match (hosts.is_empty(), rules.len() > SHOWN) {
        (true, _) => "*".to_owned(),
        (false, false) => hosts.join(","),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - SHOWN),
    };
    let ports = if object.list("/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        object.name(),
        object.text_or("/spec/ingressClassName", NONE),
        hosts.into(),
        balancer_addresses(object).into(),
        ports.into(),
        object.age(),
    ]
}

pub fn ingress_class(object: &Object<'_>) -> Vec<Value> {
    let parameters = object.at("/spec/parameters");
    let text = |name: &str| parameters[name].as_str().unwrap_or("");
    let shown = match (parameters.is_object(), text("apiGroup")) {
        (false, _) => NONE.to_owned(),
        (true, "") => format!("{}/{}", text("kind"), text("name")),
        (true, group) => format!("{}.{group}/{}", text("kind"), text("name")),
    };
    vec![object.name(), object.text("/spec/controller").into(), shown.into(), object.age()]
}

pub fn network_policy(object: &Object<'_>) -> Vec<Value> {
    vec![object.name(), selector(object.at("/spec/podSelector")).into(), object.age()]
}

pub fn ip_address(object: &Object<'_>) -> Vec<Value> {
    let text = |name: &str| object.text(&format!("/spec/parentRef/{name}"));
    let dot = if text("group").is_empty() { "" } else { "." };
    let slash = if text("namespace").is_empty() { "" } else { "/" };
    let parent = format!("{}{dot}{}/{}{slash}{}", text("resource"), text("group"), text("namespace"), text("name"))
        .to_lowercase();
    let shown = if object.at("/spec/parentRef").is_object() { parent } else { NONE.to_owned() };
    vec![object.name(), shown.into(), object.age()]
}

pub fn service_cidr(object: &Object<'_>) -> Vec<Value> {
    let blocks: Vec<&str> = object.list("/spec/cidrs").iter().filter_map(Value::as_str).collect();
    vec![object.name(), blocks.join(",").into(), object.age()]
}
