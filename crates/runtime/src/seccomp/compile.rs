//! The `linux.seccomp` section as a classic BPF program: libseccomp's, with [`super::stub`] before it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::stub;
use crate::{Error, Result};

/// From this many syscalls on, a binary tree is smaller and faster than a list.
const TREE_FROM: usize = 32;

/// Longest program the kernel takes, in bytes (`BPF_MAXINSNS` instructions).
pub(super) const MAX_BYTES: usize = 4096 * 8;

fn failed(what: &str, e: &SeccompError) -> Error {
    Error::Refused(format!("seccomp: {what}: {e}"))
}

/// Compiles a section.
///
/// # Errors
/// [`Error::Refused`]: `SCMP_ACT_NOTIFY` where it cannot work, an architecture or comparison that libseccomp refuses, or
/// more rules than the kernel takes.
pub fn compile(section: &LinuxSeccomp) -> Result<Vec<u8>> {
    check(section)?;
    let rules = section.syscalls().as_deref().unwrap_or(&[]);
    let default = action(section.default_action(), section.default_errno_ret());
    let mut context = ScmpFilterContext::new(default).map_err(|e| failed("default action", &e))?;
    for arch in section.architectures().iter().flatten() {
        context.add_arch(architecture(*arch)).map_err(|e| failed(&format!("architecture {arch}"), &e))?;
    }
    if rules.iter().map(|r| r.names().len()).sum::<usize>() > TREE_FROM {
        // libseccomp 2.4 and older have no tree: their list works as well.
        let _ = context.set_ctl_optimize(2);
    }
    for rule in rules {
        add(&mut context, rule, default)?;
    }
    let mut program = stub::of(section);
    program.extend(export(&context)?);
    if program.len() > MAX_BYTES {
        return Err(Error::Refused(format!(
            "seccomp: {} instructions are more than the kernel takes",
            program.len() / 8
        )));
    }
    Ok(program)
}

/// Whether any rule asks for the listener.
pub fn notifies(section: &LinuxSeccomp) -> bool {
    section.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
}

/// Once the filter is loaded, the process still has to write the notify descriptor's number to the runtime.
fn check(section: &LinuxSeccomp) -> Result<()> {
    let refuse = |why: &str| Err(Error::Refused(why.to_owned()));
    if section.default_action() == LinuxSeccompAction::ScmpActNotify {
        return refuse("SCMP_ACT_NOTIFY cannot be used as default action");
    }
    let notify = section.syscalls().iter().flatten().filter(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if notify.flat_map(LinuxSyscall::names).any(|name| name == "write") {
        return refuse("SCMP_ACT_NOTIFY cannot be used for the write syscall");
    }
    if notifies(section) && section.listener_path().as_ref().is_none_or(|p| p.as_os_str().is_empty()) {
        return refuse("SCMP_ACT_NOTIFY needs seccomp.listenerPath");
    }
    Ok(())
}

fn add(context: &mut ScmpFilterContext, rule: &LinuxSyscall, default: ScmpAction) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret());
    // libseccomp refuses a rule that says what the default says.
    if action == default {
        return Ok(());
    }
    let args = rule.args().as_deref().unwrap_or(&[]);
    if let Some(arg) = args.iter().find(|a| a.index() > 5) {
        return Err(Error::Refused(format!("seccomp: a system call has no argument {}", arg.index())));
    }
    let conditions: Vec<ScmpArgCompare> = args.iter().map(condition).collect();
    let different = args.iter().map(LinuxSeccompArg::index).collect::<BTreeSet<_>>().len() == args.len();
    for name in rule.names() {
        // Profiles name calls of newer kernels and of other architectures.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let added = if conditions.is_empty() {
            context.add_rule(action, call).map(drop)
        } else if different {
            context.add_rule_conditional(action, call, &conditions).map(drop)
        } else {
            // libseccomp compares an argument once per rule; runc then takes each comparison as a rule.
            conditions
                .iter()
                .try_for_each(|one| context.add_rule_conditional(action, call, std::slice::from_ref(one)).map(drop))
        };
        added.map_err(|e| failed(&format!("rule for {name}"), &e))?;
    }
    Ok(())
}

/// `value` is the mask of a masked comparison and `valueTwo` what is left of the argument then, as runc has it.
fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (op, datum) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(arg.index() as u32, op, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    // The kernel's field has 16 bits.
    let errno = errno.map_or(libc::EPERM as u16, |e| e as u16);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno.into()),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
    }
}

pub(super) fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::native(),
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>> {
    let memory = rustix::fs::memfd_create(c"seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Error::step("seccomp: memfd_create", e))?;
    let mut memory = File::from(memory);
    context.export_bpf(&memory).map_err(|e| failed("export", &e))?;
    let mut program = Vec::new();
    memory
        .rewind()
        .and_then(|()| memory.read_to_end(&mut program))
        .map_err(|e| Error::step("seccomp: reading the program", e))?;
    Ok(program)
}
