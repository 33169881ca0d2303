//! Credentials that a cluster gives out: certificates by CertificateSigningRequest, tokens that Secrets hold.

#![allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minik8s_tests::Cluster;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

/// A private key and a request for a certificate, both PEM.
fn request(name: &str, group: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let request = params.serialize_request(&key).expect("a request");
    (key.serialize_pem(), request.pem().expect("PEM"))
}

fn manifest(name: &str, signer: &str, usages: &str, request: &str) -> String {
    format!(
        "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata:
  name: {name}
spec:
  request: {}
  signerName: kubernetes.io/{signer}
  expirationSeconds: 86400
  usages: [{usages}]
",
        BASE64_STANDARD.encode(request)
    )
}

const CLIENT: &str = "kube-apiserver-client";
const KUBELET: &str = "kube-apiserver-client-kubelet";
const CLIENT_USAGES: &str = "client auth";
const KUBELET_USAGES: &str = "client auth, digital signature, key encipherment";

/// Waits until `kubectl get csr` says so of a request.
fn until_condition(cluster: &Cluster, name: &str, condition: &str) {
    cluster.until(&format!("csr {name} is {condition}"), || {
        let row = cluster.kubectl(&format!("get csr {name}")).table().pop().unwrap_or_default();
        if row.last().is_some_and(|last| last == condition) { Ok(()) } else { Err(format!("{row:?}")) }
    });
}

