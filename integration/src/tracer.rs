//! Runs a program under ptrace(2) and kills it at the n-th of its calls that change what is durable: syncs, renames, links,
//! removals, and the writes of SQLite. All threads count together. The call at which it dies is not made.
use crate::Result;
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// One call of interest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// "fsync", "rename", ...
    pub call: &'static str,
    /// The path, or that of the descriptor.
    pub path: String,
}

/// What became of a traced program.
#[derive(Debug)]
pub struct Traced {
    /// Its exit code; `None` when it was killed at the last of the points.
    pub code: Option<i32>,
    /// The calls it made, in order.
    pub points: Vec<Point>,
}

enum Argument {
    Descriptor,
    Path(usize),
}

const CALLS: &[(i64, &str, Argument)] = &[
    (libc::SYS_fsync, "fsync", Argument::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", Argument::Descriptor),
    (libc::SYS_syncfs, "syncfs", Argument::Descriptor),
    (libc::SYS_ftruncate, "ftruncate", Argument::Descriptor),
    (libc::SYS_pwrite64, "pwrite64", Argument::Descriptor),
    (libc::SYS_rename, "rename", Argument::Path(0)),
    (libc::SYS_renameat, "renameat", Argument::Path(1)),
    (libc::SYS_renameat2, "renameat2", Argument::Path(1)),
    (libc::SYS_link, "link", Argument::Path(0)),
    (libc::SYS_linkat, "linkat", Argument::Path(1)),
    (libc::SYS_unlink, "unlink", Argument::Path(0)),
    (libc::SYS_unlinkat, "unlinkat", Argument::Path(1)),
    (libc::SYS_rmdir, "rmdir", Argument::Path(0)),
];

/// Runs `args` with the command's environment (the command itself must be a fresh `sh`); output goes to the file `log`.
/// With `kill_at`, it dies at that point, counted from 1, if it makes so many calls.
pub fn run(mut sh: Command, args: &[&str], log: &Path, kill_at: Option<usize>) -> Result<Traced> {
    let out = File::create(log)?;
    // It stops itself, so that nothing of the program runs before we watch.
    sh.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(args);
    let child = sh.process_group(0).stdout(out.try_clone()?).stderr(out).spawn().context("start sh")?;
    let leader = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(leader, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).context("trace it")?;
    kill(leader, Signal::SIGCONT)?;
    follow(leader, kill_at)
}

fn follow(leader: Pid, kill_at: Option<usize>) -> Result<Traced> {
    let group = Pid::from_raw(-leader.as_raw());
    let mut traced = Traced { code: None, points: Vec::new() };
    let mut killed = false;
    loop {
        let (pid, signal) = match waitpid(group, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => break,
            Err(Errno::EINTR) => continue,
            Err(e) => bail!("wait for the traced program: {e}"),
            Ok(WaitStatus::Exited(pid, code)) => {
                if pid == leader && !killed {
                    traced.code = Some(code);
                }
                continue;
            }
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                if !killed && let Some(point) = entering(pid) {
                    traced.points.push(point);
                    if Some(traced.points.len()) == kill_at {
                        // Resumed below: a thread of the program dies without making the call, a child of it goes on.
                        kill(leader, Signal::SIGKILL)?;
                        killed = true;
                    }
                }
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, ..)) => (pid, None),
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP | Signal::SIGSTOP)) => (pid, None),
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) => continue,
        };
        // A thread that was killed meanwhile is no more.
        let _ = ptrace::syscall(pid, signal);
    }
    Ok(traced)
}

/// The call that a thread stopped in front of, if it counts.
fn entering(pid: Pid) -> Option<Point> {
    let regs = ptrace::getregs(pid).ok()?;
    // At the entry of a call the kernel has put this into the place of the result.
    if regs.rax.cast_signed() != -i64::from(libc::ENOSYS) {
        return None;
    }
    let (_, call, argument) = CALLS.iter().find(|(number, ..)| *number == regs.orig_rax.cast_signed())?;
    let path = match argument {
        Argument::Descriptor => std::fs::read_link(format!("/proc/{pid}/fd/{}", regs.rdi)).ok()?.display().to_string(),
        Argument::Path(0) => text(pid, regs.rdi),
        Argument::Path(_) => text(pid, regs.rsi),
    };
    Some(Point { call, path })
}

fn text(pid: Pid, at: u64) -> String {
    let mut bytes = [0; 256];
    let read = File::open(format!("/proc/{pid}/mem")).and_then(|mem| mem.read_at(&mut bytes, at)).unwrap_or(0);
    let end = bytes[..read].iter().position(|b| *b == 0).unwrap_or(read);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
