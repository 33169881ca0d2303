//! Services come, change and go; what they hold is always exactly what is reserved.

use futures::FutureExt;
use minik8s_api::strategy::{Context, Subresource, strategy_for};
use minik8s_store::{Range, Store};
use serde_json::{Value, json};

use super::{Ranges, ServiceAllocators};
use crate::{identity::fixture::World, registry::hooks::Hook};

fn allocators(world: &World) -> ServiceAllocators {
    let ranges = Ranges::default();
    ServiceAllocators::new(
        world.store.clone(),
        world.objects(),
        world.kinds.clone(),
        world.clock.clone(),
        world.random.clone(),
        &ranges,
    )
}

fn service(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "rec", "name": "s" }, "spec": spec })
}

fn port(port: i64) -> Value {
    json!({ "port": port, "protocol": "TCP" })
}

/// Reserved keys, without their prefixes.
fn reserved(world: &World) -> Vec<String> {
    let keys = |prefix: &str| {
        world.store.range(Range::prefix(prefix)).now_or_never().expect("at once").expect("read").key_values
    };
    let all = keys("/registry/networking.k8s.io/ipaddresses/").into_iter().chain(keys(super::PORTS_PREFIX));
    all.map(|held| held.key.rsplit('/').next().expect("name").to_owned()).collect()
}

/// What the registry does once there is something to hold.
fn prepare(world: &World, new: &mut Value, old: &Value) {
    let kind = world.kinds.by_resource("", "v1", "services").expect("a kind");
    strategy_for(kind).prepare_for_update(&Context::at(world.clock.now()), Subresource::Main, new, old);
}

async fn create(allocators: &ServiceAllocators, object: &Value) -> Result<Value, String> {
    let mut object = object.clone();
    let finish = allocators.begin_create(&mut object, false).await.map_err(|status| status.message)?;
    finish(true).await;
    Ok(object)
}

#[tokio::test]
async fn a_service_gets_what_its_type_needs() {
    for (spec, ip, node_ports, families) in [
        (json!({ "ports": [port(80)], "selector": { "a": "b" } }), true, 0, json!(["IPv4"])),
        (json!({ "type": "NodePort", "ports": [port(80), port(81)] }), true, 2, json!(["IPv4"])),
        (
            json!({ "type": "NodePort", "ports": [{ "port": 53, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }] }),
            true,
            1,
            json!(["IPv4"]),
        ),
        (json!({ "type": "LoadBalancer", "ports": [port(80)] }), true, 1, json!(["IPv4"])),
        (
            json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [port(80)] }),
            true,
            0,
            json!(["IPv4"]),
        ),
        (
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [port(80)] }),
            true,
            2,
            json!(["IPv4"]),
        ),
        (json!({ "type": "ExternalName", "externalName": "example.com" }), false, 0, Value::Null),
        (json!({ "clusterIP": "None", "selector": { "a": "b" } }), false, 0, json!(["IPv4"])),
        (json!({ "clusterIP": "None" }), false, 0, json!(["IPv4", "IPv6"])),
    ] {
        let world = World::new();
        let stored = create(&allocators(&world), &service(spec.clone())).await.expect("allocated");
        let held = reserved(&world);
        assert_eq!(held.len(), usize::from(ip) + node_ports, "{spec}: {held:?}");
        assert_eq!(stored["spec"]["ipFamilies"], families, "{spec}");
        if ip {
            assert_eq!(stored["spec"]["clusterIPs"], json!([held[0]]));
            assert_eq!(stored["spec"]["clusterIP"], json!(held[0]));
            assert_eq!(stored["spec"]["ipFamilyPolicy"], "SingleStack");
        }
        allocators(&world).after_delete(&stored).await;
        assert_eq!(reserved(&world), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn refusals_have_kubernetes_words_and_leave_nothing() {
    let world = World::new();
    let allocators = allocators(&world);
    let mut first =
        service(json!({ "type": "NodePort", "clusterIP": "10.96.0.20", "ports": [{ "port": 80, "nodePort": 30080 }] }));
    first["metadata"]["name"] = json!("first");
    create(&allocators, &first).await.expect("free");
    let before = reserved(&world);
    for (spec, expect) in [
        (
            json!({ "clusterIP": "192.168.1.1" }),
            r#"spec.clusterIPs: Invalid value: ["192.168.1.1"]: failed to allocate IP 192.168.1.1: the provided network does not match the current range"#,
        ),
        (
            json!({ "clusterIP": "10.96.0.20" }),
            r#"spec.clusterIPs: Invalid value: ["10.96.0.20"]: failed to allocate IP 10.96.0.20: provided IP is already allocated"#,
        ),
        (
            json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] }),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            json!({ "type": "NodePort", "ports": [port(1), { "port": 80, "nodePort": 80 }] }),
            "spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            json!({ "ipFamilyPolicy": "RequireDualStack" }),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
        ),
    ] {
        let refused = create(&allocators, &service(spec)).await.expect_err("refused");
        assert_eq!(refused, format!("Service \"s\" is invalid: {expect}"));
        assert_eq!(reserved(&world), before);
    }
    // What cannot be an address is for validation to name.
    let odd = create(&allocators, &service(json!({ "clusterIP": "10.0.0.300" }))).await.expect("left alone");
    assert_eq!(odd["spec"]["clusterIPs"], json!(["10.0.0.300"]));
}

