//! Bootstrap tokens, with which a machine joins a cluster: Secrets of a type of their own in `kube-system`.
//!
//! [`signer`] signs the public ConfigMap `cluster-info` with each of them, so that who holds a token can trust what it reads
//! there; [`cleaner`] deletes those that are over. kube-controller-manager runs both only when it is told to, as kubeadm
//! does. (Kubernetes: `pkg/controller/bootstrap`, `k8s.io/cluster-bootstrap/token`.)

pub mod cleaner;
pub mod signer;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use minik8s_client::ListOptions;

/// The type of the secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they count.
const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const ID_CHARACTERS: usize = 6;

/// Only these secrets are watched.
fn bootstrap_secrets() -> ListOptions {
    ListOptions { field_selector: Some(format!("type={TYPE}")), ..ListOptions::default() }
}

fn is_in_place(secret: &Secret) -> bool {
    secret.metadata.namespace.as_deref() == Some(NAMESPACE)
}

/// A value of the secret; `None` where it is absent or no text.
fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// How long the token lives: zero when it is over, or when nobody can tell; `None` for ever.
fn lives_for(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = text(secret, "expiration").filter(|expiration| !expiration.is_empty())?;
    let left = expiration.parse::<Timestamp>().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Some(left.unwrap_or_default())
}

/// Identifier and secret of a token that may sign.
fn for_signing(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let name = secret.metadata.name.as_deref()?.strip_prefix(NAME_PREFIX)?;
    let (id, token) = (text(secret, "token-id")?, text(secret, "token-secret")?);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = id == name && id.len() == ID_CHARACTERS && id.bytes().all(plain) && !token.is_empty();
    let over = lives_for(secret, now).is_some_and(|left| left.is_zero());
    (good && !over && text(secret, "usage-bootstrap-signing") == Some("true")).then_some((id, token))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    pub(super) fn secret(name: &str, data: &[(&str, &str)]) -> Secret {
        let mut secret: Secret =
            serde_json::from_value(json!({ "metadata": { "namespace": NAMESPACE, "name": name } })).expect("a secret");
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    #[test]
    fn a_token_signs_while_it_lives_and_is_meant_to() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let good = [("token-id", "abcdef"), ("token-secret", "s"), ("usage-bootstrap-signing", "true")];
        let with = |name: &str, extra: (&'static str, &'static str)| secret(name, &[&good[..], &[extra]].concat());
        for (secret, expect) in [
            (secret("bootstrap-token-abcdef", &good), Some(("abcdef", "s"))),
            (secret("bootstrap-token-abcdeg", &good), None),
            (secret("abcdef", &good), None),
            (with("bootstrap-token-abcdef", ("expiration", "2026-01-01T00:00:01Z")), Some(("abcdef", "s"))),
            (with("bootstrap-token-abcdef", ("expiration", "2026-01-01T00:00:00Z")), None),
            (with("bootstrap-token-abcdef", ("expiration", "soon")), None),
            (with("bootstrap-token-abcdef", ("usage-bootstrap-signing", "false")), None),
            (with("bootstrap-token-abcdef", ("token-secret", "")), None),
        ] {
            assert_eq!(for_signing(&secret, now), expect, "{secret:?}");
        }
    }
}
