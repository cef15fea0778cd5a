//! fscrypt: directories whose contents and names the kernel encrypts (Documentation/filesystems/fscrypt.rst).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Names a key: a hash of it that the kernel makes.
pub type KeyId = [u8; 16];

// _IOWR('f', 23, struct fscrypt_add_key_arg), _IOR('f', 19, struct fscrypt_policy_v1), _IOWR('f', 22, __u8[9])
const ADD_ENCRYPTION_KEY: u64 = 0xc050_6617;
const SET_ENCRYPTION_POLICY: u64 = 0x800c_6613;
const GET_ENCRYPTION_POLICY_EX: u64 = 0xc009_6616;

const BY_IDENTIFIER: u32 = 2;
const AES_256_XTS: u8 = 1;
const AES_256_CTS: u8 = 4;
/// Names are padded to multiples of 32 bytes, so that their lengths tell little.
const PAD_32: u8 = 3;

/// `struct fscrypt_add_key_arg` with room for a key.
#[repr(C)]
struct AddKey {
    kind: u32,
    reserved: u32,
    identifier: [u8; 32],
    raw_size: u32,
    key_id: u32,
    rest: [u32; 8],
    raw: [u8; 64],
}

/// `struct fscrypt_policy_v2`.
#[repr(C)]
#[derive(Default)]
struct Policy {
    version: u8,
    contents: u8,
    names: u8,
    flags: u8,
    unit: u8,
    reserved: [u8; 3],
    identifier: KeyId,
}

/// `struct fscrypt_get_policy_ex_arg`.
#[repr(C)]
struct GetPolicy {
    size: u64,
    policy: Policy,
}

/// Gives the mounted file system of `file` a key of at most 64 bytes, until it is unmounted.
///
/// # Errors
/// `EOPNOTSUPP` where it has no encryption, `EINVAL` for a key that is too short or too long.
pub fn add_key(file: &File, key: &[u8]) -> io::Result<KeyId> {
    let mut raw = [0; 64];
    let Some(place) = raw.get_mut(..key.len()) else { return Err(io::Error::from_raw_os_error(libc::EINVAL)) };
    place.copy_from_slice(key);
    let mut arg = AddKey {
        kind: BY_IDENTIFIER,
        reserved: 0,
        identifier: [0; 32],
        raw_size: key.len() as u32,
        key_id: 0,
        rest: [0; 8],
        raw,
    };
    // SAFETY: the argument has the kernel's layout, followed by `raw_size` bytes of key, and outlives the call.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), ADD_ENCRYPTION_KEY as _, &raw mut arg) };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&arg.identifier[..16]);
    Ok(id)
}

/// Makes an empty directory an encrypted one: AES-256-XTS for contents, AES-256-CTS-CBC for names.
///
/// # Errors
/// `ENOTEMPTY`; `EOPNOTSUPP` where the file system has no encryption; `ENOKEY` when the key was not given.
pub fn encrypt(directory: &File, key: KeyId) -> io::Result<()> {
    let policy = Policy {
        version: 2,
        contents: AES_256_XTS,
        names: AES_256_CTS,
        flags: PAD_32,
        identifier: key,
        ..Policy::default()
    };
    // SAFETY: the kernel reads a version 2 policy by its first byte, whatever size the number says.
    let ret = unsafe { libc::ioctl(directory.as_raw_fd(), SET_ENCRYPTION_POLICY as _, &raw const policy) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The key that a file is encrypted with.
///
/// # Errors
/// `ENODATA` when it is not encrypted.
pub fn key_of(file: &File) -> io::Result<KeyId> {
    let mut arg = GetPolicy { size: size_of::<Policy>() as u64, policy: Policy::default() };
    // SAFETY: the kernel writes at most `size` bytes after the first field of an argument that outlives the call.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), GET_ENCRYPTION_POLICY_EX as _, &raw mut arg) };
    if ret == 0 { Ok(arg.policy.identifier) } else { Err(io::Error::last_os_error()) }
}
