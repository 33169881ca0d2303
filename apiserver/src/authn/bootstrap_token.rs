//! Bootstrap tokens: `id.secret`, kept as a secret in `kube-system`, with which a node asks to join
//! (`plugin/pkg/auth/authenticator/token/bootstrap`).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use minik8s_api::kinds::GroupResource;
use minik8s_clock::Clock;
use serde_json::Value;

use super::Outcome;
use crate::{cache::Objects, identity::UserInfo};

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_CHARACTERS: usize = 6;
const SECRET_CHARACTERS: usize = 16;
const MAX_GROUP_CHARACTERS: usize = 256;

/// Looks tokens up among the secrets of `kube-system`.
pub struct BootstrapTokens {
    objects: Arc<dyn Objects>,
    secrets: GroupResource,
    clock: Clock,
}

impl BootstrapTokens {
    /// The tokens of a cluster.
    pub fn new(objects: Arc<dyn Objects>, clock: Clock) -> BootstrapTokens {
        BootstrapTokens { objects, secrets: GroupResource::new("", "secrets"), clock }
    }

    pub(super) fn authenticate(&self, token: &str) -> Outcome<UserInfo> {
        let Some((id, secret)) = token
            .split_once('.')
            .filter(|(id, secret)| of_length(id, ID_CHARACTERS) && of_length(secret, SECRET_CHARACTERS))
        else {
            return Ok(None);
        };
        let Some(object) = self.objects.get(&self.secrets, "kube-system", &format!("bootstrap-token-{id}")) else {
            return Ok(None);
        };
        let object = object.value();
        let data = |key: &str| {
            let encoded = object.pointer(&format!("/data/{key}")).and_then(Value::as_str)?;
            String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()
        };
        let deleted = object.pointer("/metadata/deletionTimestamp").is_some();
        if deleted
            || object["type"] != SECRET_TYPE
            || data("token-id").as_deref() != Some(id)
            || !same(&data("token-secret").unwrap_or_default(), secret)
        {
            return Err("the bootstrap token does not match its secret".to_owned());
        }
        if let Some(expiration) = data("expiration") {
            let expired = expiration.parse::<Timestamp>().map_or(true, |at| at <= self.clock.now());
            if expired {
                return Err("the bootstrap token has expired".to_owned());
            }
        }
        if data("usage-bootstrap-authentication").as_deref() != Some("true") {
            return Err("the bootstrap token is not marked usage-bootstrap-authentication".to_owned());
        }
        let mut groups = vec![GROUP.to_owned()];
        for group in
            data("auth-extra-groups").unwrap_or_default().split(',').map(str::trim).filter(|group| !group.is_empty())
        {
            if !is_bootstrap_group(group) {
                return Err(format!("the bootstrap token names the group {group:?}"));
            }
            groups.push(group.to_owned());
        }
        Ok(Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() }))
    }
}

fn of_length(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Compares digests, so that how long it takes says nothing about the secret.
fn same(a: &str, b: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest(a).as_ref() == digest(b).as_ref()
}

/// `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`.
fn is_bootstrap_group(group: &str) -> bool {
    let rest = group.strip_prefix("system:bootstrappers:").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_GROUP_CHARACTERS).contains(&rest.len())
        && rest.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}
