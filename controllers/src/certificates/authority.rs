//! The certificate authority as the signer has it: a certificate, its key, and how a certificate is made of a request.
//!
//! (Kubernetes: `pkg/controller/certificates/authority`, and what Go's `x509.CreateCertificate` makes of its template.)

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use minik8s_api::certificate_request::{CertificateRequest, Subject};
use minik8s_clock::Random;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

/// The longest life of a certificate, unless operators say another: a year.
pub const SIGNING_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The shortest one.
const MIN_SECONDS: i64 = 10 * 60;
/// Certificates are valid from a little before they are made, for clients whose clocks are behind.
const BACKDATE_SECONDS: i64 = 5 * 60;
/// The life of a certificate shorter than this is not shortened by its being backdated.
const SHORT_SECONDS: i64 = 8 * 60 * 60;
/// Times from here on are written in the longer form: the start of 2050 (RFC 5280, 4.1.2.5).
const GENERALIZED_FROM: i64 = 2_524_608_000;
const SERIAL_BYTES: usize = 16;
const PEM_COLUMNS: usize = 64;

/// Why an authority cannot be used, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate.
    #[error("the certificate of the authority cannot be read: {0}")]
    Certificate(String),
    /// The private key.
    #[error("the key of the authority cannot be used: {0}")]
    Key(String),
    /// The key is not the certificate's.
    #[error("the key of the authority does not match its certificate")]
    Mismatch,
    /// The certificate of the authority is over.
    #[error("the signer has expired: NotAfter={0}")]
    Expired(String),
    /// Usages that no certificate has.
    #[error("unrecognized usage values: {0:?}")]
    Usage(Vec<String>),
    /// The request is not signed by its own key.
    #[error("unable to verify certificate request signature: {0}")]
    Request(String),
}

/// A certificate authority.
pub struct CertificateAuthority {
    /// The subject, in DER, as certificates name their issuer.
    name: Vec<u8>,
    /// How its key is identified in what it signs.
    key_id: Option<Vec<u8>>,
    /// In seconds since 1970.
    not_after: i64,
    /// The longest life of what it signs.
    longest_seconds: i64,
    key: KeyPair,
    algorithm: Algorithm,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The signature algorithm, as certificates name it.
#[derive(Clone, Copy)]
struct Algorithm {
    oid: &'static [u64],
    /// RSA has a NULL where the others have nothing.
    null: bool,
}

/// From when and to when a certificate is valid, in seconds since 1970.
type Validity = (i64, i64);

impl CertificateAuthority {
    /// Reads the certificate and the private key of an authority.
    pub fn from_pem(certificate: &str, key: &str) -> Result<CertificateAuthority, AuthorityError> {
        let bad = |error: String| AuthorityError::Certificate(error);
        let block = Pem::iter_from_buffer(certificate.as_bytes()).next();
        let block = block.ok_or_else(|| bad("no PEM block".to_owned()))?.map_err(|error| bad(error.to_string()))?;
        let parsed = block.parse_x509().map_err(|error| bad(error.to_string()))?;
        let key = key_pair(key)?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(AuthorityError::Mismatch);
        }
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(CertificateAuthority {
            name: parsed.subject().as_raw().to_vec(),
            key_id,
            not_after: parsed.validity().not_after.timestamp(),
            longest_seconds: seconds(SIGNING_DURATION),
            algorithm: algorithm_of(&key)?,
            key,
        })
    }

    /// The same authority, whose certificates live for so long at most (`--cluster-signing-duration`).
    pub fn signing_for(self, longest: Duration) -> CertificateAuthority {
        CertificateAuthority { longest_seconds: seconds(longest), ..self }
    }

