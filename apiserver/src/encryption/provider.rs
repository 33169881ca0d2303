//! Ciphers, behind the prefixes that tell which of them wrote a value.
//!
//! ```text
//!  k8s:enc:aesgcm:v1:KEY:     nonce (12 bytes)   sealed, tag; bound to the store's key
//!  k8s:enc:aescbc:v1:KEY:     IV (16)            padded (PKCS #7)
//!  k8s:enc:secretbox:v1:KEY:  nonce (24)         sealed
//!  {"kind":…                                     identity: as it is
//! ```
//! Nonces are random, as in Kubernetes: a key of AES-GCM is good for some hundred million writes.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::consts::U12;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{AesGcm, KeyInit};
use crypto_secretbox::XSalsa20Poly1305;
use minik8s_clock::Random;

use super::PREFIX;

const GCM_NONCE_BYTES: usize = 12;
const CBC_IV_BYTES: usize = 16;
const SECRETBOX_NONCE_BYTES: usize = 24;

/// What a provider's element in the file is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// AES in Galois/Counter mode.
    AesGcm,
    /// AES in cipher block chaining mode, which does not notice a change of the stored bytes.
    AesCbc,
    /// XSalsa20 and Poly1305.
    Secretbox,
}

impl Algorithm {
    /// Its name, in files and prefixes.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::AesGcm => "aesgcm",
            Algorithm::AesCbc => "aescbc",
            Algorithm::Secretbox => "secretbox",
        }
    }

    /// Lengths that its keys may have, in bytes.
    pub fn key_lengths(self) -> &'static [usize] {
        match self {
            Algorithm::AesGcm | Algorithm::AesCbc => &[16, 24, 32],
            Algorithm::Secretbox => &[32],
        }
    }

    /// How an error names the provider that does not know a key.
    fn title(self) -> &'static str {
        match self {
            Algorithm::AesGcm | Algorithm::AesCbc => "AES",
            Algorithm::Secretbox => "Secretbox",
        }
    }
}

/// One key with its cipher.
enum Cipher {
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
    /// Its mode takes the key anew for each value.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// A named key.
struct Key {
    /// `NAME:`
    prefix: String,
    cipher: Cipher,
}

/// One element of `providers`.
pub struct Provider(Kind);

enum Kind {
    Identity,
    Keys { algorithm: Algorithm, prefix: String, keys: Vec<Key> },
}

impl Provider {
    /// The one that leaves values as they are.
    pub fn identity() -> Provider {
        Provider(Kind::Identity)
    }

    /// A cipher with named keys, of which the first writes. A key must have one of the lengths that the algorithm takes.
    pub fn of_keys(algorithm: Algorithm, keys: Vec<(String, Vec<u8>)>) -> Option<Provider> {
        let prefix = format!("{PREFIX}{}:v1:", algorithm.name());
        let keys = keys
            .into_iter()
            .map(|(name, secret)| Some(Key { prefix: format!("{name}:"), cipher: Cipher::new(algorithm, secret)? }))
            .collect::<Option<Vec<_>>>()?;
        (!keys.is_empty()).then_some(Provider(Kind::Keys { algorithm, prefix, keys }))
    }

    fn write(&self, plain: &[u8], context: &[u8], random: &Random) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Identity => None,
            Kind::Keys { prefix, keys, .. } => {
                let key = &keys[0];
                let mut out = [prefix.as_bytes(), key.prefix.as_bytes()].concat();
                key.cipher.seal(plain, context, random, &mut out);
                Some(out)
            }
        }
    }

    /// `None`: another provider wrote this.
    fn read(&self, stored: &[u8], context: &[u8]) -> Option<Result<Read, String>> {
        match &self.0 {
            Kind::Identity if stored.starts_with(PREFIX.as_bytes()) => None,
            Kind::Identity => Some(Ok(Read { plain: None, stale: false })),
            Kind::Keys { algorithm, prefix, keys } => {
                let rest = stored.strip_prefix(prefix.as_bytes())?;
                let mut failed = None;
                for (rank, key) in keys.iter().enumerate() {
                    let Some(sealed) = rest.strip_prefix(key.prefix.as_bytes()) else { continue };
                    match key.cipher.open(sealed, context) {
                        Ok(plain) => return Some(Ok(Read { plain: Some(plain), stale: rank > 0 })),
                        // Two keys may have the same name, as in Kubernetes.
                        Err(error) => failed = Some(error),
                    }
                }
                let unknown =
                    || format!("no matching key was found for the provided {} transformer", algorithm.title());
                Some(Err(failed.unwrap_or_else(unknown)))
            }
        }
    }
}

/// What a value was, and whether it would be written otherwise now.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// The plain value; `None` where it is stored as it is.
    pub plain: Option<Vec<u8>>,
    /// Another provider or key than the first wrote it.
    pub stale: bool,
}

