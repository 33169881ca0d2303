//! ServiceAccount tokens: signed by this server, and good only while what they are bound to lives
//! (`pkg/serviceaccount/claims.go`).

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use minik8s_api::kinds::GroupResource;
use minik8s_clock::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use tokio::sync::mpsc;

use super::{
    Outcome, TokenUser,
    jwt::{self, PublicKey, unverified_issuer},
    legacy_token,
};
use crate::{
    cache::{Object, Objects},
    identity::{UserInfo, service_account_groups, service_account_name},
};

/// Verified tokens that are remembered; the cache starts anew when it is full.
const MAX_REMEMBERED: usize = 4096;
/// A token outlives the deletion of what it is bound to by this much, so that clocks may differ.
const LEEWAY_SECONDS: i64 = 60;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it was made.
    #[serde(default)]
    pub aud: Vec<String>,
    /// Not good from here on, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// The token's own identifier.
    #[serde(default)]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// Not good before.
    pub nbf: i64,
    /// User name.
    pub sub: String,
}

/// The objects a token lives with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of all but the node.
    pub namespace: String,
    /// The node the pod runs on, or the node the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account itself.
    pub serviceaccount: Reference,
    /// From here on use of the token should warn, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by name, at one of its lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// UID.
    #[serde(default)]
    pub uid: String,
}

/// Judges tokens this server signed.
pub struct ServiceAccountTokens {
    objects: Arc<dyn Objects>,
    clock: Clock,
    keys: Vec<PublicKey>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    uses: mpsc::Sender<legacy_token::Use>,
    /// Claims of tokens whose signature was good, by the token's digest.
    remembered: Mutex<BTreeMap<[u8; 32], Arc<Claims>>>,
}

/// Which of the audiences asked for a token is for.
fn common(own: &[String], target: &[String]) -> Result<Vec<String>, String> {
    let common: Vec<String> = target.iter().filter(|audience| own.contains(audience)).cloned().collect();
    if common.is_empty() {
        return Err(format!("token audiences {own:?} is invalid for the target audiences {target:?}"));
    }
    Ok(common)
}

impl ServiceAccountTokens {
    /// Trusts tokens that one of `keys` signed and whose issuer is among `issuers`; `audiences` are the names of this API
    /// server. Uses of tokens that Secrets hold go to `uses`.
    pub fn new(
        objects: Arc<dyn Objects>,
        clock: Clock,
        keys: Vec<PublicKey>,
        issuers: Vec<String>,
        audiences: Vec<String>,
        uses: mpsc::Sender<legacy_token::Use>,
    ) -> ServiceAccountTokens {
        ServiceAccountTokens { objects, clock, keys, issuers, audiences, uses, remembered: Mutex::default() }
    }

    /// For whom tokens are that speak to this API server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(super) fn authenticate(&self, token: &str, audiences: &[String]) -> Outcome<TokenUser> {
        match unverified_issuer(token) {
            Some(issuer) if self.issuers.contains(&issuer) => {}
            Some(issuer) if issuer == legacy_token::ISSUER => {
                return self.authenticate_held(token, audiences).map(Some);
            }
            _ => return Ok(None),
        }
        let claims = self.verified(token)?;
        let audiences = common(&claims.aud, audiences)?;
        let now = self.clock.now().as_second();
        if now > claims.exp + LEEWAY_SECONDS {
            return Err("service account token has expired".to_owned());
        }
        if now < claims.nbf.max(claims.iat) - LEEWAY_SECONDS {
            return Err("service account token is not valid yet".to_owned());
        }
        self.check_bound(&claims)?;
        Ok(Some(TokenUser { user: user_of(&claims), audiences }))
    }

    /// A token that a Secret holds is for this API server and nobody else.
    fn authenticate_held(&self, token: &str, audiences: &[String]) -> Result<TokenUser, String> {
        let claims: legacy_token::Claims = jwt::verify(token, &self.keys).map_err(|error| error.to_string())?;
        let audiences = common(&self.audiences, audiences)?;
        let user = legacy_token::user_of(&*self.objects, self.clock.now(), &self.uses, token, &claims)?;
        Ok(TokenUser { user, audiences })
    }

    fn verified(&self, token: &str) -> Result<Arc<Claims>, String> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(claims) = self.remembered.lock().get(&digest) {
            return Ok(Arc::clone(claims));
        }
        let claims: Arc<Claims> = Arc::new(jwt::verify(token, &self.keys).map_err(|error| error.to_string())?);
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    /// The account, and what else the token is bound to, must be there and be the same as when the token was made.
    fn check_bound(&self, claims: &Claims) -> Result<(), String> {
        let Bound { namespace, node, pod, secret, serviceaccount, .. } = &claims.bound;
        if claims.sub != service_account_name(namespace, &serviceaccount.name) {
            return Err("service account token claims do not match".to_owned());
        }
        self.check_alive("serviceaccounts", namespace, serviceaccount)?;
        for (resource, reference) in [("secrets", secret), ("pods", pod)] {
            if let Some(reference) = reference {
                self.check_alive(resource, namespace, reference)?;
            }
        }
        // A pod's token only tells the node; a token bound to the node itself lives with it.
        match (node, pod) {
            (Some(node), None) => self.check_alive("nodes", "", node),
            _ => Ok(()),
        }
    }

    fn check_alive(&self, resource: &str, namespace: &str, reference: &Reference) -> Result<(), String> {
        let name = &reference.name;
        let object = self
            .objects
            .get(&GroupResource::new("", resource), namespace, name)
            .ok_or_else(|| format!("{resource} {name:?} not found"))?;
        if object.uid() != reference.uid {
            let (what, own, uid) = (singular(resource), object.uid(), &reference.uid);
            return Err(format!("{what} UID ({own}) does not match claim ({uid})"));
        }
        if deleted_long_ago(&object, self.clock.now()) {
            return Err(format!("{resource} {namespace}/{name} has been deleted"));
        }
        Ok(())
    }
}

fn singular(resource: &str) -> &str {
    match resource {
        "serviceaccounts" => "service account",
        resource => resource.trim_end_matches('s'),
    }
}

fn deleted_long_ago(object: &Object, now: Timestamp) -> bool {
    object.meta().deletion_timestamp.is_some_and(|at| now.as_second() > at.as_second() + LEEWAY_SECONDS)
}

fn user_of(claims: &Claims) -> UserInfo {
    let Bound { namespace, node, pod, serviceaccount, .. } = &claims.bound;
    let mut user = UserInfo {
        name: claims.sub.clone(),
        uid: serviceaccount.uid.clone(),
        groups: service_account_groups(namespace).into(),
        ..UserInfo::default()
    };
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()])
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = pod {
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    user
}
