//! What guards a cluster's API: whom it believes, its audit log, and the encryption of what is stored. Files say how; the cluster's own file
//! remembers which, so that a resumed cluster goes on as it was.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use minik8s_apiserver::audit::log::LogOptions;
use minik8s_apiserver::audit::{self, Policy};
use minik8s_apiserver::authn::configuration::AuthenticationConfiguration;
use minik8s_apiserver::encryption;
use serde::{Deserialize, Serialize};

/// The names of kube-apiserver's flags, and what they were set to.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Safeguards {
    /// Record requests as this audit.k8s.io/v1 Policy says; '' ends it
    #[arg(long, value_name = "FILE", value_parser = path_or_nothing())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where the record goes: a file, or - for standard output (with --foreground)
    #[arg(long, value_name = "FILE", value_parser = path_or_nothing())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_log_path: Option<PathBuf>,
    /// Encrypt what is stored as this apiserver.config.k8s.io/v1 EncryptionConfiguration says; '' ends it
    #[arg(long, value_name = "FILE", value_parser = path_or_nothing())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Believe tokens of others as this apiserver.config.k8s.io/v1 AuthenticationConfiguration says; '' ends it
    #[arg(long, value_name = "FILE", value_parser = path_or_nothing())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_config: Option<PathBuf>,
}

const STDOUT: &str = "-";

/// A path; clap's own parser of paths refuses the empty one.
fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Safeguards {
    /// These, and where one is not said that which was known. Paths become absolute, an empty one goes.
    pub fn or(&self, known: Option<&Safeguards>) -> Result<Safeguards> {
        let choose = |own: &Option<PathBuf>, known: Option<&Option<PathBuf>>| match own {
            None => Ok(known.cloned().flatten()),
            Some(path) if path.as_os_str().is_empty() => Ok(None),
            Some(path) if path == Path::new(STDOUT) => Ok(Some(path.clone())),
            Some(path) => {
                std::path::absolute(path).map(Some).with_context(|| format!("cannot resolve {}", path.display()))
            }
        };
        Ok(Safeguards {
            audit_policy_file: choose(&self.audit_policy_file, known.map(|known| &known.audit_policy_file))?,
            audit_log_path: choose(&self.audit_log_path, known.map(|known| &known.audit_log_path))?,
            encryption_provider_config: choose(
                &self.encryption_provider_config,
                known.map(|known| &known.encryption_provider_config),
            )?,
            authentication_config: choose(
                &self.authentication_config,
                known.map(|known| &known.authentication_config),
            )?,
        })
    }

    /// As arguments of `up`. All are there, so that what was ended is not remembered again.
    pub fn arguments(&self) -> [(&'static str, PathBuf); 4] {
        let text = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        [
            ("--audit-policy-file", text(&self.audit_policy_file)),
            ("--audit-log-path", text(&self.audit_log_path)),
            ("--encryption-provider-config", text(&self.encryption_provider_config)),
            ("--authentication-config", text(&self.authentication_config)),
        ]
    }

    /// Whether the record goes to standard output.
    pub fn audits_to_stdout(&self) -> bool {
        self.audit_log_path.as_deref() == Some(Path::new(STDOUT))
    }

    /// What is recorded of requests.
    pub fn audit(&self) -> Result<Option<audit::Options>> {
        match (&self.audit_policy_file, &self.audit_log_path) {
            (None, None) => Ok(None),
            (None, Some(_)) => bail!("--audit-log-path needs --audit-policy-file, which says what is recorded"),
            (Some(_), None) => bail!("--audit-policy-file needs --audit-log-path, which says where to"),
            (Some(file), Some(path)) => {
                let policy = Policy::from_yaml(&read(file)?).with_context(|| format!("in {}", file.display()))?;
                Ok(Some(audit::Options { policy, log: LogOptions { path: path.clone(), ..LogOptions::default() } }))
            }
        }
    }

    /// How resources are encrypted at rest.
    pub fn encryption(&self) -> Result<Option<encryption::Configuration>> {
        let Some(file) = &self.encryption_provider_config else { return Ok(None) };
        let configuration = encryption::Configuration::from_yaml(&read(file)?);
        Ok(Some(configuration.with_context(|| format!("in {}", file.display()))?))
    }

    /// Whose tokens are good besides the server's own, whose issuers are `own_issuers`, and who needs none.
    pub fn authentication(&self, own_issuers: &[&str]) -> Result<AuthenticationConfiguration> {
        let Some(file) = &self.authentication_config else { return Ok(AuthenticationConfiguration::default()) };
        let configuration = AuthenticationConfiguration::parse(&read(file)?, own_issuers);
        configuration.with_context(|| format!("in {}", file.display()))
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        safeguards: Safeguards,
    }

    fn parse(arguments: &[&str]) -> Safeguards {
        use clap::Parser as _;
        Line::try_parse_from(std::iter::once(&"up").chain(arguments)).expect("arguments").safeguards
    }

    #[test]
    fn what_was_said_is_remembered_until_it_is_ended() {
        let first = parse(&["--audit-policy-file", "/p", "--audit-log-path", "-"]).or(None).expect("paths");
        assert!(first.audits_to_stdout());
        let file = serde_json::to_string(&first).expect("a file");
        let known: Safeguards = serde_json::from_str(&file).expect("the file reads back");
        let second = parse(&["--audit-log-path", "log", "--encryption-provider-config", "/e"]).or(Some(&known));
        let second = second.expect("paths");
        assert_eq!(second.audit_policy_file.as_deref(), Some(Path::new("/p")));
        assert!(second.audit_log_path.as_ref().is_some_and(|path| path.is_absolute() && path.ends_with("log")));
        let ended = parse(&["--audit-policy-file", "", "--audit-log-path", ""]).or(Some(&second)).expect("paths");
        assert_eq!((&ended.audit_policy_file, &ended.audit_log_path), (&None, &None));
        // The background process is told all, so that it remembers nothing else.
        let arguments: Vec<String> = ended
            .arguments()
            .into_iter()
            .flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()])
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(parse(&arguments).or(Some(&second)).expect("paths"), ended);
    }

    #[test]
    fn half_an_audit_log_and_bad_files_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.yaml");
        let wrong = |safeguards: &Safeguards| format!("{:#}", safeguards.audit().map(drop).expect_err("refused"));
        let mut safeguards = Safeguards { audit_policy_file: Some(path.clone()), ..Safeguards::default() };
        assert_eq!(wrong(&safeguards), "--audit-policy-file needs --audit-log-path, which says where to");
        safeguards.audit_log_path = Some(folder.path().join("audit.log"));
        assert!(wrong(&safeguards).starts_with(&format!("cannot read {}", path.display())));
        fs::write(&path, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n").expect("written");
        let expect = format!("in {}: configuration: audit policy: loaded illegal policy with 0 rules", path.display());
        assert_eq!(wrong(&safeguards), expect);
        let encryption = Safeguards { encryption_provider_config: Some(path), ..Safeguards::default() };
        let refused = format!("{:#}", encryption.encryption().map(drop).expect_err("refused"));
        assert!(refused.contains("encryption provider configuration"), "{refused}");
    }
}
