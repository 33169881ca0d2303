//! Secrets with tokens that were made for ServiceAccounts by themselves, as old versions did, go a year after their last use:
//! first they are marked invalid, a year later they are deleted.
//!
//! Looks once a day at the Secrets of type `kubernetes.io/service-account-token` that their account names in `secrets`
//! and no pod mounts; labels them `kubernetes.io/legacy-token-invalid-since`, deletes them. The API server writes the
//! label of their last use. (Kubernetes: `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.)

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use minik8s_client::{Client, Event, Lister, WorkQueue, is_conflict, is_not_found};
use serde_json::json;

use crate::manager::{Context, Reconciler};
use crate::pods::secret_names;
use crate::service_account_tokens::{ACCOUNT_NAME, ACCOUNT_UID, annotation, token_secrets};

/// How long a token must not have been used (`--legacy-service-account-token-clean-up-period`).
const UNUSED: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How often to look.
const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// Since when the API server writes down the use of tokens.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// There is one thing to do.
const ALL: &str = "all";

/// See the module.
#[derive(Clone)]
pub struct LegacyTokenCleaner {
    client: Client,
    accounts: Lister<ServiceAccount>,
    secrets: Lister<Secret>,
    pods: Lister<Pod>,
    queue: WorkQueue<String>,
}

/// What is to be done with a secret.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Invalidate,
    Delete,
}

impl LegacyTokenCleaner {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let accounts = context.informers.informer::<ServiceAccount>();
        let secrets = context.informers.informer_with::<Secret>(token_secrets());
        let pods = context.informers.informer::<Pod>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        // Without such secrets there is nothing to look at, and no timer.
        secrets.on_event(move |event| {
            if matches!(event, Event::Added(_)) {
                add.add(ALL.to_owned());
            }
        });
        Self {
            client: context.client.clone(),
            accounts: accounts.lister(),
            secrets: secrets.lister(),
            pods: pods.lister(),
            queue,
        }
    }

    async fn tracked_since(&self) -> Result<Option<Date>, kube::Error> {
        let map = self.client.namespaced::<ConfigMap>("kube-system").get_opt(TRACKING).await?;
        let since = map.and_then(|map| map.data?.get("since")?.parse().ok());
        if since.is_none() {
            tracing::warn!(controller = Self::NAME, "ConfigMap {TRACKING} does not say since when tokens are tracked");
        }
        Ok(since)
    }

    /// Whether the account names the secret, which is how one that was made by itself is told from one made by hand.
    fn is_generated(&self, secret: &Secret) -> bool {
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let uid = annotation(secret, ACCOUNT_UID);
        let account = self.accounts.get(namespace, annotation(secret, ACCOUNT_NAME));
        account.is_some_and(|account| {
            let same = uid.is_empty() || account.metadata.uid.as_deref() == Some(uid);
            same && account.secrets.iter().flatten().any(|reference| reference.name == secret.metadata.name)
        })
    }

    fn mounted(&self) -> BTreeSet<(String, String)> {
        let pods = self.pods.list();
        let named = pods.iter().flat_map(|pod| {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            secret_names(pod).into_iter().map(move |name| (namespace.clone(), name.to_owned()))
        });
        named.collect()
    }

    async fn invalidate(&self, secret: &Secret, today: Date) -> Result<(), kube::Error> {
        let (namespace, name) = place(secret);
        let labels = json!({ INVALID_SINCE: today.to_string() });
        let patch = json!({ "metadata": { "uid": secret.metadata.uid, "labels": labels } });
        tracing::info!(
            controller = Self::NAME,
            namespace,
            name,
            "Mark the auto-generated service account token as invalid"
        );
        let api = self.client.namespaced::<Secret>(namespace);
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn delete(&self, secret: &Secret) -> Result<(), kube::Error> {
        let (namespace, name) = place(secret);
        let version = secret.metadata.resource_version.clone();
        let preconditions = Preconditions { uid: None, resource_version: version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        tracing::info!(controller = Self::NAME, namespace, name, "Delete auto-generated service account token");
        match self.client.namespaced::<Secret>(namespace).delete(name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn place(secret: &Secret) -> (&str, &str) {
    let meta = &secret.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// What the age and the labels of a secret say, on a day on which tokens have been tracked for long enough.
fn verdict(secret: &Secret, now: Timestamp) -> Verdict {
    let label = |key: &str| secret.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let oldest = now - UNUSED;
    let young = secret.metadata.creation_timestamp.as_ref().is_none_or(|at| at.0 >= oldest);
    // A label that is no day says nothing about the last use.
    let used = label(LAST_USED).is_some_and(|used| used.parse::<Date>().map_or(true, |used| used >= day(oldest)));
    if young || used || secret.metadata.deletion_timestamp.is_some() {
        return Verdict::Keep;
    }
    match label(INVALID_SINCE).and_then(|since| since.parse::<Date>().ok()) {
        None => Verdict::Invalidate,
        Some(since) if since >= day(oldest) => Verdict::Keep,
        Some(_) => Verdict::Delete,
    }
}

impl Reconciler for LegacyTokenCleaner {
    const NAME: &'static str = "legacy-service-account-token-cleaner";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let secrets = self.secrets.list();
        if secrets.is_empty() {
            return Ok(());
        }
        self.queue.add_after(key, PERIOD);
        let now = self.client.clock().now();
        let judged = secrets.iter().map(|secret| (secret, verdict(secret, now)));
        let due: Vec<_> =
            judged.filter(|(secret, verdict)| *verdict != Verdict::Keep && self.is_generated(secret)).collect();
        if due.is_empty() {
            return Ok(());
        }
        // Before that nobody wrote down whether a token was used; the first day counts for nothing.
        let tracked = self.tracked_since().await?.and_then(|since| since.tomorrow().ok());
        if tracked.is_none_or(|since| day(now - UNUSED) < since) {
            return Ok(());
        }
        let mounted = self.mounted();
        for (secret, verdict) in due {
            let (namespace, name) = place(secret);
            if mounted.contains(&(namespace.to_owned(), name.to_owned())) {
                continue;
            }
            match verdict {
                Verdict::Invalidate => self.invalidate(secret, day(now)).await?,
                _ => self.delete(secret).await?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_a_year_after_it_was_marked() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().expect("a time");
        let secret = |created: &str, labels: serde_json::Value| -> Secret {
            let value = json!({ "metadata": { "creationTimestamp": created, "labels": labels } });
            serde_json::from_value(value).expect("a secret")
        };
        let old = "2020-01-01T00:00:00Z";
        for (created, labels, expect) in [
            ("2026-01-01T00:00:00Z", json!({}), Verdict::Keep),
            (old, json!({}), Verdict::Invalidate),
            (old, json!({ LAST_USED: "2025-06-01" }), Verdict::Keep),
            (old, json!({ LAST_USED: "2025-05-31" }), Verdict::Invalidate),
            (old, json!({ LAST_USED: "never" }), Verdict::Keep),
            (old, json!({ INVALID_SINCE: "2025-06-01" }), Verdict::Keep),
            (old, json!({ INVALID_SINCE: "2025-05-31" }), Verdict::Delete),
            (old, json!({ INVALID_SINCE: "" }), Verdict::Invalidate),
        ] {
            assert_eq!(verdict(&secret(created, labels.clone()), now), expect, "{created} {labels}");
        }
    }
}
