//! What anybody may know of a cluster: where it is and whom to trust, in the ConfigMap `cluster-info` of `kube-public`.
//!
//! `kubeadm init` makes it, and lets anonymous users read it; here the wiring does, under kubeadm's names. Whoever holds a
//! bootstrap token can tell by its signature, which a controller adds, that it was not forged.
//! (Kubernetes: `cmd/kubeadm/app/phases/bootstraptoken/clusterinfo/clusterinfo.go`.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams};
use minik8s_client::Client;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const ROLE: &str = "kubeadm:bootstrap-signer-clusterinfo";
const RBAC: &str = "rbac.authorization.k8s.io";

/// A kubeconfig without a user.
fn kubeconfig(server: &str, ca_pem: &str) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"
    )
}

/// Writes what is not there as it should be: three applies, which change nothing the second time.
pub async fn publish(client: &Client, server: &str, ca_pem: &str) -> Result<(), kube::Error> {
    let api_version = format!("{RBAC}/v1");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": NAME },
        "data": { "kubeconfig": kubeconfig(server, ca_pem) },
    });
    let role = json!({
        "apiVersion": api_version, "kind": "Role", "metadata": { "name": ROLE },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"] }],
    });
    let binding = json!({
        "apiVersion": api_version, "kind": "RoleBinding", "metadata": { "name": ROLE },
        "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": ROLE },
        "subjects": [{ "apiGroup": RBAC, "kind": "User", "name": "system:anonymous" }],
    });
    let parameters = PatchParams::apply("minik8s").force();
    let apply = |body: Value| Patch::Apply(body);
    client.namespaced::<ConfigMap>(NAMESPACE).patch(NAME, &parameters, &apply(map)).await?;
    client.namespaced::<Role>(NAMESPACE).patch(ROLE, &parameters, &apply(role)).await?;
    client.namespaced::<RoleBinding>(NAMESPACE).patch(ROLE, &parameters, &apply(binding)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_kubeconfig() {
        let text = kubeconfig("https://127.0.0.1:6443", "PEM");
        let config: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://127.0.0.1:6443");
        assert_eq!(cluster["certificate-authority-data"], STANDARD.encode("PEM"));
    }
}
