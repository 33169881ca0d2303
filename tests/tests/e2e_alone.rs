//! The components as processes of their own: API server, controllers, scheduler and kubelets talk over TLS, each under
//! its own certificate, and kubectl sees a cluster.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minik8s_tests::alone::{Site, free_port, spawn};
use minik8s_tests::cluster::Cluster;

#[test]
fn four_kinds_of_processes_make_a_cluster() {
    let cluster = Cluster::prepare();
    let site = Site::new(&cluster);
    let _api = site.apiserver("--event-ttl=30m --enable-admission-plugins=NodeRestriction");
    let metrics = free_port();
    let controllers = format!(
        "--kubeconfig=controllers.kubeconfig --use-service-account-credentials --allocate-node-cidrs \
         --cluster-cidr=10.200.0.0/16 --root-ca-file=ca.crt --bind-address=127.0.0.1 --secure-port={metrics} \
         --controllers=*,-ttl-after-finished-controller --concurrent-deployment-syncs=2 \
         --cluster-signing-cert-file=ca.crt --cluster-signing-key-file=ca.key --cluster-signing-duration=1h \
         --service-account-private-key-file=sa.key"
    );
    let leader = site.start("controllers", "controllers", &controllers);
    let _scheduler = site.start("scheduler", "scheduler", "--kubeconfig=scheduler.kubeconfig --secure-port=0");
    let (_node, port) = site.kubelet("alpha", "--node-labels=disk=fast --kube-reserved=cpu=1 --max-pods=20");
    cluster.until_shows("get nodes", "alpha   Ready");
    let node =
        "get node alpha -o jsonpath='{.metadata.labels.disk} {.status.allocatable.cpu} {.status.allocatable.pods}'";
    cluster.until_is(node, "fast 3 20");
    cluster.until_is("get node alpha -o jsonpath='{.spec.podCIDR}'", "10.200.0.0/24");

    cluster.kubectl("create deployment web --image=nginx:1.27").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.until_shows("get pods -o wide", "10.200.0.");
    cluster.until_shows("logs deployment/web", "docker-entrypoint");
    let name = cluster.kubectl("exec deployment/web -- hostname").ok();
    assert!(name.starts_with("web-"), "{name}");
    assert_eq!(cluster.kubectl_input("exec -i deployment/web -- cat", "through TLS\n").ok(), "through TLS\n");

    // Each controller wrote under its own ServiceAccount; the leaders hold their leases.
    let manager = cluster.kubectl("get rs -o jsonpath='{.items[0].metadata.managedFields[0].manager}'").ok();
    assert!(manager.starts_with("kube-controller-manager"), "{manager}");
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        let holder =
            cluster.kubectl(&format!("get lease -n kube-system {lease} -o jsonpath='{{.spec.holderIdentity}}'"));
        assert!(!holder.ok().is_empty(), "{lease}");
    }

    kubelet_lets_in_whom_the_api_server_knows(&cluster, port);
    certificates_and_tokens_are_signed(&cluster);
    let url = format!("https://127.0.0.1:{metrics}");
    assert_eq!(curl(&cluster, &format!("{url}/healthz"), ""), "200 ok");
    assert!(curl(&cluster, &format!("{url}/metrics"), "").starts_with("403"));

    // A second replica waits, and takes over when the first one goes.
    let standby = controllers.replace(&format!("--secure-port={metrics}"), "--secure-port=0");
    let waiting = site.start("controllers", "standby", &standby);
    drop(leader);
    cluster.until("the standby leads", || {
        let log = waiting.log();
        if log.contains("became leader") { Ok(()) } else { Err(log) }
    });
    cluster.kubectl("scale deployment/web --replicas=2").ok();
    cluster.until_is("get deployment web -o jsonpath='{.status.readyReplicas}'", "2");
}

