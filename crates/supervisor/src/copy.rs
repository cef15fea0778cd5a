//! Files in and out of a container as a tar (docker cp). Every lookup stays inside the container's root:
//! [`sys::inside`] for paths, descriptors and O_NOFOLLOW below them.

mod pack;
mod unpack;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci::idmap::IdMap;
use rustix::fs::{FileType, OFlags};
use tokio::sync::mpsc;

use crate::{Error, Supervisor, blocking};

/// What a path in a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathStat {
    /// Last component; "/" for the root.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// st_mode.
    pub mode: u32,
    /// Nanoseconds since the epoch.
    pub mtime: i64,
    /// Of a symbolic link.
    pub link_target: String,
}

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct CopyToOptions {
    /// Directory in the container.
    pub path: String,
    /// Refuse to put a directory over a file and the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep uid and gid of the tar; else root's.
    pub keep_owner: bool,
}

/// A tar, piece by piece.
pub type Pieces = mpsc::Receiver<Result<Vec<u8>, Error>>;

/// A container's root as a descriptor, and whose it is.
pub(crate) struct Root {
    id: String,
    fd: OwnedFd,
    /// Of its user namespace: tars speak of ids inside.
    ids: Option<IdMap>,
}

impl Root {
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        let path = if path.is_empty() { "/" } else { path };
        sys::inside::open(&self.fd, path.as_bytes(), flags).map_err(|errno| self.error(path, errno.into()))
    }

    pub(crate) fn error(&self, path: &str, source: std::io::Error) -> Error {
        Error::Path { id: self.id.clone(), path: path.to_owned(), source }
    }
}

impl Supervisor {
    /// A path of a container as a tar whose first component is the path's name.
    pub async fn copy_from(&self, reference: &str, path: &str, follow: bool) -> Result<(PathStat, Pieces), Error> {
        let (stat_sender, stat) = tokio::sync::oneshot::channel();
        let (sender, pieces) = mpsc::channel(8);
        let path = path.to_owned();
        self.on_root(reference, move |root| {
            let source = match pack::Source::open(&root, &path, follow) {
                Ok(source) => source,
                Err(error) => {
                    let _ = stat_sender.send(Err(error));
                    return;
                }
            };
            if stat_sender.send(Ok(source.stat.clone())).is_ok()
                && let Err(error) = source.pack(&sender)
            {
                let _ = sender.blocking_send(Err(root.error(&path, error)));
            }
        })
        .await?;
        let stat = stat.await.map_err(|_| Error::Internal { step: "copy", message: "its thread died".into() })??;
        Ok((stat, pieces))
    }

    /// Unpacks a tar into a directory of a container.
    pub async fn copy_to(
        &self,
        reference: &str,
        options: CopyToOptions,
        pieces: mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), Error> {
        let (sender, done) = tokio::sync::oneshot::channel();
        self.on_root(reference, move |root| {
            let _ = sender.send(unpack::unpack(&root, &options, pieces));
        })
        .await?;
        done.await.map_err(|_| Error::Internal { step: "copy", message: "its thread died".into() })?
    }

    /// Runs `work` on the container's root on a thread of its own: that of the live process, or, for a stopped
    /// container, its rootfs mounted in a mount namespace that ends with the thread.
    async fn on_root(&self, reference: &str, work: impl FnOnce(Root) + Send + 'static) -> Result<(), Error> {
        let this = self.clone();
        let reference = reference.to_owned();
        let (id, place) = blocking(move || {
            let id = this.store().resolve(&reference)?;
            let place = this.place(&id)?;
            Ok((id, place))
        })
        .await?;
        let (opened_sender, opened) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("copy".into())
            .spawn(move || match place.open() {
                Ok(fd) => {
                    if opened_sender.send(Ok(())).is_ok() {
                        work(Root { id, fd, ids: place.ids });
                    }
                }
                Err(source) => {
                    let path = place.path.to_string_lossy().into_owned();
                    let _ = opened_sender.send(Err(Error::Path { id, path, source }));
                }
            })
            .map_err(Error::system("start a thread"))?;
        opened.await.map_err(|_| Error::Internal { step: "copy", message: "its thread died".into() })?
    }

    fn place(&self, id: &str) -> Result<Place, Error> {
        let seen = self.observe(id)?;
        let definition = self.store().definition(id)?;
        let mapping = definition.rootfs.iter().flat_map(|m| &m.options).find_map(|o| o.strip_prefix(sys::mount::IDMAP));
        let ids = mapping.and_then(|text| text.parse().ok());
        if seen.status.is_live() {
            return Ok(Place { path: PathBuf::from(format!("/proc/{}/root", seen.pid)), mounts: Vec::new(), ids });
        }
        if definition.rootfs.is_empty() {
            let path = self.store().container(id).join("oci.json");
            let text = std::fs::read(&path).map_err(Error::file("read", &path))?;
            let spec: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let root = spec.pointer("/root/path").and_then(serde_json::Value::as_str).unwrap_or_default();
            return Ok(Place { path: PathBuf::from(root), mounts: Vec::new(), ids });
        }
        let path = self.store().container(id).join("bundle").join("rootfs");
        std::fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        let mounts = definition.rootfs.into_iter().map(|mount| sys::mount::Mount {
            fstype: mount.fstype,
            source: mount.source.into(),
            target: mount.target.into(),
            options: mount.options,
        });
        Ok(Place { path, mounts: mounts.collect(), ids })
    }
}

/// Where a root is, and what has to be mounted there first.
struct Place {
    path: PathBuf,
    mounts: Vec<sys::mount::Mount>,
    ids: Option<IdMap>,
}

impl Place {
    fn open(&self) -> std::io::Result<OwnedFd> {
        if !self.mounts.is_empty() {
            sys::mount::private_namespace()?;
            sys::mount::mount_all(&self.path, &self.mounts).map_err(std::io::Error::other)?;
        }
        if let Some((uid, gid)) = self.ids.as_ref().and_then(|ids| ids.seen(0, 0)) {
            // Root of the machine has no place in the mapping, so it can make nothing there.
            sys::userns::make_files_as(uid, gid)?;
        }
        sys::fd::open_dir(&self.path)
    }
}

/// Name of the last component; "/" when there is none.
pub(crate) fn base_name(path: &str) -> String {
    match Path::new(path).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "/".to_owned(),
    }
}

pub(crate) fn kind_of(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}