fn an_approved_request_lets_its_owner_in(cluster: &Cluster) {
    let (key, csr) = request("ann", "dev");
    assert_eq!(
        cluster.apply(&manifest("ann", CLIENT, CLIENT_USAGES, &csr)),
        "certificatesigningrequest.certificates.k8s.io/ann created\n"
    );
    let row = cluster.kubectl("get csr ann").table();
    assert_eq!(row[1][2..], ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "24h", "Pending"]);
    let approved = cluster.kubectl("certificate approve ann").ok();
    assert_eq!(approved, "certificatesigningrequest.certificates.k8s.io/ann approved\n");
    until_condition(cluster, "ann", "Approved,Issued");

    let issued = cluster.kubectl("get csr ann -o jsonpath={.status.certificate}").ok();
    let issued = String::from_utf8(BASE64_STANDARD.decode(issued).expect("base64")).expect("PEM");
    let (cert, key) = (cluster.file("ann.crt", &issued), cluster.file("ann.key", &key));
    let credentials =
        format!("config set-credentials ann --client-certificate={} --client-key={}", cert.display(), key.display());
    cluster.kubectl(&credentials).ok();
    let context = cluster.kubectl("config current-context").ok();
    let name = format!("config set-context ann --user=ann --cluster={}", context.trim());
    cluster.kubectl(&name).ok();
    let who =
        cluster.kubectl("--context=ann auth whoami -o jsonpath={.status.userInfo.username}{.status.userInfo.groups}");
    assert_eq!(who.ok(), r#"ann["dev","system:authenticated"]"#);
    let refused = cluster.kubectl("--context=ann get pods");
    assert!(refused.stderr.contains(r#"User "ann" cannot list resource "pods""#), "{refused}");
    cluster.kubectl("create clusterrolebinding dev --clusterrole=view --group=dev").ok();
    cluster.kubectl("--context=ann get pods").ok();
}

fn a_denied_or_wrong_request_gets_nothing(cluster: &Cluster) {
    let (_, csr) = request("bob", "dev");
    cluster.apply(&manifest("bob", CLIENT, CLIENT_USAGES, &csr));
    cluster.kubectl("certificate deny bob").ok();
    until_condition(cluster, "bob", "Denied");

    cluster.apply(&manifest("wrong", CLIENT, "server auth", &csr));
    cluster.kubectl("certificate approve wrong").ok();
    until_condition(cluster, "wrong", "Approved,Failed");
    let failed = cluster.kubectl(
        "get csr wrong -o jsonpath='{.status.conditions[?(@.type==\"Failed\")].reason}: {.status.conditions[?(@.type==\"Failed\")].message}'",
    );
    assert_eq!(failed.ok(), "SignerValidationFailure: invalid usage for client certificate: server auth");

    let (_, csr) = request("eve", "system:masters");
    let refused = cluster.kubectl_input("create -f -", &manifest("eve", CLIENT, CLIENT_USAGES, &csr));
    let words = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(refused.stderr.contains(words), "{refused}");
}

fn a_kubelet_is_approved_unseen(cluster: &Cluster) {
    for (name, role) in [
        ("bootstrap", "system:node-bootstrapper"),
        ("approve", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"),
    ] {
        cluster
            .kubectl(&format!("create clusterrolebinding {name} --clusterrole={role} --group=system:bootstrappers"))
            .ok();
    }
    let (_, csr) = request("system:node:node-9", "system:nodes");
    let as_token =
        "create -f - --as=system:bootstrap:abcdef --as-group=system:bootstrappers --as-group=system:authenticated";
    cluster.kubectl_input(as_token, &manifest("node-9", KUBELET, KUBELET_USAGES, &csr)).ok();
    until_condition(cluster, "node-9", "Approved,Issued");
    let message =
        cluster.kubectl("get csr node-9 -o jsonpath={.status.conditions[0].reason}:{.status.conditions[0].message}");
    assert_eq!(message.ok(), "AutoApproved:Auto approving kubelet client certificate after SubjectAccessReview.");
}

fn a_token_in_a_secret_lives_with_it(cluster: &Cluster) {
    cluster.kubectl("create serviceaccount robot").ok();
    let secret = "
apiVersion: v1
kind: Secret
metadata:
  name: robot-token
  annotations:
    kubernetes.io/service-account.name: robot
type: kubernetes.io/service-account-token
";
    cluster.apply(secret);
    let field = |name: &str| {
        let text = cluster.kubectl(&format!("get secret robot-token -o jsonpath='{{.data.{name}}}'")).ok();
        String::from_utf8(BASE64_STANDARD.decode(text).expect("base64")).expect("text")
    };
    let held = |yes: bool, no: &str| if yes { Ok(()) } else { Err(no.to_owned()) };
    cluster.until("the secret is filled", || held(!field("token").is_empty(), "no token"));
    assert_eq!(field("namespace"), "default");
    assert!(field(r"ca\.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let described = cluster.kubectl("describe secret robot-token").ok();
    assert!(described.contains("kubernetes.io/service-account.uid: "), "{described}");

    let token = field("token");
    let login = format!("config set-credentials robot --token={token}");
    cluster.kubectl(&login).ok();
    let who = "--user=robot auth whoami -o jsonpath={.status.userInfo.username}";
    assert_eq!(cluster.kubectl(who).ok(), "system:serviceaccount:default:robot");
    cluster.until("the use is written down", || {
        let labels = cluster
            .kubectl(r"get secret robot-token -o jsonpath='{.metadata.labels.kubernetes\.io/legacy-token-last-used}'");
        held(labels.stdout.len() == "2026-01-01".len(), &labels.to_string())
    });

    cluster.kubectl("delete serviceaccount robot").ok();
    cluster.until("the secret goes with its account", || {
        held(cluster.kubectl("get secret robot-token").code != 0, "it is there")
    });
    let refused = cluster.kubectl(who);
    assert!(refused.stderr.contains("Unauthorized") || refused.stderr.contains("must be logged in"), "{refused}");
}

/// Who holds a bootstrap token can trust what anybody may read.
fn anybody_may_learn_where_the_cluster_is(cluster: &Cluster) {
    let context = cluster.kubectl("config current-context").ok();
    cluster.kubectl("config set-credentials nobody").ok();
    cluster.kubectl(&format!("config set-context nobody --user=nobody --cluster={}", context.trim())).ok();
    // kubectl asks those without credentials for a name, so that they come with curl.
    let server = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}").ok();
    let maps = format!("{}/api/v1/namespaces/kube-public/configmaps", server.trim());
    cluster.until("anybody reads cluster-info", || {
        let read = cluster.run("curl", &["-sk", &format!("{maps}/cluster-info")]).ok();
        if read.contains("server: https://127.0.0.1:") { Ok(()) } else { Err(read) }
    });
    let refused = cluster.run("curl", &["-sk", &maps]).ok();
    assert!(refused.contains(r#"User \"system:anonymous\" cannot list resource \"configmaps\""#), "{refused}");

    let token = "
apiVersion: v1
kind: Secret
metadata:
  name: bootstrap-token-abcdef
  namespace: kube-system
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-signing: 'true'
  usage-bootstrap-authentication: 'true'
";
    cluster.apply(token);
    let signature = "get configmap cluster-info -n kube-public -o jsonpath={.data.jws-kubeconfig-abcdef}";
    cluster.until_shows(signature, "..");
    let who = "--context=nobody --token=abcdef.0123456789abcdef auth whoami -o jsonpath={.status.userInfo.username}";
    assert_eq!(cluster.kubectl(who).ok(), "system:bootstrap:abcdef");
    let over = "patch secret bootstrap-token-abcdef -n kube-system --type=merge";
    cluster.kubectl(&format!("{over} -p '{{\"stringData\": {{\"expiration\": \"2020-01-01T00:00:00Z\"}}}}'")).ok();
    cluster.until("the token is cleaned away", || {
        let there = cluster.kubectl("get secret bootstrap-token-abcdef -n kube-system");
        if there.code == 0 { Err(there.to_string()) } else { Ok(()) }
    });
    cluster.until_is(signature, "");
}

#[test]
fn credentials_are_given_out_and_taken_back() {
    let cluster = Cluster::start(&[]);
    an_approved_request_lets_its_owner_in(&cluster);
    a_denied_or_wrong_request_gets_nothing(&cluster);
    a_kubelet_is_approved_unseen(&cluster);
    a_token_in_a_secret_lives_with_it(&cluster);
    anybody_may_learn_where_the_cluster_is(&cluster);
}
