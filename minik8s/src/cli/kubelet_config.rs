//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): the file that the kubelet's `--config` names. Fields that are
//! not acted on are refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use crate::cli::flags;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// The file, as far as it is acted on. Flags go before it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletConfiguration {
    api_version: String,
    kind: String,
    /// The address that the kubelet listens on.
    pub address: Option<std::net::IpAddr>,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The serving certificate.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Who is believed.
    #[serde(default)]
    pub authentication: Authentication,
    /// Who may what.
    #[serde(default)]
    pub authorization: Authorization,
    /// The folder of manifests of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// How many pods may run.
    pub max_pods: Option<u32>,
    /// What the system keeps for itself.
    #[serde(default)]
    pub system_reserved: BTreeMap<String, String>,
    /// What Kubernetes keeps for itself.
    #[serde(default)]
    pub kube_reserved: BTreeMap<String, String>,
    /// Taints the Node is registered with.
    #[serde(default)]
    pub register_with_taints: Vec<Taint>,
    /// The addresses of the cluster's DNS.
    #[serde(default, rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// The cluster's domain.
    pub cluster_domain: Option<String>,
    /// The range of the node's pods, where no controller gives one.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// How the runtime is reached.
    pub container_runtime_endpoint: Option<String>,
}

/// Who is believed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authentication {
    /// Requests without credentials.
    #[serde(default)]
    pub anonymous: Enabled,
    /// Tokens.
    #[serde(default)]
    pub webhook: Enabled,
    /// Client certificates.
    #[serde(default)]
    pub x509: X509,
}

/// On or off.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enabled {
    /// Whether it is on.
    pub enabled: Option<bool>,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct X509 {
    /// Who signs them.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

/// Who may what.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorization {
    /// `Webhook` or `AlwaysAllow`.
    pub mode: Option<String>,
}

impl KubeletConfiguration {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no such configuration, or has fields that are not acted on: they are named.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&flags::read(path)?).with_context(|| format!("{} cannot be used", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_yaml::from_str(text)?;
        if config.api_version != API_VERSION || config.kind != "KubeletConfiguration" {
            bail!(
                "no kind {:?} in {:?}: a KubeletConfiguration of {API_VERSION} is wanted",
                config.kind,
                config.api_version
            );
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::KubeletConfiguration;

    #[test]
    fn fields_that_are_not_acted_on_are_named() {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let read = KubeletConfiguration::parse(&format!(
            "{head}maxPods: 30\nclusterDNS: [10.96.0.10]\nauthentication: {{x509: {{clientCAFile: /ca.crt}}}}\n"
        ));
        let read = read.unwrap();
        assert_eq!((read.max_pods, read.cluster_dns.len()), (Some(30), 1));
        assert_eq!(read.authentication.x509.client_ca_file.unwrap().to_str(), Some("/ca.crt"));
        let error = KubeletConfiguration::parse(&format!("{head}evictionHard: {{}}\n")).unwrap_err();
        assert!(error.to_string().contains("unknown field `evictionHard`"), "{error}");
        assert!(
            KubeletConfiguration::parse("apiVersion: v1\nkind: Pod\n")
                .unwrap_err()
                .to_string()
                .contains("no kind \"Pod\"")
        );
    }
}
