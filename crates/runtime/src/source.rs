//! Where bind mounts come from: opened by the container's process itself, or, where it may not, by the runtime.
//!
//! A process that is root only of its own user namespace can neither look into directories of the host's root nor map the
//! ids of a mount. The runtime then starts a short-lived process in the container's mount namespace (sources may be mounts
//! that were made just before), which opens the source with the runtime's rights and hands over the descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::io::Errno;
use sys::clone::{MountAttr, Side, exit_now, fork_into, mount_setattr};

use crate::error::{Context, words};
use crate::link::{Link, Tag};
use crate::mount_option::Options;
use crate::mounting::Step;
use crate::namespace::write_maps;
use crate::tree::{Trees, clone_tree};
use crate::{Error, Result, errand, stage};

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x10_0000;

/// Before the number of a mount: only the place is wanted, for want of detached trees.
const PLACE: char = '@';

/// The container's side.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a>(pub &'a Link);

impl Sources<'_> {
    /// A detached tree of `source`, with its ids mapped if the options say so.
    pub(crate) fn open(&self, source: &Path, options: &Options, index: Option<usize>, trees: &Trees) -> Step<OwnedFd> {
        let own = if options.idmap.is_none() { trees.clone_path(source, options.rbind) } else { Err(Errno::PERM) };
        if own.is_err() {
            trees.clear();
        }
        match (own, index) {
            (Ok(tree), _) => Ok(tree),
            (Err(Errno::ACCESS | Errno::PERM), Some(index)) if trees.old() => {
                trees.clone(&self.ask(&format!("{PLACE}{index}"))?, options.rbind).map_err(words)
            }
            (Err(Errno::ACCESS | Errno::PERM), Some(index)) => self.ask(&index.to_string()),
            (Err(e), _) => Err(format!("{}: {}", source.display(), words(e))),
        }
    }

    fn ask(&self, what: &str) -> Step<OwnedFd> {
        self.0.send(Tag::Source, what).map_err(words)?;
        let answer = self.0.expect(Tag::Source).map_err(words)?;
        answer.fd.ok_or(answer.text)
    }
}

/// The runtime's side, for one container.
pub(crate) struct Opener<'a> {
    mounts: &'a [Mount],
    /// User namespaces made for mappings so far.
    mapped: Vec<(Maps<'a>, OwnedFd)>,
}

type Maps<'a> = (&'a [LinuxIdMapping], &'a [LinuxIdMapping]);

impl<'a> Opener<'a> {
    pub(crate) fn new(mounts: &'a [Mount]) -> Self {
        Self { mounts, mapped: vec![] }
    }

    /// Opens the mount that is asked for by its number for the process `pid` and answers it.
    pub(crate) fn answer(&mut self, link: &Link, asked: &str, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        let index = asked.trim_start_matches(PLACE);
        let mount = index.parse().ok().and_then(|n: usize| self.mounts.get(n));
        let mount = mount.ok_or_else(|| Error::Init(format!("mount {index} is not in the configuration")))?;
        let answer = self.open(mount, pid, pidfd, asked != index);
        let (text, fd) = match &answer {
            Ok(fd) => (String::new(), Some(fd.as_fd())),
            Err(e) => (e.line(), None),
        };
        link.send_with(Tag::Source, &text, fd).step(|| "the container's process has gone".into())
    }

    fn open(&mut self, mount: &'a Mount, pid: i32, pidfd: &OwnedFd, place: bool) -> Result<OwnedFd> {
        let options = Options::of(mount);
        let map = match options.idmap {
            Some(recursive) => Some((self.user_namespace(mount, pid)?, recursive)),
            None => None,
        };
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        let open = || match map {
            None if place => stage::open(source).map_err(|e| format!("{}: {}", source.display(), words(e))),
            map => inside(source, options.rbind, map),
        };
        let tree = errand::run(pidfd, CloneFlags::CLONE_NEWNS, || open().map(Some))?;
        tree.ok_or_else(|| Error::Init("no mount source".into()))
    }

    /// A user namespace with the mount's mappings; without any, the container's.
    fn user_namespace(&mut self, mount: &'a Mount, pid: i32) -> Result<OwnedFd> {
        let maps: Maps<'_> =
            (mount.uid_mappings().as_deref().unwrap_or(&[]), mount.gid_mappings().as_deref().unwrap_or(&[]));
        if maps.0.is_empty() {
            return open_user_namespace(pid);
        }
        if let Some((_, fd)) = self.mapped.iter().find(|(known, _)| *known == maps) {
            return fd.try_clone().step(|| "dup".into());
        }
        let fd = new_user_namespace(maps)?;
        self.mapped.push((maps, fd.try_clone().step(|| "dup".into())?));
        Ok(fd)
    }
}

/// In the container's mount namespace.
fn inside(source: &Path, rbind: bool, map: Option<(OwnedFd, bool)>) -> Step<OwnedFd> {
    let tree = clone_tree(source, rbind).map_err(|e| format!("{}: {}", source.display(), words(e)))?;
    if let Some((namespace, recursive)) = map {
        let attr = MountAttr {
            set: IDMAP,
            userns_fd: std::os::fd::AsRawFd::as_raw_fd(&namespace).unsigned_abs().into(),
            ..Default::default()
        };
        mount_setattr(tree.as_fd(), &attr, recursive).map_err(|e| {
            format!("cannot map the ids of {}: {} (can its file system be idmapped?)", source.display(), words(e))
        })?;
    }
    Ok(tree)
}

fn open_user_namespace(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    Ok(std::fs::File::open(&path).step(|| format!("cannot open {path}"))?.into())
}

/// A user namespace lives as long as a descriptor of it: the process that makes it only waits to be seen.
fn new_user_namespace((uids, gids): Maps<'_>) -> Result<OwnedFd> {
    let (ours, theirs) = Link::pair().step(|| "socketpair".into())?;
    match fork_into(libc::CLONE_NEWUSER, false).step(|| "cannot make a user namespace".into())? {
        Side::Child => {
            drop(ours);
            let _ = theirs.receive();
            exit_now(0)
        }
        Side::Parent(pid, _) => {
            let made = write_maps(pid, uids, gids).and_then(|()| open_user_namespace(pid));
            drop(ours);
            drop(theirs);
            let _ = waitpid(Pid::from_raw(pid), None);
            made
        }
    }
}
