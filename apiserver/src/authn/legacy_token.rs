//! ServiceAccount tokens that stand in Secrets of type `kubernetes.io/service-account-token`: a controller signs them, and
//! they are good as long as the Secret holds them and the account lives (`pkg/serviceaccount/legacy.go`).
//!
//! Left out: that their use is noted on the Secret (`kubernetes.io/legacy-token-last-used`).

use base64::{Engine, prelude::BASE64_STANDARD};
use minik8s_api::kinds::GroupResource;
use serde::Deserialize;

use super::{Outcome, TokenUser, jwt, jwt::PublicKey};
use crate::{
    cache::Objects,
    identity::{UserInfo, service_account_groups, service_account_name},
};

/// The issuer that they name.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// A label of Secrets whose tokens a cleaner has found unused for long.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    account_uid: String,
}

/// Who such a token speaks for. It was made for no audience, and is good for those of this server.
pub(super) fn authenticate(
    token: &str,
    keys: &[PublicKey],
    objects: &dyn Objects,
    audiences: &[String],
) -> Outcome<TokenUser> {
    let claims: Claims = jwt::verify(token, keys).map_err(|error| error.to_string())?;
    let Claims { sub, namespace, secret, account, account_uid } = &claims;
    if *sub != service_account_name(namespace, account) {
        return Err("sub claim doesn't match namespace and name".to_owned());
    }
    let get = |resource: &str, name: &str| {
        let found = objects.get(&GroupResource::new("", resource), namespace, name);
        let found = found.filter(|object| object.meta().deletion_timestamp.is_none());
        found.ok_or_else(|| format!("{resource} {namespace}/{name} has been deleted"))
    };
    let secret = get("secrets", secret)?;
    let stored = secret.value();
    let stored = stored["data"]["token"].as_str().and_then(|data| BASE64_STANDARD.decode(data).ok());
    if stored.as_deref() != Some(token.as_bytes()) {
        return Err("token does not match server's copy".to_owned());
    }
    if secret.label(INVALID_SINCE).is_some() {
        return Err("the token has been marked invalid".to_owned());
    }
    if get("serviceaccounts", account)?.uid() != account_uid {
        return Err(format!("serviceaccounts {namespace}/{account} has been deleted and made again"));
    }
    let user = UserInfo {
        name: sub.clone(),
        uid: account_uid.clone(),
        groups: service_account_groups(namespace).into(),
        ..UserInfo::default()
    };
    Ok(Some(TokenUser { user, audiences: audiences.to_vec() }))
}
