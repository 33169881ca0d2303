//! `nettest`: dials all pods of a Service, and hears from them.

use super::flags::Flag;
use super::in_cluster::InCluster;
use super::server::{self, Received, Reply};
use super::{Call, client, servers};
use minik8s_clock::Watched;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How many lines of its log are kept; errors too.
const LOG_LINES: usize = 500;
/// How many peers are counted.
const PEER_LIMIT: usize = 10_000;
/// How often all peers are dialed.
const ROUNDS: usize = 15;
/// How long it waits between two rounds, and for peers and API server to come up, with few peers.
const ROUND_PAUSE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a peer is waited for.
const DIAL_TIMEOUT: Duration = Duration::from_secs(130);

pub(super) const FLAGS: &[Flag] = &[
    Flag::int("port", "8080", "Port number to serve at."),
    Flag::int("peers", "8", "Must find at least this many peers for the test to pass."),
    Flag::string("service", "nettest", "Service to find other network test pods in."),
    Flag::string("namespace", "default", "Namespace of this pod."),
    Flag::int("delay-shutdown", "0", "Number of seconds to delay shutdown when receiving SIGTERM."),
];

/// What it knows, as `/read` tells it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    hostname: String,
    sent: Option<BTreeMap<String, u64>>,
    received: Option<BTreeMap<String, u64>>,
    errors: Option<VecDeque<String>>,
    log: Option<VecDeque<String>>,
    still_contacting_peers: bool,
}

struct NetTest {
    call: Arc<Call>,
    peers: usize,
    state: Mutex<State>,
    quit: Watched<bool>,
}

/// Serves for ever, unless it is asked to quit or cannot reach the API server.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    if call.flags.text("service").is_empty() {
        return call.fatal("Must provide -service flag.").await;
    }
    let state = State {
        hostname: call.world.hostname.clone(),
        sent: None,
        received: None,
        errors: None,
        log: None,
        still_contacting_peers: true,
    };
    let peers = usize::try_from(call.flags.number("peers")).unwrap_or_default();
    let test = Arc::new(NetTest { call: call.clone(), peers, state: Mutex::new(state), quit: Watched::new(false) });
    let answering = test.clone();
    let serving = servers::serve_port(call.clone(), call.flags.port("port"), move |request: Received| {
        let test = answering.clone();
        async move { test.answer(&request).await }
    });
    let contacting = async {
        match test.contact_others().await {
            Ok(()) => {
                test.state.lock().still_contacting_peers = false;
                std::future::pending().await
            }
            Err(error) => call.fatal(error).await,
        }
    };
    let mut quit = test.quit.watch();
    tokio::select! {
        biased;
        _ = quit.wait_for(|quit| *quit) => 0,
        code = terminated(&call) => code,
        code = serving => code,
        code = contacting => code,
    }
}

/// Ends some time after SIGTERM; without such a time as every program that does not handle it.
async fn terminated(call: &Call) -> i32 {
    call.signalled().await;
    match u64::try_from(call.flags.number("delay-shutdown")) {
        Ok(seconds @ 1..) => {
            call.log(format!("Sleeping {seconds} seconds before exit ...")).await;
            call.world.clock.sleep(Duration::from_secs(seconds)).await;
            0
        }
        _ => super::DIED_FROM_SIGNAL,
    }
}

fn keep(lines: &mut Option<VecDeque<String>>, line: String) {
    let lines = lines.get_or_insert_default();
    lines.push_back(line);
    if lines.len() > LOG_LINES {
        lines.pop_front();
    }
}

fn count(peers: &mut Option<BTreeMap<String, u64>>, peer: String) {
    let peers = peers.get_or_insert_default();
    if peers.len() < PEER_LIMIT || peers.contains_key(&peer) {
        *peers.entry(peer).or_default() += 1;
    }
}

impl NetTest {
    fn log(&self, line: String) {
        keep(&mut self.state.lock().log, line);
    }

