//! The condition `Available` of every APIService, and when to look again
//! (`kube-aggregator/pkg/controllers/status/{local,remote}`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use minik8s_api::kinds::GroupResource;
use minik8s_api::status::Status;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::services::{ApiService, Remote};
use super::{Aggregator, GROUP};
use crate::conditions::set_condition;
use crate::options::WriteOptions;
use crate::outgoing::{ServicePort, service};
use crate::registry::Context;

/// How often another server is asked again that was there the last time, or whose Service was not.
const RESYNC: Duration = Duration::from_secs(30);
/// When one is asked again that did not answer: after this, then after twice as long each time, up to [`RESYNC`].
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// How long the answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked at once: one good answer, of whichever endpoint, is enough.
const ATTEMPTS: usize = 5;
/// How much of the answer is read, for nothing but its end.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The state of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(reason: &'static str, message: &str) -> Verdict {
        Verdict { status: "True", reason, message: message.to_owned() }
    }

    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict { status: "False", reason, message }
    }
}

/// What a verdict rests on, as far as it is in objects: the Service and its slices, by their revisions.
type Grounds = (String, String, u16, u64, Vec<(String, u64)>);

/// When and on what grounds an APIService was looked at.
struct Look {
    grounds: Grounds,
    failures: u32,
    again: Duration,
}

/// Looks after all APIServices until `shutdown`.
pub(super) async fn run(aggregator: Arc<Aggregator>, shutdown: CancellationToken) {
    let mut looks: BTreeMap<String, Look> = BTreeMap::new();
    loop {
        let seen = aggregator.versions();
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = aggregator.look_at_all(&mut looks) => next,
        };
        let unchanged = || aggregator.versions() == seen;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = aggregator.wait(&unchanged, next) => {}
        }
    }
}

impl Aggregator {
    /// What all verdicts rest on.
    fn versions(&self) -> [u64; 3] {
        let objects = self.outgoing.objects();
        let of = |group: &str, resource: &str| objects.version(&GroupResource::new(group, resource));
        [of(GROUP, "apiservices"), of("", "services"), of("discovery.k8s.io", "endpointslices")]
    }