/// The controllers have the keys of the flags: the authority's, and that of ServiceAccount tokens.
fn certificates_and_tokens_are_signed(cluster: &Cluster) {
    let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=dev/CN=ann -keyout ann.key -out ann.csr";
    cluster.run("openssl", &request.split_whitespace().collect::<Vec<_>>()).ok();
    let request = std::fs::read(cluster.home().join("ann.csr")).expect("a request");
    cluster.apply(&format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: ann}}\nspec:\n  \
         signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n  request: {}\n",
        BASE64_STANDARD.encode(request)
    ));
    cluster.kubectl("certificate approve ann").ok();
    cluster.until_shows("get csr ann", "Approved,Issued");
    let issued = cluster.kubectl("get csr ann -o jsonpath={.status.certificate}").ok();
    let issued = BASE64_STANDARD.decode(issued).expect("base64");
    cluster.file("ann.crt", &String::from_utf8(issued).expect("PEM"));
    cluster.run("openssl", &["verify", "-CAfile", "ca.crt", "ann.crt"]).ok();
    let lives =
        |seconds: &str| cluster.run("openssl", &["x509", "-in", "ann.crt", "-noout", "-checkend", seconds]).code;
    assert_eq!((lives("1800"), lives("3700")), (0, 1), "--cluster-signing-duration");
    cluster.kubectl("config set-credentials ann --client-certificate=ann.crt --client-key=ann.key").ok();
    let who = "auth whoami -o jsonpath={.status.userInfo.username}";
    assert_eq!(cluster.kubectl(&format!("--user=ann {who}")).ok(), "ann");

    cluster.kubectl("create serviceaccount robot").ok();
    cluster.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}\n\
         type: kubernetes.io/service-account-token\n",
    );
    let token = "get secret robot -o jsonpath={.data.token}";
    cluster.until_shows(token, "ZXlK");
    let token = BASE64_STANDARD.decode(cluster.kubectl(token).ok()).expect("base64");
    let token = String::from_utf8(token).expect("a token");
    cluster.kubectl(&format!("config set-credentials robot --token={token}")).ok();
    assert_eq!(cluster.kubectl(&format!("--user=robot {who}")).ok(), "system:serviceaccount:default:robot");
}

/// Certificates of the CA and tokens get in; what they may is asked of the API server.
fn kubelet_lets_in_whom_the_api_server_knows(cluster: &Cluster, port: u16) {
    let metrics = format!("https://127.0.0.1:{port}/metrics/resource");
    assert_eq!(curl(cluster, &metrics, ""), "401 Unauthorized");
    assert!(curl(cluster, &metrics, "--cert admin.crt --key admin.key").starts_with("200 "));
    let refused = curl(cluster, &metrics, "--cert scheduler.crt --key scheduler.key");
    assert_eq!(
        refused,
        "403 Forbidden (user=system:kube-scheduler, verb=get, resource=nodes, subresource(s)=[metrics])"
    );
    let token = cluster.kubectl("create token default").ok();
    assert!(bearer(cluster, &metrics, &token).starts_with("403 Forbidden (user=system:serviceaccount:default:default"));
    cluster.kubectl("create namespace monitoring").ok();
    cluster.until_is("get serviceaccount -n monitoring default -o name", "serviceaccount/default");
    let binding =
        "create clusterrolebinding m --clusterrole=system:kubelet-api-admin --serviceaccount=monitoring:default";
    cluster.kubectl(binding).ok();
    let token = cluster.kubectl("create token default -n monitoring").ok();
    assert!(bearer(cluster, &metrics, &token).starts_with("200 "));
    assert_eq!(bearer(cluster, &metrics, "nonsense"), "401 Unauthorized");
}

/// Status and body.
fn curl(cluster: &Cluster, url: &str, more: &str) -> String {
    let mut arguments = vec!["-sk", "-w", "\n%{http_code}", url];
    arguments.extend(more.split_whitespace());
    answer(&cluster.run("curl", &arguments).ok())
}

fn bearer(cluster: &Cluster, url: &str, token: &str) -> String {
    let header = format!("Authorization: Bearer {}", token.trim());
    answer(&cluster.run("curl", &["-sk", "-w", "\n%{http_code}", "-H", &header, url]).ok())
}

fn answer(output: &str) -> String {
    let (body, code) = output.rsplit_once('\n').unwrap_or(("", output));
    format!("{code} {}", body.trim())
}

