//! The console socket: the runtime makes the terminal and hands its master over (SCM_RIGHTS).

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Longest path that fits a socket address.
const MAX_SOCKET_PATH: usize = 100;

/// A listener that waits for one terminal.
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    file: PathBuf,
    /// What the runtime is told: short however deep the directory lies.
    pub(crate) path: String,
}

impl ConsoleSocket {
    pub(crate) fn listen(run_dir: &OwnedFd, dir: &Path, name: &str) -> Result<Self, Error> {
        let file = dir.join(name);
        let _ = fs::remove_file(&file);
        let listener = sys::fd::listen(run_dir, name).map_err(Error::file("listen on", &file))?;
        let plain = file.to_string_lossy();
        let path = if plain.len() <= MAX_SOCKET_PATH {
            plain.into_owned()
        } else {
            format!("/proc/{}/fd/{}/{name}", std::process::id(), run_dir.as_raw_fd())
        };
        Ok(Self { listener, file, path })
    }

    /// The master, once the runtime has ended well: it is in the queue already.
    pub(crate) fn receive(self) -> Result<OwnedFd, Error> {
        self.listener.set_nonblocking(true).map_err(Error::system("console socket"))?;
        let (stream, _) = self.listener.accept().map_err(Error::system("accept on the console socket"))?;
        let master = sys::pty::receive_fd(stream.as_fd()).map_err(Error::system("receive the terminal"))?;
        sys::fd::set_nonblocking(&master).map_err(Error::system("terminal"))?;
        Ok(master)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
