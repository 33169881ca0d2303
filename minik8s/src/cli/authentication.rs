//! Whose credentials `minik8s apiserver` believes: the authentication flags of kube-apiserver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use minik8s_apiserver::authn::configuration::{Anonymous, AuthenticationConfiguration, OidcFlags};
use minik8s_apiserver::authn::jwt::PublicKey;
use minik8s_apiserver::authn::oidc::jws::Algorithm;

use crate::cli::flags;
use crate::safeguards::Safeguards;

/// Who is believed.
#[derive(Args)]
pub struct Authentication {
    /// Whose client certificates are good (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Tokens: lines of token,user,uid[,"group1,group2"]
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Serve requests without credentials, as system:anonymous [default: true, or what --authentication-config says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// Believe the bootstrap tokens in Secrets of kube-system
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_bootstrap_token_auth: bool,
    /// Who signs ServiceAccount tokens; the first goes into new ones, all are accepted (repeat the flag)
    #[arg(long, value_name = "URL", default_value = minik8s_apiserver::tokens::DEFAULT_ISSUER)]
    pub service_account_issuer: Vec<String>,
    /// The private key (PEM; RSA, or ECDSA over P-256 or P-384) that signs ServiceAccount tokens [default: one that is
    /// made and kept]
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Keys (PEM) that verify ServiceAccount tokens, beside the one that signs them (repeat the flag)
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// The names of this server in tokens [default: the issuer]
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    #[command(flatten)]
    oidc: Oidc,
}

/// One issuer of tokens; several, and mappings by expressions, are said with `--authentication-config`.
#[derive(Args)]
struct Oidc {
    /// The issuer of OpenID Connect tokens, an https URL
    #[arg(long, value_name = "URL")]
    oidc_issuer_url: Option<String>,
    /// The audience that its tokens must be for
    #[arg(long, value_name = "ID")]
    oidc_client_id: Option<String>,
    /// Who signs the issuer's serving certificate (PEM) [default: whom the world trusts]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    oidc_username_claim: Option<String>,
    /// Put before users' names; - for nothing [default: the issuer and #, or nothing for the claim email]
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// The claim with the user's groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// Put before groups
    #[arg(long, value_name = "PREFIX")]
    oidc_groups_prefix: Option<String>,
    /// A claim that must be there, with this value (repeat the flag)
    #[arg(long, value_name = "CLAIM=VALUE", value_delimiter = ',', value_parser = flags::pair)]
    oidc_required_claim: Vec<(String, String)>,
    /// The algorithms that tokens may be signed with [default: RS256]
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',')]
    oidc_signing_algs: Vec<Algorithm>,
}

impl Authentication {
    /// Whose tokens are good besides this server's own, and who needs none.
    ///
    /// # Errors
    /// Flags that contradict each other, a file or an issuer that cannot be used.
    pub fn configuration(&self, safeguards: &Safeguards) -> Result<AuthenticationConfiguration> {
        let own: Vec<&str> = self.service_account_issuer.iter().map(String::as_str).collect();
        let mut configuration = match (self.oidc.flags()?, &safeguards.authentication_config) {
            (Some(_), Some(_)) => bail!("--authentication-config and the --oidc-… flags are mutually exclusive"),
            (Some(flags), None) => flags.into_configuration(&own).context("--oidc-…")?,
            (None, _) => safeguards.authentication(&own)?,
        };
        match (self.anonymous_auth, &configuration.anonymous) {
            (Some(_), Some(_)) => {
                bail!("--anonymous-auth cannot be set when the file of --authentication-config has the field anonymous")
            }
            (Some(enabled), None) => configuration.anonymous = Some(Anonymous { enabled, conditions: Vec::new() }),
            (None, _) => {}
        }
        Ok(configuration)
    }

    /// Keys that verify ServiceAccount tokens, beside the one that signs them.
    ///
    /// # Errors
    /// A file that cannot be read, or has no key.
    pub fn public_keys(&self) -> Result<Vec<PublicKey>> {
        let mut public_keys = Vec::new();
        for file in &self.service_account_key_file {
            let keys = PublicKey::from_pem(&flags::read(file)?);
            public_keys.extend(keys.with_context(|| format!("{} cannot be used", file.display()))?);
        }
        Ok(public_keys)
    }
}

