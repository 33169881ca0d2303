//! Containers that do nothing cost nothing: thousands of them stand in one process.

use minik8s_clock::{Clock, Random};
use minik8s_cri::proto::*;
use minik8s_cri::{Client, MemoryFs};
use minik8s_runtime::image::Profiles;
use minik8s_runtime::{SimConfig, SimRuntime, Unreachable};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NODES: usize = 20;
const PODS: usize = 50;
const IMAGES: [(&str, &[&str]); 4] =
    [("nginx:1.27", &[]), ("team/app:v1", &[]), ("busybox", &["sleep", "infinity"]), ("redis:8", &[])];

fn node(clock: &Clock, index: usize) -> Arc<SimRuntime> {
    SimRuntime::new(SimConfig {
        node_name: format!("node-{index}"),
        clock: clock.clone(),
        random: Random::seeded(index as u64),
        fs: Arc::new(MemoryFs::new(clock.clone(), 16 << 20)),
        profiles: Profiles::builtin(),
        host_programs: BTreeMap::new(),
        network: Arc::new(Unreachable),
        preloaded_images: IMAGES.iter().map(|(image, _)| image.to_string()).collect(),
    })
    .expect("a valid configuration")
}

async fn fill(client: &Client, index: usize) {
    client.update_pod_cidr(&format!("10.128.{index}.0/24")).await.expect("a CIDR");
    for pod in 0..PODS {
        let metadata = PodSandboxMetadata { name: format!("pod-{pod}"), uid: pod.to_string(), ..Default::default() };
        let sandbox_config = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        let sandbox = client.run_pod_sandbox(sandbox_config.clone(), "").await.expect("a sandbox");
        let (image, command) = IMAGES[pod % IMAGES.len()];
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_string(), attempt: 0 }),
            image: Some(ImageSpec { image: image.to_string(), ..Default::default() }),
            command: command.iter().map(|word| word.to_string()).collect(),
            ..Default::default()
        };
        let container = client.create_container(&sandbox, config, sandbox_config).await.expect("a container");
        client.start_container(&container).await.expect("started");
    }
}

#[test]
fn idle_containers_hold_no_timer() {
    let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
    let driver = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            simulation.advance_to_next();
        })
        .build()
        .expect("a runtime");
    let nodes: Vec<Arc<SimRuntime>> = (0..NODES).map(|index| node(&clock, index)).collect();
    driver.block_on(async {
        for (index, node) in nodes.iter().enumerate() {
            fill(&Client::in_process(node.clone()), index).await;
        }
        // What programs say when they start takes them a moment.
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.pending(), 0, "timers of idle containers");
        for node in &nodes {
            let client = Client::in_process(node.clone());
            let running = ContainerStateValue { state: ContainerState::ContainerRunning as i32 };
            let filter = ContainerFilter { state: Some(running), ..Default::default() };
            assert_eq!(client.list_containers(Some(filter)).await.expect("listed").len(), PODS);
            node.power_off().await;
            let error = client.version().await.expect_err("switched off");
            assert!(error.to_string().starts_with("rpc error: code = Unavailable"), "{error}");
        }
    });
}
