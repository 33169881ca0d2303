//! `AuthenticationConfiguration` of `apiserver.config.k8s.io/v1`, the file behind `--authentication-config`, and what the
//! older `--oidc-*` flags say in its terms (`k8s.io/apiserver/pkg/apis/apiserver/{v1,validation}`).
//!
//! [`AuthenticationConfiguration::parse`] reads and checks; what it answers is ready to be used.

use std::collections::{BTreeMap, BTreeSet};

use minik8s_api::{
    custom::cel::{Expr, check::Ty},
    status::{FieldError, FieldPath},
    strategy::names,
};
use serde::Deserialize;

use super::oidc::jws::Algorithm;

/// Issuers that one server trusts.
const MAX_ISSUERS: usize = 64;
const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const KIND: &str = "AuthenticationConfiguration";

/// Why a configuration is not used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadConfiguration {
    /// No YAML, an unknown field, another kind.
    #[error("authentication configuration: {0}")]
    Syntax(String),
    /// What it says cannot be.
    #[error("authentication configuration: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Invalid(Vec<FieldError>),
}

/// Who is let in by a JSON Web Token, and where nobody need say who they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Issuers of tokens.
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    /// Requests without credentials; unset lets them pass as `system:anonymous`.
    #[serde(default)]
    pub anonymous: Option<Anonymous>,
}

/// Whether requests without credentials have an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anonymous {
    /// Otherwise they are refused with 401.
    pub enabled: bool,
    /// If there are any, only requests that meet one of them.
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

/// Where requests may be anonymous.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnonymousCondition {
    /// The whole path.
    pub path: String,
}

/// One issuer, and what its tokens mean.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    /// Who issues the tokens.
    pub issuer: Issuer,
    /// What must be true of a token's claims.
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    /// How claims become a user.
    pub claim_mappings: ClaimMappings,
    /// What must be true of the user.
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
    /// Algorithms of signatures; none stands for all. Not in the file: only a flag says it.
    #[serde(skip)]
    pub signing_algorithms: Vec<Algorithm>,
}

/// See [`JwtAuthenticator::issuer`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// The claim `iss`; below it is the discovery document.
    #[serde(default)]
    pub url: String,
    /// The discovery document, if it is elsewhere.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; empty for what the world trusts.
    #[serde(default)]
    pub certificate_authority: String,
    /// Of the claim `aud`, one must be among these.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// `MatchAny`, or empty with one audience.
    #[serde(default)]
    pub audience_match_policy: String,
    /// Ways out of the cluster, of which this server has one: only empty is taken.
    #[serde(default)]
    pub egress_selector_type: String,
}

/// A claim's value, or an expression that must be true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRule {
    /// A claim, or empty.
    #[serde(default)]
    pub claim: String,
    /// What it must be.
    #[serde(default)]
    pub required_value: String,
    /// CEL over `claims`, or empty.
    #[serde(default)]
    pub expression: String,
    /// Said where the expression is false.
    #[serde(default)]
    pub message: String,
}

/// See [`JwtAuthenticator::user_validation_rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserRule {
    /// CEL over `user`.
    #[serde(default)]
    pub expression: String,
    /// Said where it is false.
    #[serde(default)]
    pub message: String,
}

/// How claims become a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimMappings {
    /// The name.
    #[serde(default)]
    pub username: Mapping,
    /// The groups.
    #[serde(default)]
    pub groups: Mapping,
    /// The UID; it has no prefix.
    #[serde(default)]
    pub uid: Mapping,
    /// Further attributes.
    #[serde(default)]
    pub extra: Vec<ExtraMapping>,
}

/// A claim with a prefix before its value, or an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// A claim, or empty.
    #[serde(default)]
    pub claim: String,
    /// Needed with a claim; may be empty.
    #[serde(default)]
    pub prefix: Option<String>,
    /// CEL over `claims`, or empty.
    #[serde(default)]
    pub expression: String,
}

