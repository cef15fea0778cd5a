//! Wrappers of Linux system calls that the tools share. The only crate with `unsafe`, each block with its reason.
//!
//! It is not an abstraction layer: every function is one kernel facility, named as its man page names it, and returns
//! the kernel's own error. Policy lives with the callers.

pub mod beneath;
pub mod bpf;
pub mod btrfs;
pub mod cgroup;
pub mod clone;
pub mod fd;
pub mod fscrypt;
pub mod inside;
pub mod mount;
pub mod netns;
pub mod pidfd;
pub mod process;
pub mod project_quota;
pub mod pty;
pub mod seccomp;
pub mod userns;
pub mod xtables;
