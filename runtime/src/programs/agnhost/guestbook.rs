//! `guestbook`: a store with replicas, and a front end before them.

use super::flags::Flag;
use super::server::{self, Received, Reply};
use super::{Call, client, servers};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a replica tries to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it waits between two attempts.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);
/// How long another node is waited for.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys a node keeps.
const STORE_LIMIT: usize = 10_000;
/// How many replicas a node feeds.
const REPLICA_LIMIT: usize = 1000;

pub(super) const FLAGS: &[Flag] = &[
    Flag::string("http-port", "80", "HTTP Listen Port"),
    Flag::string("backend-port", "6379", "Backend's HTTP Listen Port"),
    Flag::string("replicaof", "", "The host's name to register to"),
];

#[derive(Default)]
struct State {
    store: BTreeMap<String, Value>,
    replicas: Vec<String>,
}

struct Guestbook {
    call: Arc<Call>,
    state: Mutex<State>,
}

/// Serves for ever, unless it cannot register.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let guestbook = Arc::new(Guestbook { call: call.clone(), state: Mutex::default() });
    let answering = guestbook.clone();
    let port = call.flags.port("http-port");
    let serving = servers::serve_port(call, port, move |request: Received| {
        let guestbook = answering.clone();
        async move { guestbook.answer(&request).await }
    });
    let registering = async {
        match guestbook.register().await {
            Ok(()) => std::future::pending().await,
            Err(error) => guestbook.call.fatal(error).await,
        }
    };
    tokio::select! {
        biased;
        code = serving => code,
        code = registering => code,
    }
}

impl Guestbook {
    fn backend(&self, host: &str) -> String {
        client::join_host_port(host, self.call.flags.text("backend-port"))
    }

    async fn dial(&self, host: &str, request: &str) -> Result<String, String> {
        let url = format!("http://{}/{request}", self.backend(host));
        Ok(client::get(&self.call, &url, DIAL_TIMEOUT).await?.text())
    }

    async fn register(&self) -> Result<(), String> {
        let (call, primary) = (&self.call, self.call.flags.text("replicaof"));
        if primary.is_empty() {
            return Ok(());
        }
        let pause = super::go_format::duration(REGISTER_PAUSE);
        let started = call.world.clock.monotonic();
        while call.world.clock.monotonic().saturating_sub(started) < REGISTER_TIMEOUT {
            let at = self.backend(primary);
            let failure = match self.resolve(primary).await {
                Err(error) => format!("unable to get IP {at}: {error}"),
                Ok(to) => {
                    let own = call.world.network.ip.unwrap_or(to.ip());
                    let request = format!("register?host={own}");
                    call.log(format!("Registering to primary: {at}/{request}")).await;
                    match self.dial(primary, &request).await {
                        Ok(answer) => return self.take_over(&answer, primary).await,
                        Err(error) => format!("encountered error while registering to primary: {error}"),
                    }
                }
            };
            call.log(format!("{failure}. Retrying in {pause}.")).await;
            call.world.clock.sleep(REGISTER_PAUSE).await;
        }
        Err("Timed out while registering to primary.".to_string())
    }

    async fn resolve(&self, host: &str) -> Result<SocketAddr, String> {
        client::resolve(&self.call, host, self.call.flags.text("backend-port")).await
    }

    /// Takes what the primary has stored before.
    async fn take_over(&self, answer: &str, primary: &str) -> Result<(), String> {
        let answer: Value = serde_json::from_str(answer)
            .map_err(|error| format!("Error while unmarshaling primary's response: {error}"))?;
        let stored =
            answer["data"].as_object().ok_or_else(|| format!("Could not cast responseJSON: {}", answer["data"]))?;
        self.state.lock().store = stored.clone().into_iter().take(STORE_LIMIT).collect();
        self.call.log(format!("Registered to node: {primary}")).await;
        Ok(())
    }

    async fn answer(&self, request: &Received) -> Reply {
        match request.path.as_str() {
            "/register" => self.registered(request).await,
            "/get" => self.get(request).await,
            "/set" => self.set(request).await,
            "/guestbook" => self.front_end(request).await,
            _ => server::not_found(),
        }
    }

    async fn registered(&self, request: &Received) -> Reply {
        let host = request.query("host");
        self.call.log(format!("GET /register?host={host}")).await;
        let answer = {
            let mut state = self.state.lock();
            if state.replicas.len() >= REPLICA_LIMIT {
                return server::error(StatusCode::INSUFFICIENT_STORAGE, format!("more than {REPLICA_LIMIT} replicas"));
            }
            state.replicas.push(host.clone());
            json!({ "data": state.store }).to_string()
        };
        self.call.log(format!("Node '{host}' registered.")).await;
        server::ok(answer)
    }

    async fn get(&self, request: &Received) -> Reply {
        let key = request.query("key");
        self.call.log(format!("GET /get?key={key}")).await;
        let state = self.state.lock();
        let data = match key.as_str() {
            "" => json!(state.store),
            key => state.store.get(key).cloned().unwrap_or_else(|| "".into()),
        };
        server::ok(json!({ "data": data }).to_string())
    }

    async fn set(&self, request: &Received) -> Reply {
        let (key, value) = (request.query("key"), request.query("value"));
        self.call.log(format!("GET /set?key={key}&value={value}")).await;
        if key.is_empty() {
            return server::error(StatusCode::BAD_REQUEST, "cannot set with empty key.");
        }
        let replicas = {
            let mut state = self.state.lock();
            if state.store.len() >= STORE_LIMIT && !state.store.contains_key(&key) {
                return server::error(StatusCode::INSUFFICIENT_STORAGE, format!("more than {STORE_LIMIT} keys"));
            }
            state.store.insert(key.clone(), value.clone().into());
            state.replicas.clone()
        };
        for replica in replicas {
            if let Err(error) = self.dial(&replica, &format!("set?key={key}&value={value}")).await {
                let message = format!("encountered error while propagating to replica '{replica}': {error}");
                return server::error(StatusCode::EXPECTATION_FAILED, message);
            }
        }
        server::ok(json!({ "message": "Updated" }).to_string())
    }

    /// Passes a request on to who keeps the store.
    async fn front_end(&self, request: &Received) -> Reply {
        let (command, key, value) = (request.query("cmd").to_lowercase(), request.query("key"), request.query("value"));
        self.call.log(format!("GET /guestbook?cmd={command}&key={key}&value={value}")).await;
        let host = match command.as_str() {
            "set" if key.is_empty() => return server::error(StatusCode::BAD_REQUEST, "cannot set with empty key."),
            "set" => "agnhost-primary",
            "get" => "agnhost-replica",
            _ => return server::error(StatusCode::BAD_REQUEST, format!("unsupported cmd: '{command}'")),
        };
        if let Err(error) = self.resolve(host).await {
            return server::error(StatusCode::BAD_REQUEST, format!("host and/or port param are invalid. {error}"));
        }
        match self.dial(host, &format!("{command}?key={key}&value={value}")).await {
            Ok(answer) => server::ok(answer),
            Err(error) => server::error(StatusCode::EXPECTATION_FAILED, format!("encountered error: {error}")),
        }
    }
}
