//! Keys: ECDSA on P-256 and Ed25519. Public ones are PEM (RFC 7468, SubjectPublicKeyInfo); private ones are what cosign writes: a PEM
//! block of JSON that says how PKCS #8 bytes are encrypted (scrypt and NaCl's secretbox).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde::{Deserialize, Serialize};

use super::Error;

/// Largest key file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;
/// The name that every version of cosign and of podman reads.
const LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";
/// What newer versions of cosign write.
const NEW_LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// log2 of scrypt's cost: the value that every version of those reads.
const LOG_N: u8 = 15;
/// Highest cost that is accepted: 2^20 blocks of 8 * 128 bytes are a GiB.
const LOG_N_MAX: u8 = 20;

/// What signatures are checked with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// Its file, or where it stands: for messages.
    pub name: String,
    kind: Public,
}

#[derive(Debug, Clone)]
enum Public {
    EcdsaP256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl PublicKey {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        Self::parse(&read(path)?, &name)
    }

    /// Reads PEM text.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(pem: &str, name: &str) -> Result<Self, Error> {
        let pem = pem.trim();
        let ecdsa = p256::ecdsa::VerifyingKey::from_public_key_pem(pem).map(Public::EcdsaP256);
        let kind = ecdsa.or_else(|_| ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map(Public::Ed25519));
        let problem = "it is no PEM block PUBLIC KEY of an ECDSA P-256 or Ed25519 key";
        Ok(Self { name: name.to_owned(), kind: kind.map_err(|_| Error::key(name, problem))? })
    }

    /// Whether the signature is one of this key over the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Public::EcdsaP256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }

    /// As PEM.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn to_pem(&self) -> Result<String, Error> {
        let pem = match &self.kind {
            Public::EcdsaP256(key) => key.to_public_key_pem(LineEnding::LF),
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        };
        pem.map_err(|e| Error::key(&self.name, e))
    }
}

/// What signatures are made with. Never printed.
pub enum PrivateKey {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256(p256::ecdsa::SigningKey),
    /// Ed25519.
    Ed25519(ed25519_dalek::SigningKey),
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// What cosign makes.
    #[default]
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

/// How the bytes of a private key are encrypted.
#[derive(Serialize, Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Cost,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Cost {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl PrivateKey {
    /// Makes a new key.
    #[must_use]
    pub fn generate(kind: Kind) -> Self {
        loop {
            let bytes: [u8; 32] = rand::random();
            match kind {
                Kind::Ed25519 => return Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&bytes)),
                // Almost every number is a key; the others are above the curve's order.
                Kind::EcdsaP256 => {
                    if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&bytes) {
                        return Self::EcdsaP256(key);
                    }
                }
            }
        }
    }

    /// Reads and decrypts a file.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn load(path: &Path, passphrase: &[u8]) -> Result<Self, Error> {
        Self::parse(&read(path)?, &path.display().to_string(), passphrase)
    }

    /// Decrypts a PEM block of cosign's private keys; errors call it by the name.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(text: &str, name: &str, passphrase: &[u8]) -> Result<Self, Error> {
        let fail = |problem: &str| Error::key(name, problem);
        let json = unwrap_pem(text).ok_or_else(|| fail("it is no PEM block of cosign's private keys"))?;
        let sealed: Encrypted = serde_json::from_slice(&json).map_err(|e| Error::key(name, e))?;
        let der = open(&sealed, passphrase).map_err(fail)?;
        let ecdsa = p256::ecdsa::SigningKey::from_pkcs8_der(&der).map(Self::EcdsaP256);
        let key = ecdsa.or_else(|_| ed25519_dalek::SigningKey::from_pkcs8_der(&der).map(Self::Ed25519));
        key.map_err(|_| fail("it holds neither an ECDSA P-256 nor an Ed25519 key"))
    }

    /// As an encrypted PEM block.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn to_pem(&self, passphrase: &[u8]) -> Result<String, Error> {
        let der = match self {
            Self::EcdsaP256(key) => key.to_pkcs8_der(),
            Self::Ed25519(key) => key.to_pkcs8_der(),
        };
        let fail = |problem: &str| Error::key("new", problem);
        let der = der.map_err(|e| Error::key("new", e))?;
        let sealed = seal(der.as_bytes(), passphrase).map_err(fail)?;
        let json = serde_json::to_vec(&sealed).map_err(|e| Error::key("new", e))?;
        let text = STANDARD.encode(json);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Ok(format!("-----BEGIN {LABEL}-----\n{}\n-----END {LABEL}-----\n", lines.join("\n")))
    }

    /// Its other half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let kind = match self {
            Self::EcdsaP256(key) => Public::EcdsaP256(*key.verifying_key()),
            Self::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        };
        PublicKey { name: "new".into(), kind }
    }

    /// Signs a message: ASN.1 DER for ECDSA, 64 bytes for Ed25519.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let name = path.display().to_string();
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| Error::key(&name, e))?;
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| Error::key(&name, e))?;
    Ok(text)
}