    fn grounds(&self, remote: &Remote) -> Grounds {
        let objects = self.outgoing.objects();
        let found = objects.get(&GroupResource::new("", "services"), &remote.namespace, &remote.service);
        let slices = objects.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(&remote.namespace));
        let slices = slices
            .iter()
            .filter(|slice| slice.label(service::SERVICE_NAME) == Some(&remote.service))
            .map(|slice| (slice.name().to_owned(), slice.revision()));
        let revision = found.map_or(0, |found| found.revision());
        (remote.namespace.clone(), remote.service.clone(), remote.port, revision, slices.collect())
    }

    /// Looks at every APIService that is due; how long until the next is.
    async fn look_at_all(&self, looks: &mut BTreeMap<String, Look>) -> Option<Duration> {
        let services = self.services();
        let now = self.outgoing.clock().monotonic();
        looks.retain(|name, _| services.others().any(|(service, _)| service.name == *name));
        self.documents.retain(|name| services.others().any(|(service, _)| service.name == *name));
        let local = services.iter().filter(|service| service.remote.is_none() && !service.available);
        let local = local.map(|service| {
            let verdict = Verdict::yes("Local", "Local APIServices are always available");
            async move { self.say(&service.name, &verdict).await }
        });
        let mut due = Vec::new();
        for (service, remote) in services.others() {
            let grounds = self.grounds(remote);
            let look = looks.get(&service.name);
            if look.is_none_or(|look| look.grounds != grounds || look.again <= now) {
                due.push((service, remote, grounds, look.map_or(0, |look| look.failures)));
            }
        }
        let others = due.into_iter().map(|(service, remote, grounds, failures)| async move {
            (service.name.clone(), self.look(service, remote, grounds, failures).await)
        });
        let (said, looked) = tokio::join!(join_all(local), join_all(others));
        let failed = said.iter().any(Result::is_err);
        looks.extend(looked);
        let now = self.outgoing.clock().monotonic();
        let next = looks.values().map(|look| look.again.saturating_sub(now)).min();
        if failed { Some(next.unwrap_or(RESYNC).min(RESYNC)) } else { next }
    }

    /// Judges one, says so, and fetches its documents if it is there.
    async fn look(&self, service: &ApiService, remote: &Remote, grounds: Grounds, failures: u32) -> Look {
        let verdict = self.judge(service, remote).await;
        let said = self.say(&service.name, &verdict).await;
        if verdict.status == "True" {
            self.fetch(service, remote).await;
        } else {
            self.documents.outdate(&service.name);
        }
        let failed = verdict.reason == "FailedDiscoveryCheck" || said.is_err();
        let failures = if failed { failures.saturating_add(1) } else { 0 };
        let pause = match failures {
            0 => RESYNC,
            failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(RESYNC),
        };
        Look { grounds, failures, again: self.outgoing.clock().monotonic() + pause }
    }

    async fn judge(&self, api_service: &ApiService, remote: &Remote) -> Verdict {
        let Remote { namespace, service: name, port, .. } = remote;
        let objects = self.outgoing.objects();
        let Some(service) = objects.get(&GroupResource::new("", "services"), namespace, name) else {
            return Verdict::no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
        };
        let service = service.value();
        if service["spec"]["type"] == "ClusterIP" {
            let Some(wanted) = service::find_port(&service, ServicePort::Number(*port)) else {
                let words = format!("service/{name} in {namespace:?} is not listening on port {port}");
                return Verdict::no("ServicePortError", words);
            };
            let slices = service::slices(&**objects, namespace, name);
            if slices.is_empty() {
                let words = format!("cannot find endpointslices for service/{name} in {namespace:?}");
                return Verdict::no("EndpointsNotFound", words);
            }
            let port_name = service::port_name(wanted);
            if slices.iter().all(|slice| service::ready(slice, port_name).is_empty()) {
                let words = format!(
                    "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
                );
                return Verdict::no("MissingEndpoints", words);
            }
        }
        let path = api_service.path();
        let attempts = (0..ATTEMPTS).map(|_| Box::pin(self.answers(remote, &path)));
        match select_ok(attempts).await {
            Ok(_) => Verdict::yes("Passed", "all checks passed"),
            Err(error) => Verdict::no("FailedDiscoveryCheck", error),
        }
    }

    /// Whether another server answers for its group, whoever it is.
    async fn answers(&self, remote: &Remote, path: &str) -> Result<(), String> {
        let port = ServicePort::Number(remote.port);
        let endpoint = self.outgoing.resolve(&remote.namespace, &remote.service, port);
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let url = format!("https://{endpoint}{path}");
        let asked = self.ask(remote, &endpoint, path, "*/*", MAX_ANSWER_BYTES);
        let answer = self.outgoing.clock().timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.unwrap_or_else(|_| {
            Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
        });
        match answer {
            Ok(answer) if (200..300).contains(&answer.code) => Ok(()),
            Ok(answer) => {
                Err(format!("failing or missing response from {url}: bad status from {url}: {}", answer.code))
            }
            Err(error) => Err(format!("failing or missing response from {url}: Get {url:?}: {error}")),
        }
    }

    async fn say(&self, name: &str, verdict: &Verdict) -> Result<(), Status> {
        let now = self.registry.now();
        let target = self.registry.target(GROUP, "v1", "apiservices", "", name)?.subresource("status");
        let mut change = |object: &mut Value| {
            set_condition(object, "Available", verdict.status, verdict.reason, &verdict.message, &now);
            Ok(())
        };
        let written = self.registry.modify(&Context::internal(), &target, &WriteOptions::default(), &mut change).await;
        match written {
            Ok(_) => Ok(()),
            // It has gone meanwhile.
            Err(status) if status.code == 404 => Ok(()),
            Err(status) => {
                tracing::warn!(name, message = status.message, "the availability of an APIService was not written");
                Err(status)
            }
        }
    }
}
