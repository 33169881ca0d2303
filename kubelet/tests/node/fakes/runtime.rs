//! A container runtime that starts nothing: it keeps records, says what happened, and lets a test end containers.
//!
//! It speaks the bytes of gRPC below tonic, so that a call that no test needs takes no line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use minik8s_clock::Clock;
use minik8s_cri::{Client, MemoryFs, NodeFs as _, proto};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::broadcast;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;

/// Events that may wait for the kubelet.
const EVENTS: usize = 1024;

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, proto::PodSandboxStatus>,
    sandbox_configs: BTreeMap<String, proto::PodSandboxConfig>,
    containers: BTreeMap<String, (String, proto::ContainerStatus)>,
    images: BTreeMap<String, proto::Image>,
    configs: BTreeMap<String, proto::ContainerConfig>,
    born: u32,
    without_network: bool,
    /// Bytes of memory that each container is said to use.
    memory_usage: u64,
    /// What was told of other resources: container or sandbox, and what it gets.
    updates: Vec<String>,
    /// Why containers cannot get other resources.
    update_failure: Option<String>,
}

/// The runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    clock: Clock,
    fs: Arc<MemoryFs>,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<proto::ContainerEventResponse>,
}

impl FakeRuntime {
    pub fn new(clock: Clock, fs: Arc<MemoryFs>) -> Self {
        Self { clock, fs, state: Arc::default(), events: broadcast::channel(EVENTS).0 }
    }

