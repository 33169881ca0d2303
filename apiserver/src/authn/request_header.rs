//! An authenticating proxy in front of the API server says in headers who the user is. It is believed because it shows a
//! client certificate of a CA that signs for nobody else (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use std::collections::BTreeMap;

use http::HeaderMap;
use rustls::pki_types::CertificateDer;

use super::Outcome;
use super::x509::{ClientCertificates, PeerCertificates};
use crate::identity::UserInfo;
use crate::request::percent_decode;

/// Which proxies are believed, and in which headers they speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaders {
    /// The CAs of the proxies' certificates (`--requestheader-client-ca-file`).
    pub ca: Vec<CertificateDer<'static>>,
    /// The same as PEM, published for API servers that this one proxies to.
    pub ca_pem: String,
    /// The common names that a proxy's certificate may have; empty for any (`--requestheader-allowed-names`).
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts (`--requestheader-username-headers`).
    pub username: Vec<String>,
    /// Headers with the user's UID (`--requestheader-uid-headers`).
    pub uid: Vec<String>,
    /// Headers with the user's groups (`--requestheader-group-headers`).
    pub group: Vec<String>,
    /// Prefixes of headers with what else is known (`--requestheader-extra-headers-prefix`).
    pub extra_prefix: Vec<String>,
}

/// Believes proxies.
pub struct Proxies {
    settings: RequestHeaders,
    certificates: ClientCertificates,
}

impl Proxies {
    /// `certificates` trusts the CA of the settings.
    pub fn new(settings: RequestHeaders, certificates: ClientCertificates) -> Proxies {
        Proxies { settings, certificates }
    }

    /// What the certificates of proxies are judged by.
    pub(super) fn certificates(&self) -> &ClientCertificates {
        &self.certificates
    }

    /// The user that a proxy names, and the headers without the names; nothing where no proxy speaks.
    pub(super) fn authenticate(&self, peer: Option<&PeerCertificates>, headers: &mut HeaderMap) -> Outcome<UserInfo> {
        let Some(peer) = peer else { return Ok(None) };
        // Who is no proxy may still be a client.
        let Ok(Some(proxy)) = self.certificates.authenticate(peer) else { return Ok(None) };
        let allowed = &self.settings.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&proxy.name) {
            return Ok(None);
        }
        let Some(name) = first(headers, &self.settings.username) else { return Ok(None) };
        let user = UserInfo {
            name,
            uid: first(headers, &self.settings.uid).unwrap_or_default(),
            groups: self.groups(headers),
            extra: self.extra(headers),
        };
        self.strip(headers);
        Ok(Some(user))
    }

    fn groups(&self, headers: &HeaderMap) -> Vec<String> {
        let groups = self.settings.group.iter().flat_map(|header| values(headers, header));
        groups.filter(|group| !group.is_empty()).collect()
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        for prefix in &self.settings.extra_prefix {
            for name in headers.keys() {
                if let Some(key) = key_of(name.as_str(), prefix) {
                    extra.entry(key).or_insert_with(Vec::new).extend(values(headers, name.as_str()));
                }
            }
        }
        extra
    }

    fn strip(&self, headers: &mut HeaderMap) {
        let settings = &self.settings;
        for name in settings.username.iter().chain(&settings.uid).chain(&settings.group) {
            headers.remove(name.as_str());
        }
        let extra: Vec<_> = headers
            .keys()
            .filter(|name| settings.extra_prefix.iter().any(|prefix| key_of(name.as_str(), prefix).is_some()))
            .cloned()
            .collect();
        extra.into_iter().for_each(|name| drop(headers.remove(name)));
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().flat_map(|name| values(headers, name)).find(|value| !value.is_empty())
}

/// The key in the name of a header that starts with `prefix`: lower-case, percent-decoded.
fn key_of(name: &str, prefix: &str) -> Option<String> {
    let rest = name.to_ascii_lowercase();
    let key = rest.strip_prefix(&prefix.to_ascii_lowercase())?;
    (!key.is_empty()).then(|| percent_decode(key))
}
