//! The trust anchors of ClusterTrustBundles: the certificates of those that a projected volume selects, each once.
//!
//! (kubelet: `clustertrustbundle/clustertrustbundle_manager.go`. There the order is shuffled, so that nobody relies on it;
//! here it is sorted, so that an unchanged selection is an unchanged file.)

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use minik8s_api::selector::LabelSelector;

use crate::error::{Error, Result};

/// How long a line of PEM is.
const PEM_LINE: usize = 64;

/// The content of the file that `source` asks for. `bundles` are all there are; `None` if that is not known yet.
///
/// # Errors
/// Nothing is selected and the source is not optional.
pub fn trust_anchors(
    bundles: Option<&[Arc<ClusterTrustBundle>]>,
    source: &ClusterTrustBundleProjection,
) -> Result<String> {
    let missing = |why: String| Err(Error::MissingObject(why));
    let Some(bundles) = bundles else {
        return missing("ClusterTrustBundle informer has not yet synced".to_owned());
    };
    let optional = source.optional == Some(true);
    let selected: Vec<&ClusterTrustBundle> = match (&source.name, &source.signer_name) {
        (Some(name), _) => {
            let named = bundles.iter().find(|bundle| bundle.metadata.name.as_ref() == Some(name));
            if named.is_none() && !optional {
                let words = "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io";
                return missing(format!("{words} \"{name}\" not found"));
            }
            named.into_iter().map(AsRef::as_ref).collect()
        }
        (None, Some(signer)) => {
            let selector = selector(source)?;
            let is_selected = |bundle: &&ClusterTrustBundle| {
                bundle.spec.signer_name.as_ref() == Some(signer)
                    && selector.matches_set(bundle.metadata.labels.as_ref())
            };
            let selected: Vec<_> = bundles.iter().map(AsRef::as_ref).filter(is_selected).collect();
            if selected.is_empty() && !optional {
                let why = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
                return missing(why.to_owned());
            }
            selected
        }
        (None, None) => {
            let why = "ClusterTrustBundle projection requires either name or signerName to be set";
            return Err(Error::InvalidPod(why.to_owned()));
        }
    };
    let certificates: BTreeSet<String> =
        selected.into_iter().flat_map(|bundle| certificates(&bundle.spec.trust_bundle)).collect();
    Ok(certificates.iter().map(|certificate| pem(certificate)).collect())
}

fn selector(source: &ClusterTrustBundleProjection) -> Result<LabelSelector> {
    let value = source.label_selector.as_ref().and_then(|selector| serde_json::to_value(selector).ok());
    LabelSelector::from_value(value.as_ref())
        .map_err(|error| Error::InvalidPod(format!("while parsing label selector: {error}")))
}

/// The certificates of a PEM text, in their order, without what stands between them.
pub fn normalized(text: &str) -> String {
    certificates(text).iter().map(|certificate| pem(certificate)).collect()
}

/// The blocks of a PEM text, each as one line of base64: without headers, and without what stands between blocks.
fn certificates(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            block = Some(String::new());
        } else if line.starts_with("-----END ") {
            found.extend(block.take());
        } else if let Some(block) = &mut block
            && !line.contains(':')
        {
            block.push_str(line);
        }
    }
    found
}

fn pem(certificate: &str) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = certificate;
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(PEM_LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn check(source: Value, expect: Result<&str, &str>) {
        let bundle = |name: &str, signer: Option<&str>, alive: &str, text: String| -> Arc<ClusterTrustBundle> {
            let metadata = json!({"name": name, "labels": {"alive": alive}});
            let spec = json!({"signerName": signer, "trustBundle": text});
            Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        let bundles = [
            bundle("plain", None, "no", format!("first{ONE}{ONE}")),
            bundle("s:1", Some("s"), "yes", format!("{TWO}{ONE}")),
            bundle("s:2", Some("s"), "no", TWO.to_owned()),
        ];
        let source = serde_json::from_value(source).unwrap();
        let found = trust_anchors(Some(&bundles), &source).map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn bundles_are_selected_and_their_certificates_are_there_once() {
        check(json!({"path": "p", "name": "plain"}), Ok(ONE));
        let both = format!("{ONE}{TWO}");
        check(json!({"path": "p", "signerName": "s", "labelSelector": {}}), Ok(&both));
        let dead = json!({"matchLabels": {"alive": "no"}});
        check(json!({"path": "p", "signerName": "s", "labelSelector": dead}), Ok(TWO));
        check(json!({"path": "p", "signerName": "s", "optional": true}), Ok(""));
        check(json!({"path": "p", "name": "ghost", "optional": true}), Ok(""));
    }

    #[test]
    fn what_is_missing_is_named() {
        check(
            json!({"path": "p", "name": "ghost"}),
            Err("while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"ghost\" not found"),
        );
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        check(json!({"path": "p", "signerName": "s"}), Err(none));
        check(json!({"path": "p", "signerName": "t", "labelSelector": {}}), Err(none));
    }
}
