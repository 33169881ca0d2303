//! A method a call.

use crate::proto::image_service_client::ImageServiceClient;
use crate::proto::image_service_server::{ImageService, ImageServiceServer};
use crate::proto::runtime_service_client::RuntimeServiceClient;
use crate::proto::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::proto::*;
use crate::{Error, Result};
use std::sync::Arc;
use tonic::Streaming;
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// The largest answer a client takes (`maxMsgSize` of `k8s.io/cri-client/pkg/utils.go`).
const MESSAGE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Carries encoded calls to a runtime: in process, or any HTTP/2 connection.
pub type Connection = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tonic::Status>;

/// A kubelet's view of a runtime. Cheap to clone; clones share the connection.
///
/// Required parts of answers are taken out, so a method returns what its name says. Errors are the runtime's own.
#[derive(Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Connection>,
    images: ImageServiceClient<Connection>,
}

impl Client {
    /// A client of a runtime in the same process: calls are encoded and decoded, but no socket is used.
    pub fn in_process<S: RuntimeService + ImageService>(server: Arc<S>) -> Client {
        let runtime = RuntimeServiceServer::from_arc(server.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
        let images = ImageServiceServer::from_arc(server).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
        Client::over(boxed(runtime), boxed(images))
    }

    /// A client over connections to the two services, which may be the same.
    pub fn over(runtime: Connection, images: Connection) -> Client {
        Client {
            runtime: RuntimeServiceClient::new(runtime).max_decoding_message_size(MESSAGE_LIMIT_BYTES),
            images: ImageServiceClient::new(images).max_decoding_message_size(MESSAGE_LIMIT_BYTES),
        }
    }

    /// Name and versions of the runtime.
    pub async fn version(&self) -> Result<VersionResponse> {
        // The version of the kubelet's API, not of CRI (`kubeRuntimeAPIVersion` of kuberuntime_manager.go).
        let request = VersionRequest { version: "0.1.0".to_string() };
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    /// Conditions of the runtime (`RuntimeReady`, `NetworkReady`) and its handlers and features.
    pub async fn status(&self) -> Result<StatusResponse> {
        Ok(self.runtime.clone().status(StatusRequest { verbose: false }).await?.into_inner())
    }

    /// The cgroup driver.
    pub async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        Ok(self.runtime.clone().runtime_config(RuntimeConfigRequest {}).await?.into_inner())
    }

    /// Tells the runtime the node's pod CIDR, such as `10.128.3.0/24`.
    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_string() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        self.runtime.clone().update_runtime_config(request).await?;
        Ok(())
    }

    /// Creates and starts a pod sandbox; returns its id.
    pub async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let runtime_handler = runtime_handler.to_string();
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
        Ok(self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// Stops a sandbox and whatever runs in it, without grace. Stopping twice is no error.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        self.runtime.clone().stop_pod_sandbox(request).await?;
        Ok(())
    }

