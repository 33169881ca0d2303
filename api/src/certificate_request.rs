//! PKCS #10 certificate requests, as CertificateSigningRequests carry them: PEM around DER.
//!
//! Who approves, who signs, who admits and who validates must see the same names in one request, so it is read in one
//! place. Where a subject names an attribute twice, the last common name and all organizations count, as Go's
//! `crypto/x509/pkix` has it. (Kubernetes: `pkg/apis/certificates/helpers.go`.)

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The only PEM block a request may be.
const BLOCK: &str = "CERTIFICATE REQUEST";
/// The only PEM block a certificate may be.
const CERTIFICATE_BLOCK: &str = "CERTIFICATE";

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject.
    pub subject: Subject,
    /// DNS names among the subject's alternative names.
    pub dns_names: Vec<String>,
    /// Addresses among them.
    pub ip_addresses: Vec<IpAddr>,
    /// Mail addresses among them.
    pub email_addresses: Vec<String>,
    /// URIs among them.
    pub uris: Vec<String>,
    /// The DER encoding of the SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    der: Vec<u8>,
}

/// A distinguished name: what of it gets into certificates, in the order in which it is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// C
    pub country: Vec<String>,
    /// O: to the API server, groups.
    pub organization: Vec<String>,
    /// OU
    pub organizational_unit: Vec<String>,
    /// L
    pub locality: Vec<String>,
    /// ST
    pub province: Vec<String>,
    /// CN: to the API server, the user.
    pub common_name: String,
    /// The attribute `serialNumber`, which is not the certificate's.
    pub serial_number: String,
}

impl CertificateRequest {
    /// Reads `spec.request` as it stands in JSON: PEM in base64.
    pub fn from_base64(text: &str) -> Result<CertificateRequest, String> {
        CertificateRequest::from_pem(&BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?)
    }

    /// Reads the first PEM block of a text, which must be a request.
    pub fn from_pem(pem: &[u8]) -> Result<CertificateRequest, String> {
        let first = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
        let block = first.filter(|block| block.label == BLOCK);
        let block = block.ok_or_else(|| format!("PEM block type must be {BLOCK}"))?;
        CertificateRequest::from_der(block.contents)
    }

    fn from_der(der: Vec<u8>) -> Result<CertificateRequest, String> {
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| malformed(&error.to_string()))?;
        if !rest.is_empty() {
            return Err("asn1: syntax error: trailing data".to_owned());
        }
        let info = &request.certification_request_info;
        let mut read = CertificateRequest {
            subject: Subject::of(&info.subject)?,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            uris: Vec::new(),
            public_key: info.subject_pki.raw.to_vec(),
            der: Vec::new(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        read.add_name(name)?;
                    }
                }
                ParsedExtension::ParseError { error } => return Err(malformed(&error.to_string())),
                _ => {}
            }
        }
        read.der = der;
        Ok(read)
    }

    /// Names of other forms are left out of certificates, as Go leaves them out.
    fn add_name(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        let ascii = |name: &str, what: &str| match name.is_ascii() {
            true => Ok(name.to_owned()),
            false => Err(format!("x509: SAN {what} is malformed")),
        };
        match name {
            GeneralName::DNSName(name) => self.dns_names.push(ascii(name, "dNSName")?),
            GeneralName::RFC822Name(name) => self.email_addresses.push(ascii(name, "rfc822Name")?),
            GeneralName::URI(name) => self.uris.push(ascii(name, "uniformResourceIdentifier")?),
            GeneralName::IPAddress(bytes) => self.ip_addresses.push(
                <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                    .map_err(|_| format!("x509: cannot parse IP address of length {}", bytes.len()))?,
            ),
            GeneralName::Invalid(tag, _) => return Err(malformed(&format!("subject alternative name {}", tag.0))),
            _ => {}
        }
        Ok(())
    }

    /// Whether who made the request holds the private key to the public key in it.
    pub fn check_signature(&self) -> Result<(), String> {
        let (_, request) =
            X509CertificationRequest::from_der(&self.der).map_err(|error| malformed(&error.to_string()))?;
        request.verify_signature().map_err(|error| match error {
            X509Error::SignatureUnsupportedAlgorithm => {
                "x509: cannot verify signature: algorithm unimplemented".to_owned()
            }
            _ => match request.certification_request_info.subject_pki.parsed() {
                Ok(PublicKey::RSA(_)) => "crypto/rsa: verification error".to_owned(),
                Ok(PublicKey::EC(_)) => "x509: ECDSA verification failure".to_owned(),
                _ => "x509: Ed25519 verification failure".to_owned(),
            },
        })
    }
}