/// The bytes between the lines of a PEM block with one of cosign's names.
fn unwrap_pem(text: &str) -> Option<Vec<u8>> {
    let inner = [LABEL, NEW_LABEL].iter().find_map(|label| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        rest.split_once(&format!("-----END {label}-----")).map(|(inner, _)| inner)
    })?;
    STANDARD.decode(inner.split_whitespace().collect::<String>()).ok()
}

fn open(sealed: &Encrypted, passphrase: &[u8]) -> Result<Vec<u8>, &'static str> {
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err("it is encrypted in a way that is not known here");
    }
    let Cost { n, r, p } = sealed.kdf.params;
    let log_n = u8::try_from(n.max(2).ilog2()).unwrap_or(u8::MAX);
    if !n.is_power_of_two() || log_n > LOG_N_MAX || r > 16 || p > 4 {
        return Err("the cost of its scrypt is out of bounds");
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| "its base64 is damaged");
    let key = derive(passphrase, &decode(&sealed.kdf.salt)?, log_n, r, p)?;
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| "its nonce is not of 24 bytes")?;
    let text = decode(&sealed.ciphertext)?;
    XSalsa20Poly1305::new(&key.into()).decrypt(&nonce.into(), &text[..]).map_err(|_| "the passphrase is wrong")
}

fn seal(der: &[u8], passphrase: &[u8]) -> Result<Encrypted, &'static str> {
    let (salt, nonce): ([u8; 32], [u8; 24]) = (rand::random(), rand::random());
    let key = derive(passphrase, &salt, LOG_N, 8, 1)?;
    let text = XSalsa20Poly1305::new(&key.into()).encrypt(&nonce.into(), der).map_err(|_| "it cannot be encrypted")?;
    Ok(Encrypted {
        kdf: Kdf { name: "scrypt".into(), params: Cost { n: 1 << LOG_N, r: 8, p: 1 }, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(text),
    })
}

fn derive(passphrase: &[u8], salt: &[u8], log_n: u8, r: u32, p: u32) -> Result<[u8; 32], &'static str> {
    let bad = "the cost of its scrypt is out of bounds";
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| bad)?;
    let mut key = [0; 32];
    scrypt::scrypt(passphrase, salt, &params, &mut key).map_err(|_| bad)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_kinds_are_written_read_and_used() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [Kind::EcdsaP256, Kind::Ed25519] {
            let (key, other) = (PrivateKey::generate(kind), PrivateKey::generate(kind));
            let path = dir.path().join("k");
            std::fs::write(&path, key.to_pem(b"word").unwrap()).unwrap();
            let wrong = PrivateKey::load(&path, b"other").err().unwrap();
            assert!(wrong.to_string().contains("passphrase"), "{wrong}");
            let key = PrivateKey::load(&path, b"word").unwrap();
            let public = PublicKey::parse(&key.public().to_pem().unwrap(), "p").unwrap();
            let signature = key.sign(b"message");
            assert!(public.verifies(b"message", &signature));
            assert!(!public.verifies(b"massage", &signature));
            assert!(!public.verifies(b"message", &signature[1..]));
            assert!(!other.public().verifies(b"message", &signature));
        }
    }

    #[test]
    fn a_key_that_costs_too_much_is_refused() {
        let mut sealed = seal(b"x", b"").unwrap();
        sealed.kdf.params.n = 1 << 30;
        assert!(open(&sealed, b"").unwrap_err().contains("out of bounds"));
        sealed.kdf.params.n = 12345;
        assert!(open(&sealed, b"").is_err());
        assert!(PublicKey::parse("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", "k").is_err());
    }
}
