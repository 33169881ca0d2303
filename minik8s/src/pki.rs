//! The cluster's public key infrastructure: one certificate authority, the API server's certificate, the
//! administrator's, and the key that signs ServiceAccount tokens. What `kubeadm init phase certs` makes, in one folder:
//!
//! | file | what | made |
//! |---|---|---|
//! | `ca.crt`, `ca.key` | the certificate authority | once |
//! | `front-proxy-ca.crt`, `front-proxy-ca.key` | the authority of the API server as a client of the servers behind APIServices | once |
//! | `front-proxy-client.crt`, `front-proxy-client.key` | what it shows them | at every start |
//! | `sa.key` | signs ServiceAccount tokens (ES256) | once |
//! | `apiserver.crt`, `apiserver.key` | the API server's | at every start |
//! | `admin.crt`, `admin.key` | the kubeconfig's: `kubernetes-admin` in `system:masters` | once, and anew before it expires |

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use minik8s_apiserver::aggregator::front_proxy;
use minik8s_clock::{Clock, Random};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// How long the authority is valid, in days.
const CA_DAYS: i64 = 3650;
/// How long the certificates that it signs are valid, in days.
const LEAF_DAYS: i64 = 365;
/// The administrator's certificate is replaced when it has fewer days left than this.
const RENEW_BEFORE_DAYS: i64 = 30;
/// Certificates are valid from a little before they are made, for clients whose clocks are behind.
const BACKDATE_MINUTES: i64 = 5;

/// The certificates and keys of one cluster, loaded.
pub struct Pki {
    /// The authority's certificate.
    pub ca_pem: String,
    /// The authority's key, for the controller that signs certificates and nobody else; who only reads does not get it.
    pub ca_key_pem: Option<String>,
    /// The administrator's certificate and key.
    pub admin: CertifiedKey,
    /// The API server's certificate and key.
    pub server: CertifiedKey,
    /// The API server as a client of the servers behind APIServices; `None` where the cluster is only read.
    pub front_proxy: Option<FrontProxy>,
    /// The PKCS#8 key (PEM) that signs ServiceAccount tokens.
    pub service_account_key_pem: String,
    /// The API server's certificate and key as a client of kubelets that run on their own. Made at every start; `None`
    /// where the certificates were only read.
    pub kubelet_client: Option<CertifiedKey>,
}

/// The authority that those servers trust, and the certificate by it.
#[derive(Clone)]
pub struct FrontProxy {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The client's certificate and key.
    pub client: CertifiedKey,
}

/// The user and the group that the API server is to kubelets: what kubeadm makes it too.
const KUBELET_CLIENT: (&str, &str) = ("kube-apiserver-kubelet-client", "system:masters");

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct CertifiedKey {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

struct Authority<'a> {
    issuer: Issuer<'static, KeyPair>,
    now: OffsetDateTime,
    random: &'a Random,
    keys: Keys,
}

/// Where keys come from.
enum Keys {
    /// ECDSA (P-256), which every TLS library speaks. The library asks the operating system, and again for each signature.
    Generated,
    /// Ed25519, of which key and signatures are functions of the seed.
    Drawn,
}

impl Pki {
    /// Loads what is in `dir` and makes what is missing. `names` are the DNS names and addresses of the API server.
    pub fn open(dir: &Path, names: &[String], clock: &Clock, random: &Random) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let now = OffsetDateTime::from_unix_timestamp(clock.now().as_second())?;
        let (ca, authority) = open_authority(dir, "ca", "minik8s", now, random)?;
        let (front_proxy_ca, front_authority) = open_authority(dir, "front-proxy-ca", "front-proxy-ca", now, random)?;
        let front_proxy = FrontProxy { ca_pem: front_proxy_ca.cert_pem, client: front_authority.front_proxy()? };
        store(dir, "front-proxy-client", &front_proxy.client)?;