/// The providers of a resource: the first writes, all read.
pub struct Providers(Vec<Provider>);

impl Providers {
    /// In the order of the file; there must be one.
    pub fn new(providers: Vec<Provider>) -> Providers {
        assert!(!providers.is_empty(), "a resource has a provider that writes it");
        Providers(providers)
    }

    /// What is stored for a value; `None` for the value as it is. `context`: the store's key, to which some ciphers bind it.
    pub fn write(&self, plain: &[u8], context: &str, random: &Random) -> Option<Vec<u8>> {
        self.0[0].write(plain, context.as_bytes(), random)
    }

    /// What a stored value is. The error says why none of the providers can tell.
    pub fn read(&self, stored: &[u8], context: &str) -> Result<Read, String> {
        let mut errors = Vec::new();
        for (rank, provider) in self.0.iter().enumerate() {
            match provider.read(stored, context.as_bytes()) {
                None => {}
                Some(Ok(read)) => return Ok(Read { stale: read.stale || rank > 0, ..read }),
                Some(Err(error)) => errors.push(error),
            }
        }
        Err(if errors.is_empty() { "no matching prefix found".to_owned() } else { errors.join(", ") })
    }
}

impl Cipher {
    fn new(algorithm: Algorithm, key: Vec<u8>) -> Option<Cipher> {
        match (algorithm, key.len()) {
            (Algorithm::AesGcm, 16) => AesGcm::new_from_slice(&key).ok().map(Box::new).map(Cipher::Gcm128),
            (Algorithm::AesGcm, 24) => AesGcm::new_from_slice(&key).ok().map(Box::new).map(Cipher::Gcm192),
            (Algorithm::AesGcm, _) => AesGcm::new_from_slice(&key).ok().map(Box::new).map(Cipher::Gcm256),
            (Algorithm::AesCbc, 16 | 24 | 32) => Some(Cipher::Cbc(key)),
            (Algorithm::AesCbc, _) => None,
            (Algorithm::Secretbox, _) => {
                XSalsa20Poly1305::new_from_slice(&key).ok().map(Box::new).map(Cipher::Secretbox)
            }
        }
    }

    /// Appends the nonce and what is sealed with it.
    fn seal(&self, plain: &[u8], context: &[u8], random: &Random, out: &mut Vec<u8>) {
        let nonce_bytes = match self {
            Cipher::Cbc(_) => CBC_IV_BYTES,
            Cipher::Secretbox(_) => SECRETBOX_NONCE_BYTES,
            _ => GCM_NONCE_BYTES,
        };
        let mut nonce = vec![0; nonce_bytes];
        random.bytes(&mut nonce);
        let payload = Payload { msg: plain, aad: context };
        let gcm = aes_gcm::Nonce::from_slice;
        let sealed = match self {
            Cipher::Gcm128(cipher) => cipher.encrypt(gcm(&nonce), payload),
            Cipher::Gcm192(cipher) => cipher.encrypt(gcm(&nonce), payload),
            Cipher::Gcm256(cipher) => cipher.encrypt(gcm(&nonce), payload),
            Cipher::Secretbox(cipher) => cipher.encrypt(crypto_secretbox::Nonce::from_slice(&nonce), plain),
            Cipher::Cbc(key) => Ok(cbc_encrypt(key, &nonce, plain)),
        };
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed.expect("a transaction is far smaller than what a cipher takes"));
    }

    fn open(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        const SHORT: &str = "the stored data was shorter than the required size";
        let split = |bytes: usize| stored.split_at_checked(bytes).ok_or_else(|| SHORT.to_owned());
        let failed = |_| "cipher: message authentication failed".to_owned();
        let gcm = |sealed| Payload { msg: sealed, aad: context };
        match self {
            Cipher::Gcm128(cipher) => {
                let (nonce, sealed) = split(GCM_NONCE_BYTES)?;
                cipher.decrypt(aes_gcm::Nonce::from_slice(nonce), gcm(sealed)).map_err(failed)
            }
            Cipher::Gcm192(cipher) => {
                let (nonce, sealed) = split(GCM_NONCE_BYTES)?;
                cipher.decrypt(aes_gcm::Nonce::from_slice(nonce), gcm(sealed)).map_err(failed)
            }
            Cipher::Gcm256(cipher) => {
                let (nonce, sealed) = split(GCM_NONCE_BYTES)?;
                cipher.decrypt(aes_gcm::Nonce::from_slice(nonce), gcm(sealed)).map_err(failed)
            }
            Cipher::Secretbox(cipher) => {
                let (nonce, sealed) = split(SECRETBOX_NONCE_BYTES)?;
                let opened = cipher.decrypt(crypto_secretbox::Nonce::from_slice(nonce), sealed);
                opened.map_err(|_| "output array was not large enough for encryption".to_owned())
            }
            Cipher::Cbc(key) => {
                let (iv, sealed) = split(CBC_IV_BYTES)?;
                if sealed.len() % CBC_IV_BYTES != 0 {
                    return Err("the stored data is not a multiple of the block size".to_owned());
                }
                cbc_decrypt(key, iv, sealed).ok_or_else(|| "invalid padding on input".to_owned())
            }
        }
    }
}

