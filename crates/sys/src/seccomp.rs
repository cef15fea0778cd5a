//! Loading a compiled seccomp program into this thread.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Bytes of one instruction of classic BPF.
pub const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Log every action but allow.
pub const FLAG_LOG: u32 = 1 << 1;
/// Leave the mitigation of speculative store bypass off.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Ask for a notify descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// A process that waits for a notification can be killed only.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Loads a classic BPF program (`struct sock_filter` after `struct sock_filter`, in the machine's byte order).
///
/// Returns the notify descriptor, close-on-exec, if [`FLAG_NEW_LISTENER`] is among `flags`.
///
/// # Errors
/// `EINVAL` for a program or flag that the kernel does not know, `EACCES` without `CAP_SYS_ADMIN` or `no_new_privs`,
/// `EBUSY` when there is a listener already. See seccomp(2).
pub fn load(program: &[u8], flags: u32) -> io::Result<Option<OwnedFd>> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if !program.len().is_multiple_of(INSTRUCTION) {
        return Err(invalid());
    }
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| invalid())?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` describes `filter`, and both outlive the call; the kernel only reads them.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match ret {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: with this flag the kernel returns a new descriptor that nobody else owns.
        fd if flags & FLAG_NEW_LISTENER != 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        _ => Ok(None),
    }
}