        let server = authority.server(names)?;
        store(dir, "apiserver", &server)?;
        let admin = match load(dir, "admin")? {
            Some(admin) if days_left(&admin.cert_pem, now) > RENEW_BEFORE_DAYS => admin,
            _ => {
                let admin = authority.client("kubernetes-admin", &["system:masters".to_owned()])?;
                store(dir, "admin", &admin)?;
                admin
            }
        };
        let service_account_key_pem = service_account_key(Some(&dir.join("sa.key")))?;
        let kubelet_client = Some(authority.kubelet_client()?);
        let (ca_pem, ca_key_pem, front_proxy) = (ca.cert_pem, Some(ca.key_pem), Some(front_proxy));
        Ok(Self { ca_pem, ca_key_pem, admin, server, front_proxy, service_account_key_pem, kubelet_client })
    }

    /// Loads what a cluster has, and makes nothing.
    pub fn read(dir: &Path) -> Result<Self> {
        let there = |name: &str| load(dir, name)?.ok_or_else(|| anyhow!("{} has no {name}.crt", dir.display()));
        let path = dir.join("sa.key");
        Ok(Self {
            ca_pem: there("ca")?.cert_pem,
            ca_key_pem: None,
            admin: there("admin")?,
            server: there("apiserver")?,
            front_proxy: None,
            service_account_key_pem: fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            kubelet_client: None,
        })
    }

    /// Signs a client certificate with the authority in `dir`.
    ///
    /// # Errors
    /// There is no authority there, or it cannot be read.
    pub fn sign_client(
        dir: &Path,
        user: &str,
        groups: &[String],
        clock: &Clock,
        random: &Random,
    ) -> Result<CertifiedKey> {
        let now = OffsetDateTime::from_unix_timestamp(clock.now().as_second())?;
        let ca = load(dir, "ca")?.ok_or_else(|| anyhow!("{} has no ca.crt", dir.display()))?;
        let key = KeyPair::from_pem(&ca.key_pem).with_context(|| damaged(dir, "ca.key"))?;
        let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, key).with_context(|| damaged(dir, "ca.crt"))?;
        Authority { issuer, now, random, keys: Keys::Generated }.client(user, groups)
    }

    /// Makes everything anew and keeps nothing. The certificates depend on time and `random` only, as what is in the
    /// cluster holds the authority's (`kube-root-ca.crt`); the key of ServiceAccount tokens, which no object holds but
    /// a Secret that somebody makes for one, is the operating system's.
    pub fn in_memory(names: &[String], clock: &Clock, random: &Random) -> Result<Self> {
        let now = OffsetDateTime::from_unix_timestamp(clock.now().as_second())?;
        let ca = make_authority("minik8s", now, random, &drawn_key(random)?)?;
        let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, KeyPair::from_pem(&ca.key_pem)?)?;
        let authority = Authority { issuer, now, random, keys: Keys::Drawn };
        let front_proxy_ca = make_authority("front-proxy-ca", now, random, &drawn_key(random)?)?;
        let issuer = Issuer::from_ca_cert_pem(&front_proxy_ca.cert_pem, KeyPair::from_pem(&front_proxy_ca.key_pem)?)?;
        let client = Authority { issuer, now, random, keys: Keys::Drawn }.front_proxy()?;
        Ok(Self {
            front_proxy: Some(FrontProxy { ca_pem: front_proxy_ca.cert_pem, client }),
            admin: authority.client("kubernetes-admin", &["system:masters".to_owned()])?,
            kubelet_client: Some(authority.kubelet_client()?),
            server: authority.server(names)?,
            service_account_key_pem: generated_key()?.serialize_pem(),
            ca_pem: ca.cert_pem,
            ca_key_pem: Some(ca.key_pem),
        })
    }
}

/// The serving certificate of a component: what is in `dir` under `name`, else one that is made, signs itself, and is
/// kept there. Without a folder it is made anew at every start.
///
/// # Errors
/// The folder cannot be read or written.
pub fn self_signed(
    dir: Option<&Path>,
    name: &str,
    names: &[String],
    clock: &Clock,
    random: &Random,
) -> Result<CertifiedKey> {
    if let Some(dir) = dir
        && let Some(known) = load(dir, name)?
    {
        return Ok(known);
    }
    let now = OffsetDateTime::from_unix_timestamp(clock.now().as_second())?;
    let mut params = leaf_params(names, name, now, LEAF_DAYS, random)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = generated_key()?;
    let cert = params.self_signed(&key)?;
    let made = CertifiedKey { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
    if let Some(dir) = dir {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        store(dir, name, &made)?;
    }
    Ok(made)
}

/// The key that signs ServiceAccount tokens: what is in the file, else one that is made and kept there; without a file
/// one for this run.
///
/// # Errors
/// The file cannot be read or written.
pub fn service_account_key(path: Option<&Path>) -> Result<String> {
    let Some(path) = path else { return Ok(generated_key()?.serialize_pem()) };
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let pem = generated_key()?.serialize_pem();
            write_private(path, &pem)?;
            Ok(pem)
        }
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The first certificate in a PEM text.
pub fn der(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("not a PEM certificate: {error}"))
}

/// All certificates in a PEM text; none in an empty one.
///
/// # Errors
/// A text with something else and no certificate.
pub fn all_der(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| anyhow!("not a PEM certificate: {error}"))?;
    if all.is_empty() && !pem.trim().is_empty() {
        return Err(anyhow!("no PEM certificate in it"));
    }
    Ok(all)
}

/// The private key in a PEM text.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("not a PEM private key: {error}"))
}