    /// Makes a certificate (PEM) of a request: its subject, names and key, for these usages. It lives for
    /// `expiration_seconds` from `now` (seconds since 1970), within bounds, and never longer than the authority.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        expiration_seconds: Option<i32>,
        now: i64,
        random: &Random,
    ) -> Result<String, AuthorityError> {
        request.check_signature().map_err(AuthorityError::Request)?;
        let usages = Usages::of(usages)?;
        let validity = self.validity(expiration_seconds, now)?;
        let mut serial = [0; SERIAL_BYTES];
        random.bytes(&mut serial);
        serial[0] &= 0x7f; // a serial number is positive
        let body = yasna::construct_der(|writer| self.write_body(writer, request, &usages, validity, &serial));
        let signature = self.key.sign(&body).map_err(|error| AuthorityError::Key(error.to_string()))?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                self.algorithm.write(writer.next());
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&der))
    }

    fn validity(&self, expiration_seconds: Option<i32>, now: i64) -> Result<Validity, AuthorityError> {
        let asked = expiration_seconds.map_or(self.longest_seconds, i64::from);
        let life = asked.max(MIN_SECONDS.min(self.longest_seconds)).min(self.longest_seconds);
        let (from, to) =
            (now - BACKDATE_SECONDS, now + if life < SHORT_SECONDS { life } else { life - BACKDATE_SECONDS });
        if now >= self.not_after {
            let at = k8s_openapi::jiff::Timestamp::from_second(self.not_after);
            return Err(AuthorityError::Expired(at.map(|at| at.to_string()).unwrap_or_default()));
        }
        Ok((from, to.min(self.not_after)))
    }

    /// `TBSCertificate` (RFC 5280, 4.1.2).
    fn write_body(
        &self,
        writer: DERWriter<'_>,
        request: &CertificateRequest,
        usages: &Usages,
        (from, to): Validity,
        serial: &[u8],
    ) {
        const VERSION_3: i64 = 2;
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_i64(VERSION_3));
            writer.next().write_bigint_bytes(serial, true);
            self.algorithm.write(writer.next());
            writer.next().write_der(&self.name);
            writer.next().write_sequence(|writer| {
                write_time(writer.next(), from);
                write_time(writer.next(), to);
            });
            write_subject(writer.next(), &request.subject);
            writer.next().write_der(&request.public_key);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| self.write_extensions(writer, request, usages));
            });
        });
    }

    fn write_extensions(&self, writer: &mut DERWriterSeq<'_>, request: &CertificateRequest, usages: &Usages) {
        if usages.key != 0 {
            extension(writer, KEY_USAGE, true, |writer| usages.write_key(writer));
        }
        if !usages.extended.is_empty() {
            extension(writer, EXTENDED_KEY_USAGE, false, |writer| {
                writer.write_sequence(|writer| {
                    for oid in &usages.extended {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    }
                });
            });
        }
        // No certificate that comes of a request is an authority, whatever it asks for.
        extension(writer, BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| {}));
        if let Some(id) = &self.key_id {
            extension(writer, AUTHORITY_KEY_ID, false, |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
                });
            });
        }
        if has_names(request) {
            let only_names = request.subject == Subject::default();
            extension(writer, SUBJECT_ALT_NAME, only_names, |writer| write_names(writer, request));
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2)
}

/// Reads a private key in the forms that `openssl` writes: PKCS#8, PKCS#1 (RSA), SEC 1 (EC).
fn key_pair(pem: &str) -> Result<KeyPair, AuthorityError> {
    const RSA: &[u64] = &[1, 2, 840, 113549, 1, 1, 1];
    const EC: &[u64] = &[1, 2, 840, 10045, 2, 1];
    const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
    const P384: &[u64] = &[1, 3, 132, 0, 34];
    let bad = |error: String| AuthorityError::Key(error);
    // Before a key there may be the parameters of its curve.
    let is_key = |block: &Pem| block.label.ends_with("PRIVATE KEY");
    let block = Pem::iter_from_buffer(pem.as_bytes()).find(|block| block.as_ref().is_ok_and(is_key) || block.is_err());
    let block = block.ok_or_else(|| bad("no private key in PEM form".to_owned()))?;
    let block = block.map_err(|error| bad(error.to_string()))?;
    let read = |der: &[u8]| KeyPair::try_from(der).map_err(|error| bad(error.to_string()));
    let key = block.contents.as_slice();
    match block.label.as_str() {
        "RSA PRIVATE KEY" => read(&pkcs8(RSA, None, key)),
        "EC PRIVATE KEY" => read(&pkcs8(EC, Some(P256), key)).or_else(|_| read(&pkcs8(EC, Some(P384), key))),
        _ => read(key),
    }
}

/// `PrivateKeyInfo` (RFC 5208): the key, and what it is a key of. Without a curve the parameters are NULL.
fn pkcs8(algorithm: &[u64], curve: Option<&[u64]>, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_i64(0);
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(algorithm));
                match curve {
                    Some(curve) => writer.next().write_oid(&ObjectIdentifier::from_slice(curve)),
                    None => writer.next().write_null(),
                }
            });
            writer.next().write_bytes(key);
        });
    })
}

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

fn algorithm_of(key: &KeyPair) -> Result<Algorithm, AuthorityError> {
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm { oid: &[1, 2, 840, 10045, 4, 3, 2], null: false }),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm { oid: &[1, 2, 840, 10045, 4, 3, 3], null: false }),
        (&rcgen::PKCS_ED25519, Algorithm { oid: &[1, 3, 101, 112], null: false }),
        (&rcgen::PKCS_RSA_SHA256, Algorithm { oid: &[1, 2, 840, 113549, 1, 1, 11], null: true }),
    ];
    let found = known.into_iter().find(|(algorithm, _)| *algorithm == key.algorithm());
    found
        .map(|(_, algorithm)| algorithm)
        .ok_or_else(|| AuthorityError::Key(format!("{:?} is not supported", key.algorithm())))
}

impl Algorithm {
    fn write(self, writer: DERWriter<'_>) {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(self.oid));
            if self.null {
                writer.next().write_null();
            }
        });
    }
}