/// An API server is an issuer of OpenID Connect: another one believes its tokens, by flags or by a file.
#[test]
fn one_api_server_believes_the_tokens_of_another() {
    let cluster = Cluster::prepare();
    let site = Site::new(&cluster);
    let issuer = format!("https://127.0.0.1:{}", free_port());
    let _other = site.start(
        "apiserver",
        "issuer",
        &format!(
            "--secure-port={} --bind-address=127.0.0.1 --ephemeral --service-account-issuer={issuer} \
             --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key --client-ca-file=ca.crt \
             --service-account-signing-key-file=sa.key",
            issuer.rsplit(':').next().expect("a port")
        ),
    );
    let there = format!("--server={issuer}");
    cluster.until_is(&format!("{there} get --raw /readyz"), "ok");
    let role = "system:service-account-issuer-discovery";
    let anybody = "--group=system:unauthenticated";
    cluster.kubectl(&format!("{there} create clusterrolebinding open --clusterrole={role} {anybody}")).ok();
    cluster.kubectl(&format!("{there} create serviceaccount robot")).ok();
    for (user, audience) in [("robot", "here"), ("stray", "elsewhere")] {
        let token = cluster.kubectl(&format!("{there} create token robot --audience={audience}")).ok();
        cluster.kubectl(&format!("config set-credentials {user} --token={}", token.trim())).ok();
    }
    let ca = std::fs::read_to_string(site.path("ca.crt")).expect("a certificate").replace('\n', "\n      ");
    cluster.file(
        "authentication.yaml",
        &format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {issuer}\n    \
             audiences: [here]\n    certificateAuthority: |\n      {ca}\n  claimMappings:\n    \
             username: {{expression: '\"there:\" + claims.sub'}}\nanonymous: {{enabled: false}}\n"
        ),
    );
    let flags = format!(
        "--oidc-issuer-url={issuer} --oidc-client-id=here --oidc-ca-file=ca.crt --oidc-username-prefix=there: \
         --anonymous-auth=false"
    );
    for flags in [flags.as_str(), "--authentication-config=authentication.yaml"] {
        let _here = site.apiserver(flags);
        let who = "--user=robot auth whoami -o jsonpath={.status.userInfo.username}";
        assert_eq!(cluster.kubectl(who).ok(), "there:system:serviceaccount:default:robot", "{flags}");
        let stray = cluster.kubectl("--user=stray get namespaces");
        assert!(stray.stderr.contains("must be logged in"), "{stray}");
        let version = format!("https://127.0.0.1:{}/version", site.port());
        assert!(curl(&cluster, &version, "").starts_with("401"), "{flags}");
    }
}

#[test]
fn manifests_of_a_folder_are_pods_of_the_node() {
    let cluster = Cluster::prepare();
    let site = Site::new(&cluster);
    let _api = site.apiserver("");
    let manifest = |image: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: static}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        );
        cluster.file("manifests/static.yaml", &text)
    };
    let file = manifest("nginx:1.27");
    // Without controllers the range of its pods has to be said.
    let (_node, _) = site.kubelet("beta", "--pod-manifest-path=manifests --pod-cidr=10.200.7.0/24");
    cluster.until_shows("get pods", "static-beta   1/1     Running");
    cluster.until_shows("get pod static-beta -o wide", "10.200.7.");
    manifest("nginx:1.28");
    let image = "get pod static-beta -o jsonpath='{.spec.containers[0].image} {.status.phase}'";
    cluster.until_is(image, "nginx:1.28 Running");
    std::fs::remove_file(file).expect("the manifest is there");
    cluster.until("the static pod is gone", || match cluster.kubectl("get pod static-beta") {
        gone if gone.stderr.contains("NotFound") => Ok(()),
        there => Err(there.to_string()),
    });
}