/// An attribute of the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMapping {
    /// `example.com/name`.
    #[serde(default)]
    pub key: String,
    /// CEL over `claims`.
    #[serde(default)]
    pub value_expression: String,
}

/// What the `--oidc-*` flags of kube-apiserver say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OidcFlags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// What is in `--oidc-ca-file`; empty for what the world trusts.
    pub ca_pem: String,
    /// `--oidc-username-claim`; empty is `sub`.
    pub username_claim: String,
    /// `--oidc-username-prefix`; unset is the issuer and `#` unless the claim is `email`, `-` is none.
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`; empty is none.
    pub groups_claim: String,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-required-claim`
    pub required_claims: BTreeMap<String, String>,
    /// `--oidc-signing-algs`; none is RS256.
    pub signing_algorithms: Vec<Algorithm>,
}

impl OidcFlags {
    /// The same as a configuration (`pkg/kubeapiserver/options/authentication.go`). `own_issuers` are those of this server's
    /// ServiceAccounts, which nobody else may be.
    pub fn into_configuration(self, own_issuers: &[&str]) -> Result<AuthenticationConfiguration, BadConfiguration> {
        let claim = if self.username_claim.is_empty() { "sub".to_owned() } else { self.username_claim };
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            None | Some("") if claim == "email" => String::new(),
            None | Some("") => format!("{}#", self.issuer_url),
            Some(prefix) => prefix.to_owned(),
        };
        let mut groups = Mapping::default();
        if !self.groups_claim.is_empty() {
            groups = Mapping { claim: self.groups_claim, prefix: Some(self.groups_prefix), expression: String::new() };
        }
        let rules = self.required_claims.into_iter();
        let rules = rules.map(|(claim, required_value)| ClaimRule { claim, required_value, ..ClaimRule::default() });
        let algorithms = self.signing_algorithms;
        let configuration = AuthenticationConfiguration {
            jwt: vec![JwtAuthenticator {
                issuer: Issuer {
                    url: self.issuer_url,
                    certificate_authority: self.ca_pem,
                    audiences: vec![self.client_id],
                    ..Issuer::default()
                },
                claim_validation_rules: rules.collect(),
                claim_mappings: ClaimMappings {
                    username: Mapping { claim, prefix: Some(prefix), expression: String::new() },
                    groups,
                    ..ClaimMappings::default()
                },
                user_validation_rules: Vec::new(),
                signing_algorithms: if algorithms.is_empty() { vec![Algorithm::Rs256] } else { algorithms },
            }],
            ..AuthenticationConfiguration::default()
        };
        configuration.checked(own_issuers)
    }
}

impl AuthenticationConfiguration {
    /// Reads the file. `own_issuers` are those of this server's ServiceAccounts, which nobody else may be.
    pub fn parse(yaml: &str, own_issuers: &[&str]) -> Result<AuthenticationConfiguration, BadConfiguration> {
        let configuration: AuthenticationConfiguration =
            serde_yaml::from_str(yaml).map_err(|error| BadConfiguration::Syntax(error.to_string()))?;
        let (group, version) = configuration.api_version.split_once('/').unwrap_or(("", &configuration.api_version));
        if group != GROUP || !VERSIONS.contains(&version) || configuration.kind != KIND {
            let (version, kind) = (&configuration.api_version, &configuration.kind);
            let message = format!("no kind {kind:?} is registered for version {version:?}");
            return Err(BadConfiguration::Syntax(message));
        }
        configuration.checked(own_issuers)
    }

    fn checked(self, own_issuers: &[&str]) -> Result<AuthenticationConfiguration, BadConfiguration> {
        let mut errors = Errors { found: Vec::new(), own_issuers };
        errors.configuration(&self);
        if errors.found.is_empty() { Ok(self) } else { Err(BadConfiguration::Invalid(errors.found)) }
    }
}