/// What a certificate may be used for.
#[derive(Debug, PartialEq, Eq)]
struct Usages {
    /// Bits of `KeyUsage`: the first is `digitalSignature` (RFC 5280, 4.2.1.3).
    key: u16,
    /// Object identifiers of `ExtKeyUsage`.
    extended: Vec<&'static [u64]>,
}

impl Usages {
    /// The usages of a request, in Kubernetes' words (`pkg/controller/certificates/authority/policies.go`).
    fn of(words: &[String]) -> Result<Usages, AuthorityError> {
        let (mut usages, mut unknown) = (Usages { key: 0, extended: Vec::new() }, Vec::new());
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.sort_unstable();
        for word in words {
            let bit = |place: u16| 1 << place;
            match word {
                "signing" | "digital signature" => usages.key |= bit(0),
                "content commitment" => usages.key |= bit(1),
                "key encipherment" => usages.key |= bit(2),
                "data encipherment" => usages.key |= bit(3),
                "key agreement" => usages.key |= bit(4),
                "cert sign" => usages.key |= bit(5),
                "crl sign" => usages.key |= bit(6),
                "encipher only" => usages.key |= bit(7),
                "decipher only" => usages.key |= bit(8),
                _ => match extended_usage(word) {
                    Some(oid) if usages.extended.contains(&oid) => {}
                    Some(oid) => usages.extended.push(oid),
                    None => unknown.push(word.to_owned()),
                },
            }
        }
        if unknown.is_empty() { Ok(usages) } else { Err(AuthorityError::Usage(unknown)) }
    }

    /// A bit string without the zeros at its end.
    fn write_key(&self, writer: DERWriter<'_>) {
        const BITS: usize = 16;
        let bytes = self.key.reverse_bits().to_be_bytes();
        let length = BITS - self.key.leading_zeros() as usize;
        writer.write_bitvec_bytes(&bytes[..length.div_ceil(8)], length);
    }
}

fn extended_usage(word: &str) -> Option<&'static [u64]> {
    Some(match word {
        "any" => &[2, 5, 29, 37, 0],
        "server auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
        "client auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        "code signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
        "email protection" | "s/mime" => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
        "ipsec end system" => &[1, 3, 6, 1, 5, 5, 7, 3, 5],
        "ipsec tunnel" => &[1, 3, 6, 1, 5, 5, 7, 3, 6],
        "ipsec user" => &[1, 3, 6, 1, 5, 5, 7, 3, 7],
        "timestamping" => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
        "ocsp signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
        "microsoft sgc" => &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
        "netscape sgc" => &[2, 16, 840, 1, 113730, 4, 1],
        _ => return None,
    })
}

fn extension(writer: &mut DERWriterSeq<'_>, oid: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    let value = yasna::construct_der(value);
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&value);
    });
}

fn write_time(writer: DERWriter<'_>, seconds: i64) {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a year that certificates can name");
    if seconds < GENERALIZED_FROM {
        writer.write_utctime(&UTCTime::from_datetime(at));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(at));
    }
}

/// A name as Go writes it: values of one attribute are one set.
fn write_subject(writer: DERWriter<'_>, subject: &Subject) {
    let one = |text: &String| if text.is_empty() { Vec::new() } else { vec![text.clone()] };
    let (common_name, serial_number) = (one(&subject.common_name), one(&subject.serial_number));
    let attributes: [(&[u64], &Vec<String>); 7] = [
        (&[2, 5, 4, 6], &subject.country),
        (&[2, 5, 4, 10], &subject.organization),
        (&[2, 5, 4, 11], &subject.organizational_unit),
        (&[2, 5, 4, 7], &subject.locality),
        (&[2, 5, 4, 8], &subject.province),
        (&[2, 5, 4, 3], &common_name),
        (&[2, 5, 4, 5], &serial_number),
    ];
    writer.write_sequence(|writer| {
        for (oid, values) in attributes.into_iter().filter(|(_, values)| !values.is_empty()) {
            let oid = ObjectIdentifier::from_slice(oid);
            writer.next().write_set_of(|writer| {
                for value in values {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&oid);
                        writer.next().write_utf8_string(value);
                    });
                }
            });
        }
    });
}

fn has_names(request: &CertificateRequest) -> bool {
    let CertificateRequest { dns_names, ip_addresses, email_addresses, uris, .. } = request;
    !(dns_names.is_empty() && ip_addresses.is_empty() && email_addresses.is_empty() && uris.is_empty())
}

/// `GeneralNames` (RFC 5280, 4.2.1.6).
fn write_names(writer: DERWriter<'_>, request: &CertificateRequest) {
    let texts = [(2, &request.dns_names), (1, &request.email_addresses), (6, &request.uris)];
    writer.write_sequence(|writer| {
        for (form, names) in texts {
            for name in names {
                writer.next().write_tagged_implicit(Tag::context(form), |writer| writer.write_ia5_string(name));
            }
        }
        for address in &request.ip_addresses {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            writer.next().write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&bytes));
        }
    });
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(PEM_COLUMNS) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}
