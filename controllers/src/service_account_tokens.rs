//! Secrets of type `kubernetes.io/service-account-token` hold a token of their ServiceAccount, and go with it.
//!
//! Watches those Secrets and ServiceAccounts; writes a Secret's `token`, `ca.crt` and `namespace` and the annotations that
//! name the account, deletes Secrets whose account is gone, and takes Secrets that are gone off an account's `secrets`.
//! The tokens never expire: they are good while the Secret is there. It acts as the controller manager itself, whose
//! accounts have their tokens from here. (Kubernetes: `pkg/controller/serviceaccount/tokens_controller.go`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use minik8s_client::{Client, Error, Event, ListOptions, Lister, WorkQueue, is_conflict, is_not_found, run_controller};
use minik8s_metrics::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::manager::{Config, Context, Controller};

/// The type of the secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// Names the account of a secret.
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The account's UID, once the secret is filled.
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

const NAME: &str = "serviceaccount-token";
const WORKERS: usize = 5;
/// Who these tokens say issued them; others name the cluster's issuer.
const ISSUER: &str = "kubernetes/serviceaccount";
const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// Makes a signed token of claims. The key stays where this was made.
pub type SignToken = Arc<dyn Fn(&Value) -> Result<String, String> + Send + Sync>;

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// An account went: so do its secrets.
    Account { namespace: String, name: String, uid: String },
    /// A secret may have to be filled, or to go.
    Secret { namespace: String, name: String },
    /// A secret went: its account no longer names it.
    Reference { namespace: String, account: String, secret: String },
}

/// See the module.
#[derive(Clone)]
pub struct TokensController {
    client: Client,
    config: Arc<Config>,
    sign: SignToken,
    accounts: Lister<ServiceAccount>,
    secrets: Lister<Secret>,
    queue: WorkQueue<Key>,
}

impl TokensController {
    /// Asks for its informers.
    pub fn new(context: &Context, sign: SignToken) -> Self {
        let accounts = context.informers.informer::<ServiceAccount>();
        let secrets = context.informers.informer_with::<Secret>(token_secrets());
        let queue = WorkQueue::new(context.client.clock().clone());
        let add = queue.clone();
        accounts.on_event(move |event| {
            if let Event::Deleted(account) = event {
                let (namespace, name) = place(&account.metadata);
                add.add(Key::Account { namespace, name, uid: account.metadata.uid.clone().unwrap_or_default() });
            }
        });
        let add = queue.clone();
        secrets.on_event(move |event| {
            let (namespace, name) = place(&event.object().metadata);
            add.add(match event {
                Event::Deleted(secret) => {
                    Key::Reference { namespace, account: account_name(secret).to_owned(), secret: name }
                }
                _ => Key::Secret { namespace, name },
            });
        });
        Self {
            client: context.client.clone(),
            config: context.config.clone(),
            sign,
            accounts: accounts.lister(),
            secrets: secrets.lister(),
            queue,
        }
    }

    async fn sync(&self, key: Key) -> Result<(), Error> {
        match key {
            Key::Account { namespace, name, uid } => self.account_went(&namespace, &name, &uid).await?,
            Key::Secret { namespace, name } => {
                let Some(secret) = self.secrets.get(&namespace, &name) else { return Ok(()) };
                match self.account_of(&secret).await? {
                    Some(account) => self.fill(&account, &secret).await?,
                    None => self.delete(&secret).await?,
                }
            }
            Key::Reference { namespace, account, secret } => self.dereference(&namespace, &account, &secret).await?,
        }
        Ok(())
    }

    async fn account_went(&self, namespace: &str, name: &str, uid: &str) -> Result<(), kube::Error> {
        let back = self.accounts.get(namespace, name);
        if back.as_ref().is_some_and(|account| account.metadata.uid.as_deref() == Some(uid)) {
            return Ok(());
        }
        for secret in self.secrets.list() {
            let (own, _) = place(&secret.metadata);
            let its = annotation(&secret, ACCOUNT_UID);
            // A secret that does not say which life of the account it means may mean the present one.
            let meant = its == uid || (its.is_empty() && back.is_none());
            if own == namespace && account_name(&secret) == name && meant {
                self.delete(&secret).await?;
            }
        }
        Ok(())
    }

