//! Leader election by a Lease: of several replicas of a component, one works and the others wait.
//! (client-go: `tools/leaderelection`, whose durations are the defaults here.)

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, is_already_exists, is_not_found};
use crate::events::{EventRecorder, EventType};

/// How patient candidates and leaders are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderTiming {
    /// How long a lease holds without being renewed (`--leader-elect-lease-duration`).
    pub lease: Duration,
    /// How long a leader that cannot renew goes on before it gives up (`--leader-elect-renew-deadline`).
    pub renew_deadline: Duration,
    /// How long to wait between two attempts (`--leader-elect-retry-period`).
    pub retry_period: Duration,
}

impl Default for LeaderTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew_deadline: seconds(10), retry_period: seconds(2) }
    }
}

/// How much longer than [`LeaderTiming::retry_period`] a candidate waits at most, as a fraction of it.
const JITTER: f64 = 0.2;

/// How a candidacy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to end, as a leader or before it was one.
    Cancelled,
    /// What the leader did has ended by itself.
    Done,
    /// Somebody else has the lease, or it could not be renewed.
    Lost,
}

/// One candidate for one lease.
pub struct LeaderElector {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    timing: LeaderTiming,
    /// The record as last seen and when it last changed by our own clock: other clocks are not trusted.
    observed: Option<(Option<MicroTime>, Option<String>, Duration)>,
}

impl LeaderElector {
    /// A candidate named `identity` for the lease `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing: LeaderTiming::default(),
            observed: None,
        }
    }

    /// The same with other durations.
    pub fn with_timing(mut self, timing: LeaderTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Waits to be the leader, runs `lead` with a token that is cancelled when leadership is lost or `cancel` comes, and
    /// returns when `lead` has ended. Returns without leading when `cancel` comes first.
    pub async fn run<F, Fut>(mut self, cancel: CancellationToken, lead: F) -> Outcome
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Outcome::Cancelled,
            () = self.acquire() => {}
        }
        tracing::info!(lease = self.name, identity = self.identity, "became leader");
        self.tell();
        let term = cancel.child_token();
        let leading = lead(term.clone());
        tokio::pin!(leading);
        let outcome = tokio::select! {
            biased;
            () = &mut leading => if cancel.is_cancelled() { Outcome::Cancelled } else { Outcome::Done },
            () = self.keep() => {
                tracing::warn!(lease = self.name, "lost the lease");
                term.cancel();
                leading.await;
                Outcome::Lost
            }
        };
        self.release().await;
        outcome
    }

    /// Tries until the lease is ours. A server that does not answer is asked anew after a while.
    async fn acquire(&mut self) {
        let clock = self.client.clock().clone();
        loop {
            match clock.timeout(self.timing.renew_deadline, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "cannot acquire the lease"),
            }
            clock.sleep(self.client.random().jitter(self.timing.retry_period, JITTER)).await;
        }
    }

    /// Says in an event who leads.
    fn tell(&self) {
        let lease = ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            ..ObjectReference::default()
        };
        let recorder = EventRecorder::new(self.client.clone(), &self.name, None);
        let message = format!("{} became leader", self.identity);
        recorder.event(&lease, EventType::Normal, "LeaderElection", message);
    }

    /// Renews until that has failed for too long.
    async fn keep(&mut self) {
        let clock = self.client.clock().clone();
        let mut renewed = clock.monotonic();
        loop {
            clock.sleep(self.timing.retry_period).await;
            let left = (renewed + self.timing.renew_deadline).saturating_sub(clock.monotonic());
            // A server that does not answer must not keep a leader in office.
            match clock.timeout(left, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => renewed = clock.monotonic(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "cannot renew the lease"),
                Err(_) => return,
            }
            if clock.monotonic() - renewed >= self.timing.renew_deadline {
                return;
            }
        }
    }

    async fn try_acquire_or_renew(&mut self) -> Result<bool, kube::Error> {
        let now = self.client.clock().now();
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let mut lease = match api.get(&self.name).await {
            Ok(lease) => lease,
            Err(error) if is_not_found(&error) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let fresh = Lease { metadata, spec: Some(self.record(now, now, 0)) };
                return match api.create(&PostParams::default(), &fresh).await {
                    Ok(_) => Ok(true),
                    Err(error) if is_already_exists(&error) => Ok(false),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let ours = holder.as_deref() == Some(self.identity.as_str());
        if !ours && holder.is_some() && !self.has_expired(&spec) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!ours);
        let since = spec.acquire_time.filter(|_| ours).map_or(now, |time| time.0);
        lease.spec = Some(self.record(since, now, transitions));
        // A conflict is an error like any other: whether somebody took the lease shows at the next attempt.
        api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| true)
    }

    /// Whether the record has stood unchanged, by our own clock, for longer than it holds.
    fn has_expired(&mut self, spec: &LeaseSpec) -> bool {
        let now = self.client.clock().monotonic();
        let seen = (spec.renew_time.clone(), spec.holder_identity.clone());
        match &self.observed {
            Some((renewed, holder, at)) if (renewed, holder) == (&seen.0, &seen.1) => {
                let holds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                now > *at + holds.map_or(self.timing.lease, Duration::from_secs)
            }
            _ => {
                self.observed = Some((seen.0, seen.1, now));
                false
            }
        }
    }

    fn record(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease up, so that the next candidate need not wait for it to run out.
    async fn release(&self) {
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let released = async {
            let mut lease = api.get(&self.name).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(self.identity.as_str())
            {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match self.client.clock().timeout(self.timing.renew_deadline, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "cannot release the lease"),
            Err(_) => tracing::debug!(lease = self.name, "cannot release the lease: no answer"),
        }
    }
}