impl Oidc {
    /// What the flags say; `None` where none is set.
    fn flags(&self) -> Result<Option<OidcFlags>> {
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let said = OidcFlags {
            issuer_url: text(&self.oidc_issuer_url),
            client_id: text(&self.oidc_client_id),
            ca_pem: flags::read_optional(self.oidc_ca_file.as_ref())?.unwrap_or_default(),
            username_claim: text(&self.oidc_username_claim),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: text(&self.oidc_groups_claim),
            groups_prefix: text(&self.oidc_groups_prefix),
            required_claims: self.oidc_required_claim.iter().cloned().collect::<BTreeMap<_, _>>(),
            signing_algorithms: self.oidc_signing_algs.clone(),
        };
        if said == OidcFlags::default() {
            return Ok(None);
        }
        if said.issuer_url.is_empty() || said.client_id.is_empty() {
            bail!("--oidc-issuer-url and --oidc-client-id must be specified together when any --oidc-… flag is set");
        }
        Ok(Some(said))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        authentication: Authentication,
        #[command(flatten)]
        safeguards: Safeguards,
    }

    fn configuration(line: &str) -> Result<AuthenticationConfiguration> {
        use clap::Parser as _;
        let line = Line::try_parse_from(std::iter::once("apiserver").chain(line.split_whitespace()))?;
        line.authentication.configuration(&line.safeguards)
    }

    fn refused(line: &str) -> String {
        format!("{:#}", configuration(line).expect_err("refused"))
    }

    #[test]
    fn an_issuer_is_said_by_flags_or_by_a_file() {
        let by_flags = "--oidc-issuer-url=https://a --oidc-client-id=x --oidc-groups-claim=g --oidc-required-claim=hd=b \
                        --oidc-username-prefix=-";
        let found = configuration(by_flags).expect("good flags");
        assert_eq!(found.jwt[0].issuer.url, "https://a");
        assert_eq!(found.jwt[0].claim_validation_rules[0].required_value, "b");
        assert_eq!(found.jwt[0].claim_mappings.username.prefix.as_deref(), Some(""));
        assert_eq!(found.anonymous, None);

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("authentication.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                    jwt: [{issuer: {url: 'https://b', audiences: [x]}, claimMappings: {username: {expression: claims.sub}}}]\n";
        fs::write(&file, text).expect("written");
        let by_file = format!("--authentication-config={}", file.display());
        assert_eq!(configuration(&by_file).expect("a good file").jwt[0].issuer.url, "https://b");
        assert!(refused(&format!("{by_file} {by_flags}")).contains("mutually exclusive"));
        assert!(refused(&format!("{by_file} --service-account-issuer=https://b")).contains("disallowed issuers"));

        let off = configuration(&format!("{by_file} --anonymous-auth=false")).expect("both");
        assert!(off.anonymous.is_some_and(|anonymous| !anonymous.enabled));
        fs::write(&file, format!("{text}anonymous: {{enabled: true}}\n")).expect("written");
        assert!(refused(&format!("{by_file} --anonymous-auth=false")).contains("--anonymous-auth cannot be set"));
    }

    #[test]
    fn flags_that_make_no_sense_are_told() {
        assert!(refused("--oidc-client-id=x").contains("must be specified together"));
        assert!(refused("--oidc-issuer-url=http://a --oidc-client-id=x").contains("URL scheme must be https"));
        assert!(refused("--oidc-issuer-url=https://a --oidc-client-id=x --oidc-signing-algs=HS256").contains("HS256"));
        let own = "--oidc-issuer-url=https://a --oidc-client-id=x --service-account-issuer=https://a";
        assert!(refused(own).contains("disallowed issuers"));
        assert_eq!(configuration("").expect("no flags"), AuthenticationConfiguration::default());
    }
}