    pub fn client(&self) -> Client {
        let runtime = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let runtime = runtime.clone();
            async move { Ok(runtime.answer(request).await) }
        });
        let connection = BoxCloneSyncService::new(service);
        Client::over(connection.clone(), connection)
    }

    /// The names and states of all containers.
    pub fn containers(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut containers: Vec<_> = state.containers.values().map(|(_, status)| status).collect();
        containers.sort_by_key(|status| status.created_at);
        let line = |status: &&proto::ContainerStatus| {
            let metadata = status.metadata.clone().unwrap_or_default();
            format!("{}/{} {}", metadata.name, metadata.attempt, status.state().as_str_name())
        };
        containers.iter().map(line).collect()
    }

    pub fn sandboxes(&self) -> usize {
        self.state.lock().sandboxes.len()
    }

    /// The runtime handlers of all sandboxes.
    pub fn runtime_handlers(&self) -> Vec<String> {
        self.state.lock().sandboxes.values().map(|sandbox| sandbox.runtime_handler.clone()).collect()
    }

    /// What all sandboxes were made from.
    pub fn sandbox_configs(&self) -> Vec<proto::PodSandboxConfig> {
        self.state.lock().sandbox_configs.values().cloned().collect()
    }

    /// What the running container of that name was made from.
    pub fn config(&self, name: &str) -> proto::ContainerConfig {
        let id = self.running(name);
        self.state.lock().configs[&id].clone()
    }

    /// Ends the running container of that name.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.running(name);
        self.end(&id, code);
    }

    /// Whether pods can have a network.
    pub fn set_network(&self, has_network: bool) {
        self.state.lock().without_network = !has_network;
    }

    /// How much memory each container is said to use.
    pub fn set_memory_usage(&self, bytes: u64) {
        self.state.lock().memory_usage = bytes;
    }

    /// Why containers cannot get other resources, if they cannot.
    pub fn set_update_failure(&self, why: Option<&str>) {
        self.state.lock().update_failure = why.map(str::to_owned);
    }

    /// What was told of other resources since the last time.
    pub fn take_updates(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().updates)
    }

    /// A running container writes a line.
    pub fn log(&self, name: &str, line: &str) {
        let id = self.running(name);
        let path = self.state.lock().containers[&id].1.log_path.clone();
        let line = format!("{} stdout F {line}\n", self.clock.now());
        self.fs.append(&path, line.as_bytes()).unwrap();
    }

    fn running(&self, name: &str) -> String {
        let state = self.state.lock();
        let found = state.containers.values().find(|(_, status)| {
            status.state() == proto::ContainerState::ContainerRunning
                && status.metadata.as_ref().is_some_and(|metadata| metadata.name == name)
        });
        found.expect("a running container").1.id.clone()
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap()
    }

    fn end(&self, id: &str, code: i32) {
        let now = self.now();
        if let Some((_, status)) = self.state.lock().containers.get_mut(id)
            && status.state() != proto::ContainerState::ContainerExited
        {
            status.set_state(proto::ContainerState::ContainerExited);
            status.exit_code = code;
            status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            status.finished_at = now;
        }
        self.say(id);
    }

    /// Tells the kubelet that something happened to a container.
    fn say(&self, id: &str) {
        let state = self.state.lock();
        let Some((sandbox, _)) = state.containers.get(id) else {
            return;
        };
        let pod_sandbox_status = state.sandboxes.get(sandbox).cloned();
        let event =
            proto::ContainerEventResponse { container_id: id.to_owned(), pod_sandbox_status, ..Default::default() };
        let _ = self.events.send(event);
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let frame = request.into_body().collect().await.unwrap().to_bytes();
        let message = frame.slice(5..);
        if call == "GetContainerEvents" {
            return self.stream_events();
        }
        match self.call(&call, message) {
            Ok(answer) => {
                grpc(stream::iter([Ok(Frame::data(framed(&answer))), Ok(Frame::trailers(trailers(&Status::ok(""))))]))
            }
            Err(status) => grpc(stream::iter([Ok(Frame::trailers(trailers(&status)))])),
        }
    }

    fn stream_events(&self) -> Response<Body> {
        let events = stream::unfold(self.events.subscribe(), |mut events| async move {
            let event = events.recv().await.ok()?;
            Some((Ok(Frame::data(framed(&event.encode_to_vec()))), events))
        });
        grpc(events)
    }

    fn call(&self, call: &str, message: Bytes) -> Result<Vec<u8>, Status> {
        match call {
            "Version" => encode(proto::VersionResponse {
                runtime_name: "containerd".to_owned(),
                runtime_version: "2.2.0".to_owned(),
                ..Default::default()
            }),
            "Status" => {
                let condition = |name: &str, status| proto::RuntimeCondition {
                    r#type: name.to_owned(),
                    status,
                    ..Default::default()
                };
                let network = !self.state.lock().without_network;
                let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
                let features = proto::RuntimeHandlerFeatures { recursive_read_only_mounts: true, ..Default::default() };
                encode(proto::StatusResponse {
                    status: Some(proto::RuntimeStatus { conditions }),
                    runtime_handlers: vec![proto::RuntimeHandler { features: Some(features), ..Default::default() }],
                    ..Default::default()
                })
            }
            "UpdateRuntimeConfig" => encode(proto::UpdateRuntimeConfigResponse {}),
            "ListImages" => {
                encode(proto::ListImagesResponse { images: self.state.lock().images.values().cloned().collect() })
            }
            "ImageStatus" | "PullImage" => self.image(call, message),
            "RunPodSandbox" | "StopPodSandbox" | "RemovePodSandbox" | "PodSandboxStatus" | "ListPodSandbox" => {
                self.sandbox(call, message)
            }
            _ => self.container(call, message),
        }
    }

    fn image(&self, call: &str, message: Bytes) -> Result<Vec<u8>, Status> {
        let mut state = self.state.lock();
        if call == "ImageStatus" {
            let wanted = decode::<proto::ImageStatusRequest>(message)?.image.unwrap_or_default().image;
            return encode(proto::ImageStatusResponse {
                image: state.images.get(&wanted).cloned(),
                ..Default::default()
            });
        }
        let name = decode::<proto::PullImageRequest>(message)?.image.unwrap_or_default().image;
        if name.ends_with(":nonexistent") {
            return Err(Status::not_found(format!("failed to pull and unpack image \"docker.io/library/{name}\"")));
        }
        let image = proto::Image {
            id: format!("sha256:{name}"),
            repo_tags: vec![name.clone()],
            size: 1234,
            ..Default::default()
        };
        state.images.insert(image.id.clone(), image.clone());
        state.images.insert(name, image.clone());
        encode(proto::PullImageResponse { image_ref: image.id })
    }

    fn sandbox(&self, call: &str, message: Bytes) -> Result<Vec<u8>, Status> {
        let now = self.now();
        let mut state = self.state.lock();
        match call {
            "RunPodSandbox" => {
                let proto::RunPodSandboxRequest { config, runtime_handler } = decode(message)?;
                let config: proto::PodSandboxConfig = config.unwrap_or_default();
                if !matches!(runtime_handler.as_str(), "" | "runc") {
                    return Err(Status::unknown(format!("no runtime for {runtime_handler:?} is configured")));
                }
                state.born += 1;
                let id = format!("sandbox{}", state.born);
                let ip = format!("10.128.0.{}", state.born + 1);
                state.sandbox_configs.insert(id.clone(), config.clone());
                let status = proto::PodSandboxStatus {
                    id: id.clone(),
                    metadata: config.metadata,
                    labels: config.labels,
                    network: Some(proto::PodSandboxNetworkStatus { ip, ..Default::default() }),
                    created_at: now,
                    runtime_handler,
                    ..Default::default()
                };
                state.sandboxes.insert(id.clone(), status);
                encode(proto::RunPodSandboxResponse { pod_sandbox_id: id })
            }
            "StopPodSandbox" => {
                let id = decode::<proto::StopPodSandboxRequest>(message)?.pod_sandbox_id;
                if let Some(sandbox) = state.sandboxes.get_mut(&id) {
                    sandbox.set_state(proto::PodSandboxState::SandboxNotready);
                }
                encode(proto::StopPodSandboxResponse {})
            }
            "RemovePodSandbox" => {
                let id = decode::<proto::RemovePodSandboxRequest>(message)?.pod_sandbox_id;
                state.sandboxes.remove(&id);
                state.sandbox_configs.remove(&id);
                encode(proto::RemovePodSandboxResponse {})
            }
            "PodSandboxStatus" => {
                let id = decode::<proto::PodSandboxStatusRequest>(message)?.pod_sandbox_id;
                encode(proto::PodSandboxStatusResponse {
                    status: state.sandboxes.get(&id).cloned(),
                    ..Default::default()
                })
            }
            _ => {
                let filter = decode::<proto::ListPodSandboxRequest>(message)?.filter.unwrap_or_default();
                let matching = state.sandboxes.values().filter(|s| selects(&filter.label_selector, &s.labels));
                let items = matching.map(|status| proto::PodSandbox {
                    id: status.id.clone(),
                    metadata: status.metadata.clone(),
                    state: status.state,
                    labels: status.labels.clone(),
                    ..Default::default()
                });
                encode(proto::ListPodSandboxResponse { items: items.collect() })
            }
        }
    }

    fn container(&self, call: &str, message: Bytes) -> Result<Vec<u8>, Status> {
        match call {
            "CreateContainer" => self.create(decode(message)?),
            "StartContainer" => {
                let id = decode::<proto::StartContainerRequest>(message)?.container_id;
                let now = self.now();
                if let Some((_, status)) = self.state.lock().containers.get_mut(&id) {
                    status.set_state(proto::ContainerState::ContainerRunning);
                    status.started_at = now;
                }
                self.say(&id);
                encode(proto::StartContainerResponse {})
            }
            "StopContainer" => {
                self.end(&decode::<proto::StopContainerRequest>(message)?.container_id, 137);
                encode(proto::StopContainerResponse {})
            }
            "RemoveContainer" => {
                let id = decode::<proto::RemoveContainerRequest>(message)?.container_id;
                self.state.lock().containers.remove(&id);
                encode(proto::RemoveContainerResponse {})
            }
            "UpdateContainerResources" => {
                let request = decode::<proto::UpdateContainerResourcesRequest>(message)?;
                let mut state = self.state.lock();
                if let Some(why) = &state.update_failure {
                    return Err(Status::unknown(why.clone()));
                }
                let linux = request.linux.unwrap_or_default();
                let (_, status) = state.containers.get_mut(&request.container_id).expect("a container");
                let name = status.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
                status.resources = Some(proto::ContainerResources { linux: Some(linux.clone()), windows: None });
                state.updates.push(format!("{name}: {}", figures(&linux)));
                encode(proto::UpdateContainerResourcesResponse {})
            }
            "UpdatePodSandboxResources" => {
                let linux = decode::<proto::UpdatePodSandboxResourcesRequest>(message)?.resources.unwrap_or_default();
                self.state.lock().updates.push(format!("pod: {}", figures(&linux)));
                encode(proto::UpdatePodSandboxResourcesResponse {})
            }
            "ListPodSandboxStats" => {
                let state = self.state.lock();
                let usage = |bytes| proto::MemoryUsage {
                    usage_bytes: Some(proto::UInt64Value { value: bytes }),
                    ..Default::default()
                };
                let container = |status: &proto::ContainerStatus| proto::ContainerStats {
                    attributes: Some(proto::ContainerAttributes {
                        metadata: status.metadata.clone(),
                        ..Default::default()
                    }),
                    memory: Some(usage(state.memory_usage)),
                    ..Default::default()
                };
                let running = state.containers.values().map(|(_, status)| status);
                let running = running.filter(|status| status.state() == proto::ContainerState::ContainerRunning);
                let containers: Vec<_> = running.map(container).collect();
                let whole = state.memory_usage * containers.len() as u64;
                let linux =
                    proto::LinuxPodSandboxStats { memory: Some(usage(whole)), containers, ..Default::default() };
                let stats = proto::PodSandboxStats { linux: Some(linux), ..Default::default() };
                encode(proto::ListPodSandboxStatsResponse { stats: vec![stats] })
            }
            "ReopenContainerLog" => {
                let id = decode::<proto::ReopenContainerLogRequest>(message)?.container_id;
                let path = self.state.lock().containers[&id].1.log_path.clone();
                self.fs.append(&path, b"").map_err(|error| Status::internal(error.to_string()))?;
                encode(proto::ReopenContainerLogResponse {})
            }
            "ContainerStatus" => {
                let id = decode::<proto::ContainerStatusRequest>(message)?.container_id;
                let found = self.state.lock().containers.get(&id).map(|(_, status)| status.clone());
                let status = found.ok_or_else(|| Status::not_found(format!("container {id:?} not found")))?;
                encode(proto::ContainerStatusResponse { status: Some(status), ..Default::default() })
            }
            "ListContainers" => {
                let filter = decode::<proto::ListContainersRequest>(message)?.filter.unwrap_or_default();
                let state = self.state.lock();
                let wanted = |s: &proto::ContainerStatus| {
                    selects(&filter.label_selector, &s.labels)
                        && filter.state.is_none_or(|state| state.state == s.state)
                };
                let matching = state.containers.values().filter(|(_, s)| wanted(s));
                let containers = matching.map(|(sandbox, status)| proto::Container {
                    id: status.id.clone(),
                    pod_sandbox_id: sandbox.clone(),
                    metadata: status.metadata.clone(),
                    state: status.state,
                    labels: status.labels.clone(),
                    ..Default::default()
                });
                encode(proto::ListContainersResponse { containers: containers.collect() })
            }
            other => Err(Status::new(Code::Unimplemented, other.to_owned())),
        }
    }

    fn create(&self, request: proto::CreateContainerRequest) -> Result<Vec<u8>, Status> {
        let (config, sandbox) = (request.config.unwrap_or_default(), request.sandbox_config.unwrap_or_default());
        let now = self.now();
        let mut state = self.state.lock();
        state.born += 1;
        let id = format!("container{}", state.born);
        let path = format!("{}/{}", sandbox.log_directory, config.log_path);
        self.fs.write(&path, b"").map_err(|error| Status::internal(error.to_string()))?;
        let status = proto::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: config.image.clone().unwrap_or_default().image,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            resources: config
                .linux
                .as_ref()
                .map(|linux| proto::ContainerResources { linux: linux.resources.clone(), windows: None }),
            created_at: now,
            log_path: path,
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        state.configs.insert(id.clone(), config);
        encode(proto::CreateContainerResponse { container_id: id })
    }
}

fn figures(linux: &proto::LinuxContainerResources) -> String {
    let (shares, quota, memory) = (linux.cpu_shares, linux.cpu_quota, linux.memory_limit_in_bytes);
    format!("shares={shares} quota={quota} memory={memory}")
}

fn selects(
    selector: &std::collections::BTreeMap<String, String>,
    labels: &std::collections::BTreeMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn encode<M: Message>(message: M) -> Result<Vec<u8>, Status> {
    Ok(message.encode_to_vec())
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}

fn grpc<S>(frames: S) -> Response<Body>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
{
    let body = Body::new(StreamBody::new(frames));
    Response::builder().header(http::header::CONTENT_TYPE, "application/grpc").body(body).unwrap()
}