    async fn answer(&self, request: &Received) -> Reply {
        match request.path.as_str() {
            "/quit" => {
                self.quit.set(true);
                std::future::pending().await
            }
            "/read" => match serde_json::to_string_pretty(&*self.state.lock()) {
                Ok(text) => server::ok(text),
                Err(error) => server::error(http::StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            "/status" => server::ok(self.status()),
            "/write" => self.write(&request.body),
            _ => server::not_found(),
        }
    }

    fn status(&self) -> &'static str {
        let mut state = self.state.lock();
        let counted = |peers: &Option<BTreeMap<String, u64>>| peers.as_ref().map_or(0, BTreeMap::len);
        let (sent, received) = (counted(&state.sent), counted(&state.received));
        if sent >= self.peers && received >= self.peers {
            return "pass";
        }
        if state.still_contacting_peers {
            return "running";
        }
        let (namespace, service) = (self.call.flags.text("namespace"), self.call.flags.text("service"));
        let counts = format!("{sent} sent and {received} received and {} peers", self.peers);
        keep(&mut state.log, format!("Declaring failure for {namespace}/{service} with {counts}"));
        "fail"
    }

    fn write(&self, body: &[u8]) -> Reply {
        let mut state = self.state.lock();
        let posted: Value = serde_json::from_slice(body).unwrap_or_else(|error| {
            keep(&mut state.errors, error.to_string());
            Value::Null
        });
        match posted["Source"].as_str().unwrap_or_default() {
            "" => {
                let error = format!("{}: Got request with no source", state.hostname);
                keep(&mut state.errors, error);
            }
            source => count(&mut state.received, source.to_string()),
        }
        server::ok(format!("{}\n", json!({ "Hostname": state.hostname })))
    }

    async fn contact_others(&self) -> Result<(), String> {
        let (call, peers) = (&self.call, self.peers as u64);
        let pause = ROUND_PAUSE.max(Duration::from_secs(peers / 10));
        let patience = PATIENCE.max(Duration::from_secs(peers));
        let clock = &call.world.clock;
        let cluster = InCluster::of(call).map_err(|error| format!("Unable to create config; error: {error}"))?;
        let started = clock.monotonic();
        loop {
            let error = match cluster.get("/version").await {
                Ok(answer) if answer.status.is_success() => {
                    call.log(format!("Server version: {}", answer.text())).await;
                    break;
                }
                Ok(answer) => answer.status.to_string(),
                Err(error) => error,
            };
            call.log(format!("Unable to get server version: {error}; retrying.")).await;
            clock.sleep(RETRY_PAUSE + pause).await;
            if clock.monotonic().saturating_sub(started) >= patience {
                return Err(format!("Unable to contact Kubernetes: {error}"));
            }
        }
        let started = clock.monotonic();
        while clock.monotonic().saturating_sub(started) < patience {
            let found = self.endpoints(&cluster).await.len();
            if found >= self.peers {
                break;
            }
            let (namespace, service) = (call.flags.text("namespace"), call.flags.text("service"));
            let less = format!("which is less than {} as expected", self.peers);
            self.log(format!(
                "{namespace}/{service} has {found} endpoints, {less}. Waiting for all endpoints to come up."
            ));
            clock.sleep(pause).await;
        }
        for _ in 0..ROUNDS {
            for endpoint in self.endpoints(&cluster).await {
                self.log(format!("Attempting to contact {endpoint}"));
                self.contact(&endpoint).await;
            }
            clock.sleep(pause).await;
        }
        Ok(())
    }

    /// Every address and port of the Service, as a URL.
    async fn endpoints(&self, cluster: &InCluster) -> BTreeSet<String> {
        let (namespace, service) = (self.call.flags.text("namespace"), self.call.flags.text("service"));
        let answer = cluster.get(&format!("/api/v1/namespaces/{namespace}/endpoints/{service}")).await;
        let read = answer.and_then(|answer| match answer.status.is_success() {
            true => serde_json::from_slice::<Value>(&answer.body).map_err(|error| error.to_string()),
            false => Err(answer.status.to_string()),
        });
        let endpoints = match read {
            Ok(endpoints) => endpoints,
            Err(error) => {
                self.log(format!("Unable to read the endpoints for {namespace}/{service}: {error}."));
                return BTreeSet::new();
            }
        };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut found = BTreeSet::new();
        for subset in list(&endpoints["subsets"]) {
            for address in list(&subset["addresses"]) {
                for port in list(&subset["ports"]) {
                    let (ip, port) = (address["ip"].as_str().unwrap_or_default(), port["port"].to_string());
                    found.insert(format!("http://{}", client::join_host_port(ip, &port)));
                }
            }
        }
        found
    }

    async fn contact(&self, endpoint: &str) {
        let body = json!({ "Source": self.call.world.hostname, "Dest": endpoint }).to_string();
        let answer = client::post_json(&self.call, &format!("{endpoint}/write"), body.into(), DIAL_TIMEOUT).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.log(format!("Warning: unable to contact the endpoint {endpoint:?}: {error}")),
        };
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(answer) => {
                let peer = answer["Hostname"].as_str().unwrap_or_default().to_string();
                count(&mut self.state.lock().sent, peer);
            }
            Err(error) => {
                let text = answer.text();
                self.log(format!("Warning: unable to unmarshal response ({text}) from '{endpoint}': '{error}'"));
            }
        }
    }
}
