//! Whose API is measured: the current context of a kubeconfig.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_yaml::Value;

use crate::pki;

/// An API server and how to get in.
#[derive(Clone)]
pub struct Target {
    /// `127.0.0.1:6443`.
    pub address: String,
    /// The name in its certificate.
    pub name: ServerName<'static>,
    /// The TLS settings, with the client's certificate where there is one.
    pub tls: Arc<ClientConfig>,
    /// A bearer token, where there is one.
    pub token: Option<String>,
}

impl Target {
    /// Reads the current context.
    pub fn read(kubeconfig: &Path) -> Result<Self> {
        let text = fs::read_to_string(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        Self::parse(&text).with_context(|| format!("{} does not lead to an API server", kubeconfig.display()))
    }

    /// From the text of a kubeconfig.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Value = serde_yaml::from_str(text)?;
        let current = text_of(&config["current-context"]).context("there is no current context")?;
        let context = &entry(&config, "contexts", &current)?["context"];
        let cluster = entry(&config, "clusters", &text_of(&context["cluster"]).context("the context has no cluster")?)?;
        let cluster = &cluster["cluster"];
        let user = entry(&config, "users", &text_of(&context["user"]).context("the context has no user")?)?;
        let user = &user["user"];
        let server = text_of(&cluster["server"]).context("the cluster has no server")?;
        let Some(address) = server.strip_prefix("https://") else { bail!("{server} is not an https address") };
        let address = address.split('/').next().unwrap_or(address);
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:443") };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;

        let mut roots = RootCertStore::empty();
        let ca = pem(cluster, "certificate-authority")?.context("the cluster has no certificate authority")?;
        roots.add(pki::der(&ca)?)?;
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut tls = match (pem(user, "client-certificate")?, pem(user, "client-key")?) {
            (Some(certificate), Some(key)) => {
                builder.with_client_auth_cert(vec![pki::der(&certificate)?], pki::private_key(&key)?)?
            }
            _ => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address, name, tls: Arc::new(tls), token: text_of(&user["token"]) })
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn entry<'a>(config: &'a Value, list: &str, name: &str) -> Result<&'a Value> {
    let items = config[list].as_sequence().map(Vec::as_slice).unwrap_or_default();
    let found = items.iter().find(|item| item["name"].as_str() == Some(name));
    found.ok_or_else(|| anyhow!("there is no {name:?} among its {list}"))
}

/// `KEY-data` (base64), else the file that `KEY` names.
fn pem(section: &Value, key: &str) -> Result<Option<String>> {
    if let Some(data) = text_of(&section[format!("{key}-data").as_str()]) {
        return Ok(Some(String::from_utf8(STANDARD.decode(data)?)?));
    }
    match text_of(&section[key]) {
        Some(path) => Ok(Some(fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| format!("{:#}", Target::parse(text).err().unwrap());
        assert!(error("{}").contains("no current context"));
        assert!(error("current-context: a").contains("no \"a\" among its contexts"));
        let plain = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n\
                     clusters: [{name: c, cluster: {server: 'http://x'}}]\nusers: [{name: u, user: {}}]";
        assert!(error(plain).contains("not an https address"));
    }
}
