//! Making a container's cgroups and setting their limits, before anything runs in them.

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Dir, Placement, collect, v1};
use crate::error::Context;
use crate::{Error, Result};

impl Placement {
    /// Makes the directories. Existing ones are taken only when empty and not frozen.
    ///
    /// Without privilege (`rootless`) hierarchies that cannot be written are left out.
    ///
    /// # Errors
    /// [`Error::Refused`] for a cgroup in use, else [`Error::Step`]; what was made is removed again.
    pub fn prepare(&mut self, rootless: bool) -> Result<()> {
        let mut made = Self { unified: self.unified, dirs: vec![] };
        for dir in std::mem::take(&mut self.dirs) {
            match make(&dir) {
                Ok(()) => made.dirs.push(dir),
                Err(Error::Step { source, .. }) if rootless && source.kind() == io::ErrorKind::PermissionDenied => {}
                Err(Error::Step { source, .. }) if rootless && source.raw_os_error() == Some(libc::EROFS) => {}
                Err(e) => {
                    let _ = made.remove();
                    return Err(e);
                }
            }
        }
        *self = made;
        Ok(())
    }

    /// Sets limits and device rules.
    ///
    /// # Errors
    /// [`Error::Step`] naming file and value, [`Error::Refused`] for a controller this machine lacks.
    pub fn limit(&self, resources: Option<&LinuxResources>, devices: bool) -> Result<()> {
        let nothing = LinuxResources::default();
        for w in v1::writes(resources.unwrap_or(&nothing), devices)? {
            let Some(dir) = self.with(w.controller) else {
                if w.optional {
                    continue;
                }
                return Err(Error::Refused(format!("this machine has no {} cgroup for {}", w.controller, w.file)));
            };
            match super::write(&dir.path.join(&w.file), &w.value) {
                Ok(()) => {}
                Err(_) if w.optional => {}
                Err(e) => {
                    return Err(e).step(|| format!("cannot set {} to {:?} in {}", w.file, w.value, dir.path.display()));
                }
            }
        }
        Ok(())
    }
}

fn make(dir: &Dir) -> Result<()> {
    let failed = || format!("cannot make cgroup {}", dir.path.display());
    // Parents may go at any moment with the last container in them: they are made again.
    for attempt in 0.. {
        match fs::create_dir(&dir.path) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < 10 => make_ancestors(dir).step(failed)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                refuse_in_use(dir)?;
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
        if dir.has("cpuset") && path.exists() {
            inherit_cpuset(path)?;
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: its parent's.
fn inherit_cpuset(path: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        if fs::read_to_string(&own)?.trim().is_empty() {
            let Some(parent) = path.parent() else { continue };
            super::write(&own, fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn refuse_in_use(dir: &Dir) -> Result<()> {
    let mut pids = vec![];
    collect(&dir.path, &mut pids);
    if !pids.is_empty() {
        return Err(Error::Refused(format!("cgroup {} is not empty: {} processes", dir.path.display(), pids.len())));
    }
    let frozen = |file: &str, word: &str| fs::read_to_string(dir.path.join(file)).is_ok_and(|t| t.trim() == word);
    if (dir.has("freezer") && !frozen("freezer.state", "THAWED"))
        || (dir.controllers.is_empty() && frozen("cgroup.freeze", "1"))
    {
        return Err(Error::Refused(format!("cgroup {} is frozen", dir.path.display())));
    }
    Ok(())
}
