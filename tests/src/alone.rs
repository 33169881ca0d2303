//! The components as processes of their own, each with certificates of one authority, as an operator runs them.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cluster::Cluster;
use crate::tools;

/// A process, ended with this value.
pub struct Running {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Running {
    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}'s log ---\n{}", self.name, self.log());
        }
    }
}

/// A folder of certificates, and where the API server is.
pub struct Site<'a> {
    cluster: &'a Cluster,
    port: u16,
}

impl<'a> Site<'a> {
    /// Certificates in the home of `cluster`, whose kubeconfig becomes the administrator's.
    pub fn new(cluster: &'a Cluster) -> Self {
        let site = Self { cluster, port: free_port() };
        site.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key");
        site.openssl(
            "req -x509 -new -key ca.key -subj /CN=ca -days 2 -out ca.crt -addext basicConstraints=critical,CA:true \
             -addext keyUsage=critical,keyCertSign",
        );
        site.openssl("genrsa -traditional -out sa.key 2048");
        site.openssl("rsa -in sa.key -pubout -out sa.pub");
        site.sign("apiserver", "/CN=kube-apiserver", "serverAuth", "DNS:localhost,IP:127.0.0.1");
        site.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "clientAuth", "");
        site.kubeconfig("admin", "/O=system:masters/CN=admin");
        site.kubeconfig("controllers", "/CN=system:kube-controller-manager");
        site.kubeconfig("scheduler", "/CN=system:kube-scheduler");
        std::fs::copy(site.path("admin.kubeconfig"), cluster.kubeconfig()).expect("a kubeconfig");
        site
    }

    /// The port of the API server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file of this site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.cluster.home().join(name)
    }

    /// Signs a certificate: `NAME.crt` and `NAME.key`.
    pub fn sign(&self, name: &str, subject: &str, usage: &str, alternative_names: &str) {
        self.openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        self.openssl(&format!("req -new -key {name}.key -subj {subject} -out {name}.csr"));
        let mut extensions =
            format!("basicConstraints=CA:false\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n");
        if !alternative_names.is_empty() {
            extensions.push_str(&format!("subjectAltName={alternative_names}\n"));
        }
        self.cluster.file(&format!("{name}.ext"), &extensions);
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
        ));
    }

    /// Signs a client certificate and writes `NAME.kubeconfig` with it.
    pub fn kubeconfig(&self, name: &str, subject: &str) {
        self.sign(name, subject, "clientAuth", "");
        let server = format!("https://127.0.0.1:{}", self.port);
        let (ca, cert, key) =
            (self.path("ca.crt"), self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: {server}, certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {}, client-key: {}}}}}]\n",
            ca.display(),
            cert.display(),
            key.display()
        );
        self.cluster.file(&format!("{name}.kubeconfig"), &text);
    }

    #[track_caller]
    fn openssl(&self, line: &str) {
        self.cluster.run("openssl", &line.split_whitespace().collect::<Vec<_>>()).ok();
    }

    /// Starts a component: the words of `line` are flags, paths in them are of this site.
    pub fn start(&self, verb: &str, name: &str, line: &str) -> Running {
        spawn(self.cluster.home(), verb, name, line)
    }

    /// Starts an API server with these certificates, and more flags.
    pub fn apiserver(&self, more: &str) -> Running {
        let line = format!(
            "--secure-port={} --bind-address=127.0.0.1 --data-dir=apiserver-data --tls-cert-file=apiserver.crt \
             --tls-private-key-file=apiserver.key --client-ca-file=ca.crt --authorization-mode=Node,RBAC \
             --service-account-signing-key-file=sa.key --service-account-key-file=sa.pub \
             --service-account-issuer=https://issuer.example --kubelet-client-certificate=kubelet-client.crt \
             --kubelet-client-key=kubelet-client.key --kubelet-certificate-authority=ca.crt \
             --kubelet-preferred-address-types=InternalIP {more}",
            self.port
        );
        let running = self.start("apiserver", "apiserver", &line);
        self.cluster.until_is("get --raw /readyz", "ok");
        running
    }

    /// Starts a node of this name with these certificates, and more flags; answers its port too.
    pub fn kubelet(&self, name: &str, more: &str) -> (Running, u16) {
        self.kubeconfig(name, &format!("/O=system:nodes/CN=system:node:{name}"));
        let serving = format!("{name}-serving");
        self.sign(&serving, &format!("/CN=system:node:{name}"), "serverAuth", &format!("DNS:{name},IP:127.0.0.1"));
        let port = free_port();
        let line = format!(
            "--kubeconfig={name}.kubeconfig --hostname-override={name} --node-ip=127.0.0.1 --address=127.0.0.1 \
             --port={port} --tls-cert-file={serving}.crt --tls-private-key-file={serving}.key --client-ca-file=ca.crt \
             --root-dir={name} {more}"
        );
        (self.start("kubelet", name, &line), port)
    }
}

/// Starts `minik8s VERB` in `home`, its log into `NAME.log`.
pub fn spawn(home: &Path, verb: &str, name: &str, line: &str) -> Running {
    let log = home.join(format!("{name}.log"));
    let file = File::create(&log).expect("a log file");
    let mut command = Command::new(tools::minik8s());
    command.arg(verb).args(line.split_whitespace()).current_dir(home);
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log file")).stderr(file);
    let child = command.spawn().unwrap_or_else(|error| panic!("minik8s {verb}: {error}"));
    Running { name: name.to_owned(), log, child }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a port").port()
}