/// The key has one of the three lengths, the IV that of a block: both were checked.
fn cbc_encrypt(key: &[u8], iv: &[u8], plain: &[u8]) -> Vec<u8> {
    const CHECKED: &str = "key and IV have their lengths";
    match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv).expect(CHECKED).encrypt_padded_vec_mut::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv).expect(CHECKED).encrypt_padded_vec_mut::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv).expect(CHECKED).encrypt_padded_vec_mut::<Pkcs7>(plain),
    }
}

fn cbc_decrypt(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let opened = match key.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
    };
    opened.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/core/secrets/default/s";
    const PLAIN: &[u8] = br#"{"kind":"Secret","data":{"a":"aHVudGVyMg=="}}"#;

    fn provider(algorithm: Algorithm, keys: &[(&str, u8, usize)]) -> Provider {
        let keys = keys.iter().map(|(name, byte, length)| ((*name).to_owned(), vec![*byte; *length])).collect();
        Provider::of_keys(algorithm, keys).expect("keys of a good length")
    }

    #[test]
    fn what_is_written_is_unreadable_and_reads_back() {
        let random = Random::seeded(1);
        for algorithm in [Algorithm::AesGcm, Algorithm::AesCbc, Algorithm::Secretbox] {
            for length in algorithm.key_lengths() {
                let providers = Providers::new(vec![provider(algorithm, &[("one", 1, *length)])]);
                let stored = providers.write(PLAIN, KEY, &random).expect("encrypted");
                let prefix = format!("k8s:enc:{}:v1:one:", algorithm.name());
                assert!(stored.starts_with(prefix.as_bytes()), "{prefix}");
                assert!(!stored.windows(8).any(|bytes| bytes == b"aHVudGVy"), "{prefix}");
                assert_ne!(Some(&stored), providers.write(PLAIN, KEY, &random).as_ref(), "a nonce is used once");
                assert_eq!(providers.read(&stored, KEY), Ok(Read { plain: Some(PLAIN.to_vec()), stale: false }));
                let mut changed = stored.clone();
                *changed.last_mut().expect("a byte") ^= 1;
                if algorithm != Algorithm::AesCbc {
                    assert!(providers.read(&changed, KEY).is_err(), "{prefix} notices a change");
                }
                assert!(providers.read(&stored[..prefix.len() + 4], KEY).is_err(), "{prefix} is cut off");
            }
        }
    }

    #[test]
    fn a_value_cannot_be_moved_to_another_name() {
        let providers = Providers::new(vec![provider(Algorithm::AesGcm, &[("one", 1, 32)])]);
        let stored = providers.write(PLAIN, KEY, &Random::seeded(1)).expect("encrypted");
        let error = providers.read(&stored, "/registry/core/secrets/default/t").expect_err("another name");
        assert_eq!(error, "cipher: message authentication failed");
    }

    #[test]
    fn what_the_first_key_did_not_write_is_stale() {
        let random = Random::seeded(1);
        let old = Providers::new(vec![provider(Algorithm::AesCbc, &[("old", 1, 16)])]);
        let new = Providers::new(vec![
            provider(Algorithm::AesGcm, &[("new", 3, 32), ("mid", 2, 32)]),
            provider(Algorithm::AesCbc, &[("old", 1, 16)]),
            Provider::identity(),
        ]);
        let middle = Providers::new(vec![provider(Algorithm::AesGcm, &[("mid", 2, 32)])]);
        let written = |providers: &Providers| providers.write(PLAIN, KEY, &random).expect("encrypted");
        for (stored, stale) in [(written(&new), false), (written(&middle), true), (written(&old), true)] {
            assert_eq!(new.read(&stored, KEY), Ok(Read { plain: Some(PLAIN.to_vec()), stale }));
        }
        assert_eq!(new.read(PLAIN, KEY), Ok(Read { plain: None, stale: true }));
        let refused = |providers: &Providers, stored: &[u8]| providers.read(stored, KEY).expect_err("unreadable");
        assert_eq!(refused(&old, PLAIN), "no matching prefix found");
        assert_eq!(refused(&middle, &written(&new)), "no matching key was found for the provided AES transformer");
        let decrypted = Providers::new(vec![Provider::identity(), provider(Algorithm::AesGcm, &[("new", 3, 32)])]);
        assert_eq!(decrypted.read(&written(&new), KEY), Ok(Read { plain: Some(PLAIN.to_vec()), stale: true }));
        assert_eq!(decrypted.write(PLAIN, KEY, &random), None);
    }
}
