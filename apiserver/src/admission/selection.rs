//! Which plugins run: `--enable-admission-plugins` and `--disable-admission-plugins`
//! (`k8s.io/apiserver/pkg/server/options/admission.go`).

use super::Chain;
use super::owner_permissions::OwnerPermissions;

/// The plugins that run unless they are switched off.
pub const PLUGINS: [&str; 25] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "PodTopologyLabels",
    "NodeDeclaredFeatureValidator",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
];

/// The plugins that run only if they are asked for.
pub const OPTIONAL: [&str; 1] = [OwnerPermissions::NAME];

/// Plugins of kube-apiserver that are not here, and off there unless they are asked for.
pub const ABSENT: [&str; 12] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "PodNodeSelector",
    "PodTolerationRestriction",
];

/// Which plugins run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    enabled: Vec<String>,
    disabled: Vec<String>,
}

impl Selection {
    /// What two lists of plugin names ask for.
    ///
    /// # Errors
    /// A name that no plugin has, one that is in both lists, or one of kube-apiserver's that is not here to be enabled.
    pub fn new(enabled: &[String], disabled: &[String]) -> Result<Selection, String> {
        for (flag, names) in [("enable", enabled), ("disable", disabled)] {
            for name in names {
                let absent = ABSENT.contains(&name.as_str());
                if !absent && !PLUGINS.contains(&name.as_str()) && !OPTIONAL.contains(&name.as_str()) {
                    return Err(format!("{flag}-admission-plugins plugin {name:?} is unknown"));
                }
                if absent && flag == "enable" {
                    return Err(format!("admission plugin {name:?} is not part of minik8s; it cannot be enabled"));
                }
            }
        }
        let both: Vec<&str> = enabled.iter().filter(|name| disabled.contains(name)).map(String::as_str).collect();
        if !both.is_empty() {
            return Err(format!(
                "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(" ")
            ));
        }
        Ok(Selection { enabled: enabled.to_vec(), disabled: disabled.to_vec() })
    }

    fn runs(&self, plugin: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == plugin);
        !named(&self.disabled) && (!OPTIONAL.contains(&plugin) || named(&self.enabled))
    }
}

impl Chain {
    /// The chain without the plugins that are switched off, or not switched on. What is no plugin in Kubernetes (roles that
    /// grant more than their author has) cannot be.
    pub fn only(mut self, selection: &Selection) -> Chain {
        self.plugins.retain(|plugin| selection.runs(plugin.name()));
        self.times = self.times.only(self.plugins.iter().map(|plugin| plugin.name()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{OwnerPermissions, Selection};

    #[test]
    fn lists_are_checked() {
        let check = |enabled: &[&str], disabled: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            Selection::new(&owned(enabled), &owned(disabled)).map(|selection| selection.disabled)
        };
        assert_eq!(check(&["NodeRestriction"], &["PodSecurity"]), Ok(vec!["PodSecurity".to_owned()]));
        assert_eq!(check(&[], &["AlwaysAdmit"]), Ok(vec!["AlwaysAdmit".to_owned()]));
        let runs =
            |enabled: &[String]| Selection::new(enabled, &[]).map(|selection| selection.runs(OwnerPermissions::NAME));
        assert_eq!(runs(&[]), Ok(false));
        assert_eq!(runs(&[OwnerPermissions::NAME.to_owned()]), Ok(true));
        for (enabled, disabled, words) in [
            (&["Nonsense"][..], &[][..], "enable-admission-plugins plugin \"Nonsense\" is unknown"),
            (
                &["EventRateLimit"],
                &[],
                "admission plugin \"EventRateLimit\" is not part of minik8s; it cannot be enabled",
            ),
            (
                &["Priority"],
                &["Priority"],
                "[Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
        ] {
            assert_eq!(check(enabled, disabled), Err(words.to_owned()));
        }
    }
}
