//! Signs what the ConfigMap `cluster-info` in `kube-public` says about the cluster, with each bootstrap token.
//!
//! Watches that ConfigMap and the Secrets of the tokens; writes `data.jws-kubeconfig-ID`, a detached signature (RFC 7515,
//! appendix F) of `data.kubeconfig` by HMAC under the secret half of the token. Anybody may read the ConfigMap; who holds a token can
//! tell that it was not forged. The ConfigMap itself comes from whoever sets the cluster up.
//! (Kubernetes: `pkg/controller/bootstrap/bootstrapsigner.go`, `k8s.io/cluster-bootstrap/token/jws`.)

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use minik8s_client::{Client, ListOptions, Lister, WorkQueue, is_conflict, is_not_found};
use ring::hmac;

use super::{bootstrap_secrets, for_signing, is_in_place, lives_for};
use crate::manager::{Context, Reconciler};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// See the module.
#[derive(Clone)]
pub struct BootstrapSigner {
    client: Client,
    maps: Lister<ConfigMap>,
    secrets: Lister<Secret>,
    queue: WorkQueue<String>,
}

impl BootstrapSigner {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let only = ListOptions { field_selector: Some(format!("metadata.name={NAME}")), ..ListOptions::default() };
        let maps = context.informers.informer_with::<ConfigMap>(only);
        let secrets = context.informers.informer_with::<Secret>(bootstrap_secrets());
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        maps.on_event(move |_| add.add(NAME.to_owned()));
        let add = queue.clone();
        secrets.on_event(move |_| add.add(NAME.to_owned()));
        Self { client: context.client.clone(), maps: maps.lister(), secrets: secrets.lister(), queue }
    }
}

/// A signature without what it signs, which stands elsewhere.
fn detached(content: &str, id: &str, token: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#).as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let signature = hmac::sign(&key, format!("{header}.{}", encode(content.as_bytes())).as_bytes());
    format!("{header}..{}", encode(signature.as_ref()))
}

/// The data with exactly the signatures of these tokens; `None` where there is nothing to sign.
fn signed(data: &BTreeMap<String, String>, tokens: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let content = data.get(KUBECONFIG)?;
    let mut signed = data.clone();
    signed.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, token) in tokens {
        signed.insert(format!("{SIGNATURE_PREFIX}{id}"), detached(content, id, token));
    }
    Some(signed)
}

impl Reconciler for BootstrapSigner {
    const NAME: &'static str = "bootstrap_signer_queue";
    const WORKERS: usize = 1;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, key: String) -> Result<(), kube::Error> {
        let Some(map) = self.maps.get(NAMESPACE, NAME) else { return Ok(()) };
        let now = self.client.clock().now();
        let mut secrets = self.secrets.list();
        secrets.retain(|secret| is_in_place(secret));
        let none = BTreeMap::new();
        let tokens: Vec<_> = secrets.iter().filter_map(|secret| for_signing(secret, now)).collect();
        let next = secrets.iter().filter_map(|secret| lives_for(secret, now)).filter(|left| !left.is_zero()).min();
        // A token that is over signs no longer, whether somebody deletes it or not.
        if let Some(left) = next {
            self.queue.add_after(key, left + Duration::from_secs(1));
        }
        let Some(data) = signed(map.data.as_ref().unwrap_or(&none), &tokens) else { return Ok(()) };
        if map.data.as_ref() == Some(&data) {
            return Ok(());
        }
        let fresh = ConfigMap { data: Some(data), ..ConfigMap::clone(&map) };
        match self.client.namespaced::<ConfigMap>(NAMESPACE).replace(NAME, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_kubernetes() {
        // The example of `k8s.io/cluster-bootstrap/token/jws/jws_test.go`.
        let expect = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        assert_eq!(
            detached(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            expect
        );
    }

    #[test]
    fn signatures_come_and_go_with_the_tokens() {
        let data = |keys: &[&str]| -> BTreeMap<String, String> {
            keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect()
        };
        let signed_by = |tokens: &[(&str, &str)]| {
            let found = signed(&data(&["kubeconfig", "other", "jws-kubeconfig-gone"]), tokens)
                .expect("there is something to sign");
            found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(signed_by(&[]), ["kubeconfig", "other"]);
        assert_eq!(signed_by(&[("abcdef", "s")]), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        assert!(signed(&data(&["other"]), &[("abcdef", "s")]).is_none());
    }
}
