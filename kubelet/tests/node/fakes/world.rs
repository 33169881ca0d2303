//! A whole kubelet between a fake API and a fake runtime, in virtual time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Empty};
use k8s_openapi::api::core::v1::{NodeAddress, Pod, Service};
use minik8s_client::{Client, Informer, ListOptions};
use minik8s_clock::{Clock, Random, Simulation};
use minik8s_cri::{MemoryFs, TcpStreamConnector};
use minik8s_kubelet::{Capacity, InformerPodSource, Kubelet, KubeletConfig, Machine, PodNetwork};
use minik8s_streaming::{BoxedStream, http_over, pair};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::api::FakeApi;
use super::runtime::FakeRuntime;

/// How often all tasks get a turn before the world counts as quiet.
const TURNS: usize = 300;
pub const POD: &str = "/api/v1/namespaces/default/pods/web";

/// A network in which every port listens, or none.
#[derive(Default)]
pub struct Network {
    pub listens: AtomicBool,
}

#[async_trait]
impl PodNetwork for Network {
    async fn dial(&self, _: &str, _: u16) -> io::Result<BoxedStream> {
        match self.listens.load(Ordering::SeqCst) {
            true => Ok(pair().0),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// What a kubelet finds when it starts, and leaves when it stops.
pub struct Surroundings {
    pub api: FakeApi,
    pub runtime: FakeRuntime,
    pub fs: Arc<MemoryFs>,
    pub network: Arc<Network>,
    pub clock: Clock,
    pub static_pods: Vec<Pod>,
}

pub struct World {
    pub surroundings: Surroundings,
    pub simulation: Simulation,
    pub kubelet: Arc<Kubelet>,
    pub cancel: CancellationToken,
}

impl std::ops::Deref for World {
    type Target = Surroundings;

    fn deref(&self) -> &Surroundings {
        &self.surroundings
    }
}

impl World {
    pub fn new(static_pods: Vec<Pod>) -> Self {
        let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let fs = Arc::new(MemoryFs::new(clock.clone(), 128 << 20));
        let runtime = FakeRuntime::new(clock.clone(), fs.clone());
        let (api, network) = (FakeApi::new(), Arc::default());
        let surroundings = Surroundings { api, runtime, fs, network, clock, static_pods };
        let (kubelet, cancel) = surroundings.start();
        Self { surroundings, simulation, kubelet, cancel }
    }

    /// Lets everything happen that needs no time.
    pub async fn settle(&self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    /// Lets that much time pass, timer by timer.
    pub async fn pass(&self, time: Duration) {
        let until = self.clock.monotonic() + time;
        self.settle().await;
        while self.simulation.advance_to_next_until(until) {
            self.settle().await;
        }
        self.simulation.advance(until - self.clock.monotonic());
        self.settle().await;
    }

    /// A kubelet ends, and another of the same node takes its place.
    pub async fn restart_kubelet(&mut self) {
        self.cancel.cancel();
        self.settle().await;
        (self.kubelet, self.cancel) = self.start();
        self.settle().await;
    }

    /// The node starts anew: its runtime has forgotten everything.
    pub async fn reboot(&mut self) {
        self.cancel.cancel();
        self.settle().await;
        self.surroundings.runtime = FakeRuntime::new(self.clock.clone(), self.fs.clone());
        (self.kubelet, self.cancel) = self.start();
        self.settle().await;
    }

    pub fn pod(&self) -> Value {
        self.api.get(POD).expect("the pod")
    }

    /// `phase reason` of the pod and its first container.
    pub fn summary(&self) -> String {
        let pod = self.pod();
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        let state = container["state"].as_object().and_then(|state| state.iter().next());
        let (state, detail) = state.map_or(("", Value::Null), |(name, value)| (name.as_str(), value.clone()));
        let reason = detail["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("{} {state}{reason} restarts={}", status["phase"].as_str().unwrap_or("-"), container["restartCount"])
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let stream = self.kubelet.connect().unwrap();
        let request = http::Request::get(path).body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = http_over(stream, request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }
}

impl Surroundings {
    fn start(&self) -> (Arc<Kubelet>, CancellationToken) {
        let cancel = CancellationToken::new();
        let random = Random::seeded(7);
        let client = Client::over(self.api.clone(), "kubelet", self.clock.clone(), random.clone());
        let services: Informer<Service> = Informer::new(client.clone(), "/api/v1/services", ListOptions::default());
        let config = KubeletConfig {
            node_name: "node-1".to_owned(),
            clock: self.clock.clone(),
            random,
            cri: self.runtime.client(),
            fs: self.fs.clone(),
            streams: Arc::new(TcpStreamConnector),
            network: self.network.clone(),
            pods: Arc::new(InformerPodSource::of_node(client.clone(), "node-1", cancel.clone())),
            services: services.lister(),
            client,
            capacity: Capacity::default(),
            machine: Machine::default(),
            labels: Default::default(),
            taints: Vec::new(),
            addresses: vec![NodeAddress { type_: "InternalIP".to_owned(), address: "192.168.0.10".to_owned() }],
            pod_cidr: Some("10.128.0.0/24".to_owned()),
            cluster_dns: vec!["10.96.0.10".to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            static_pods: self.static_pods.clone(),
            static_pod_path: None,
            port: minik8s_kubelet::KUBELET_PORT,
        };
        let kubelet = Kubelet::new(config).unwrap();
        tokio::spawn(kubelet.clone().run(cancel.clone()));
        (kubelet, cancel)
    }
}

pub fn web(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generation": 1}, "spec": spec});
    pod["spec"]["nodeName"] = json!("node-1");
    pod
}

pub fn nginx() -> Value {
    web(json!({"containers": [{"name": "c", "image": "nginx:1.27"}]}))
}