    /// The account of a secret, if it is there and still the same. The lister may be behind, so the API has the last word.
    async fn account_of(&self, secret: &Secret) -> Result<Option<Arc<ServiceAccount>>, kube::Error> {
        let ((namespace, _), name, uid) =
            (place(&secret.metadata), account_name(secret), annotation(secret, ACCOUNT_UID));
        let same = |account: &ServiceAccount| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid);
        if let Some(account) = self.accounts.get(&namespace, name).filter(|account| same(account)) {
            return Ok(Some(account));
        }
        let account = self.client.namespaced::<ServiceAccount>(&namespace).get_opt(name).await?;
        Ok(account.filter(same).map(Arc::new))
    }

    async fn delete(&self, secret: &Secret) -> Result<(), kube::Error> {
        let (namespace, name) = place(&secret.metadata);
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        tracing::info!(controller = NAME, namespace, name, "deleting token of an account that does not exist");
        match self.client.namespaced::<Secret>(&namespace).delete(&name, &parameters).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn fill(&self, account: &ServiceAccount, secret: &Secret) -> Result<(), Error> {
        let Some(mut filled) = filled(secret, &self.config.root_ca_pem) else { return Ok(()) };
        let (namespace, name) = place(&secret.metadata);
        let data = filled.data.get_or_insert_default();
        if data.get(TOKEN).is_none_or(|token| token.0.is_empty()) {
            let token = (self.sign)(&claims(account, &name)).map_err(Error::Retry)?;
            data.insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
        }
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_NAME.to_owned(), account.metadata.name.clone().unwrap_or_default());
        annotations.insert(ACCOUNT_UID.to_owned(), account.metadata.uid.clone().unwrap_or_default());
        // A secret that is not up to date is a conflict; the watch brings its present form.
        match self.client.namespaced::<Secret>(&namespace).replace(&name, &PostParams::default(), &filled).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn dereference(&self, namespace: &str, account: &str, secret: &str) -> Result<(), kube::Error> {
        let names = |account: &ServiceAccount| {
            account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(secret))
        };
        let there = self.accounts.get(namespace, account).filter(|account| names(account));
        if there.is_none() || self.secrets.get(namespace, secret).is_some() {
            return Ok(());
        }
        let api = self.client.namespaced::<ServiceAccount>(namespace);
        let Some(mut fresh) = api.get_opt(account).await?.filter(names) else { return Ok(()) };
        fresh.secrets.get_or_insert_default().retain(|reference| reference.name.as_deref() != Some(secret));
        // A conflict is tried again.
        match api.replace(account, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Only these secrets are watched.
pub(crate) fn token_secrets() -> ListOptions {
    ListOptions { field_selector: Some(format!("type={TYPE}")), ..ListOptions::default() }
}

fn place(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// An annotation of a secret, empty if there is none.
pub(crate) fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

fn account_name(secret: &Secret) -> &str {
    annotation(secret, ACCOUNT_NAME)
}

/// The secret with authority and namespace as they should be; `None` if it lacks nothing, its token included.
fn filled(secret: &Secret, ca: &str) -> Option<Secret> {
    let no_data = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&no_data);
    let empty = |key: &str| data.get(key).is_none_or(|value| value.0.is_empty());
    let needs_ca = !ca.is_empty() && data.get(CA).is_none_or(|value| value.0 != ca.as_bytes());
    if !needs_ca && !empty(NAMESPACE) && !empty(TOKEN) {
        return None;
    }
    let mut filled = secret.clone();
    let into = filled.data.get_or_insert_default();
    if needs_ca {
        into.insert(CA.to_owned(), ByteString(ca.as_bytes().to_vec()));
    }
    if empty(NAMESPACE) {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        into.insert(NAMESPACE.to_owned(), ByteString(namespace.into_bytes()));
    }
    Some(filled)
}

/// What the token says (`pkg/serviceaccount/legacy.go`).
fn claims(account: &ServiceAccount, secret: &str) -> Value {
    let (namespace, name) = place(&account.metadata);
    json!({
        "iss": ISSUER,
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.metadata.uid,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

impl Controller for TokensController {
    fn run(self: Box<Self>, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        self.run_with(WORKERS, cancel)
    }

    fn run_with(self: Box<Self>, workers: usize, cancel: CancellationToken) -> BoxFuture<'static, ()> {
        let queue = self.queue.clone();
        Box::pin(run_controller(NAME, queue, workers, cancel, move |key| {
            let controller = Self::clone(&self);
            async move { controller.sync(key).await }
        }))
    }

    fn register(&self, registry: &Registry) {
        self.queue.register(NAME, registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_filled_once() {
        let secret = |data: Value| -> Secret {
            serde_json::from_value(json!({ "metadata": { "namespace": "ns", "name": "s" }, "data": data }))
                .expect("a secret")
        };
        let empty = filled(&secret(json!({})), "CA").expect("it lacks all");
        let data = empty.data.expect("data");
        assert_eq!((&data[CA].0[..], &data[NAMESPACE].0[..]), (&b"CA"[..], &b"ns"[..]));
        // Q0E=, bnM=, dA==
        assert!(filled(&secret(json!({ "ca.crt": "Q0E=", "namespace": "bnM=", "token": "dA==" })), "CA").is_none());
        assert!(filled(&secret(json!({ "ca.crt": "Q0E=", "namespace": "bnM=" })), "CA").is_some());
        assert!(filled(&secret(json!({ "ca.crt": "dA==", "namespace": "bnM=", "token": "dA==" })), "CA").is_some());
    }

    #[test]
    fn a_token_names_the_account_and_the_secret() {
        let account = json!({ "metadata": { "namespace": "ns", "name": "robot", "uid": "u1" } });
        let claims = claims(&serde_json::from_value(account).expect("an account"), "s");
        assert_eq!(claims["sub"], "system:serviceaccount:ns:robot");
        assert_eq!(claims["kubernetes.io/serviceaccount/secret.name"], "s");
        assert!(claims.get("exp").is_none());
    }
}
