//! HTTPS of the components beside the API server: a certificate, connections, requests that know their peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_apiserver::authn::PeerCertificates;
use minik8s_clock::Clock;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::pki::{self, CertifiedKey};
use crate::wiring::guard::Guard;

/// Connections at once; the API server, scrapers and probes are the only clients.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a client may take to set up TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the listener rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes a port.
///
/// # Errors
/// It is taken already, or not permitted.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// The TLS settings of a server that asks for client certificates where `guard` knows their CA.
///
/// # Errors
/// A certificate or key that cannot be used.
pub fn tls(certificate: &CertifiedKey, guard: &Guard) -> Result<Arc<ServerConfig>> {
    let (chain, key) = (pki::all_der(&certificate.cert_pem)?, pki::private_key(&certificate.key_pem)?);
    let builder = ServerConfig::builder();
    let builder = match guard.handshake_verifier() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    // HTTP/1.1 only: exec and attach change protocols on it.
    let mut config = builder.with_single_cert(chain, key).context("the serving certificate cannot be used")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves `routes` until `cancel`. Each request has the peer's certificates in its extensions, if there are any.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    clock: Clock,
    cancel: CancellationToken,
) {
    accept(listener, Arc::new(Semaphore::new(MAX_CONNECTIONS)), tls, routes, clock, cancel).await;
}

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    tls: Arc<ServerConfig>,
    routes: Router,
    clock: Clock,
    cancel: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Beyond the bound a connection is dropped at once, which the client sees as a reset.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (acceptor, routes, clock, cancel) = (acceptor.clone(), routes.clone(), clock.clone(), cancel.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(()),
                ended = connection(stream, acceptor, routes, &clock) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended");
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, routes: Router, clock: &Clock) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let accepted = clock.timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = accepted.map_err(|_| "TLS was not set up in time".to_owned())?.map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates();
    let peer = chain.map(|chain| PeerCertificates(chain.iter().map(|one| one.clone().into_owned()).collect()));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        routes.clone().call(request)
    });
    let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    http.with_upgrades().await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;
    use minik8s_clock::{Random, Simulation};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    /// A component that has so many places.
    struct Component {
        address: SocketAddr,
        pki: Pki,
        simulation: Simulation,
    }

    impl Component {
        async fn start(places: usize) -> Self {
            let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
            let pki = Pki::in_memory(&["127.0.0.1".to_owned()], &clock, &Random::seeded(1)).unwrap();
            let (chain, key) =
                (pki::all_der(&pki.server.cert_pem).unwrap(), pki::private_key(&pki.server.key_pem).unwrap());
            let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
            let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
            let address = listener.local_addr().unwrap();
            let routes = Router::new().route("/healthz", axum::routing::get(async || "ok"));
            let places = Arc::new(Semaphore::new(places));
            tokio::spawn(accept(listener, places, Arc::new(tls), routes, clock, CancellationToken::new()));
            Self { address, pki, simulation }
        }

        async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
            let mut roots = RootCertStore::empty();
            roots.add(pki::der(&self.pki.ca_pem).unwrap()).unwrap();
            let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            let name = "127.0.0.1".try_into().unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?).await
        }

        async fn is_well(&self) -> bool {
            let Ok(mut stream) = self.connect().await else { return false };
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.is_ok_and(|_| said.starts_with("HTTP/1.1 200"))
        }
    }

    #[tokio::test]
    async fn a_connection_too_many_is_dropped() {
        let component = Component::start(1).await;
        let first = component.connect().await.unwrap();
        assert!(!component.is_well().await);
        drop(first);
        // The component hears of it a moment later.
        while !component.is_well().await {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_does_not_set_up_tls_is_cut_off() {
        let component = Component::start(2).await;
        let mut silent = TcpStream::connect(component.address).await.unwrap();
        assert!(component.is_well().await, "nobody else waits");
        let mut said = [0; 1];
        let read = loop {
            tokio::select! {
                biased;
                read = silent.read(&mut said) => break read,
                () = tokio::task::yield_now() => drop(component.simulation.advance_to_next()),
            }
        };
        assert!(!read.is_ok_and(|bytes| bytes > 0));
        assert!(component.is_well().await);
    }
}
