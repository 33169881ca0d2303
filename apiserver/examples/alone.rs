//! The API server by itself, on a memory store: `cargo run -p minik8s-apiserver --example alone -- kubeconfig.yaml`, then
//! `kubectl --kubeconfig kubeconfig.yaml …`. Nothing schedules or runs what is created.

use std::error::Error;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minik8s_apiserver::authn::StaticTokens;
use minik8s_apiserver::authn::jwt::SigningKey;
use minik8s_apiserver::endpoints::connect::NodeConnector;
use minik8s_apiserver::identity::{MASTERS, UserInfo};
use minik8s_apiserver::outgoing::MachineNetwork;
use minik8s_apiserver::server::{ApiServer, Config, Limits};
use minik8s_clock::{Clock, Random};
use minik8s_store::MemoryStore;
use minik8s_streaming::BoxedStream;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// There are no nodes to reach.
struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn connect(&self, node: &str) -> io::Result<BoxedStream> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no node {node}")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: alone KUBECONFIG")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (clock, random, token) = (Clock::real(), Random::from_os(), Random::from_os().uuid());
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;

    let shutdown = CancellationToken::new();
    let config = Config {
        store: MemoryStore::new(clock.clone()),
        clock,
        random,
        service_account_key: SigningKey::from_pkcs8(&SigningKey::generate_pkcs8()?)?,
        client_ca: Vec::new(),
        client_ca_pem: String::new(),
        front_proxy: None,
        static_tokens: StaticTokens::default().with(token.as_str(), UserInfo::new("admin", [MASTERS])),
        nodes: Arc::new(NoNodes),
        dialer: Arc::new(MachineNetwork),
        components: Vec::new(),
        ranges: Default::default(),
        advertise: address,
        limits: Limits::default(),
        audit: None,
        encryption: None,
        metrics: Default::default(),
        settings: Default::default(),
        extra_routes: axum::Router::new(),
    };
    let server = ApiServer::new(config, shutdown.clone()).await?;
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der())?;
    let tls = server.tls(vec![certificate.cert.der().clone()], key)?;

    let authority = BASE64_STANDARD.encode(certificate.cert.pem());
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "alone",
        "clusters": [{ "name": "alone", "cluster": { "server": format!("https://{address}"), "certificate-authority-data": authority } }],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "contexts": [{ "name": "alone", "context": { "cluster": "alone", "user": "admin" } }],
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&kubeconfig)?)?;
    println!("serving on https://{address}, kubeconfig in {file}");
    let until = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            until.cancel();
        }
    });
    server.serve(listener, tls, shutdown).await?;
    server.stopped().await;
    Ok(())
}
