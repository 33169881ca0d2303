//! The EncryptionConfiguration file (`pkg/apis/apiserver/validation/validation_encryption.go`).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minik8s_api::status::{FieldError, FieldPath};
use serde::Deserialize;
use serde_json::Value;

use super::provider::{Algorithm, Provider, Providers};
use crate::cache::REGISTRY_PREFIX;
use crate::errors::Error;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
const ANY: &str = "*";

/// Which resources are encrypted, and how. Clones share the keys.
#[derive(Clone)]
pub struct Configuration {
    rules: Arc<[Rule]>,
    /// Of resources that no rule names: what is encrypted there cannot be read.
    identity: Arc<Providers>,
}

/// One resource, or `*`, of one group, or of `*`.
struct Rule {
    group: String,
    resource: String,
    providers: Arc<Providers>,
}

/// The file. Fields that Kubernetes does not know are errors.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceFile {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProviderFile {
    aesgcm: Option<KeysFile>,
    aescbc: Option<KeysFile>,
    secretbox: Option<KeysFile>,
    identity: Option<IdentityFile>,
    kms: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

impl fmt::Debug for Configuration {
    /// Says nothing of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| format!("{}.{}", rule.resource, rule.group))).finish()
    }
}

impl Configuration {
    /// Reads a file (YAML or JSON). The error says what is wrong with it, by field, and shows no key.
    pub fn from_yaml(text: &str) -> Result<Configuration, Error> {
        Configuration::read(text).map_err(|why| Error::Config(format!("encryption provider configuration: {why}")))
    }

    fn read(text: &str) -> Result<Configuration, String> {
        let file: File = serde_yaml::from_str(text).map_err(|error| format!("failed decoding: {error}"))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            let got = format!("{}, Kind={}", file.api_version, file.kind);
            return Err(format!("got unexpected config type: {got}: it must be {API_VERSION}, Kind={KIND}"));
        }
        let (root, mut errors, mut rules) = (FieldPath::new("resources"), Vec::new(), Vec::<Rule>::new());
        if file.resources.is_empty() {
            errors.push(FieldError::required(&root, "at least one resources is required"));
        }
        let mut masked = None;
        for (at, entry) in file.resources.into_iter().enumerate() {
            let path = root.index(at);
            validate_resources(&entry.resources, &path.child("resources"), &mut errors);
            let providers = providers(entry.providers, &path.child("providers"), &mut errors);
            let Some(providers) = providers.map(Arc::new) else { continue };
            for resource in &entry.resources {
                let (group, resource) = split(resource);
                let earlier = rules.iter().find(|rule| rule.masks(group, resource));
                masked = masked.or_else(|| {
                    let named =
                        |group: &str, resource: &str| format!("{resource}.{group}").trim_end_matches('.').to_owned();
                    let earlier = earlier.map(|rule| named(&rule.group, &rule.resource))?;
                    Some(format!("resource {:?} is masked by earlier rule {earlier:?}", named(group, resource)))
                });
                let providers = Arc::clone(&providers);
                rules.push(Rule { group: group.to_owned(), resource: resource.to_owned(), providers });
            }
        }
        match masked {
            _ if !errors.is_empty() => Err(FieldError::aggregate(&errors)),
            Some(masked) => Err(masked),
            // The more is named, the more it counts.
            None => {
                rules.sort_by_key(|rule| (rule.group == ANY, rule.resource == ANY));
                Ok(Configuration {
                    rules: rules.into(),
                    identity: Arc::new(Providers::new(vec![Provider::identity()])),
                })
            }
        }
    }

    /// The providers of what is stored under a key; `None` for keys that are no object's.
    pub fn providers(&self, key: &str) -> Option<&Providers> {
        let mut parts = key.strip_prefix(REGISTRY_PREFIX)?.split('/');
        let (group, resource) = (parts.next()?, parts.next()?);
        parts.next()?;
        let group = if group == "core" { "" } else { group };
        let rule = self.rules.iter().find(|rule| rule.covers(group, resource));
        Some(rule.map_or(&*self.identity, |rule| &*rule.providers))
    }
}

impl Rule {
    fn covers(&self, group: &str, resource: &str) -> bool {
        (self.group == ANY || self.group == group) && (self.resource == ANY || self.resource == resource)
    }

    /// Whether a later rule for this would never count, or not be the only one.
    fn masks(&self, group: &str, resource: &str) -> bool {
        (self.group == ANY && self.resource == ANY)
            || (self.group == group && (self.resource == ANY || self.resource == resource))
    }
}

/// `deployments.apps` → (`apps`, `deployments`).
fn split(resource: &str) -> (&str, &str) {
    resource.split_once('.').map_or(("", resource), |(resource, group)| (group, resource))
}

