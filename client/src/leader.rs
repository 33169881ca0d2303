//! Leader election by a Lease: of several replicas of a component, one works and the others wait.
//! (client-go: `tools/leaderelection`, whose durations are the defaults here.)

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, is_already_exists, is_conflict, is_not_found};

/// How long a lease holds without being renewed.
const LEASE: Duration = Duration::from_secs(15);
/// How long a leader that cannot renew goes on before it gives up.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait between two attempts.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// One candidate for one lease.
pub struct LeaderElector {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
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
            observed: None,
        }
    }

    /// Waits to be the leader, runs `lead` with a token that is cancelled when leadership is lost, and returns when
    /// `lead` has ended. Returns without leading when `cancel` comes first.
    pub async fn run<F, Fut>(mut self, cancel: CancellationToken, lead: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        let clock = self.client.clock().clone();
        loop {
            match self.try_acquire_or_renew().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(lease = self.name, %error, "cannot acquire the lease")
                }
            }
            let pause = self.client.random().jitter(RETRY_PERIOD, 0.2);
            tokio::select! {
            biased;
                           () = cancel.cancelled() => return,
                           () = clock.sleep(pause) => {}
                       }
        }
        tracing::info!(lease = self.name, identity = self.identity, "became leader");
        let term = cancel.child_token();
        let leading = lead(term.clone());
        tokio::pin!(leading);
        tokio::select! {
        biased;
                   () = &mut leading => {}
                   () = self.keep() => {
                       tracing::warn!(lease = self.name, "lost the lease");
                       term.cancel();
                       leading.await;
                   }
               }
        self.release().await;
    }

    /// Renews until that has failed for too long.
    async fn keep(&mut self) {
        let clock = self.client.clock().clone();
        let mut renewed = clock.monotonic();
        loop {
            clock.sleep(RETRY_PERIOD).await;
            match self.try_acquire_or_renew().await {
                Ok(true) => renewed = clock.monotonic(),
                Ok(false) => return,
                Err(error) => tracing::debug!(lease = self.name, %error, "cannot renew the lease"),
            }
            if clock.monotonic() - renewed > RENEW_DEADLINE {
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
        match api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the record has stood unchanged, by our own clock, for longer than it holds.
    fn has_expired(&mut self, spec: &LeaseSpec) -> bool {
        let now = self.client.clock().monotonic();
        let seen = (spec.renew_time.clone(), spec.holder_identity.clone());
        match &self.observed {
            Some((renewed, holder, at)) if (renewed, holder) == (&seen.0, &seen.1) => {
                let holds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                now > *at + holds.map_or(LEASE, Duration::from_secs)
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
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
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
        if let Err(error) = released.await {
            tracing::debug!(lease = self.name, %error, "cannot release the lease");
        }
    }
}
