//! How the command line talks to a running cluster: a few paths beside Kubernetes' own on the same port, behind the same
//! authentication and authorization (`nonResourceURLs: ["/minik8s/*"]`).
//!
//! | request | does |
//! |---|---|
//! | `GET /minik8s/v1/status` | [`ClusterStatus`] |
//! | `POST /minik8s/v1/shutdown` | ends the process in good order |
//! | `POST /minik8s/v1/nodes` ([`NewNode`]) | adds a node |
//! | `POST /minik8s/v1/nodes/NAME/stop`, `…/start`, `DELETE /minik8s/v1/nodes/NAME` | what they say |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use minik8s_clock::Clock;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Nodes;
use crate::home::{ClusterFile, DataDir};
use crate::pki;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// This program's version.
    pub version: String,
    /// The version of Kubernetes that it is.
    pub kubernetes_version: String,
    /// The process.
    pub pid: u32,
    /// Seconds since the cluster was started.
    pub uptime_seconds: u64,
    /// The store's revision.
    pub revision: u64,
    /// The nodes.
    pub nodes: Vec<NodeStatus>,
    /// The components that others run.
    #[serde(default)]
    pub disabled: Vec<String>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address in the network of the nodes.
    pub address: String,
    /// `Running`, `Stopped` as a machine that is switched off, or `External` as one that another process runs.
    pub state: String,
    /// What the API says of it: `Ready`, `NotReady`, `Unknown`.
    pub condition: String,
}

/// A node to be added. What is not said gets its default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewNode {
    /// Its name.
    pub name: Option<String>,
    /// CPU, as a quantity.
    pub cpu: Option<String>,
    /// Memory, as a quantity.
    pub memory: Option<String>,
    /// Labels beside the standard ones.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    #[serde(default)]
    pub taints: Vec<String>,
}

/// The routes, for the API server to serve.
pub fn routes(nodes: Arc<Nodes>) -> Router {
    Router::new()
        .route("/minik8s/v1/status", get(status))
        .route("/minik8s/v1/shutdown", post(shut_down))
        .route("/minik8s/v1/nodes", post(add_node))
        .route("/minik8s/v1/nodes/{name}", delete(delete_node))
        .route("/minik8s/v1/nodes/{name}/{verb}", post(switch_node))
        .with_state(nodes)
}

/// An error as an answer: its words under `error`.
struct Refusal(anyhow::Error);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": format!("{:#}", self.0)}))).into_response()
    }
}

type Answer = Result<Json<Value>, Refusal>;

async fn status(State(nodes): State<Arc<Nodes>>) -> Answer {
    Ok(Json(serde_json::to_value(nodes.status().await).map_err(|error| Refusal(error.into()))?))
}

async fn shut_down(State(nodes): State<Arc<Nodes>>) -> Json<Value> {
    nodes.stop_cluster();
    Json(json!({}))
}

async fn add_node(State(nodes): State<Arc<Nodes>>, Json(new): Json<NewNode>) -> Answer {
    let name = nodes.add(new).await.map_err(Refusal)?;
    Ok(Json(json!({"name": name})))
}

async fn switch_node(State(nodes): State<Arc<Nodes>>, Path((name, verb)): Path<(String, String)>) -> Answer {
    match verb.as_str() {
        "stop" => nodes.stop(&name).await,
        "start" => nodes.start(&name).await,
        other => Err(anyhow!("a node can be stopped and started, not {other:?}")),
    }
    .map_err(Refusal)?;
    Ok(Json(json!({})))
}

async fn delete_node(State(nodes): State<Arc<Nodes>>, Path(name): Path<String>) -> Answer {
    nodes.delete(&name).await.map_err(Refusal)?;
    Ok(Json(json!({})))
}

/// The other end: one connection a request, with the administrator's certificate.
pub struct ControlClient {
    port: u16,
    tls: TlsConnector,
    runtime: tokio::runtime::Runtime,
}

impl ControlClient {
    /// A client of the cluster in `dir`.
    pub fn new(dir: &DataDir, file: &ClusterFile) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.pki().join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        roots.add(pki::der(&read("ca.crt")?)?)?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pki::der(&read("admin.crt")?)?], pki::private_key(&read("admin.key")?)?)?;
        Ok(Self {
            port: file.port,
            tls: TlsConnector::from(Arc::new(config)),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// What runs.
    pub fn status(&self) -> Result<ClusterStatus> {
        self.call("GET", "status", None::<&()>)
    }

    /// Ends the cluster's process.
    pub fn shut_down(&self) -> Result<()> {
        self.call::<Value>("POST", "shutdown", None::<&()>).map(drop)
    }

    /// Adds a node and answers its name.
    pub fn add_node(&self, new: &NewNode) -> Result<String> {
        let answer: Value = self.call("POST", "nodes", Some(new))?;
        answer["name"].as_str().map(str::to_owned).ok_or_else(|| anyhow!("the cluster did not name the node"))
    }

    /// Switches a node off.
    pub fn stop_node(&self, name: &str) -> Result<()> {
        self.call::<Value>("POST", &format!("nodes/{name}/stop"), None::<&()>).map(drop)
    }

    /// Switches a node on.
    pub fn start_node(&self, name: &str) -> Result<()> {
        self.call::<Value>("POST", &format!("nodes/{name}/start"), None::<&()>).map(drop)
    }

    /// Removes a node.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.call::<Value>("DELETE", &format!("nodes/{name}"), None::<&()>).map(drop)
    }

    fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<&impl Serialize>) -> Result<T> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("/minik8s/v1/{path}"))
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let (status, answer) = self.runtime.block_on(async {
            match Clock::real().timeout(PATIENCE, self.send(request)).await {
                Ok(answer) => answer,
                Err(_) => bail!("the cluster did not answer within {} s", PATIENCE.as_secs()),
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&answer).context("cannot understand the cluster's answer");
        }
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let why = answer["error"].as_str().or_else(|| answer["message"].as_str());
        bail!("{}", why.map_or_else(|| format!("the cluster answered {status}"), str::to_owned))
    }

    async fn send(&self, request: hyper::Request<Full<Bytes>>) -> Result<(hyper::StatusCode, Bytes)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.context("cannot reach the API server")?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, body))
        };
        tokio::pin!(connection, exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            ended = &mut connection => {
                ended?;
                // The answer may have come with the end.
                exchange.await.context("the API server closed the connection")
            }
        }
    }
}