    /// Removes a sandbox and its containers. Removing what is gone is no error.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        self.runtime.clone().remove_pod_sandbox(request).await?;
        Ok(())
    }

    /// The status of a sandbox, with the statuses of its containers where the runtime sends events.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: false };
        let response = self.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        match response.status {
            Some(_) => Ok(response),
            None => Err(Error::Incomplete { call: "PodSandboxStatus", field: "status" }),
        }
    }

    /// The sandboxes that match the filter; all without one.
    pub async fn list_pod_sandbox(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let request = ListPodSandboxRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    /// Creates a container in a sandbox; returns its id.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_string(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: id.to_string() };
        self.runtime.clone().start_container(request).await?;
        Ok(())
    }

    /// Asks a container to stop, kills it after `timeout_seconds`, and returns when it has ended.
    pub async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_string(), timeout: timeout_seconds };
        self.runtime.clone().stop_container(request).await?;
        Ok(())
    }

    /// Removes a container, killing it where it still runs. Removing what is gone is no error.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: id.to_string() };
        self.runtime.clone().remove_container(request).await?;
        Ok(())
    }

    /// The containers that match the filter; all without one.
    pub async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let request = ListContainersRequest { filter };
        Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
    }

    /// The status of a container.
    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.to_string(), verbose: false };
        let response = self.runtime.clone().container_status(request).await?.into_inner();
        response.status.ok_or(Error::Incomplete { call: "ContainerStatus", field: "status" })
    }

    /// Changes the limits of a container.
    pub async fn update_container_resources(&self, id: &str, linux: LinuxContainerResources) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(linux),
            ..UpdateContainerResourcesRequest::default()
        };
        self.runtime.clone().update_container_resources(request).await?;
        Ok(())
    }

    /// Tells a sandbox what its pod has as a whole. Not every runtime has the call: see [`Error::is_unimplemented`].
    pub async fn update_pod_sandbox_resources(&self, request: UpdatePodSandboxResourcesRequest) -> Result<()> {
        self.runtime.clone().update_pod_sandbox_resources(request).await?;
        Ok(())
    }

    /// Makes a container write to a fresh log file, after the old one was renamed.
    pub async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = ReopenContainerLogRequest { container_id: id.to_string() };
        self.runtime.clone().reopen_container_log(request).await?;
        Ok(())
    }

    /// Runs a command to its end; `timeout_seconds` 0 is no limit. A command that fails is an `Ok` with its exit code.
    pub async fn exec_sync(&self, id: &str, command: Vec<String>, timeout_seconds: i64) -> Result<ExecSyncResponse> {
        let request = ExecSyncRequest { container_id: id.to_string(), cmd: command, timeout: timeout_seconds };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// Prepares a command; returns the address on which its streams are served, for a [`crate::StreamConnector`].
    pub async fn exec(&self, request: ExecRequest) -> Result<String> {
        Ok(self.runtime.clone().exec(request).await?.into_inner().url)
    }

    /// Prepares to attach to a container; returns the address of its streams.
    pub async fn attach(&self, request: AttachRequest) -> Result<String> {
        Ok(self.runtime.clone().attach(request).await?.into_inner().url)
    }

    /// Prepares to forward ports of a sandbox; returns the address of the streams.
    pub async fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        Ok(self.runtime.clone().port_forward(request).await?.into_inner().url)
    }

    /// What happens to containers from now on. The stream ends with an error when the reader falls too far behind; list
    /// again then.
    pub async fn container_events(&self) -> Result<Streaming<ContainerEventResponse>> {
        Ok(self.runtime.clone().get_container_events(GetEventsRequest {}).await?.into_inner())
    }

    /// Resource use of one container.
    pub async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let request = ContainerStatsRequest { container_id: id.to_string() };
        let response = self.runtime.clone().container_stats(request).await?.into_inner();
        response.stats.ok_or(Error::Incomplete { call: "ContainerStats", field: "stats" })
    }

    /// Resource use of the containers that match the filter.
    pub async fn list_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest { filter };
        Ok(self.runtime.clone().list_container_stats(request).await?.into_inner().stats)
    }

    /// Resource use of the sandboxes that match the filter.
    pub async fn list_pod_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>> {
        let request = ListPodSandboxStatsRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats)
    }

    /// Images on the node.
    pub async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone().list_images(ListImagesRequest { filter: None }).await?.into_inner().images)
    }

    /// An image on the node; `None` when it has not been pulled.
    pub async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>> {
        let request = ImageStatusRequest { image: Some(image), verbose: false };
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    /// Pulls an image; returns the reference under which containers use it.
    pub async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String> {
        let request = PullImageRequest { image: Some(image), auth, sandbox_config };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// Removes an image. Removing what is gone is no error.
    pub async fn remove_image(&self, image: ImageSpec) -> Result<()> {
        self.images.clone().remove_image(RemoveImageRequest { image: Some(image) }).await?;
        Ok(())
    }

    /// Space that images and containers take.
    pub async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        Ok(self.images.clone().image_fs_info(ImageFsInfoRequest {}).await?.into_inner())
    }
}

fn boxed<S>(service: S) -> Connection
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(|error: S::Error| tonic::Status::from_error(error.into())))
}
