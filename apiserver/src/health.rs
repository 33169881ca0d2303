//! `/healthz`, `/livez`, `/readyz`, and the component statuses.
//!
//! `k8s.io/apiserver/pkg/server/healthz/healthz.go`, `pkg/registry/core/componentstatus`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use minik8s_store::Store;
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

/// The health of a server.
pub struct Health {
    store: Arc<dyn Store>,
    components: Vec<Component>,
    ready: AtomicBool,
    stopping: AtomicBool,
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
        Health { store, components, ready: AtomicBool::new(false), stopping: AtomicBool::new(false) }
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
        let mut checks = vec![
            ("ping", None),
            ("log", None),
            ("etcd", self.store_error()),
            ("poststarthook/rbac/bootstrap-roles", not(self.ready.load(Ordering::Acquire), "not finished")),
        ];
        if probe == Probe::Readyz {
            checks.insert(3, ("informer-sync", not(self.ready.load(Ordering::Acquire), "not synced")));
            checks.push(("shutdown", not(!self.stopping.load(Ordering::Acquire), "process is shutting down")));
        }
        checks
    }

    /// Answers a probe; `name` asks for one check only.
    pub fn probe(&self, probe: Probe, name: Option<&str>, query: &Query) -> ProbeAnswer {
        let checks = self.checks(probe);
        if let Some(name) = name {
            return match checks.iter().find(|(own, _)| *own == name) {
                None => ProbeAnswer { code: 404, text: "404 page not found\n".to_owned() },
                Some((_, None)) => ProbeAnswer { code: 200, text: "ok".to_owned() },
                Some((_, Some(why))) => ProbeAnswer { code: 500, text: format!("internal server error: {why}\n") },
            };
        }
        let excluded = |name: &str| query.all("exclude").any(|excluded| excluded == name);
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
        let outcome = if failed { "failed" } else { "passed" };
        let _ = writeln!(text, "{} check {outcome}", probe.name());
        match (failed, query.get("verbose").is_some()) {
            (true, _) => ProbeAnswer { code: 500, text },
            (false, true) => ProbeAnswer { code: 200, text },
            (false, false) => ProbeAnswer { code: 200, text: "ok".to_owned() },
        }
    }
}
