//! What a component's client counts, under client-go's names: requests here, keys of work queues in [`crate::queue`].
//!
//! `k8s.io/component-base/metrics/prometheus/{restclient,workqueue}`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use minik8s_clock::Clock;
use minik8s_metrics::{Histogram, Kind, Registry, Text};
use parking_lot::RwLock;
use tower::{Service, ServiceExt};

/// Upper bounds, in seconds.
const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// The metrics of a process's clients. Clones count together.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
    requests: Arc<Requests>,
}

/// Requests by host, method, and code or `<error>`.
#[derive(Default)]
struct Requests {
    counts: RwLock<BTreeMap<(String, String, String), AtomicU64>>,
    times: RwLock<BTreeMap<(String, String), Histogram>>,
}

impl Metrics {
    /// Adds what clients count to a registry.
    pub fn new(registry: Registry) -> Metrics {
        let requests = Arc::new(Requests::default());
        let counted = Arc::clone(&requests);
        registry.set("rest_client", move |text| counted.write(text));
        Metrics { registry, requests }
    }

    /// Where components add what they count themselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A service whose requests are counted, as those to `host`.
    pub fn count<S, B, C>(
        &self,
        service: S,
        host: &str,
        clock: Clock,
    ) -> impl Service<Request<B>, Response = S::Response, Error = S::Error, Future: Send + 'static> + Clone + Send + 'static
    where
        S: Service<Request<B>, Response = http::Response<C>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: Send + 'static,
        C: Send + 'static,
    {
        let (requests, host) = (Arc::clone(&self.requests), host.to_owned());
        tower::service_fn(move |request: Request<B>| {
            let (service, requests, host, clock) =
                (service.clone(), Arc::clone(&requests), host.clone(), clock.clone());
            async move {
                let method = request.method().as_str().to_owned();
                let began = clock.monotonic();
                let answer = service.oneshot(request).await;
                let code = answer.as_ref().map_or("<error>".to_owned(), |answer| answer.status().as_u16().to_string());
                requests.observe(host, method, code, clock.monotonic().saturating_sub(began).as_secs_f64());
                answer
            }
        })
    }
}

impl Requests {
    fn observe(&self, host: String, method: String, code: String, seconds: f64) {
        let place = (host.clone(), method.clone());
        let timed = self.times.read().get(&place).map(|histogram| histogram.observe(seconds)).is_some();
        if !timed {
            self.times.write().entry(place).or_insert_with(|| Histogram::new(SECONDS)).observe(seconds);
        }
        let place = (host, method, code);
        let counted = self.counts.read().get(&place).map(|count| count.fetch_add(1, Ordering::Relaxed)).is_some();
        if !counted {
            self.counts.write().entry(place).or_default().fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, text: &mut Text) {
        for ((host, method, code), count) in self.counts.read().iter() {
            let labels = [("code", code.as_str()), ("host", host), ("method", method)];
            text.family("rest_client_requests_total", Kind::Counter, "Requests of this process's clients.")
                .sample(&labels, count.load(Ordering::Relaxed));
        }
        for ((host, method), histogram) in self.times.read().iter() {
            let name = "rest_client_request_duration_seconds";
            text.family(name, Kind::Histogram, "How long these took until their answers began.")
                .histogram(&[("host", host), ("verb", method)], &histogram.counts());
        }
    }
}
