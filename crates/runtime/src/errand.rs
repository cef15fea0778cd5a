//! Errands: something that the runtime does with its own rights in a namespace of the container, by a process that lives
//! no longer than that.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sys::clone::{Side, exit_now, fork_into};

use crate::error::{Context, words};
use crate::link::{Link, Tag};
use crate::mounting::Step;
use crate::{Error, Result};

/// Runs `work` in the `namespaces` of the process of `pidfd` and returns the descriptor it ends with.
///
/// # Errors
/// [`Error::Init`] with the reason from inside.
pub(crate) fn run(
    pidfd: &OwnedFd,
    namespaces: CloneFlags,
    work: impl FnOnce() -> Step<Option<OwnedFd>>,
) -> Result<Option<OwnedFd>> {
    let (ours, theirs) = Link::pair().step(|| "socketpair".into())?;
    match fork_into(0, false).step(|| "cannot fork".into())? {
        Side::Child => {
            let done = setns(pidfd, namespaces)
                .map_err(|e| format!("cannot join the container's namespace: {}", words(e)))
                .and_then(|()| work());
            let sent = match done {
                Ok(fd) => theirs.send_with(Tag::Ready, "", fd.as_ref().map(AsFd::as_fd)),
                Err(why) => theirs.send(Tag::Failed, &why),
            };
            exit_now(i32::from(sent.is_err()))
        }
        Side::Parent(pid, _) => {
            drop(theirs);
            let answer = ours.receive();
            let _ = waitpid(Pid::from_raw(pid), None);
            match answer.step(|| "no answer".into())? {
                Some(answer) if answer.tag == Tag::Ready => Ok(answer.fd),
                Some(answer) => Err(Error::Init(answer.text)),
                None => Err(Error::Init("a helper in the container's namespace was killed".into())),
            }
        }
    }
}
