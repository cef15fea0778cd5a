//! The file of secrets, and the keys that are made of them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hkdf::Hkdf;
use sha2::Sha256;

use super::{Association, Ipsec};
use crate::error::{Error, Result};

/// Bytes that a secret has at least.
const SHORTEST: usize = 16;
/// Bytes that a key file has at most.
const LARGEST: u64 = 64 * 1024;
/// SPIs below are not for use (RFC 4303, section 2.1).
const FIRST_SPI: u32 = 256;
/// Another meaning of the derived bytes needs another word here.
const PURPOSE: &[u8] = b"pier overlay esp 1";

/// A line of the key file. It is never shown.
pub(crate) struct Secret(Vec<u8>);

/// The keys of an association. They are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Of AES-256.
    pub cipher: [u8; 32],
    /// Of HMAC-SHA-256.
    pub integrity: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Secret {
    /// The association from one host to another: HKDF-SHA-256 (RFC 5869) of the secret, without salt; its context is the
    /// network's identifier and port and both addresses (IPv4 ones as IPv6 ones, RFC 4291, section 2.5.5.2). Both hosts
    /// come to the same.
    pub(super) fn association(&self, ipsec: &Ipsec, from: IpAddr, to: IpAddr) -> (Association, Keys) {
        let context: [&[u8]; 5] = [
            PURPOSE,
            &ipsec.vni.to_be_bytes(),
            &ipsec.port.to_be_bytes(),
            &sixteen(from).octets(),
            &sixteen(to).octets(),
        ];
        let (mut keys, mut spi) = (Keys { cipher: [0; 32], integrity: [0; 32] }, [0; 4]);
        let mut bytes = [0; 68];
        // Fails for more than 8160 bytes only (RFC 5869, section 2.3).
        let derived = Hkdf::<Sha256>::new(None, &self.0).expand(&context.concat(), &mut bytes);
        debug_assert!(derived.is_ok());
        keys.cipher.copy_from_slice(&bytes[..32]);
        keys.integrity.copy_from_slice(&bytes[32..64]);
        spi.copy_from_slice(&bytes[64..]);
        let spi = u32::from_be_bytes(spi) % (u32::MAX - FIRST_SPI) + FIRST_SPI;
        (Association { from, to, spi }, keys)
    }
}

fn sixteen(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Reads the secrets of a file, one a line; blanks around them do not count.
///
/// # Errors
/// [`Error::KeyFile`].
pub(super) fn read(path: &Path) -> Result<Vec<Secret>> {
    let wrong = |why: &str| Error::KeyFile { path: path.to_owned(), why: why.to_owned(), source: None };
    let unreadable =
        |source| Error::KeyFile { path: path.to_owned(), why: "cannot be read".into(), source: Some(source) };
    // Whoever is offered a pipe does not wait for its other end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(wrong("is not a file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(wrong(&format!("others than its owner may use it (mode {:04o})", metadata.mode() & 0o7777)));
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(unreadable)?;
    secrets(&text).map_err(|why| wrong(&why))
}

fn secrets(text: &[u8]) -> Result<Vec<Secret>, String> {
    if text.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes"));
    }
    let mut secrets: Vec<Secret> = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate() {
        if line.is_empty() || secrets.iter().any(|other| other.0 == line) {
            continue;
        }
        if line.len() < SHORTEST {
            return Err(format!("the secret in line {} is shorter than {SHORTEST} bytes", number + 1));
        }
        secrets.push(Secret(line.to_vec()));
    }
    if secrets.is_empty() { Err("has no secret".into()) } else { Ok(secrets) }
}

#[cfg(test)]
pub(super) fn of_text(text: &str) -> Result<Vec<Secret>, String> {
    secrets(text.as_bytes())
}
