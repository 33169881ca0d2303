//! The client: `kube::Client` together with the clock and the random source of the component that holds it.

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::NamespaceResourceScope;
use kube::client::Body;
use minik8s_clock::{Clock, Random};
use tower::{BoxError, Service};

use crate::metrics::Metrics;
use crate::pool::ObjectPool;

/// What went wrong between a component and the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("{}", words(.0))]
    Api(#[from] kube::Error),
    /// An answer that is not what the API promises.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// What was read.
        what: String,
        /// Where it broke.
        source: serde_json::Error,
    },
    /// A watch ended and must be begun anew from a list.
    #[error("{0}")]
    Expired(String),
    /// A reconciliation that cannot succeed yet, in words for the log; it is retried.
    #[error("{0}")]
    Retry(String),
}

/// The result of whatever talks to the API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A handle on the API for one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    clock: Clock,
    random: Random,
    objects: ObjectPool,
    metrics: Metrics,
}

impl Client {
    /// Wraps a `kube` client, whatever its transport.
    pub fn new(kube: kube::Client, clock: Clock, random: Random) -> Self {
        Self { kube, clock, random, objects: ObjectPool::default(), metrics: Metrics::default() }
    }

    /// The same client, whose informers share what they decode with all others of `objects`.
    pub fn sharing(self, objects: ObjectPool) -> Self {
        Self { objects, ..self }
    }

    /// The same client, whose component counts in `metrics`.
    pub fn measured(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// A client over a service that answers in this process. `user_agent` names the component in audit records and,
    /// up to its first slash, as the manager in `managedFields`.
    pub fn over<S, B>(service: S, user_agent: &str, clock: Clock, random: Random) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let agent = http::HeaderValue::from_str(user_agent).unwrap_or(http::HeaderValue::from_static("minik8s"));
        let service = tower::util::MapRequest::new(service, move |mut request: Request<Body>| {
            request.headers_mut().insert(http::header::USER_AGENT, agent.clone());
            request
        });
        Self::new(kube::Client::new(service, "default"), clock, random)
    }

    /// The `kube` client, for requests that no helper here covers.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    /// The clock of the component.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The random source of the component.
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// The objects that informers of this client hold.
    pub fn objects(&self) -> &ObjectPool {
        &self.objects
    }

    /// Where the component counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// All objects of a kind: cluster-scoped ones, or those of every namespace.
    pub fn all<K>(&self) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        kube::Api::all(self.kube.clone())
    }

    /// The objects of a kind in one namespace.
    pub fn namespaced<K>(&self, namespace: &str) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        kube::Api::namespaced(self.kube.clone(), namespace)
    }
}

fn api_code(error: &kube::Error) -> Option<(u16, &str)> {
    match error {
        kube::Error::Api(status) => Some((status.code, status.reason.as_str())),
        _ => None,
    }
}

/// What the API server said, as a user would read it; other failures describe themselves.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the object was not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(api_code(error), Some((404, _)))
}

/// Whether an object of that name was there already.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(api_code(error), Some((409, "AlreadyExists")))
}

/// Whether somebody else wrote first (optimistic concurrency).
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(api_code(error), Some((409, reason)) if reason != "AlreadyExists")
}