#[test]
fn a_cluster_leaves_components_to_others() {
    let cluster = Cluster::prepare();
    let port = free_port().to_string();
    cluster.minik8s(&["up", "--port", &port, "--disable", "scheduler,kubelet,controllers/job-controller"]).ok();
    let status = cluster.minik8s(&["status"]).ok();
    assert!(status.contains("Disabled:    controllers/job-controller, kubelet, scheduler"), "{status}");
    let refused = cluster.minik8s(&["node", "add"]);
    assert!(refused.stderr.contains("this cluster runs no kubelets of its own"), "{refused}");

    // Somebody else's scheduler and node, with certificates of this cluster's authority.
    let kubeconfig = |file: &str, arguments: &[&str]| {
        let all: Vec<&str> = ["kubeconfig", "--user"].iter().chain(arguments).copied().collect();
        cluster.file(file, &cluster.minik8s(&all).ok());
    };
    kubeconfig("scheduler.kubeconfig", &["system:kube-scheduler"]);
    kubeconfig("guest.kubeconfig", &["system:node:guest", "--group", "system:nodes"]);
    let home = cluster.home();
    let kubelet = format!(
        "--kubeconfig=guest.kubeconfig --hostname-override=guest --node-ip=127.0.0.1 --address=127.0.0.1 --port={} \
         --root-dir=guest --client-ca-file=minik8s/minik8s/pki/ca.crt",
        free_port()
    );
    let _node = spawn(home, "kubelet", "guest", &kubelet);
    let profiles = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                    leaderElection: {leaderElect: false}\nclientConnection: {kubeconfig: scheduler.kubeconfig}\n\
                    profiles:\n- schedulerName: default-scheduler\n- schedulerName: packer\n  pluginConfig:\n  \
                    - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}\n";
    cluster.file("scheduler.yaml", profiles);
    let _scheduler = spawn(home, "scheduler", "scheduler", "--config=scheduler.yaml --secure-port=0");
    cluster.until_shows("get nodes", "guest   Ready");
    cluster.kubectl("create deployment web --image=nginx:1.27").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.until_shows("exec deployment/web -- hostname", "web-");
    let overrides = r#"{"spec":{"schedulerName":"packer"}}"#;
    cluster.kubectl(&format!("run packed --image=nginx:1.27 --overrides='{overrides}'")).ok();
    cluster.until_shows("get events", "Successfully assigned default/packed to guest");
    let by = "get events --field-selector involvedObject.name=packed,reason=Scheduled -o jsonpath='{.items[0].source.component}'";
    cluster.until_is(by, "packer");

    // The job controller is somebody else's, and nobody runs it.
    cluster.kubectl("create job j --image=busybox -- true").ok();
    cluster.kubectl("create deployment after --image=nginx:1.27").ok();
    cluster.kubectl("rollout status deployment/after --timeout=60s").ok();
    assert_eq!(cluster.kubectl("get pods -l job-name=j -o name").ok(), "");

    // It is remembered, and taken back.
    cluster.minik8s(&["down"]).ok();
    assert!(cluster.minik8s(&["status"]).ok().contains("Disabled:    controllers/job-controller, kubelet, scheduler"));
    let resumed = cluster.minik8s(&["up", "--disable", "none"]).ok();
    assert!(resumed.contains("node-1 ready"), "{resumed}");
    cluster.until_is("get job j -o jsonpath='{.status.succeeded}'", "1");
}

#[test]
fn flags_that_cannot_be_are_told_with_exit_code_one() {
    let cluster = Cluster::prepare();
    for (line, words) in [
        ("apiserver --ephemeral --etcd-servers=http://127.0.0.1:2379", "keeps its objects itself, in --data-dir"),
        (
            "apiserver --ephemeral --authorization-mode=Webhook --bind-address=127.0.0.1",
            "\"Webhook\" is not part of minik8s",
        ),
        ("apiserver --ephemeral --authorization-mode=Magic --bind-address=127.0.0.1", "\"Magic\" is not a valid mode"),
        (
            "apiserver --ephemeral --enable-admission-plugins=Nope --bind-address=127.0.0.1",
            "plugin \"Nope\" is unknown",
        ),
        ("apiserver", "--data-dir"),
        ("apiserver --ephemeral --no-such-flag", "--no-such-flag"),
        (
            "apiserver --ephemeral --bind-address=127.0.0.1 --oidc-issuer-url=http://a --oidc-client-id=b",
            "URL scheme must be https",
        ),
        (
            "apiserver --ephemeral --bind-address=127.0.0.1 --authentication-config=/dev/null",
            "authentication configuration",
        ),
        ("controllers --kubeconfig=none --cluster-signing-cert-file=ca.crt", "--cluster-signing-key-file"),
        ("controllers --kubeconfig=none", "cannot read the kubeconfig none"),
        ("controllers --kubeconfig=none --controllers=nope", "\"nope\" is not in the list of known controllers"),
        ("controllers --kubeconfig=none --allocate-node-cidrs", "--allocate-node-cidrs wants --cluster-cidr"),
        ("scheduler", "--kubeconfig is wanted"),
        (
            "scheduler --kubeconfig=none --leader-elect-lease-duration=5s",
            "leaseDuration must be greater than renewDeadline",
        ),
        (
            "kubelet --kubeconfig=none --container-runtime-endpoint=unix:///run/containerd/containerd.sock",
            "runtimes behind a socket are not supported yet",
        ),
        ("kubelet --kubeconfig=none --hostname-override=A_b", "a node's name has lower-case letters"),
    ] {
        let output = cluster.minik8s(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(output.code, 1, "{output}");
        assert!(output.stderr.contains(words), "{words:?} is not in {output}");
    }
}
