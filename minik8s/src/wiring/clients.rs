//! The components that are clients of the API: the scheduler and the controllers.

use minik8s_client::{Client, InformerFactory};
use minik8s_controllers::ControllerManager;
use minik8s_scheduler::Scheduler;
use tokio_util::sync::CancellationToken;

/// Schedules until `cancel`.
pub async fn schedule(client: Client, settings: &minik8s_scheduler::Settings, cancel: CancellationToken) {
    let informers = InformerFactory::new(client, cancel.clone());
    Scheduler::new(&informers, settings).run(cancel).await;
}

/// Runs the controllers until `cancel`. `client` watches; `client_for` makes the client under which a controller writes,
/// by the name of its ServiceAccount.
pub async fn control(
    client: Client,
    client_for: impl Fn(&str) -> Client,
    config: minik8s_controllers::Config,
    cancel: CancellationToken,
) {
    let informers = InformerFactory::new(client, cancel.clone());
    ControllerManager::new(informers, client_for, config).run(cancel).await;
}