/// The types of what expressions speak of.
pub(super) fn claims_type() -> [(&'static str, Ty<'static>); 1] {
    [("claims", Ty::Map(Box::new(Ty::Dyn)))]
}

pub(super) fn user_type() -> [(&'static str, Ty<'static>); 1] {
    [("user", minik8s_api::admission::user_info())]
}

/// What is wrong, in Kubernetes' words.
struct Errors<'a> {
    found: Vec<FieldError>,
    own_issuers: &'a [&'a str],
}

impl Errors<'_> {
    fn invalid(&mut self, path: &FieldPath, value: &str, detail: impl Into<String>) {
        self.found.push(FieldError::invalid(path, value, detail));
    }

    fn required(&mut self, path: &FieldPath, detail: impl Into<String>) {
        self.found.push(FieldError::required(path, detail));
    }

    fn configuration(&mut self, of: &AuthenticationConfiguration) {
        let root = FieldPath::new("jwt");
        if of.jwt.len() > MAX_ISSUERS {
            self.found.push(FieldError::too_many(&root, of.jwt.len(), MAX_ISSUERS));
            return;
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (at, authenticator) in of.jwt.iter().enumerate() {
            let path = root.index(at);
            self.authenticator(&path, authenticator);
            let issuer = &authenticator.issuer;
            if !urls.insert(&issuer.url) {
                self.found.push(FieldError::duplicate(&path.child("issuer").child("url"), issuer.url.as_str()));
            }
            if !issuer.discovery_url.is_empty() && !discoveries.insert(&issuer.discovery_url) {
                let path = path.child("issuer").child("discoveryURL");
                self.found.push(FieldError::duplicate(&path, issuer.discovery_url.as_str()));
            }
        }
        if let Some(anonymous) = &of.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let path = FieldPath::new("anonymous").child("conditions");
            self.invalid(&path, "", "enabled should be set to true when conditions are defined");
        }
    }

    fn authenticator(&mut self, path: &FieldPath, of: &JwtAuthenticator) {
        self.issuer(&path.child("issuer"), &of.issuer);
        self.claim_rules(&path.child("claimValidationRules"), &of.claim_validation_rules);
        self.mappings(&path.child("claimMappings"), of);
        let path = path.child("userValidationRules");
        let mut seen = BTreeSet::new();
        for (at, rule) in of.user_validation_rules.iter().enumerate() {
            let path = path.index(at).child("expression");
            if rule.expression.is_empty() {
                self.required(&path, "expression is required");
            } else if !seen.insert(&rule.expression) {
                self.found.push(FieldError::duplicate(&path, rule.expression.as_str()));
            } else {
                self.expression(&path, &rule.expression, &user_type(), &Ty::Bool);
            }
        }
    }

    fn issuer(&mut self, path: &FieldPath, of: &Issuer) {
        let url = path.child("url");
        if of.url.is_empty() {
            self.required(&url, "URL is required");
        } else {
            if self.own_issuers.contains(&of.url.as_str()) {
                let own = self.own_issuers.join(" ");
                self.invalid(&url, &of.url, format!("URL must not overlap with disallowed issuers: [{own}]"));
            }
            self.url(&url, &of.url);
        }
        if !of.discovery_url.is_empty() {
            let path = path.child("discoveryURL");
            if !of.url.is_empty() && of.url.trim_end_matches('/') == of.discovery_url.trim_end_matches('/') {
                self.invalid(&path, &of.discovery_url, "discoveryURL must be different from URL");
            }
            self.url(&path, &of.discovery_url);
        }
        self.audiences(path, of);
        let ca = of.certificate_authority.as_str();
        let read = minik8s_api::certificate_request::check_certificates(ca.as_bytes());
        if let (false, Err(words)) = (ca.is_empty(), read) {
            self.invalid(&path.child("certificateAuthority"), "<omitted>", words);
        }
        if !of.egress_selector_type.is_empty() {
            let path = path.child("egressSelectorType");
            self.invalid(&path, &of.egress_selector_type, "this server has no egress selectors");
        }
    }

    fn url(&mut self, path: &FieldPath, url: &str) {
        let Ok(uri) = url.parse::<http::Uri>() else {
            return self.invalid(path, url, "URL cannot be parsed");
        };
        if uri.scheme_str() != Some("https") {
            self.invalid(path, url, "URL scheme must be https");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            self.invalid(path, url, "URL must not contain a username or password");
        }
        if uri.query().is_some() {
            self.invalid(path, url, "URL must not contain a query");
        }
        if url.contains('#') {
            self.invalid(path, url, "URL must not contain a fragment");
        }
    }

    fn audiences(&mut self, issuer: &FieldPath, of: &Issuer) {
        let path = issuer.child("audiences");
        if of.audiences.is_empty() {
            return self.required(&path, format!("at least one {path} is required"));
        }
        let mut seen = BTreeSet::new();
        for (at, audience) in of.audiences.iter().enumerate() {
            if audience.is_empty() {
                self.required(&path.index(at), "audience can't be empty");
            }
            if !seen.insert(audience) {
                self.found.push(FieldError::duplicate(&path.index(at), audience.as_str()));
            }
        }
        let (policy, path) = (of.audience_match_policy.as_str(), issuer.child("audienceMatchPolicy"));
        match (of.audiences.len(), policy) {
            (_, "MatchAny") | (1, "") => {}
            (1, _) => self.invalid(&path, policy, "audienceMatchPolicy must be empty or MatchAny for single audience"),
            _ => self.invalid(&path, policy, "audienceMatchPolicy must be MatchAny for multiple audiences"),
        }
    }

    fn claim_rules(&mut self, path: &FieldPath, rules: &[ClaimRule]) {
        let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
        for (at, rule) in rules.iter().enumerate() {
            let path = path.index(at);
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, false) => self.invalid(&path, &rule.claim, "claim and expression can't both be set"),
                (true, true) => self.required(&path, "claim or expression is required"),
                (false, true) => {
                    if !rule.message.is_empty() {
                        self.invalid(&path.child("message"), &rule.message, "message can't be set when claim is set");
                    }
                    if !claims.insert(&rule.claim) {
                        self.found.push(FieldError::duplicate(&path.child("claim"), rule.claim.as_str()));
                    }
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        let detail = "requiredValue can't be set when expression is set";
                        self.invalid(&path.child("requiredValue"), &rule.required_value, detail);
                    }
                    let path = path.child("expression");
                    if expressions.insert(&rule.expression) {
                        self.expression(&path, &rule.expression, &claims_type(), &Ty::Bool);
                    } else {
                        self.found.push(FieldError::duplicate(&path, rule.expression.as_str()));
                    }
                }
            }
        }
    }

    fn mappings(&mut self, path: &FieldPath, of: &JwtAuthenticator) {
        let mappings = &of.claim_mappings;
        self.mapping(&path.child("username"), &mappings.username, true);
        self.mapping(&path.child("groups"), &mappings.groups, false);
        self.verified_email(&path.child("username").child("expression"), of);
        let uid = path.child("uid");
        match (mappings.uid.claim.is_empty(), mappings.uid.expression.is_empty()) {
            (false, false) => self.invalid(&uid, "", "claim and expression can't both be set"),
            (true, false) => {
                self.expression(&uid.child("expression"), &mappings.uid.expression, &claims_type(), &Ty::Dyn);
            }
            _ => {}
        }
        if mappings.uid.prefix.is_some() {
            self.invalid(&uid.child("prefix"), "", "uid has no prefix");
        }
        let mut seen = BTreeSet::new();
        for (at, extra) in mappings.extra.iter().enumerate() {
            let path = path.child("extra").index(at);
            self.extra_key(&path.child("key"), &extra.key);
            if !seen.insert(&extra.key) {
                self.found.push(FieldError::duplicate(&path.child("key"), extra.key.as_str()));
                continue;
            }
            let path = path.child("valueExpression");
            if extra.value_expression.is_empty() {
                self.required(&path, "valueExpression is required");
            } else {
                self.expression(&path, &extra.value_expression, &claims_type(), &Ty::Dyn);
            }
        }
    }

    fn mapping(&mut self, path: &FieldPath, of: &Mapping, required: bool) {
        match (of.claim.is_empty(), of.expression.is_empty()) {
            (false, false) => self.invalid(path, "", "claim and expression can't both be set"),
            (true, true) if required => self.required(path, "claim or expression is required"),
            (true, false) => {
                if let Some(prefix) = &of.prefix {
                    self.invalid(&path.child("prefix"), prefix, "prefix can't be set when expression is set");
                }
                self.expression(&path.child("expression"), &of.expression, &claims_type(), &Ty::Dyn);
            }
            (false, true) if of.prefix.is_none() => self.required(
                &path.child("prefix"),
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            _ => {}
        }
    }

    /// Whoever takes the mail address as a name must look whether it was verified.
    fn verified_email(&mut self, path: &FieldPath, of: &JwtAuthenticator) {
        let speaks = |source: &str, claim: &str| {
            Expr::typed(source, &claims_type()).is_ok_and(|(expression, _)| expression.selects("claims", claim))
        };
        let username = &of.claim_mappings.username.expression;
        let extra = of.claim_mappings.extra.iter().map(|extra| &extra.value_expression);
        let rules = of.claim_validation_rules.iter().map(|rule| &rule.expression);
        let mut all = extra.chain(rules).chain([username]);
        if speaks(username, "email") && !all.any(|source| speaks(source, "email_verified")) {
            self.invalid(
                path,
                username,
                "claims.email_verified must be used in claimMappings.username.expression or \
                 claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used \
                 in claimMappings.username.expression",
            );
        }
    }

    fn extra_key(&mut self, path: &FieldPath, key: &str) {
        let Some((domain, rest)) = key.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
            return self.invalid(path, key, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        };
        for complaint in names::dns1123_subdomain(domain) {
            self.invalid(path, domain, complaint);
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            self.invalid(path, key, "Invalid path");
        }
        if key != key.to_lowercase() {
            self.invalid(path, key, "key must be lowercase");
        }
        for reserved in ["k8s.io", "kubernetes.io"] {
            if domain == reserved || domain.ends_with(&format!(".{reserved}")) {
                let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                self.invalid(path, key, detail);
            }
        }
    }

    fn expression(&mut self, path: &FieldPath, source: &str, scope: &[(&'static str, Ty<'static>)], wanted: &Ty<'_>) {
        match Expr::typed(source, scope) {
            Ok((_, found)) if found.accepts(wanted) => {}
            Ok(_) => self.invalid(path, source, format!("must evaluate to {}", wanted.name())),
            Err(words) => self.invalid(path, source, words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    fn errors(jwt: &str) -> Vec<String> {
        match AuthenticationConfiguration::parse(&format!("{HEAD}{jwt}"), &["https://own"]) {
            Err(BadConfiguration::Invalid(errors)) => errors.iter().map(ToString::to_string).collect(),
            Err(other) => vec![other.to_string()],
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn a_configuration_of_the_documentation_is_read() {
        let text = r#"
jwt:
- issuer:
    url: https://example.com
    discoveryURL: https://discovery.example.com/.well-known/openid-configuration
    audiences: [my-app, my-other-app]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.hd == "example.com"', message: the hd claim must be set to example.com}
  - {expression: 'claims.exp - claims.nbf <= 86400', message: total token lifetime must not exceed 24 hours}
  claimMappings:
    username: {expression: 'claims.username + ":external-user"'}
    groups: {expression: 'claims.roles.split(",")'}
    uid: {expression: 'claims.sub'}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: username cannot used reserved system prefix}
  - {expression: "user.groups.all(group, !group.startsWith('system:'))", message: groups cannot used reserved system prefix}
anonymous:
  enabled: true
  conditions:
  - path: /livez
"#;
        assert_eq!(errors(text), [] as [&str; 0]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let one = |issuer: &str, mappings: &str| {
            errors(&format!("jwt: [{{issuer: {{{issuer}}}, claimMappings: {{{mappings}}}}}]"))
        };
        let good = "url: 'https://a', audiences: [x]";
        let name = "username: {claim: sub, prefix: ''}";
        for (issuer, mappings, expect) in [
            (good, name, vec![]),
            (
                "url: 'http://a', audiences: [x]",
                name,
                vec![r#"jwt[0].issuer.url: Invalid value: "http://a": URL scheme must be https"#],
            ),
            (
                "url: 'https://own', audiences: [x]",
                name,
                vec![
                    r#"jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own]"#,
                ],
            ),
            (
                "url: 'https://a'",
                name,
                vec!["jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required"],
            ),
            (
                good,
                "username: {claim: sub}",
                vec![
                    "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                ],
            ),
            (
                good,
                "username: {}",
                vec!["jwt[0].claimMappings.username: Required value: claim or expression is required"],
            ),
            (
                good,
                "username: {claim: sub, prefix: '', expression: claims.sub}",
                vec![r#"jwt[0].claimMappings.username: Invalid value: "": claim and expression can't both be set"#],
            ),
        ] {
            assert_eq!(one(issuer, mappings), expect, "{issuer} {mappings}");
        }
        let mail = one(good, "username: {expression: claims.email}");
        assert!(mail[0].contains("claims.email_verified must be used"), "{mail:?}");
        let verified = one(
            good,
            "username: {expression: 'claims.?email_verified.orValue(true) == true ? claims.email : claims.sub'}",
        );
        assert_eq!(verified, [] as [&str; 0]);
        let wrong = one(good, "username: {expression: claims.}");
        assert!(wrong[0].contains("compilation failed"), "{wrong:?}");
        assert!(errors("jwtt: []")[0].contains("unknown field"));
        let other = AuthenticationConfiguration::parse("apiVersion: v1\nkind: Pod\n", &[]);
        assert!(matches!(other, Err(BadConfiguration::Syntax(_))));
    }

    #[test]
    fn there_are_so_many_issuers() {
        let several = |count: usize| {
            let issuer = |at: usize| {
                format!(
                    "- {{issuer: {{url: 'https://{at}', audiences: [x]}}, claimMappings: {{username: {{expression: claims.sub}}}}}}\n"
                )
            };
            errors(&format!("jwt:\n{}", (0..count).map(issuer).collect::<String>()))
        };
        assert_eq!(several(MAX_ISSUERS), [] as [&str; 0]);
        assert_eq!(several(MAX_ISSUERS + 1), ["jwt: Too many: 65: must have at most 64 items"]);
    }

    #[test]
    fn flags_say_the_same() {
        let flags = OidcFlags { issuer_url: "https://a".to_owned(), client_id: "x".to_owned(), ..OidcFlags::default() };
        let prefix = |flags: OidcFlags| {
            let configuration = flags.into_configuration(&[]).expect("good flags");
            configuration.jwt[0].claim_mappings.username.prefix.clone().expect("a prefix")
        };
        assert_eq!(prefix(flags.clone()), "https://a#");
        assert_eq!(prefix(OidcFlags { username_claim: "email".to_owned(), ..flags.clone() }), "");
        assert_eq!(prefix(OidcFlags { username_prefix: Some("-".to_owned()), ..flags.clone() }), "");
        assert_eq!(prefix(OidcFlags { username_prefix: Some("oidc:".to_owned()), ..flags }), "oidc:");
    }
}
