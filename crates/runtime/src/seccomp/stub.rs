//! A short program before libseccomp's: system calls newer than the profile get `ENOSYS`.
//!
//! A profile that denies by default denies what its author could not know; glibc then takes `EPERM` for an answer where
//! `ENOSYS` would make it fall back to the older call. As runc: whatever is above the highest number that the profile names
//! is unknown to the profile.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::compile::architecture;

/// `AUDIT_ARCH_X86_64`, which x32 shares.
const X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 1 << 30;
const RET_ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const RET: u16 = 0x06;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JGT: u16 = 0x25;
const JSET: u16 = 0x45;

/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// One instruction: `struct sock_filter`.
type Instruction = (u16, u8, u8, u32);

/// The highest system call numbers that a profile names on one `AUDIT_ARCH_*`.
struct Limit {
    audit: u32,
    native: Option<u32>,
    /// On x86_64 only; with [`X32_BIT`].
    x32: Option<u32>,
}

/// The stub of a section; empty if it needs none.
pub(super) fn of(section: &LinuxSeccomp) -> Vec<u8> {
    use LinuxSeccompAction::{ScmpActAllow, ScmpActErrno, ScmpActLog, ScmpActTrace};
    let permissive = matches!(section.default_action(), ScmpActAllow | ScmpActLog | ScmpActTrace);
    let says_so = section.default_action() == ScmpActErrno && section.default_errno_ret() == Some(libc::ENOSYS as u32);
    if permissive || says_so {
        return vec![];
    }
    assemble(&limits(section))
}

fn limits(section: &LinuxSeccomp) -> Vec<Limit> {
    let mut archs: Vec<ScmpArch> =
        section.architectures().iter().flatten().map(|a| architecture(*a)).chain([ScmpArch::native()]).collect();
    archs.sort_by_key(|a| *a as u32);
    archs.dedup();
    let mut limits: Vec<Limit> = vec![];
    for arch in archs {
        let Some(audit) = audit(arch) else { continue };
        let names = section.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
        let number = |name: &String| ScmpSyscall::from_name_by_arch(name, arch).ok().map(i32::from);
        // Negative ones are libseccomp's own, for calls that the architecture does not have.
        let Some(highest) = names.filter_map(number).max().filter(|n| *n > 0) else { continue };
        let highest = highest.cast_unsigned();
        let at = limits.iter().position(|l| l.audit == audit).unwrap_or_else(|| {
            limits.push(Limit { audit, native: None, x32: None });
            limits.len() - 1
        });
        *if arch == ScmpArch::X32 { &mut limits[at].x32 } else { &mut limits[at].native } = Some(highest);
    }
    limits
}

/// `AUDIT_ARCH_*` of linux/audit.h; `None` for those that have no profile of their own in runc either.
fn audit(arch: ScmpArch) -> Option<u32> {
    const BITS_64: u32 = 0x8000_0000;
    const LITTLE: u32 = 0x4000_0000;
    const N32: u32 = 0x2000_0000;
    Some(match arch {
        ScmpArch::X86 => 3 | LITTLE,
        ScmpArch::X8664 | ScmpArch::X32 => X86_64,
        ScmpArch::Arm => 40 | LITTLE,
        ScmpArch::Aarch64 => 183 | BITS_64 | LITTLE,
        ScmpArch::Mips => 8,
        ScmpArch::Mips64 => 8 | BITS_64,
        ScmpArch::Mips64N32 => 8 | BITS_64 | N32,
        ScmpArch::Mipsel => 8 | LITTLE,
        ScmpArch::Mipsel64 => 8 | BITS_64 | LITTLE,
        ScmpArch::Mipsel64N32 => 8 | BITS_64 | LITTLE | N32,
        ScmpArch::Ppc => 20,
        ScmpArch::Ppc64 => 21 | BITS_64,
        ScmpArch::Ppc64Le => 21 | BITS_64 | LITTLE,
        ScmpArch::S390 => 22,
        ScmpArch::S390X => 22 | BITS_64,
        ScmpArch::Riscv64 => 243 | BITS_64 | LITTLE,
        ScmpArch::Loongarch64 => 258 | BITS_64 | LITTLE,
        _ => return None,
    })
}

fn assemble(limits: &[Limit]) -> Vec<u8> {
    let sections: Vec<Vec<Instruction>> = limits.iter().map(section).collect();
    let mut rest: u32 = sections.iter().map(|s| s.len() as u32).sum();
    let mut program = vec![(LOAD, 0, 0, ARCH)];
    for mut section in sections {
        rest -= section.len() as u32;
        // Its last instruction leaves for libseccomp's program, past all other sections.
        if let Some(leave) = section.last_mut() {
            leave.3 = rest;
        }
        program.extend(section);
    }
    program
        .iter()
        .flat_map(|(code, jt, jf, k)| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&code.to_ne_bytes());
            bytes[2..4].copy_from_slice(&[*jt, *jf]);
            bytes[4..].copy_from_slice(&k.to_ne_bytes());
            bytes
        })
        .collect()
}

/// The instructions for one architecture. The accumulator holds the architecture before and, if it is another, after.
fn section(limit: &Limit) -> Vec<Instruction> {
    let above = |number: Option<u32>| number.map(|n| (JGT, n));
    let mut body = vec![(LOAD, 0, 0, NUMBER)];
    if limit.audit & 0x3ff == 22 {
        // s390 passes numbers that do not fit through call 0, which is nobody's any more.
        body.extend([(JEQ, 0, 1, 0), (RET, 0, 0, RET_ENOSYS)]);
    }
    match (above(limit.native), above(limit.x32)) {
        (Some((op, n)), None) if limit.audit == X86_64 => body.extend([(JSET, 2, 0, X32_BIT), (op, 0, 1, n)]),
        (Some((op, n)), None) => body.push((op, 0, 1, n)),
        (None, Some((op, n))) => body.extend([(JSET, 0, 2, X32_BIT), (op, 0, 1, n)]),
        (Some((op, n)), Some((x32_op, x32))) => {
            body.extend([(JSET, 1, 0, X32_BIT), (op, 1, 2, n), (x32_op, 0, 1, x32)]);
        }
        (None, None) => {}
    }
    body.extend([(RET, 0, 0, RET_ENOSYS), (JA, 0, 0, 0)]);
    let mut all = vec![(JEQ, 0, body.len() as u8, limit.audit)];
    all.extend(body);
    all
}
