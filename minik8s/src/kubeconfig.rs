//! Kubeconfig files: putting a cluster's context into the one that the user has, and taking it out again.
//!
//! The file is edited as a YAML value, so that what other tools keep in it, known to us or not, stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_yaml::{Mapping, Value};

use crate::pki::{Pki, write_private};

/// Which file to edit: the one asked for, else the first of `$KUBECONFIG`, else `~/.kube/config`.
pub fn default_path(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return std::path::absolute(path).context("cannot resolve --kubeconfig");
    }
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())
    {
        return std::path::absolute(first).context("cannot resolve $KUBECONFIG");
    }
    match std::env::home_dir() {
        Some(home) => Ok(home.join(".kube").join("config")),
        None => bail!("no home directory: say where the kubeconfig is with --kubeconfig"),
    }
}

/// One cluster's entries.
pub struct Entry<'a> {
    /// The name of context, cluster and user.
    pub name: &'a str,
    /// The address of the API server.
    pub server: &'a str,
    /// The certificates.
    pub pki: &'a Pki,
}

impl Entry<'_> {
    fn items(&self) -> [(&'static str, Value); 3] {
        let encode = |pem: &str| STANDARD.encode(pem);
        let cluster = [("certificate-authority-data", encode(&self.pki.ca_pem)), ("server", self.server.to_owned())];
        let context = [("cluster", self.name.to_owned()), ("user", self.name.to_owned())];
        let user = [
            ("client-certificate-data", encode(&self.pki.admin.cert_pem)),
            ("client-key-data", encode(&self.pki.admin.key_pem)),
        ];
        [
            ("clusters", self.item("cluster", cluster)),
            ("contexts", self.item("context", context)),
            ("users", self.item("user", user)),
        ]
    }

    fn item<const N: usize>(&self, field: &str, content: [(&str, String); N]) -> Value {
        let content: Mapping = content.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let pairs = [(field.into(), Value::Mapping(content)), ("name".into(), self.name.into())];
        Value::Mapping(pairs.into_iter().collect())
    }

    /// The whole kubeconfig of this cluster alone.
    pub fn standalone(&self) -> Result<String> {
        let mut config = empty();
        self.put(&mut config)?;
        Ok(serde_yaml::to_string(&config)?)
    }

    fn put(&self, config: &mut Value) -> Result<()> {
        for (list, item) in self.items() {
            let items = list_mut(config, list)?;
            match items.iter_mut().find(|known| named(known, self.name)) {
                // A namespace that the user set for the context stays.
                Some(known) => {
                    for section in ["context", "cluster", "user"] {
                        merge_section(known, &item, section);
                    }
                }
                None => items.push(item),
            }
        }
        set(config, "current-context", self.name.into());
        Ok(())
    }
}

fn merge_section(known: &mut Value, item: &Value, section: &str) {
    let Some(new) = item.get(section).and_then(Value::as_mapping) else { return };
    match known.get_mut(section).and_then(Value::as_mapping_mut) {
        Some(old) => old.extend(new.clone()),
        None => set(known, section, Value::Mapping(new.clone())),
    }
}

/// Checks, before anything is started, that the file can be read, understood and written.
pub fn check(path: &Path) -> Result<()> {
    read(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Puts the entry into the file and makes its context the current one.
pub fn merge(path: &Path, entry: &Entry<'_>) -> Result<()> {
    let mut config = read(path)?;
    entry.put(&mut config)?;
    write(path, &config)
}

/// Takes the entries named `name` out of the file, where it exists.
pub fn remove(path: &Path, name: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut config = read(path)?;
    for list in ["clusters", "contexts", "users"] {
        list_mut(&mut config, list)?.retain(|item| !named(item, name));
    }
    if config.get("current-context").and_then(Value::as_str) == Some(name) {
        set(&mut config, "current-context", "".into());
    }
    write(path, &config)
}

fn empty() -> Value {
    let pairs = [("apiVersion", "v1"), ("kind", "Config")];
    Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn read(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(empty());
    }
    let config: Value =
        serde_yaml::from_str(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))?;
    if !config.is_mapping() {
        bail!("{} is not a kubeconfig: it is not a mapping", path.display());
    }
    Ok(config)
}

/// Replaces the file in one step: a reader sees the old or the new one, never half of it.
fn write(path: &Path, config: &Value) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // A kubeconfig that is a link stays one.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let fresh = target.with_extension("minik8s-new");
    write_private(&fresh, &serde_yaml::to_string(config)?)?;
    fs::rename(&fresh, &target).with_context(|| format!("cannot write {}", path.display()))
}

fn list_mut<'a>(config: &'a mut Value, list: &str) -> Result<&'a mut Vec<Value>> {
    if config.get(list).is_none_or(Value::is_null) {
        set(config, list, Value::Sequence(Vec::new()));
    }
    match config.get_mut(list).and_then(Value::as_sequence_mut) {
        Some(items) => Ok(items),
        None => bail!("the kubeconfig's {list} is not a list"),
    }
}

fn set(value: &mut Value, key: &str, new: Value) {
    if let Some(mapping) = value.as_mapping_mut() {
        mapping.insert(key.into(), new);
    }
}

fn named(item: &Value, name: &str) -> bool {
    item.get("name").and_then(Value::as_str) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pki() -> Pki {
        let pair = crate::pki::CertifiedKey { cert_pem: "cert".into(), key_pem: "key".into() };
        Pki {
            ca_pem: "ca".into(),
            ca_key_pem: None,
            admin: pair.clone(),
            server: pair,
            front_proxy: None,
            service_account_key_pem: String::new(),
            kubelet_client: None,
        }
    }

    #[test]
    fn what_is_not_ours_stays_through_merge_and_remove() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let before = "apiVersion: v1\nkind: Config\nclusters:\n- name: work\n  cluster:\n    server: https://work\n    extra: 1\n\
                      contexts: []\nusers: null\ncurrent-context: work\npreferences:\n  colors: true\nx-other: [1, 2]\n";
        fs::write(&path, before).unwrap();
        let pki = pki();
        let entry = Entry { name: "minik8s", server: "https://127.0.0.1:6443", pki: &pki };
        merge(&path, &entry).unwrap();
        merge(&path, &entry).unwrap();
        let merged: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(merged["current-context"], "minik8s");
        assert_eq!(merged["clusters"].as_sequence().unwrap().len(), 2);
        assert_eq!(merged["x-other"], serde_yaml::from_str::<Value>("[1, 2]").unwrap());
        assert_eq!(merged["clusters"][0]["cluster"]["extra"], 1);

        remove(&path, "minik8s").unwrap();
        let removed: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(removed["clusters"].as_sequence().unwrap().len(), 1);
        assert_eq!(removed["users"].as_sequence().unwrap().len(), 0);
        assert_eq!(removed["preferences"]["colors"], true);
    }

    #[test]
    fn a_namespace_set_for_the_context_survives_the_next_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let pki = pki();
        merge(&path, &Entry { name: "minik8s", server: "https://127.0.0.1:1", pki: &pki }).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("user: minik8s", "user: minik8s\n    namespace: dev");
        fs::write(&path, text).unwrap();
        merge(&path, &Entry { name: "minik8s", server: "https://127.0.0.1:2", pki: &pki }).unwrap();
        let config: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(config["contexts"][0]["context"]["namespace"], "dev");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:2");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "- a\n- b\n").unwrap();
        assert!(check(&path).unwrap_err().to_string().contains("is not a kubeconfig"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "- a\n- b\n");
    }
}
