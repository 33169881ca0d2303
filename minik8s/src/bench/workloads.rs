//! What is measured. Each workload leaves nothing behind but what the next one needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use http_body_util::BodyExt as _;
use minik8s_clock::{Clock, Random};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::bench::connection::Connection;
use crate::bench::report::Row;
use crate::bench::target::Target;

/// How long a Deployment may take in either direction.
const ROLLOUT_IN: Duration = Duration::from_secs(120);
/// How often to ask whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long after the last write watchers may still get events.
const EVENTS_IN: Duration = Duration::from_secs(30);

/// How much is done.
#[derive(Clone, Debug)]
pub struct Size {
    /// How many pods are created.
    pub objects: usize,
    /// How many clients write and read at once.
    pub clients: usize,
    /// How many watchers follow the writes.
    pub watchers: usize,
    /// How many writes a second they follow.
    pub rate: usize,
    /// The replicas of the Deployment.
    pub replicas: usize,
}

/// A run against one API server.
pub struct Bench {
    target: Target,
    size: Size,
    clock: Clock,
    namespace: String,
}

impl Bench {
    /// A run of this size.
    pub fn new(target: Target, size: Size, clock: Clock, random: &Random) -> Self {
        Self { target, size, clock, namespace: format!("bench-{}", random.suffix(5)) }
    }

    /// Runs everything; the namespace is deleted whatever happens.
    pub async fn run(&self) -> Result<Vec<Row>> {
        let mut connection = Connection::open(&self.target).await?;
        let namespace = json!({"metadata": {"name": self.namespace}}).to_string();
        connection.call("POST", "/api/v1/namespaces", namespace).await?;
        let measured = self.measure(&mut connection).await;
        let deleted = connection.call("DELETE", &format!("/api/v1/namespaces/{}", self.namespace), "").await;
        let rows = measured?;
        deleted?;
        Ok(rows)
    }

    async fn measure(&self, connection: &mut Connection) -> Result<Vec<Row>> {
        self.until_pods_are_admitted(connection).await?;
        let mut rows = vec![self.creates().await?, self.gets().await?];
        rows.extend(self.lists(connection).await?);
        rows.push(self.watch(connection).await?);
        rows.extend(self.deployment(connection).await?);
        Ok(rows)
    }

    fn path(&self, resource: &str) -> String {
        let root = if resource == "deployments" { "/apis/apps/v1" } else { "/api/v1" };
        format!("{root}/namespaces/{}/{resource}", self.namespace)
    }

