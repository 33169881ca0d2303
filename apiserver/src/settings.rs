//! What operators set with kube-apiserver's flags, beyond what a server cannot be without ([`crate::server::Config`]).

use std::time::Duration;

use minik8s_api::kinds::Kinds;

use crate::admission;
use crate::authn::RequestHeaders;
use crate::authn::configuration::AuthenticationConfiguration;
use crate::authn::jwt::PublicKey;
use crate::authz::Mode;
use crate::tokens::DEFAULT_ISSUER;

/// The settings of a server. The defaults are Kubernetes', but for the authorizers: kube-apiserver without a flag lets
/// everybody do everything, this server never does unless it is told to.
#[derive(Clone)]
pub struct Settings {
    /// Whose tokens are good besides this server's own, and whether requests without credentials are served, as
    /// `system:anonymous` (`--authentication-config`, `--oidc-*`, `--anonymous-auth`).
    pub authentication: AuthenticationConfiguration,
    /// Whether Secrets of type `bootstrap.kubernetes.io/token` are believed (`--enable-bootstrap-token-auth`).
    pub bootstrap_tokens: bool,
    /// Whose word on the user of a request is taken (`--requestheader-*`).
    pub request_headers: Option<RequestHeaders>,
    /// Who signs ServiceAccount tokens: the first name goes into new tokens, all are accepted
    /// (`--service-account-issuer`). Never empty.
    pub issuers: Vec<String>,
    /// The names of this API server in tokens (`--api-audiences`); empty for that of the first issuer.
    pub audiences: Vec<String>,
    /// Keys that verify ServiceAccount tokens, beside the one that signs them (`--service-account-key-file`).
    pub public_keys: Vec<PublicKey>,
    /// Who is asked whether a request may be, in this order (`--authorization-mode`). `system:masters` may always.
    pub authorization: Vec<Mode>,
    /// Which admission plugins run (`--enable-admission-plugins`, `--disable-admission-plugins`).
    pub admission: admission::Selection,
    /// How long a request that ends by itself may take, waiting included (`--request-timeout`).
    pub request_timeout: Duration,
    /// A watch that does not say when it wants to end does so after this, up to twice as long (`--min-request-timeout`).
    pub min_request_timeout: Duration,
    /// How long an Event lives (`--event-ttl`).
    pub event_ttl: Duration,
    /// Groups and versions that are not served (`--runtime-config GROUP/VERSION=false`).
    pub unserved: Vec<GroupVersion>,
}

/// A group (empty for core) and one of its versions.
pub type GroupVersion = (String, String);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            authentication: AuthenticationConfiguration::default(),
            bootstrap_tokens: false,
            request_headers: None,
            issuers: vec![DEFAULT_ISSUER.to_owned()],
            audiences: Vec::new(),
            public_keys: Vec::new(),
            authorization: vec![Mode::Node, Mode::Rbac],
            admission: admission::Selection::default(),
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1_800),
            event_ttl: Duration::from_secs(3_600),
            unserved: Vec::new(),
        }
    }
}

impl Settings {
    /// The issuer of new tokens.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or(DEFAULT_ISSUER, String::as_str)
    }

    /// The names of this API server in tokens.
    pub fn audiences(&self) -> Vec<String> {
        if self.audiences.is_empty() { vec![self.issuer().to_owned()] } else { self.audiences.clone() }
    }
}

/// The built-in kinds without those of some groups and versions.
///
/// # Errors
/// A group and version that is not built in, that Kubernetes does not let go either, or in which another one is stored.
pub fn served_kinds(unserved: &[GroupVersion]) -> Result<std::sync::Arc<Kinds>, String> {
    let all = Kinds::built_in();
    if unserved.is_empty() {
        return Ok(all);
    }
    for (group, version) in unserved {
        let shown = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        if !all.has_version(group, version) {
            return Err(format!("unknown api groups or versions {shown}"));
        }
        // What the server itself is made of.
        if matches!(group.as_str(), "" | "rbac.authorization.k8s.io" | "apiextensions.k8s.io") {
            return Err(format!("{shown} cannot be disabled: the API server itself works with it"));
        }
    }
    let off = |group: &str, version: &str| unserved.iter().any(|(g, v)| g == group && v == version);
    let rows: Vec<_> = all.iter().filter(|row| !off(&row.group, &row.version)).cloned().collect();
    if let Some(row) = rows.iter().find(|row| off(&row.storage.kind.group, &row.storage.kind.version)) {
        let stored = &row.storage.kind;
        return Err(format!(
            "{}/{} cannot be disabled: {} of {} are stored in it",
            stored.group,
            stored.version,
            row.plural,
            row.api_version()
        ));
    }
    Ok(std::sync::Arc::new(Kinds::from_rows(rows)))
}

#[cfg(test)]
mod tests {
    use super::served_kinds;

    #[test]
    fn versions_that_others_need_stay() {
        let without = |group: &str, version: &str| served_kinds(&[(group.to_owned(), version.to_owned())]);
        let kinds = without("batch", "v1").expect("can be left out");
        assert!(kinds.group("batch").is_none() && kinds.group("apps").is_some());
        let kinds = without("autoscaling", "v1").expect("can be left out");
        assert!(kinds.has_version("autoscaling", "v2"));
        let refused = |group: &str, version: &str| without(group, version).expect_err("refused");
        assert!(refused("autoscaling", "v2").contains("autoscaling/v1 are stored in it"));
        assert_eq!(refused("batch", "v9"), "unknown api groups or versions batch/v9");
        assert!(refused("", "v1").contains("works with it"));
    }
}
