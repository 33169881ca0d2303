//! ServiceAccount tokens that a Secret holds. They never expire; they are good while the Secret holds them
//! (`pkg/serviceaccount/legacy.go`).
//!
//! Each day's first use is written down as a label of the Secret, so that what nobody uses can be cleared away.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use minik8s_api::kinds::GroupResource;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cache::{Object, Objects},
    identity::{UserInfo, service_account_groups, split_service_account},
    options::WriteOptions,
    registry::{
        Context, Registry,
        patch::{Patch, PatchType},
    },
};

/// Who these tokens say issued them.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// Since when their use is written down stands in this ConfigMap of `kube-system`, under `since`.
pub const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Uses that wait to be written down; what comes on top is written down at the next use.
const MAX_PENDING_USES: usize = 128;

/// The claims of such a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// A token was used.
#[derive(Debug, Clone)]
pub struct Use {
    namespace: String,
    secret: String,
    uid: String,
    day: Date,
}

/// Where uses are told, and whoever writes them down ([`record`]).
pub fn uses() -> (mpsc::Sender<Use>, mpsc::Receiver<Use>) {
    mpsc::channel(MAX_PENDING_USES)
}

/// The user of a token whose signature is good.
pub(super) fn user_of(
    objects: &dyn Objects,
    now: Timestamp,
    uses: &mpsc::Sender<Use>,
    token: &str,
    claims: &Claims,
) -> Result<UserInfo, String> {
    let Claims { sub, namespace, secret, account, uid } = claims;
    for (value, name) in [
        (sub, "sub"),
        (namespace, "namespace"),
        (secret, "secretName"),
        (account, "serviceAccountName"),
        (uid, "serviceAccountUID"),
    ] {
        if value.is_empty() {
            return Err(format!("{name} claim is missing"));
        }
    }
    if split_service_account(sub) != Some((namespace, account)) {
        return Err("sub claim is invalid".to_owned());
    }
    let get = |resource: &str, name: &str| objects.get(&GroupResource::new("", resource), namespace, name);
    let held = get("secrets", secret).filter(|held| held.meta().deletion_timestamp.is_none());
    let held = held.ok_or("Token has been invalidated")?;
    let value = held.value();
    let own = value.pointer("/data/token").and_then(Value::as_str).unwrap_or_default();
    if BASE64_STANDARD.decode(own).unwrap_or_default() != token.as_bytes() {
        return Err("Token does not match server's copy".to_owned());
    }
    let there = get("serviceaccounts", account).filter(|there| there.meta().deletion_timestamp.is_none());
    let there = there.ok_or_else(|| format!("ServiceAccount {namespace}/{account} has been deleted"))?;
    if there.uid() != uid {
        return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", there.uid()));
    }
    if label(&held, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
        return Err(format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked \
             invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        ));
    }
    tell(uses, &held, now);
    Ok(UserInfo {
        name: sub.clone(),
        uid: uid.clone(),
        groups: service_account_groups(namespace).into(),
        ..UserInfo::default()
    })
}

fn label(secret: &Object, key: &str) -> Option<String> {
    Some(secret.value()["metadata"]["labels"].get(key)?.as_str()?.to_owned())
}

/// Asks for today's use to be written down, unless it is.
fn tell(uses: &mpsc::Sender<Use>, secret: &Arc<Object>, now: Timestamp) {
    let day = now.to_zoned(TimeZone::UTC).date();
    let known = label(secret, LAST_USED).and_then(|used| used.parse::<Date>().ok());
    if known.is_some_and(|known| known >= day) {
        return;
    }
    // A full channel means that the next use of the day is written down instead.
    let _ = uses.try_send(Use {
        namespace: secret.namespace().to_owned(),
        secret: secret.name().to_owned(),
        uid: secret.uid().to_owned(),
        day,
    });
}

/// Writes uses down until nobody can tell of any more.
pub async fn record(registry: Arc<Registry>, mut uses: mpsc::Receiver<Use>) {
    while let Some(used) = uses.recv().await {
        let secrets = GroupResource::new("", "secrets");
        let objects: &dyn Objects = &**registry.cache();
        let wanted = used.day.to_string();
        let written = objects.get(&secrets, &used.namespace, &used.secret);
        if written.is_none_or(|secret| label(&secret, LAST_USED).as_deref() == Some(&wanted)) {
            continue;
        }
        let body = json!({ "metadata": { "uid": used.uid, "labels": { LAST_USED: wanted } } });
        let patch = Patch { patch_type: PatchType::Merge, body, duplicates: Vec::new() };
        let target = registry.target("", "v1", "secrets", &used.namespace, &used.secret);
        let written = match target {
            Ok(target) => registry.patch(&Context::internal(), &target, &patch, &WriteOptions::default()).await,
            Err(status) => Err(status),
        };
        if let Err(status) = written {
            tracing::debug!(namespace = used.namespace, secret = used.secret, %status, "cannot label a used token");
        }
    }
}