#[tokio::test]
async fn dry_runs_and_failures_keep_nothing() {
    let world = World::new();
    let allocators = allocators(&world);
    let mut object = service(json!({ "type": "NodePort", "ports": [port(80)] }));
    allocators.begin_create(&mut object, true).await.expect("allocated")(false).await;
    assert!(object["spec"]["clusterIP"].is_string() && object["spec"]["ports"][0]["nodePort"].is_u64());
    assert!(reserved(&world).is_empty());
    let mut object = service(json!({ "type": "NodePort", "ports": [port(80)] }));
    let finish = allocators.begin_create(&mut object, false).await.expect("allocated");
    assert_eq!(reserved(&world).len(), 2);
    finish(false).await;
    assert!(reserved(&world).is_empty());
}

#[tokio::test]
async fn changes_of_type_take_and_give_back() {
    let world = World::new();
    let allocators = allocators(&world);
    let mut stored =
        create(&allocators, &service(json!({ "type": "ClusterIP", "ports": [port(80)] }))).await.expect("allocated");
    let ip = stored["spec"]["clusterIP"].clone();
    let mut node_port = Value::Null;
    // The change, then how many ports it holds, and whether it keeps its IP.
    for (change, ports, keeps_ip) in [
        (json!({ "type": "NodePort" }), 1, true),
        (json!({ "type": "LoadBalancer" }), 1, true),
        (json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" }), 2, true),
        (json!({ "type": "NodePort" }), 1, true),
        (json!({ "type": "ClusterIP" }), 0, true),
        (json!({ "type": "ExternalName", "externalName": "x" }), 0, false),
    ] {
        let mut new = stored.clone();
        for (field, value) in change.as_object().expect("fields") {
            new["spec"][field] = value.clone();
        }
        let finish = allocators.begin_update(&mut new, &stored, false).await.expect("allocated");
        prepare(&world, &mut new, &stored);
        finish(true).await;
        let held = reserved(&world);
        assert_eq!(held.len(), ports + usize::from(keeps_ip), "{change}: {held:?}");
        if keeps_ip {
            assert_eq!(new["spec"]["clusterIP"], ip);
        }
        let own = &new["spec"]["ports"][0]["nodePort"];
        assert!(own.is_null() || node_port.is_null() || *own == node_port, "the port stays through {change}");
        node_port = own.clone();
        stored = new;
    }
    assert!(stored["spec"].get("clusterIP").is_none() && stored["spec"].get("ipFamilies").is_none());

    // What balanced its load is forgotten with the type.
    let balanced = json!({ "ingress": [{ "ip": "1.2.3.4", "ipMode": "VIP" }] });
    let mut balancer = service(json!({ "type": "LoadBalancer", "ports": [port(80)] }));
    balancer["status"] = json!({ "loadBalancer": balanced });
    let mut plain = service(json!({ "type": "ClusterIP", "ports": [port(80)] }));
    prepare(&world, &mut plain, &balancer);
    assert_eq!(plain["status"]["loadBalancer"], json!({}));
    let mut still = balancer.clone();
    prepare(&world, &mut still, &balancer);
    assert_eq!(still["status"]["loadBalancer"], balanced);

    // A client that repeats nothing (PUT without IP and node port) keeps what it had; a failed update gives back only what is new.
    let old =
        create(&allocators, &service(json!({ "type": "NodePort", "ports": [port(80)] }))).await.expect("allocated");
    let mut bare = service(json!({ "type": "NodePort", "ports": [port(80), { "port": 81, "name": "b" }] }));
    let finish = allocators.begin_update(&mut bare, &old, false).await.expect("allocated");
    assert_eq!(
        (&bare["spec"]["clusterIP"], &bare["spec"]["ports"][0]["nodePort"]),
        (&old["spec"]["clusterIP"], &old["spec"]["ports"][0]["nodePort"])
    );
    assert_eq!(reserved(&world).len(), 3);
    finish(false).await;
    assert_eq!(reserved(&world).len(), 2);
}

#[tokio::test]
async fn repair_makes_reservations_and_services_agree() {
    let world = World::new();
    let allocators = allocators(&world);
    let mut leaked = service(json!({ "type": "NodePort", "ports": [port(80)] }));
    leaked["metadata"]["name"] = json!("leaked");
    create(&allocators, &leaked).await.expect("allocated");
    world.put(service(json!({ "type": "NodePort", "clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"], "ports": [{ "port": 80, "nodePort": 30123 }] })));
    allocators.repair().await.expect("repaired");
    assert_eq!(reserved(&world), ["10.96.0.77", "30123"]);
}
