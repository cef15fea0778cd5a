//! Protection of this program's own file against the containers it sets up (CVE-2019-5736).
//!
//! While a process is half in a container, the container can reach our executable through `/proc/<pid>/exe`. The
//! executable is therefore started again from a read-only mount of itself that belongs to no namespace; where that takes a
//! privilege that is not there, from a sealed copy in memory.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, SealFlags, StatxAttributes, StatxFlags, fcntl_add_seals, fcntl_get_seals, memfd_create,
    statx,
};
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::clone::{MountAttr, mount_setattr};

const EXE: &str = "/proc/self/exe";
const RDONLY: u64 = 1;

/// Makes sure that this process runs from a file nobody can write to. Starts the program again if it does not; returns
/// only when it is safe, or when nothing could be done.
///
/// # Errors
/// Why it could not be sealed; the caller decides whether to go on.
pub fn ensure() -> io::Result<()> {
    if is_sealed()? {
        // The restart names the process after a descriptor.
        return Ok(rustix::thread::set_name(c"pier-runtime")?);
    }
    let file = readonly_mount().or_else(|_| sealed_copy())?;
    match again(&file)? {}
}

/// On a read-only mount, under fs-verity, or sealed: an installer can make each call cheaper with one of these.
fn is_sealed() -> io::Result<bool> {
    let flags = rustix::fs::statvfs(EXE)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let stat = statx(CWD, EXE, AtFlags::empty(), StatxFlags::empty());
    if stat.is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::VERITY)) {
        return Ok(true);
    }
    let exe = File::open(EXE)?;
    Ok(fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn readonly_mount() -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, EXE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(tree.as_fd(), &MountAttr { set: RDONLY, ..Default::default() }, false)?;
    Ok(tree)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let copy = memfd_create(c"pier-runtime", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open(EXE)?, &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy.into())
}

fn again(file: &OwnedFd) -> io::Result<Infallible> {
    let c_string = |word: OsString| CString::new(word.into_vec()).map_err(io::Error::from);
    let args = std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>()?;
    let environment = std::env::vars_os()
        .map(|(name, value)| {
            let mut word = name;
            word.push("=");
            word.push(value);
            c_string(word)
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(nix::unistd::execveat(Some(file.as_raw_fd()), c"", &args, &environment, nix::fcntl::AtFlags::AT_EMPTY_PATH)?)
}
