//! Making a container's cgroups, before anything runs in them.

use std::fs;
use std::io;
use std::path::Path;

use super::{Dir, Placement, collect};
use crate::error::Context;
use crate::{Error, Result};

impl Placement {
    /// Makes the directories. Existing ones are taken only when empty and not frozen.
    ///
    /// Without privilege over the machine, hierarchies that cannot be written are left out, unless a path was asked for
    /// (`explicit`).
    ///
    /// # Errors
    /// [`Error::Refused`] for a cgroup in use, else [`Error::Step`]; what was made is removed again.
    pub fn prepare(&mut self, explicit: bool) -> Result<()> {
        let mut made = Self { dirs: vec![], ..self.clone() };
        for dir in std::mem::take(&mut self.dirs) {
            match make(&dir, refuse_in_use) {
                Ok(()) => made.dirs.push(dir),
                Err(Error::Step { source, .. }) if self.unprivileged && !explicit && is_denied(&source) => {}
                Err(e) => {
                    let _ = made.remove();
                    return Err(e);
                }
            }
        }
        *self = made;
        Ok(())
    }

    /// Makes what systemd, which has its own idea of which hierarchies count, has not.
    pub(super) fn make_all(&self) -> Result<()> {
        self.dirs.iter().try_for_each(|dir| make(dir, |_| Ok(())))
    }
}

fn is_denied(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

fn make(dir: &Dir, check: impl Fn(&Dir) -> Result<()>) -> Result<()> {
    let failed = || format!("unable to apply cgroup configuration: cannot make cgroup {}", dir.path.display());
    // Parents may go at any moment with the last container in them: they are made again.
    for attempt in 0.. {
        match fs::create_dir(&dir.path) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < 10 => make_ancestors(dir).step(failed)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                check(dir)?;
                break;
            }
            Err(e) => return Err(e).step(failed),
        }
    }
    if dir.has("cpuset") {
        inherit_cpuset(&dir.path).step(failed)?;
    }
    Ok(())
}

fn make_ancestors(dir: &Dir) -> io::Result<()> {
    let missing: Vec<&Path> = dir.path.ancestors().skip(1).take_while(|p| !p.exists()).collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: its parent's, which may have to
/// inherit its own first.
fn inherit_cpuset(path: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(path, file)?;
    }
    Ok(())
}

fn inherit(path: &Path, file: &str) -> io::Result<String> {
    let own = fs::read_to_string(path.join(file))?.trim().to_owned();
    let Some(parent) = path.parent().filter(|_| own.is_empty()) else { return Ok(own) };
    let value = inherit(parent, file)?;
    super::write(&path.join(file), &value)?;
    Ok(value)
}

/// Somebody else's cgroup would be killed with the container; a frozen one would never let it start.
pub(super) fn refuse_in_use(dir: &Dir) -> Result<()> {
    let mut pids = vec![];
    collect(&dir.path, &mut pids);
    if !pids.is_empty() {
        let (count, path) = (pids.len(), dir.path.display());
        return Err(Error::Refused(format!("container's cgroup is not empty: {count} process(es) found in {path}")));
    }
    let is =
        |file: &str, words: &[&str]| fs::read_to_string(dir.path.join(file)).is_ok_and(|t| words.contains(&t.trim()));
    if (dir.has("freezer") && is("freezer.state", &["FROZEN", "FREEZING"]))
        || (dir.controllers.is_empty() && is("cgroup.freeze", &["1"]))
    {
        return Err(Error::Refused(format!("container's cgroup unexpectedly frozen: {}", dir.path.display())));
    }
    Ok(())
}