fn validate_resources(resources: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, format!("at least one {path} is required")));
    }
    let names: Vec<(&str, &str)> = resources.iter().map(|resource| split(resource)).collect();
    let pairs = || names.iter().enumerate().flat_map(|(at, one)| names[at + 1..].iter().map(move |two| (one, two)));
    let mut wrong = |why: &str| errors.push(FieldError::invalid(path, Value::from(resources), why));
    if pairs().any(|(one, two)| one == two) {
        wrong("the same resource cannot be specified multiple times");
    }
    let overlap = |one: &(&str, &str), two: &(&str, &str)| {
        *one == (ANY, ANY) || *two == (ANY, ANY) || (one.0 == two.0 && (one.1 == ANY || two.1 == ANY))
    };
    if pairs().any(|(one, two)| one != two && overlap(one, two)) {
        wrong(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        );
    }
    for (at, (resource, (group, name))) in resources.iter().zip(&names).enumerate() {
        let why = match (*group, *name) {
            _ if resource.to_lowercase() != *resource => "resource name should not contain capital letters",
            _ if resource == ANY => {
                "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            }
            ("", "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") => {
                "resources which do not have REST API/s cannot be encrypted"
            }
            ("events.k8s.io", _) => {
                "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
            }
            ("extensions", _) => "'extensions' group has been removed and cannot be used for encryption",
            (ANY, name) if name != ANY => "encrypting the same resource across groups is not supported",
            _ => continue,
        };
        errors.push(FieldError::invalid(&path.index(at), resource.as_str(), why));
    }
}

fn providers(files: Vec<ProviderFile>, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<Providers> {
    if files.is_empty() {
        errors.push(FieldError::required(path, format!("at least one {path} is required")));
    }
    let before = errors.len();
    let providers: Vec<Option<Provider>> =
        files.into_iter().enumerate().map(|(at, file)| provider(file, &path.index(at), errors)).collect();
    let providers: Vec<Provider> = providers.into_iter().flatten().collect();
    (errors.len() == before && !providers.is_empty()).then(|| Providers::new(providers))
}

fn provider(file: ProviderFile, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<Provider> {
    let ProviderFile { aesgcm, aescbc, secretbox, identity, kms } = file;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    match given.into_iter().filter(|given| *given).count() {
        0 => {
            let why =
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
            errors.push(FieldError::invalid_omitted(path, why));
            return None;
        }
        1 => {}
        _ => {
            let why = "more than one provider specified in a single element, should split into different list elements";
            errors.push(FieldError::invalid_omitted(path, why));
            return None;
        }
    }
    if kms.is_some() {
        let why = "minik8s has no KMS providers: use aesgcm, aescbc, secretbox or identity";
        errors.push(FieldError::forbidden(&path.child("kms"), why));
        return None;
    }
    let keyed = [(Algorithm::AesGcm, aesgcm), (Algorithm::AesCbc, aescbc), (Algorithm::Secretbox, secretbox)];
    match keyed.into_iter().find_map(|(algorithm, keys)| Some((algorithm, keys?))) {
        Some((algorithm, file)) => keys(algorithm, file, &path.child(algorithm.name()).child("keys"), errors),
        None => Some(Provider::identity()),
    }
}

fn keys(algorithm: Algorithm, file: KeysFile, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<Provider> {
    if file.keys.is_empty() {
        errors.push(FieldError::required(path, "at least one keys is required"));
    }
    let before = errors.len();
    let mut keys = Vec::new();
    for (at, key) in file.keys.into_iter().enumerate() {
        let path = path.index(at);
        if key.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), "name is a mandatory field for a key"));
        }
        if key.secret.is_empty() {
            errors.push(FieldError::required(&path.child("secret"), "secret is a mandatory field for a key"));
            continue;
        }
        let mut wrong = |why: String| errors.push(FieldError::invalid(&path.child("secret"), "REDACTED", why));
        match BASE64_STANDARD.decode(&key.secret) {
            Err(_) => wrong("secrets must be base64 encoded".to_owned()),
            Ok(secret) if !algorithm.key_lengths().contains(&secret.len()) => {
                let lengths: Vec<String> = algorithm.key_lengths().iter().map(usize::to_string).collect();
                let (got, expected) = (secret.len(), lengths.join(" "));
                wrong(format!("secret is not of the expected length, got {got}, expected one of [{expected}]"));
            }
            Ok(secret) => keys.push((key.name, secret)),
        }
    }
    if errors.len() == before { Provider::of_keys(algorithm, keys) } else { None }
}

#[cfg(test)]
mod tests {
    use minik8s_clock::Random;

    use super::*;

    /// Sixteen, and thirty-two bytes.
    const SHORT: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
    const LONG: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn check(resources: &str, expect: &str) {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nresources: {resources}");
        let found = match Configuration::read(&text) {
            Ok(configuration) => format!("{configuration:?}"),
            Err(error) => error,
        };
        assert_eq!(found, expect, "{resources}");
    }