impl Subject {
    /// What a name says; an attribute that is no text is an error, for a signer must not drop what an approver read.
    fn of(name: &X509Name<'_>) -> Result<Subject, String> {
        fn all<'a, 'b: 'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>) -> Result<Vec<String>, String> {
            values
                .map(|value| value.as_str().map(str::to_owned).map_err(|error| malformed(&error.to_string())))
                .collect()
        }
        let serial = x509_parser::oid_registry::OID_X509_SERIALNUMBER;
        Ok(Subject {
            country: all(name.iter_country())?,
            organization: all(name.iter_organization())?,
            organizational_unit: all(name.iter_organizational_unit())?,
            locality: all(name.iter_locality())?,
            province: all(name.iter_state_or_province())?,
            common_name: all(name.iter_common_name())?.pop().unwrap_or_default(),
            serial_number: all(name.iter_by_oid(&serial))?.pop().unwrap_or_default(),
        })
    }
}

fn malformed(detail: &str) -> String {
    format!("asn1: structure error: {detail}")
}

/// Whether a text is one or more certificates in PEM and nothing but them (`status.certificate`).
pub fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else { break };
        if block.label != CERTIFICATE_BLOCK {
            return Err(format!("only {CERTIFICATE_BLOCK} PEM blocks are allowed, found {:?}", block.label));
        }
        block.parse_x509().map_err(|error| malformed(&error.to_string()))?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err(format!("must contain at least one {CERTIFICATE_BLOCK} PEM block"));
    }
    Ok(())
}

/// When the first certificate of a PEM text ends, in seconds since 1970.
pub fn not_after(pem: &[u8]) -> Option<i64> {
    let block = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "keys of tests may come from anywhere")]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        change(&mut params);
        params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request").pem().expect("PEM")
    }

    #[test]
    fn a_request_says_what_it_asks_for() {
        let pem = format!("made by hand\n{}", request(|_| {}));
        let read = CertificateRequest::from_pem(pem.as_bytes()).expect("a request");
        assert_eq!(
            (read.subject.common_name.as_str(), &read.subject.organization[..]),
            ("ann", &["dev".to_owned()][..])
        );
        assert_eq!(
            (&read.dns_names[..], &read.ip_addresses[..]),
            (&["a.example".to_owned()][..], &["10.0.0.1".parse().expect("an address")][..])
        );
        assert_eq!(read.check_signature(), Ok(()));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let words = "PEM block type must be CERTIFICATE REQUEST";
        assert_eq!(CertificateRequest::from_base64("eA==").unwrap_err(), words);
        let own = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
        assert_eq!(CertificateRequest::from_pem(own.cert.pem().as_bytes()).unwrap_err(), words);
        assert_eq!(check_certificates(own.cert.pem().as_bytes()), Ok(()));
        assert_eq!(check_certificates(b"x").unwrap_err(), "must contain at least one CERTIFICATE PEM block");
        let found = r#"only CERTIFICATE PEM blocks are allowed, found "CERTIFICATE REQUEST""#;
        assert_eq!(check_certificates(request(|_| {}).as_bytes()).unwrap_err(), found);
    }

    #[test]
    fn a_request_that_was_changed_is_no_longer_signed() {
        let pem = request(|_| {});
        let mut der = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a block").expect("PEM").contents;
        let at = der.windows(3).position(|window| window == b"ann").expect("the name");
        der[at..at + 3].copy_from_slice(b"bob");
        let read = CertificateRequest::from_der(der).expect("a request");
        assert_eq!(read.subject.common_name, "bob");
        assert_eq!(read.check_signature().unwrap_err(), "x509: ECDSA verification failure");
    }
}
