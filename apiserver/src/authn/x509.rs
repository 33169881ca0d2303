//! Client certificates: the subject's common name is the user, its organizations are the groups.
//!
//! During the handshake any certificate is taken, as long as the peer holds its key ([`RequestClientCert`]). Whether it is
//! trusted is decided here, by the injected clock, so that a bad certificate gets Kubernetes' 401 and not a TLS alert
//! (`k8s.io/apiserver/pkg/authentication/request/x509/x509.go`).

use std::{collections::BTreeMap, fmt, fmt::Write, sync::Arc, time::Duration};

use minik8s_clock::Clock;
use parking_lot::Mutex;
use ring::digest;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Outcome;
use crate::identity::UserInfo;

/// Verified chains that are remembered; the cache starts anew when it is full.
const MAX_REMEMBERED: usize = 4096;
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The certificate chain a TLS peer presented, leaf first; the server puts it into the extensions of each request of the
/// connection. It proves possession of the key, not yet that the chain is trusted.
#[derive(Debug, Clone)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Why no verifier could be made of a client CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client CA cannot be used: {0}")]
pub struct BadClientCa(String);

/// Trusts certificates of the client CA.
pub struct ClientCertificates {
    verifier: Arc<dyn ClientCertVerifier>,
    clock: Clock,
    remembered: Mutex<BTreeMap<[u8; 32], Known>>,
}

#[derive(Clone)]
struct Known {
    user: UserInfo,
    /// When every certificate of the chain is valid, in seconds since 1970.
    valid: (i64, i64),
}

impl ClientCertificates {
    /// Trusts what these roots signed for client use.
    pub fn new(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
        clock: Clock,
    ) -> Result<ClientCertificates, BadClientCa> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| BadClientCa(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| BadClientCa(error.to_string()))?;
        Ok(ClientCertificates { verifier, clock, remembered: Mutex::default() })
    }

    /// Who holds these certificates: nobody where there are none.
    ///
    /// # Errors
    /// They are not of this CA, not valid now, or name no user; in words for a log.
    pub fn authenticate(&self, peer: &PeerCertificates) -> Outcome<UserInfo> {
        let Some((leaf, intermediates)) = peer.0.split_first() else {
            return Ok(None);
        };
        let now = self.clock.now().as_second();
        let fingerprint = fingerprint(&peer.0);
        if let Some(known) = self.remembered.lock().get(&fingerprint)
            && (known.valid.0..=known.valid.1).contains(&now)
        {
            return Ok(Some(known.user.clone()));
        }
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        self.verifier.verify_client_cert(leaf, intermediates, at).map_err(|error| error.to_string())?;
        let user = user_of(leaf)?;
        let known = Known { user: user.clone(), valid: validity(&peer.0)? };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(fingerprint, known);
        Ok(Some(user))
    }
}

fn fingerprint(chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|error| format!("certificate: {error}"))
}

fn validity(chain: &[CertificateDer<'_>]) -> Result<(i64, i64), String> {
    let mut valid = (i64::MIN, i64::MAX);
    for certificate in chain {
        let certificate = parse(certificate)?;
        let own = certificate.validity();
        valid = (valid.0.max(own.not_before.timestamp()), valid.1.min(own.not_after.timestamp()));
    }
    Ok(valid)
}

/// The user a trusted certificate names.
fn user_of(leaf: &CertificateDer<'_>) -> Result<UserInfo, String> {
    let certificate = parse(leaf)?;
    let subject = &certificate.subject;
    // Of several common names the last counts, as in Go; signers see them so too (`minik8s_api::certificate_request`).
    let names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    let Some(name) = names.last().filter(|name| !name.is_empty()) else {
        return Err("the certificate names nobody".to_owned());
    };
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    let mut id = "X509SHA256=".to_owned();
    for byte in digest::digest(&digest::SHA256, leaf).as_ref() {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(UserInfo {
        name: name.to_owned(),
        groups,
        extra: [(CREDENTIAL_ID.to_owned(), vec![id])].into(),
        ..UserInfo::default()
    })
}

/// A verifier that asks for a certificate of one of these CAs, and leaves the judgement to them.
pub fn handshake_verifier(judges: &[&ClientCertificates]) -> Option<Arc<dyn ClientCertVerifier>> {
    let verifier = Arc::clone(&judges.first()?.verifier);
    let hints = judges.iter().flat_map(|judge| judge.verifier.root_hint_subjects()).cloned().collect();
    Some(Arc::new(RequestClientCert { verifier, hints }))
}

/// Asks TLS clients for a certificate and leaves the judgement to [`ClientCertificates`].
struct RequestClientCert {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Which CAs clients are told to choose their certificate by.
    hints: Vec<DistinguishedName>,
}

impl fmt::Debug for RequestClientCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestClientCert")
    }
}

impl ClientCertVerifier for RequestClientCert {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
