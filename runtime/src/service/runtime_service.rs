//! `runtime.v1.RuntimeService`.

use super::execute;
use crate::container::Container;
use crate::process::{Capture, Input, Output};
use crate::sandbox::Sandbox;
use crate::sim_runtime::SimRuntime;
use crate::stats;
use crate::streaming::Pending;
use crate::{Error, Result};
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use minik8s_cri::proto::runtime_service_server::RuntimeService;
use minik8s_cri::proto::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

/// What the runtime calls itself; kubelets show it as `minik8s://0.1.0`.
const RUNTIME_NAME: &str = "minik8s";
/// How many items one message of a streamed list holds.
const CHUNK_ITEMS: usize = 512;
/// The runtime handlers that are configured: the default one, the same by its name, and the one that clusters for
/// Kubernetes' end-to-end tests have besides (`test/e2e/framework/node/runtimeclass`). All of them simulate.
const RUNTIME_HANDLERS: [&str; 3] = ["", "runc", "test-handler"];

/// A streamed answer.
pub(super) type Chunks<T> = BoxStream<'static, Result<T, Status>>;
type Answer<T> = Result<Response<T>, Status>;

/// A list in messages of bounded size.
pub(super) fn chunks<I, T>(items: Vec<I>, message: impl Fn(Vec<I>) -> T) -> Response<Chunks<T>>
where
    T: Send + 'static,
{
    let mut items = items.into_iter().peekable();
    let mut messages = Vec::new();
    while items.peek().is_some() {
        messages.push(Ok(message(items.by_ref().take(CHUNK_ITEMS).collect())));
    }
    Response::new(futures::stream::iter(messages).boxed())
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Empty is any; ids may be shortened, as containerd allows.
fn id_matches(wanted: &str, id: &str) -> bool {
    id.starts_with(wanted)
}

fn unimplemented(call: &str) -> Status {
    Error::Unimplemented(format!("{call} is not simulated")).into()
}

impl SimRuntime {
    fn sandboxes_of(&self, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
        let filter = filter.unwrap_or_default();
        // What does not match is not copied: a kubelet asks for one pod at a time.
        let matches = |sandbox: &&Arc<Sandbox>| {
            id_matches(&filter.id, &sandbox.id)
                && filter.state.is_none_or(|wanted| wanted.state == sandbox.cri_state())
                && selects(&filter.label_selector, &sandbox.config.labels)
        };
        self.sandboxes().iter().filter(matches).map(|sandbox| sandbox.to_cri()).collect()
    }

    fn containers_matching(&self, filter: Option<ContainerFilter>) -> Vec<minik8s_cri::proto::Container> {
        let filter = filter.unwrap_or_default();
        let matches = |container: &&Arc<Container>| {
            id_matches(&filter.id, &container.id)
                && id_matches(&filter.pod_sandbox_id, &container.sandbox_id)
                && filter.state.is_none_or(|wanted| wanted.state == container.cri_state() as i32)
                && selects(&filter.label_selector, &container.config.labels)
        };
        self.containers().iter().filter(matches).map(|container| container.to_cri()).collect()
    }

    fn container_stats_of(&self, filter: Option<ContainerStatsFilter>) -> Vec<ContainerStats> {
        let filter = filter.unwrap_or_default();
        let matches = |container: &&Arc<Container>| {
            container.is_running()
                && id_matches(&filter.id, &container.id)
                && id_matches(&filter.pod_sandbox_id, &container.sandbox_id)
                && selects(&filter.label_selector, &container.config.labels)
        };
        self.containers().iter().filter(matches).map(|container| stats::of_container(self, container)).collect()
    }

    fn sandbox_stats_of(&self, filter: Option<PodSandboxStatsFilter>) -> Vec<PodSandboxStats> {
        let filter = filter.unwrap_or_default();
        let matches = |sandbox: &&Arc<Sandbox>| {
            sandbox.is_ready()
                && id_matches(&filter.id, &sandbox.id)
                && selects(&filter.label_selector, &sandbox.config.labels)
        };
        self.sandboxes().iter().filter(matches).map(|sandbox| stats::of_sandbox(self, sandbox)).collect()
    }

    async fn stop_sandbox(&self, sandbox: &Sandbox) {
        for container in self.containers_of(&sandbox.id) {
            container.stop(Duration::ZERO).await;
        }
        let was_ready = sandbox.is_ready();
        if let Some(address) = sandbox.stop() {
            self.ipam.release(address);
        }
        if was_ready {
            self.events.emit(self, &sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        }
    }

    async fn drop_container(&self, container: &Container) {
        container.stop(Duration::ZERO).await;
        self.forget_container(&container.id);
        self.events.emit(self, &container.sandbox_id, &container.id, ContainerEventType::ContainerDeletedEvent);
    }
}

#[async_trait]
impl RuntimeService for SimRuntime {
    async fn version(&self, request: Request<VersionRequest>) -> Answer<VersionResponse> {
        self.check_power()?;
        Ok(Response::new(VersionResponse {
            version: request.into_inner().version,
            runtime_name: RUNTIME_NAME.to_string(),
            runtime_version: env!("CARGO_PKG_VERSION").to_string(),
            runtime_api_version: "v1".to_string(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        self.check_power()?;
        let RunPodSandboxRequest { config, runtime_handler } = request.into_inner();
        let config = config.ok_or_else(|| Error::InvalidRequest("sandbox config must be specified".to_string()))?;
        if !RUNTIME_HANDLERS.contains(&runtime_handler.as_str()) {
            let message = format!("failed to get sandbox runtime: no runtime for {runtime_handler:?} is configured");
            return Err(Error::WrongState(message).into());
        }
        let sandbox = Arc::new(Sandbox::run(self, config, runtime_handler)?);
        let id = sandbox.id.clone();
        if let Err(error) = self.add_sandbox(sandbox.clone()) {
            sandbox.stop().into_iter().for_each(|address| self.ipam.release(address));
            return Err(error.into());
        }
        self.events.emit(self, &id, &id, ContainerEventType::ContainerCreatedEvent);
        self.events.emit(self, &id, &id, ContainerEventType::ContainerStartedEvent);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        self.check_power()?;
        if let Some(sandbox) = self.find_sandbox(&request.into_inner().pod_sandbox_id) {
            self.stop_sandbox(&sandbox).await;
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        self.check_power()?;
        if let Some(sandbox) = self.find_sandbox(&request.into_inner().pod_sandbox_id) {
            self.stop_sandbox(&sandbox).await;
            for container in self.containers_of(&sandbox.id) {
                self.drop_container(&container).await;
            }
            self.forget_sandbox(&sandbox.id);
            self.events.emit(self, &sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        self.check_power()?;
        let sandbox = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        let containers = self.containers_of(&sandbox.id);
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            info: BTreeMap::new(),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
            timestamp: self.now_nanos(),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        self.check_power()?;
        Ok(Response::new(ListPodSandboxResponse { items: self.sandboxes_of(request.into_inner().filter) }))
    }

    type StreamPodSandboxesStream = Chunks<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        self.check_power()?;
        let sandboxes = self.sandboxes_of(request.into_inner().filter);
        Ok(chunks(sandboxes, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        self.check_power()?;
        let CreateContainerRequest { pod_sandbox_id, config, .. } = request.into_inner();
        let sandbox = self.sandbox(&pod_sandbox_id)?;
        if !sandbox.is_ready() {
            let message = format!("failed to create container: sandbox {pod_sandbox_id:?} is not running");
            return Err(Error::WrongState(message).into());
        }
        let config = config.ok_or_else(|| Error::InvalidRequest("container config must be specified".to_string()))?;
        let container = Arc::new(Container::create(self, &sandbox, config)?);
        self.add_container(container.clone())?;
        self.events.emit(self, &sandbox.id, &container.id, ContainerEventType::ContainerCreatedEvent);
        Ok(Response::new(CreateContainerResponse { container_id: container.id.clone() }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        self.check_power()?;
        let container = self.container(&request.into_inner().container_id)?;
        container.start(&self.shared()).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        self.check_power()?;
        let StopContainerRequest { container_id, timeout } = request.into_inner();
        if let Some(container) = self.find_container(&container_id) {
            container.stop(Duration::from_secs(u64::try_from(timeout).unwrap_or(0))).await;
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.check_power()?;
        if let Some(container) = self.find_container(&request.into_inner().container_id) {
            self.drop_container(&container).await;
        }
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        self.check_power()?;
        Ok(Response::new(ListContainersResponse { containers: self.containers_matching(request.into_inner().filter) }))
    }

    type StreamContainersStream = Chunks<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        self.check_power()?;
        let containers = self.containers_matching(request.into_inner().filter);
        Ok(chunks(containers, |containers| StreamContainersResponse { containers }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        self.check_power()?;
        let status = Some(self.container(&request.into_inner().container_id)?.status());
        Ok(Response::new(ContainerStatusResponse { status, info: BTreeMap::new() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        self.check_power()?;
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        if container.cri_state() == ContainerState::ContainerExited {
            let message = format!("failed to update resources: container {:?} has exited", container.id);
            return Err(Error::WrongState(message).into());
        }
        container.update_resources(&request.linux.unwrap_or_default());
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        self.check_power()?;
        let container = self.container(&request.into_inner().container_id)?;
        if !container.is_running() {
            return Err(Error::WrongState("container is not running".to_string()).into());
        }
        // The log is found by path at every write, so that opening is all there is to do.
        container.log.open().map_err(|error| Error::Io(error.to_string()))?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        self.check_power()?;
        let ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
        let container = self.container(&container_id)?;
        let executed = execute(self, &container, &cmd, false)?;
        let (stdout, stderr) = (Capture::default(), Capture::default());
        let run = executed.run(Input::empty(), Output::new(stdout.clone()), Output::new(stderr.clone()));
        let exit_code = match u64::try_from(timeout) {
            Ok(seconds @ 1..) => {
                let limit = Duration::from_secs(seconds);
                self.clock.timeout(limit, run).await.map_err(|_| Error::ExecTimeout(timeout))?
            }
            _ => run.await,
        };
        Ok(Response::new(ExecSyncResponse { stdout: stdout.take(), stderr: stderr.take(), exit_code }))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        self.check_power()?;
        let request = request.into_inner();
        if !self.container(&request.container_id)?.is_running() {
            return Err(Error::WrongState(format!("container {:?} is not running", request.container_id)).into());
        }
        Ok(Response::new(ExecResponse { url: self.streams.register(self, Pending::Exec(request))? }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        self.check_power()?;
        let request = request.into_inner();
        if !self.container(&request.container_id)?.is_running() {
            return Err(Error::WrongState(format!("container {:?} is not running", request.container_id)).into());
        }
        Ok(Response::new(AttachResponse { url: self.streams.register(self, Pending::Attach(request))? }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        self.check_power()?;
        let request = request.into_inner();
        if !self.sandbox(&request.pod_sandbox_id)?.is_ready() {
            return Err(Error::WrongState(format!("sandbox {:?} is not running", request.pod_sandbox_id)).into());
        }
        Ok(Response::new(PortForwardResponse { url: self.streams.register(self, Pending::PortForward)? }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        self.check_power()?;
        let container = self.container(&request.into_inner().container_id)?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats::of_container(self, &container)) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        self.check_power()?;
        Ok(Response::new(ListContainerStatsResponse { stats: self.container_stats_of(request.into_inner().filter) }))
    }

    type StreamContainerStatsStream = Chunks<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        self.check_power()?;
        let stats = self.container_stats_of(request.into_inner().filter);
        Ok(chunks(stats, |container_stats| StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        self.check_power()?;
        let sandbox = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats::of_sandbox(self, &sandbox)) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        self.check_power()?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats: self.sandbox_stats_of(request.into_inner().filter) }))
    }

    type StreamPodSandboxStatsStream = Chunks<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        self.check_power()?;
        let stats = self.sandbox_stats_of(request.into_inner().filter);
        Ok(chunks(stats, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        self.check_power()?;
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            // A dual-stack node lists two; addresses are handed out of the IPv4 one.
            let cidr = network.pod_cidr.split(',').find(|cidr| !cidr.contains(':')).unwrap_or_default();
            self.ipam.set_cidr(cidr).map_err(Error::InvalidRequest)?;
        }
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.check_power()?;
        let condition = |kind: &str, status: bool, reason: &str, message: &str| RuntimeCondition {
            r#type: kind.to_string(),
            status,
            reason: reason.to_string(),
            message: message.to_string(),
        };
        let network = match self.ipam.is_ready() {
            true => condition("NetworkReady", true, "", ""),
            false => condition(
                "NetworkReady",
                false,
                "NetworkPluginNotReady",
                "Network plugin returns error: cni plugin not initialized",
            ),
        };
        let conditions = vec![condition("RuntimeReady", true, "", ""), network];
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: BTreeMap::new(),
            runtime_handlers: RUNTIME_HANDLERS
                .iter()
                .map(|name| RuntimeHandler {
                    name: name.to_string(),
                    // No simulated mount has others below it on the node.
                    features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
                })
                .collect(),
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, ..RuntimeFeatures::default() }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(unimplemented("CheckpointContainer"))
    }

    async fn checkpoint_pod(&self, _request: Request<CheckpointPodRequest>) -> Answer<CheckpointPodResponse> {
        Err(unimplemented("CheckpointPod"))
    }

    async fn restore_pod(&self, _request: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        Err(unimplemented("RestorePod"))
    }

    type GetContainerEventsStream = Chunks<ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        self.check_power()?;
        let state = Some((self.events.subscribe(), self.powered_off.clone()));
        let events = futures::stream::unfold(state, |state| async move {
            let (mut events, off) = state?;
            tokio::select! {
                biased;
                () = off.cancelled() => None,
                event = events.recv() => match event {
                    Ok(event) => Some((Ok(Arc::unwrap_or_clone(event)), Some((events, off)))),
                    Err(RecvError::Lagged(missed)) => {
                        Some((Err(Status::resource_exhausted(format!("{missed} container events were missed"))), None))
                    }
                    Err(RecvError::Closed) => None,
                },
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        self.check_power()?;
        // Statistics come through the stats calls; there are no metrics besides them.
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: Vec::new() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        self.check_power()?;
        Ok(Response::new(ListPodSandboxMetricsResponse { pod_metrics: Vec::new() }))
    }

    type StreamPodSandboxMetricsStream = Chunks<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        self.check_power()?;
        Ok(chunks(Vec::new(), |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
    }

    async fn runtime_config(&self, _request: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        self.check_power()?;
        let linux = Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Systemd as i32 });
        Ok(Response::new(RuntimeConfigResponse { linux }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        self.check_power()?;
        // Limits of a pod are told for information (KEP-1287); containers have their own.
        self.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}
