//! The whole cluster in one thread and in virtual time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use minik8s::cluster::Cluster;
use minik8s::simulation;
use serde_json::json;

fn deployment(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]},
            },
        },
    }))
    .unwrap()
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    let all = cluster.admin().namespaced::<Pod>("default").list(&ListParams::default()).await;
    all.unwrap().items
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn home(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// Waits, in virtual time, until so many pods are ready; answers where they are.
async fn until_ready(cluster: &Cluster, count: usize, within: Duration) -> Vec<String> {
    let deadline = cluster.clock().monotonic() + within;
    loop {
        let ready: Vec<Pod> = pods(cluster).await.into_iter().filter(ready).collect();
        if ready.len() == count {
            return ready.iter().map(home).collect();
        }
        assert!(cluster.clock().monotonic() < deadline, "{} of {count} pods are ready", ready.len());
        cluster.clock().sleep(Duration::from_millis(100)).await;
    }
}

async fn create(cluster: &Cluster, replicas: i32) {
    let api = cluster.admin().namespaced::<Deployment>("default");
    api.create(&PostParams::default(), &deployment(replicas)).await.unwrap();
}

#[test]
fn pods_of_a_dead_node_come_back_elsewhere() {
    simulation::run(1, 3, |cluster: Arc<Cluster>| async move {
        create(&cluster, 6).await;
        let homes: BTreeSet<_> = until_ready(&cluster, 6, Duration::from_secs(60)).await.into_iter().collect();
        assert_eq!(homes.len(), 3, "the pods are spread");

        cluster.nodes().stop("node-2").await.unwrap();
        let died = cluster.clock().monotonic();
        let is_unknown = || async {
            let node = cluster.admin().all::<Node>().get("node-2").await.unwrap();
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|condition| {
                condition.type_ == "Ready"
                    && condition.status == "Unknown"
                    && condition.message.as_deref() == Some("Kubelet stopped posting node status.")
            })
        };
        while !is_unknown().await {
            cluster.clock().sleep(Duration::from_secs(1)).await;
        }
        let noticed = cluster.clock().monotonic() - died;
        assert!((30..=60).contains(&noticed.as_secs()), "noticed after {noticed:?}");

        // The pods are tolerated for five minutes, then replaced.
        loop {
            let alive = pods(&cluster).await.into_iter().filter(|pod| ready(pod) && home(pod) != "node-2").count();
            if alive == 6 {
                break;
            }
            cluster.clock().sleep(Duration::from_secs(1)).await;
        }
        let replaced = cluster.clock().monotonic() - died;
        assert!((300..=420).contains(&replaced.as_secs()), "replaced after {replaced:?}");

        // The machine comes back, and with it the end of the pods that were given up.
        cluster.nodes().start("node-2").await.unwrap();
        loop {
            if pods(&cluster).await.len() == 6 {
                break;
            }
            cluster.clock().sleep(Duration::from_secs(1)).await;
        }
    });
}