    /// A pod that no scheduler takes, so that only the API server is measured.
    fn pod(&self, name: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "bench"}},
            "spec": {
                "schedulerName": "nobody",
                "containers": [{
                    "name": "c",
                    "image": "nginx:1.27",
                    "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }],
            },
        })
        .to_string()
    }

    /// Pods need their namespace's ServiceAccount, which a controller makes.
    async fn until_pods_are_admitted(&self, connection: &mut Connection) -> Result<()> {
        let asked = self.clock.monotonic();
        let path = format!("{}?dryRun=All", self.path("pods"));
        while let Err(error) = connection.call("POST", &path, self.pod("first")).await {
            if self.clock.monotonic() - asked > ROLLOUT_IN {
                return Err(error);
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// `count` requests by all clients together, each on a connection of its own.
    async fn hammer(
        &self,
        what: String,
        method: &'static str,
        request: impl Fn(usize) -> (String, String) + Send + Sync + 'static,
    ) -> Result<Row> {
        let (next, request) = (Arc::new(AtomicUsize::new(0)), Arc::new(request));
        let connections = try_join_all((0..self.size.clients).map(|_| Connection::open(&self.target))).await?;
        let began = self.clock.monotonic();
        let clients = connections.into_iter().map(|mut connection| {
            let (next, request, clock, count) = (next.clone(), request.clone(), self.clock.clone(), self.size.objects);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    let (path, body) = request(number);
                    let sent = clock.monotonic();
                    connection.call(method, &path, body).await?;
                    latencies.push(clock.monotonic() - sent);
                }
            })
        });
        let mut latencies = Vec::new();
        for client in try_join_all(clients).await? {
            latencies.extend(client?);
        }
        Ok(Row::new(what, latencies, Some(self.clock.monotonic() - began)))
    }

    async fn creates(&self) -> Result<Row> {
        let path = self.path("pods");
        let template = self.pod("NAME");
        let what = format!("create pods, {} clients", self.size.clients);
        self.hammer(what, "POST", move |n| (path.clone(), template.replace("NAME", &format!("pod-{n}")))).await
    }

    async fn gets(&self) -> Result<Row> {
        let path = self.path("pods");
        let what = format!("get pods, {} clients", self.size.clients);
        self.hammer(what, "GET", move |n| (format!("{path}/pod-{n}"), String::new())).await
    }

    async fn lists(&self, connection: &mut Connection) -> Result<Vec<Row>> {
        const TIMES: usize = 10;
        let mut rows = Vec::new();
        for (what, query) in [("cached", "?resourceVersion=0"), ("consistent", ""), ("first page of 500", "?limit=500")]
        {
            let path = format!("{}{query}", self.path("pods"));
            let (mut latencies, mut bytes) = (Vec::new(), 0);
            let began = self.clock.monotonic();
            for _ in 0..TIMES {
                let sent = self.clock.monotonic();
                bytes = connection.call("GET", &path, "").await?.len();
                latencies.push(self.clock.monotonic() - sent);
            }
            let what = format!("list {} pods ({what}), {:.1} MB", self.size.objects, bytes as f64 / 1e6);
            rows.push(Row::new(what, latencies, Some(self.clock.monotonic() - began)));
        }
        Ok(rows)
    }

    /// From the moment a write is sent to the moment each watcher has its event.
    async fn watch(&self, connection: &mut Connection) -> Result<Row> {
        let path = self.path("configmaps");
        let list: Value = serde_json::from_slice(&connection.call("GET", &format!("{path}?limit=1"), "").await?)?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let writes = self.size.rate * 3;
        let sent: Arc<Mutex<Vec<Duration>>> = Arc::new(Mutex::new(vec![Duration::ZERO; writes]));
        let mut watchers = Vec::new();
        for _ in 0..self.size.watchers {
            let mut watcher = Connection::open(&self.target).await?;
            let response = watcher.send("GET", &format!("{path}?watch=true&resourceVersion={version}"), "").await?;
            if !response.status().is_success() {
                bail!("cannot watch: {}", response.status());
            }
            watchers.push(tokio::spawn(follow(watcher, response, sent.clone(), self.clock.clone(), writes)));
        }
        let began = self.clock.monotonic();
        for number in 0..writes {
            let due = began + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(self.size.rate)?;
            self.clock.sleep_until(due).await;
            sent.lock()[number] = self.clock.monotonic();
            let body = json!({"metadata": {"name": format!("write-{number}")}}).to_string();
            connection.call("POST", &path, body).await?;
        }
        let mut latencies = Vec::new();
        for watcher in watchers {
            match self.clock.timeout(EVENTS_IN, watcher).await {
                Ok(seen) => latencies.extend(seen??),
                Err(_) => bail!("a watcher did not get its events within {} s", EVENTS_IN.as_secs()),
            }
        }
        let what = format!("create to event, {} watchers, {} writes/s", self.size.watchers, self.size.rate);
        Ok(Row::new(what, latencies, None))
    }

    async fn deployment(&self, connection: &mut Connection) -> Result<Vec<Row>> {
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "bench"},
            "spec": {
                "replicas": self.size.replicas,
                "selector": {"matchLabels": {"app": "deployed"}},
                "template": {
                    "metadata": {"labels": {"app": "deployed"}},
                    "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]},
                },
            },
        });
        let path = self.path("deployments");
        let one = format!("{path}/bench");
        let began = self.clock.monotonic();
        connection.call("POST", &path, deployment.to_string()).await?;
        let wanted = self.size.replicas as u64;
        self.until(connection, &one, |found| found["status"]["availableReplicas"].as_u64() == Some(wanted)).await?;
        let up = self.clock.monotonic() - began;
        let began = self.clock.monotonic();
        connection.call("DELETE", &one, r#"{"propagationPolicy":"Background"}"#).await?;
        let pods = format!("{}?labelSelector=app%3Ddeployed&limit=1", self.path("pods"));
        self.until(connection, &pods, |found| found["items"].as_array().is_some_and(Vec::is_empty)).await?;
        let down = self.clock.monotonic() - began;
        let name = |what: &str| format!("Deployment of {wanted} {what}");
        Ok(vec![
            Row::new(name("to available"), vec![up], None),
            Row::new(name("and its pods deleted"), vec![down], None),
        ])
    }

    async fn until(&self, connection: &mut Connection, path: &str, done: impl Fn(&Value) -> bool) -> Result<()> {
        let began = self.clock.monotonic();
        while !done(&serde_json::from_slice(&connection.call("GET", path, "").await?)?) {
            if self.clock.monotonic() - began > ROLLOUT_IN {
                bail!("{path} is not as expected after {} s", ROLLOUT_IN.as_secs());
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Reads events until all writes were seen; answers how long each took.
async fn follow(
    _connection: Connection,
    response: hyper::Response<hyper::body::Incoming>,
    sent: Arc<Mutex<Vec<Duration>>>,
    clock: Clock,
    writes: usize,
) -> Result<Vec<Duration>> {
    let (mut body, mut pending, mut latencies) = (response.into_body(), Vec::new(), Vec::new());
    while latencies.len() < writes {
        let Some(frame) = body.frame().await else { bail!("the watch ended early") };
        let now = clock.monotonic();
        let Ok(data) = frame?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(&pending[..end])?;
            pending.drain(..=end);
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            if let Some(number) = name.strip_prefix("write-").and_then(|number| number.parse::<usize>().ok()) {
                latencies.push(now.saturating_sub(sent.lock()[number]));
            }
        }
    }
    Ok(latencies)
}
