//! `/healthz`, `/livez`, `/readyz`, and the component statuses.
//!
//! `k8s.io/apiserver/pkg/server/healthz/healthz.go`, `pkg/registry/core/componentstatus`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use minik8s_metrics::{Kind, Text};
use minik8s_store::Store;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::query::Query;

/// Asks a component how it is; an error says what is wrong.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The components whose health `kubectl get componentstatuses` shows.
#[derive(Clone)]
pub struct Component {
    /// `scheduler`, `controller-manager`, ….
    pub name: String,
    /// How it is.
    pub check: Check,
}

/// What the server has done before it is ready, by the names of Kubernetes' hooks.
const HOOKS: [&str; 8] = [
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
];

/// How a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// What is wrong with it, if anything.
    pub error: Option<String>,
}

impl ComponentStatus {
    /// The object.
    pub fn to_value(&self) -> Value {
        let condition = match &self.error {
            None => json!({ "type": "Healthy", "status": "True", "message": "ok" }),
            Some(error) => json!({ "type": "Healthy", "status": "False", "message": error }),
        };
        json!({ "kind": "ComponentStatus", "apiVersion": "v1", "metadata": { "name": self.name }, "conditions": [condition] })
    }
}

/// How often a check was asked, and what it said last.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    good: u64,
    bad: u64,
    fine: bool,
}

/// The health of a server.
pub struct Health {
    store: Arc<dyn Store>,
    components: Vec<Component>,
    ready: AtomicBool,
    stopping: AtomicBool,
    asked: Mutex<BTreeMap<(&'static str, &'static str), Asked>>,
}

/// Which of the three questions is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`, the older form of both.
    Healthz,
    /// `/livez`: should it be restarted?
    Livez,
    /// `/readyz`: should it get requests?
    Readyz,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Probe::Healthz => "healthz",
            Probe::Livez => "livez",
            Probe::Readyz => "readyz",
        }
    }
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// 200, 500, or 404 for a check that does not exist.
    pub code: u16,
    /// Text.
    pub text: String,
}

impl Health {
    /// The health of a server on a store.
    pub fn new(store: Arc<dyn Store>, components: Vec<Component>) -> Health {
        Health {
            store,
            components,
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            asked: Mutex::default(),
        }
    }

    /// Everything a new cluster needs is there.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The server takes leave.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The components, the store first.
    pub async fn components(&self) -> Vec<ComponentStatus> {
        let mut statuses = vec![ComponentStatus { name: "etcd-0".to_owned(), error: self.store_error() }];
        for component in &self.components {
            statuses.push(ComponentStatus { name: component.name.clone(), error: (component.check)().await.err() });
        }
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }

    fn store_error(&self) -> Option<String> {
        self.store.status().read_only
    }

    fn checks(&self, probe: Probe) -> Vec<(&'static str, Option<String>)> {
        let not = |fine: bool, why: &str| (!fine).then(|| why.to_owned());
        let ready = self.ready.load(Ordering::Acquire);
        let mut checks = vec![("ping", None), ("log", None), ("etcd", self.store_error())];
        if probe == Probe::Readyz {
            checks.push(("etcd-readiness", self.store_error()));
            checks.push(("informer-sync", not(ready, "not synced")));
        }
        checks.extend(HOOKS.map(|hook| (hook, not(ready, "not finished"))));
        if probe == Probe::Readyz {
            checks.push(("shutdown", not(!self.stopping.load(Ordering::Acquire), "process is shutting down")));
        }
        checks
    }

    /// The paths of all checks.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for probe in [Probe::Healthz, Probe::Livez, Probe::Readyz] {
            let checks = self.checks(probe);
            paths.extend(checks.iter().map(|(name, _)| format!("/{}/{name}", probe.name())));
        }
        paths
    }

    /// What the checks have said so far, for `/metrics/slis` (`k8s.io/component-base/metrics/prometheus/slis`).
    pub fn write(&self, text: &mut Text) {
        for ((name, probe), asked) in self.asked.lock().iter() {
            let labels = [("name", *name), ("type", *probe)];
            text.family("kubernetes_healthcheck", Kind::Gauge, "What a check said last.")
                .sample(&labels, u8::from(asked.fine));
            for (status, count) in [("error", asked.bad), ("success", asked.good)] {
                if count > 0 {
                    text.family("kubernetes_healthchecks_total", Kind::Counter, "What a check said, how often.")
                        .sample(&[labels[0], ("status", status), labels[1]], count);
                }
            }
        }
    }

    /// Remembers what checks have said.
    fn note<'c>(&self, probe: Probe, checks: impl Iterator<Item = &'c (&'static str, Option<String>)>) {
        let mut asked = self.asked.lock();
        for (name, why) in checks {
            let asked = asked.entry((name, probe.name())).or_default();
            asked.fine = why.is_none();
            *(if why.is_none() { &mut asked.good } else { &mut asked.bad }) += 1;
        }
    }

    /// Answers a probe; `name` asks for one check only.
    pub fn probe(&self, probe: Probe, name: Option<&str>, query: &Query) -> ProbeAnswer {
        let checks = self.checks(probe);
        if let Some(name) = name {
            self.note(probe, checks.iter().filter(|(own, _)| *own == name));
            return match checks.iter().find(|(own, _)| *own == name) {
                None => ProbeAnswer { code: 404, text: "404 page not found\n".to_owned() },
                Some((_, None)) => ProbeAnswer { code: 200, text: "ok".to_owned() },
                Some((_, Some(why))) => ProbeAnswer { code: 500, text: format!("internal server error: {why}\n") },
            };
        }
        let excluded = |name: &str| query.all("exclude").any(|excluded| excluded == name);
        self.note(probe, checks.iter().filter(|(name, _)| !excluded(name)));
        let failed = checks.iter().any(|(name, why)| why.is_some() && !excluded(name));
        let mut text = String::new();
        for (name, why) in &checks {
            let line = match why {
                _ if excluded(name) => format!("[+]{name} excluded: ok"),
                None => format!("[+]{name} ok"),
                Some(_) => format!("[-]{name} failed: reason withheld"),
            };
            let _ = writeln!(text, "{line}");
        }
        let unknown: Vec<String> = query
            .all("exclude")
            .filter(|asked| !checks.iter().any(|(name, _)| name == asked))
            .map(|asked| format!("{asked:?}"))
            .collect();
        if !unknown.is_empty() {
            let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(","));
        }
        let outcome = if failed { "failed" } else { "passed" };
        let _ = writeln!(text, "{} check {outcome}", probe.name());
        match (failed, query.get("verbose").is_some()) {
            (true, _) => ProbeAnswer { code: 500, text },
            (false, true) => ProbeAnswer { code: 200, text },
            (false, false) => ProbeAnswer { code: 200, text: "ok".to_owned() },
        }
    }
}
