//! Whom tools trust over TLS.

use minik8s_clock::Clock;
use minik8s_streaming::BoxedStream;
use minik8s_streaming::tls::AnyServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// Whose certificates are believed.
pub(crate) struct Trust {
    /// Everybody's without them.
    roots: Option<RootCertStore>,
}

/// Certificates are valid in the cluster's time.
#[derive(Debug)]
struct ClusterTime(Clock);

impl TimeProvider for ClusterTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl Trust {
    /// Every certificate is believed.
    pub fn anyone() -> Trust {
        Trust { roots: None }
    }

    /// No certificate is believed: images have no list of authorities.
    pub fn nobody() -> Trust {
        Trust { roots: Some(RootCertStore::empty()) }
    }

    /// Certificates are believed that these authorities (PEM) vouch for.
    pub fn roots(pem: &[u8]) -> Trust {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        let (usable, unusable) = roots.add_parsable_certificates(certificates);
        tracing::debug!(usable, unusable, "certificate authorities read");
        Trust { roots: Some(roots) }
    }

    /// A connector of this trust; the error is the reason.
    pub fn connector(&self, clock: &Clock) -> Result<TlsConnector, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(ClusterTime(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match &self.roots {
            Some(roots) => builder.with_root_certificates(roots.clone()),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        };
        Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
    }

    /// Makes a stream to a host a secure one; the error is the reason why not.
    pub async fn connect(&self, clock: &Clock, host: &str, stream: BoxedStream) -> Result<BoxedStream, String> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        match self.connector(clock)?.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
                    "unable to get local issuer certificate".to_string()
                }
                _ => error.to_string(),
            }),
        }
    }
}
