//! Listening: TLS, HTTP/1.1 and HTTP/2, and taking leave. A connection on which nothing happens is closed: see `traffic`.

mod traffic;
mod unread;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use minik8s_clock::Clock;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::traffic::{Noticed, Open, Traffic};
use self::unread::Unread;
use crate::authn::PeerCertificates;
use crate::errors::Error;
use crate::server::ApiServer;

/// How long a client may take to set up TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection: controllers hold a watch for each kind.
const MAX_STREAMS: u32 = 1_000;
/// All headers of a request together; more are answered with 431. The address is bounded by HTTP libraries: from 64 KiB on
/// the answer is 414.
const MAX_HEADER_BYTES: usize = 128 << 10;
/// Headers of a request; more are answered with 431.
const MAX_HEADERS: usize = 1_000;
/// How long open connections get to finish once the server takes leave.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the listener rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request's connection comes from; in the extensions of requests from the network.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

impl ApiServer {
    /// The TLS configuration of a listener: the server's certificate, client certificates if clients have them, both
    /// versions of HTTP.
    pub fn tls(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let bad = |error: rustls::Error| Error::Config(format!("TLS: {error}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(bad)?;
        let builder = match self.authenticator().handshake_verifier() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(bad)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Serves a listener until `shutdown`; returns once its connections are done or out of time.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(self.limits().connections));
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.clock().sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the bound a connection is dropped at once, which the client sees as a reset.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (server, acceptor, shutdown) = (Arc::clone(self), acceptor.clone(), shutdown.clone());
            connections.spawn(async move {
                if let Err(error) = server.connection(stream, address, acceptor, shutdown).await {
                    tracing::debug!(error, "a connection ended");
                }
                drop(place);
            });
        }
        connections.close();
        if self.clock().timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::debug!(open = connections.len(), "connections were cut off");
        }
        Ok(())
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        acceptor: TlsAcceptor,
        shutdown: CancellationToken,
    ) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let traffic = Traffic::new(self.clock().clone());
        let stream = Noticed::new(stream, Arc::clone(&traffic));
        let accepted = self.clock().timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let stream =
            accepted.map_err(|_| "TLS was not set up in time".to_owned())?.map_err(|error| error.to_string())?;
        let peer = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
        let peer = peer.map(|chain: Vec<_>| PeerCertificates(Arc::from(chain)));
        let builder = protocol(stream.get_ref().1.alpn_protocol());
        let (server, noticed) = (Arc::clone(&self), Arc::clone(&traffic));
        let service = service_fn(move |request: http::Request<Incoming>| {
            let open = noticed.begin();
            let (mut request, unread) = unread::lend(request);
            // The extensions of a request from the network hold what the connection proves, and nothing else that counts.
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            request.extensions_mut().insert(PeerAddress(address));
            let answer = server.service().call(request);
            until_sent(open, answer, unread, server.clock().clone())
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            result = connection.as_mut() => return result.map_err(|error| error.to_string()),
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                return connection.await.map_err(|error| error.to_string());
            }
            () = traffic.silent() => {}
        }
        // HTTP/2 has a word for it, which a client that still listens is owed.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = connection.as_mut() => {}
            () = self.clock().sleep(DRAIN_TIMEOUT) => {}
        }
        Err("nothing happened for too long".to_owned())
    }
}

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// The answer, for which the request counts as open until it is sent. It comes when the request is read.
fn until_sent(open: Open, answer: Answer, unread: Option<Unread>, clock: Clock) -> Answer {
    Box::pin(async move {
        let Ok(answer) = answer.await;
        if let Some(unread) = unread {
            unread.drain(&clock).await;
        }
        Ok(answer.map(|body| open.answer(body)))
    })
}

/// The version of HTTP that was agreed on while TLS was set up, and its bounds.
fn protocol(agreed: Option<&[u8]>) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
    builder.http2().max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEADER_BYTES as u32);
    if agreed == Some(b"h2") { builder.http2_only() } else { builder.http1_only() }
}
