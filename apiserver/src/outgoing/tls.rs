//! TLS towards others: whom to trust, what to show, and Go's words for what goes wrong.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minik8s_clock::Clock;
use minik8s_streaming::BoxedStream;
use minik8s_streaming::tls::AnyServer;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::trust::Trusted;

/// Whose certificates are good.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Those of a bundle, base64 of PEM as `caBundle` has it.
    Bundle(&'a str),
    /// Those of a bundle that is PEM as it stands.
    Pem(&'a str),
    /// Those that the world trusts.
    World,
    /// Anybody's (`insecureSkipTLSVerify`).
    Anybody,
}

impl<'a> Trust<'a> {
    /// What a `caBundle` means: without one, the world's.
    pub fn of_bundle(bundle: Option<&'a str>) -> Trust<'a> {
        bundle.filter(|bundle| !bundle.is_empty()).map_or(Trust::World, Trust::Bundle)
    }
}

/// A client's certificate chain and key.
pub struct Identity {
    /// The certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// A connector that trusts as said, and shows `identity` to servers that ask for it. Expiry is judged by `clock`.
pub fn connector(trust: Trust<'_>, identity: Option<&Identity>, clock: &Clock) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(ClockTime(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Trust::World => builder.with_webpki_verifier(verifier(roots_of_the_world(), provider)?),
        Trust::Bundle(bundle) => {
            let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
            builder.dangerous().with_custom_certificate_verifier(trusted(&pem, provider)?)
        }
        Trust::Pem(pem) => builder.dangerous().with_custom_certificate_verifier(trusted(pem.as_bytes(), provider)?),
    };
    let config = match identity {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| error.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sets TLS up with a server that must be `name`.
pub async fn handshake(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    stream: BoxedStream,
) -> Result<BoxedStream, String> {
    let stream = connector.connect(name.clone(), stream).await;
    Ok(Box::new(Abrupt(stream.map_err(|error| words(&error, name))?)))
}

/// A connection that may end without a farewell: small servers close the socket where TLS wants to be told, and Go takes it.
struct Abrupt<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Abrupt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Abrupt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn verifier(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|_| "unable to load root certificates: unable to parse bytes as PEM block".to_owned())
}

fn trusted(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<Trusted>, String> {
    let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate.clone()).map_err(|error| format!("caBundle: {error}"))?;
        certificates.push(certificate);
    }
    Ok(Arc::new(Trusted::new(verifier(roots, provider)?, certificates)))
}

fn roots_of_the_world() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// Certificates are good or expired by the cluster's clock.
struct ClockTime(Clock);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Go's words for a certificate that is not trusted.
fn words(error: &io::Error, name: &ServerName<'_>) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let cause = match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => cause,
        // What answers in plain text, or hangs up.
        Some(rustls::Error::InvalidMessage(_)) => {
            return "tls: first record does not look like a TLS handshake".to_owned();
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
        _ => return error.to_string(),
    };
    let words = match cause {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {}", name.to_str())
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {words}")
}