    #[test]
    fn what_is_no_configuration_is_refused_by_field() {
        check("[]", "resources: Required value: at least one resources is required");
        check(
            "[{}]",
            "[resources[0].resources: Required value: at least one resources[0].resources is required, resources[0].providers: Required value: at least one resources[0].providers is required]",
        );
        check(
            "[{resources: [secrets], providers: [{}, {identity: {}, kms: {}}, {kms: {name: k}}]}]",
            "[resources[0].providers[0]: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity, resources[0].providers[1]: Invalid value: more than one provider specified in a single element, should split into different list elements, resources[0].providers[2].kms: Forbidden: minik8s has no KMS providers: use aesgcm, aescbc, secretbox or identity]",
        );
        check(
            &format!(
                "[{{resources: [secrets], providers: [{{aescbc: {{keys: [{{secret: x}}, {{name: k}}]}}}}, {{secretbox: {{keys: [{{name: k, secret: {SHORT}}}]}}}}, {{aesgcm: {{}}}}]}}]"
            ),
            r#"[resources[0].providers[0].aescbc.keys[0].name: Required value: name is a mandatory field for a key, resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded, resources[0].providers[0].aescbc.keys[1].secret: Required value: secret is a mandatory field for a key, resources[0].providers[1].secretbox.keys[0].secret: Invalid value: "REDACTED": secret is not of the expected length, got 16, expected one of [32], resources[0].providers[2].aesgcm.keys: Required value: at least one keys is required]"#,
        );
        let identity = |resources: &str| format!("[{{resources: {resources}, providers: [{{identity: {{}}}}]}}]");
        check(
            &identity("['*', Secrets, pods.*, x.extensions, x.events.k8s.io, serviceipallocations]"),
            r#"[resources[0].resources[0]: Invalid value: "*": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources, resources[0].resources[1]: Invalid value: "Secrets": resource name should not contain capital letters, resources[0].resources[2]: Invalid value: "pods.*": encrypting the same resource across groups is not supported, resources[0].resources[3]: Invalid value: "x.extensions": 'extensions' group has been removed and cannot be used for encryption, resources[0].resources[4]: Invalid value: "x.events.k8s.io": '*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file, resources[0].resources[5]: Invalid value: "serviceipallocations": resources which do not have REST API/s cannot be encrypted]"#
                .replace("[resources[0].resources[0]:", "[resources[0].resources: Invalid value: [\"*\",\"Secrets\",\"pods.*\",\"x.extensions\",\"x.events.k8s.io\",\"serviceipallocations\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked, resources[0].resources[0]:")
                .as_str(),
        );
        check(
            &identity("[secrets, secrets]"),
            r#"resources[0].resources: Invalid value: ["secrets","secrets"]: the same resource cannot be specified multiple times"#,
        );
        check(
            "[{resources: ['*.'], providers: [{identity: {}}]}, {resources: [secrets], providers: [{identity: {}}]}]",
            r#"resource "secrets" is masked by earlier rule "*""#,
        );
        let unknown = Configuration::read("apiVersion: x\nkind: y\nresource: []").expect_err("an unknown field");
        assert!(unknown.contains("unknown field `resource`"), "{unknown}");
    }

    #[test]
    fn the_rule_that_names_a_resource_most_closely_counts() {
        let keyed = |resources: &str, algorithm: &str, key: &str| {
            format!(
                "{{resources: {resources}, providers: [{{{algorithm}: {{keys: [{{name: {key}, secret: {LONG}}}]}}}}]}}"
            )
        };
        let text = format!(
            "apiVersion: {API_VERSION}\nkind: {KIND}\nresources: [{}, {}, {}, {{resources: ['*.*'], providers: [{{identity: {{}}}}]}}]",
            keyed("[secrets, deployments.apps]", "secretbox", "s"),
            keyed("['*.']", "aescbc", "c"),
            keyed("['*.apps', things.example.com]", "aesgcm", "g"),
        );
        let configuration = Configuration::read(&text).expect("a configuration");
        let random = Random::seeded(1);
        let written = |key: &str| {
            let stored = configuration.providers(key)?.write(b"{}", key, &random).unwrap_or_default();
            let prefix = String::from_utf8_lossy(&stored).rsplit_once(":v1:").map(|(prefix, _)| prefix.to_owned());
            Some(prefix.unwrap_or_default())
        };
        for (key, expect) in [
            ("/registry/core/secrets/default/s", Some("k8s:enc:secretbox")),
            ("/registry/core/configmaps/default/s", Some("k8s:enc:aescbc")),
            ("/registry/apps/deployments/default/d", Some("k8s:enc:secretbox")),
            ("/registry/apps/replicasets/default/d", Some("k8s:enc:aesgcm")),
            ("/registry/example.com/things/default/d", Some("k8s:enc:aesgcm")),
            ("/registry/batch/jobs/default/j", Some("")),
            ("/ranges/serviceips", None),
        ] {
            assert_eq!(written(key).as_deref(), expect, "{key}");
        }
    }
}
