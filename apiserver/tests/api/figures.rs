//! `/metrics` and the probes, by the names and words that dashboards and kubelets know.

use std::collections::BTreeSet;

use minik8s_apiserver::health::Component;
use serde_json::json;

use crate::server::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn metrics(server: &TestServer) -> String {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(answer.bytes.to_vec()).expect("text")
}

/// Every line is a comment, or a name with labels and a number, and every family stands once.
fn check_format(text: &str) {
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.to_owned()), "twice: {line}");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(name.ends_with('}') || !name.contains('{'), "{line}");
        }
    }
}

#[tokio::test]
async fn dashboards_find_the_names_that_they_know() {
    let server = TestServer::with(|config| {
        config.metrics.set("other", |text| {
            let help = "Of another component.";
            text.family("scheduler_pending_pods", minik8s_metrics::Kind::Gauge, help).sample(&[("queue", "active")], 2);
        });
    })
    .await;
    server.post(MAPS, &config_map("a")).await.expect(201);
    server.post(&format!("{MAPS}?dryRun=All"), &config_map("b")).await.expect(201);
    let apply = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }).to_string();
    let yaml = [("content-type", "application/apply-patch+yaml")];
    server.request("PATCH", &format!("{MAPS}/c?fieldManager=m"), &yaml, apply).await.expect(201);
    server.get(MAPS).await.expect(200);
    server.get("/api/v1/namespaces/default/nonsense/x").await.expect(404);
    let mut watch = server
        .watch(&format!(
            "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        ))
        .await;
    assert_eq!(watch.brief().await, "ADDED a");
    let text = metrics(&server).await;
    check_format(&text);
    let map = |more: &str, dry: &str, verb: &str, scope: &str| {
        format!(
            "{more}component=\"apiserver\",dry_run=\"{dry}\",group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\""
        )
    };
    for expect in [
        format!("apiserver_request_total{{{}}} 1", map("code=\"201\",", "", "POST", "resource")),
        format!("apiserver_request_total{{{}}} 1", map("code=\"201\",", "All", "POST", "resource")),
        format!("apiserver_request_total{{{}}} 1", map("code=\"201\",", "", "APPLY", "resource")),
        format!("apiserver_request_duration_seconds_count{{{}}} 1", map("", "", "LIST", "namespace")),
        format!("apiserver_request_sli_duration_seconds_bucket{{{},le=\"+Inf\"}} 1", map("", "", "LIST", "namespace")),
        map("apiserver_longrunning_requests{", "", "WATCH", "namespace").replace("dry_run=\"\",", "") + "} 1",
        "apiserver_request_total{code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"\"} 1".to_owned(),
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ".to_owned(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".to_owned(),
        "apiserver_resource_objects{group=\"\",resource=\"namespaces\"} 4".to_owned(),
        "apiserver_storage_objects{resource=\"flowschemas.flowcontrol.apiserver.k8s.io\"} 11".to_owned(),
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\",type=\"configmaps\"} ".to_owned(),
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"} 3".to_owned(),
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"validate\"} 3".to_owned(),
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} ".to_owned(),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245".to_owned(),
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",priority_level=\"exempt\"} 1".to_owned(),
        "kubernetes_build_info{build_date=\"1970-01-01T00:00:00Z\",".to_owned(),
        "scheduler_pending_pods{queue=\"active\"} 2".to_owned(),
    ] {
        assert!(text.contains(&expect), "{expect} is not in\n{text}");
    }
    if cfg!(target_os = "linux") {
        assert!(text.contains("\nprocess_resident_memory_bytes ") && text.contains("\nprocess_cpu_seconds_total "));
    }
    drop(watch);
    let text = metrics(&server).await;
    assert!(text.contains(
        &(map("apiserver_longrunning_requests{", "", "WATCH", "namespace").replace("dry_run=\"\",", "") + "} 0")
    ));
}

#[tokio::test]
async fn probes_answer_in_kubernetes_words() {
    let server = TestServer::with(|config| {
        let check = || Box::pin(async { Ok(()) }) as futures::future::BoxFuture<'static, Result<(), String>>;
        config.components.push(Component { name: "scheduler".to_owned(), check: std::sync::Arc::new(check) });
    })
    .await;
    let ask = async |path: &str| {
        let answer = server.get(path).await;
        (answer.code, String::from_utf8(answer.bytes.to_vec()).expect("text"))
    };
    assert_eq!(ask("/livez").await, (200, "ok".to_owned()));
    assert_eq!(ask("/livez/ping").await, (200, "ok".to_owned()));
    assert_eq!(ask("/readyz/poststarthook/rbac/bootstrap-roles").await, (200, "ok".to_owned()));
    assert_eq!(ask("/livez/nonsense").await, (404, "404 page not found\n".to_owned()));
    let (code, text) = ask("/livez?verbose").await;
    assert_eq!(code, 200);
    assert!(text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/"), "{text}");
    assert!(text.ends_with("livez check passed\n"), "{text}");
    let (_, text) = ask("/readyz?verbose&exclude=etcd&exclude=x&exclude=y").await;
    assert!(text.contains("[+]etcd excluded: ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n"), "{text}");
    let end = "[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"x\",\"y\"\nreadyz check passed\n";
    assert!(text.ends_with(end), "{text}");
    server.server.health().set_stopping();
    let (code, text) = ask("/readyz").await;
    assert_eq!(code, 500);
    assert!(text.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{text}");
    assert_eq!(ask("/readyz/shutdown").await, (500, "internal server error: process is shutting down\n".to_owned()));
    let (_, slis) = ask("/metrics/slis").await;
    check_format(&slis);
    for expect in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
        "kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0",
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} 3",
        "kubernetes_healthchecks_total{name=\"shutdown\",status=\"error\",type=\"readyz\"} 2",
    ] {
        assert!(slis.contains(expect), "{expect} is not in\n{slis}");
    }
    let paths = server.get("/").await.expect(200)["paths"].to_string();
    assert!(paths.contains("\"/livez/ping\"") && paths.contains("\"/metrics/slis\""), "{paths}");
}
