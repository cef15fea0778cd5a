//! `start`: lets the program of a created container run.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::error::Context;
use crate::hook;
use crate::state::{Status, Store};
use crate::{Error, Result};

/// Starts a created container, and stops it again if a poststart hook fails (runtime-spec 1.2, lifecycle).
///
/// # Errors
/// [`Error::WrongStatus`], [`Error::NotFound`], [`Error::Hook`].
pub fn start(store: &Store, id: &str) -> Result<()> {
    let container = store.load(id)?;
    let wrong = |status: &'static str| Error::WrongStatus { verb: "start", id: id.to_owned(), status };
    match container.status {
        Status::Created => {}
        Status::Running => return Err(Error::Argument(format!("cannot start an already running container: {id}"))),
        Status::Stopped => return Err(Error::Argument(format!("cannot start a container that has stopped: {id}"))),
        other => return Err(wrong(other.as_str())),
    }
    let fifo = container.fifo();
    let mut open = OpenOptions::new();
    let mut writer = match open.write(true).custom_flags(libc::O_NONBLOCK).open(&fifo) {
        Ok(file) => file,
        // Nobody reads: a start has been here, and died before it removed the fifo.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
            let _ = fs::remove_file(&fifo);
            return Err(wrong("already started"));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(wrong("already started")),
        other => other.step(|| format!("cannot open {}", fifo.display()))?,
    };
    // Removed first: whoever removes it is the one that starts.
    fs::remove_file(&fifo).map_err(|_| wrong("already started"))?;
    writer.write_all(&[0]).step(|| "cannot start the container's process".into())?;
    let hooks = container.hooks()?;
    let hooks = hooks.as_ref().and_then(|h| h.poststart().as_ref());
    let pid = container.record.init.map(|i| i.pid);
    let done = hook::run("poststart", hooks, &container.record, Status::Running, pid);
    if done.is_err() {
        crate::kill::kill(store, id, libc::SIGKILL, false)?;
    }
    done
}