impl Authority<'_> {
    fn params(&self, names: &[String], common_name: &str, days: i64) -> Result<CertificateParams> {
        leaf_params(names, common_name, self.now, days, self.random)
    }

    fn server(&self, names: &[String]) -> Result<CertifiedKey> {
        let mut params = self.params(names, "kube-apiserver", LEAF_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn client(&self, user: &str, groups: &[String]) -> Result<CertifiedKey> {
        let mut params = self.params(&[], user, LEAF_DAYS)?;
        if groups.len() > 1 {
            return Err(anyhow!("a certificate of this authority names one group at most"));
        }
        if let Some(group) = groups.first() {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn kubelet_client(&self) -> Result<CertifiedKey> {
        self.client(KUBELET_CLIENT.0, &[KUBELET_CLIENT.1.to_owned()])
    }

    fn front_proxy(&self) -> Result<CertifiedKey> {
        let mut params = self.params(&[], front_proxy::NAME, LEAF_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<CertifiedKey> {
        let key = match self.keys {
            Keys::Generated => generated_key()?,
            Keys::Drawn => drawn_key(self.random)?,
        };
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(CertifiedKey { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn leaf_params(
    names: &[String],
    common_name: &str,
    now: OffsetDateTime,
    days: i64,
    random: &Random,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = now - time::Duration::minutes(BACKDATE_MINUTES);
    params.not_after = now + time::Duration::days(days);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    let mut serial = [0; 16];
    random.bytes(&mut serial);
    serial[0] &= 0x7f; // a serial number is positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// An authority that the folder has, or a new one.
fn open_authority<'a>(
    dir: &Path,
    name: &str,
    common_name: &str,
    now: OffsetDateTime,
    random: &'a Random,
) -> Result<(CertifiedKey, Authority<'a>)> {
    let ca = match load(dir, name)? {
        Some(ca) => ca,
        None => {
            let ca = make_authority(common_name, now, random, &generated_key()?)?;
            store(dir, name, &ca)?;
            ca
        }
    };
    let key = KeyPair::from_pem(&ca.key_pem).with_context(|| damaged(dir, &format!("{name}.key")))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, key).with_context(|| damaged(dir, &format!("{name}.crt")))?;
    Ok((ca, Authority { issuer, now, random, keys: Keys::Generated }))
}

fn make_authority(common_name: &str, now: OffsetDateTime, random: &Random, key: &KeyPair) -> Result<CertifiedKey> {
    let mut params = leaf_params(&[], common_name, now, CA_DAYS, random)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let cert = params.self_signed(key)?;
    Ok(CertifiedKey { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// An ECDSA key from the operating system.
#[allow(clippy::disallowed_methods, reason = "simulated clusters draw the keys that objects hold")]
fn generated_key() -> Result<KeyPair> {
    Ok(KeyPair::generate()?)
}

/// An Ed25519 key from `random`.
fn drawn_key(random: &Random) -> Result<KeyPair> {
    /// What stands before the 32 bytes of the key in PKCS #8 (RFC 8410, section 7).
    const HEADER: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let mut document = [0; 48];
    document[..HEADER.len()].copy_from_slice(&HEADER);
    random.bytes(&mut document[HEADER.len()..]);
    Ok(KeyPair::try_from(&document[..])?)
}

fn days_left(cert_pem: &str, now: OffsetDateTime) -> i64 {
    let expiry = der(cert_pem).ok().and_then(|der| {
        let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(cert.validity().not_after.timestamp())
    });
    expiry.map_or(0, |at| (at - now.unix_timestamp()) / 86_400)
}

fn load(dir: &Path, name: &str) -> Result<Option<CertifiedKey>> {
    let read = |extension: &str| -> Result<Option<String>> {
        let path = file(dir, name, extension);
        match fs::read_to_string(&path) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    };
    match (read("crt")?, read("key")?) {
        (Some(cert_pem), Some(key_pem)) => Ok(Some(CertifiedKey { cert_pem, key_pem })),
        (None, None) => Ok(None),
        // Making a new authority would lock out every client of the old one.
        _ => Err(anyhow!("{} holds only one of {name}.crt and {name}.key", dir.display())),
    }
}

fn store(dir: &Path, name: &str, pair: &CertifiedKey) -> Result<()> {
    write_private(&file(dir, name, "key"), &pair.key_pem)?;
    let path = file(dir, name, "crt");
    fs::write(&path, &pair.cert_pem).with_context(|| format!("cannot write {}", path.display()))
}

fn file(dir: &Path, name: &str, extension: &str) -> PathBuf {
    dir.join(format!("{name}.{extension}"))
}

fn damaged(dir: &Path, name: &str) -> String {
    format!("{} is damaged", dir.join(name).display())
}

/// Writes a file that only its owner may read, where the platform knows such files.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
