//! The view that overlayfs would give of stacked layers, without mounting anything.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::handle::Handle;
use crate::{Error, Result};

/// How many symbolic links a path may go through, as in the kernel.
const MAX_LINKS: usize = 40;

/// A directory of the merged view: the directories that make it up, highest layer first.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    sources: Vec<PathBuf>,
    /// Of one directory as it is, which somebody may be changing: its source is a path through this. Without it, whiteouts and
    /// opaque directories mean what they mean to overlayfs.
    held: Option<Arc<Handle>>,
}

/// What a name in a merged directory is.
pub(super) enum Entry {
    Directory(Directory),
    /// Anything else.
    Other(Handle, Metadata),
}

impl Directory {
    /// The root of layers given lowest first. A directory on the host counts as one layer.
    pub(super) fn new(layers: &[PathBuf]) -> Result<Self> {
        let mut sources = Vec::new();
        for layer in layers.iter().rev() {
            if !fs::metadata(layer).map_err(Error::io("read", layer))?.is_dir() {
                let why = "a layer is a directory".into();
                return Err(Error::Invalid { field: "copy-up", value: layer.display().to_string(), why });
            }
            sources.push(layer.clone());
            if is_opaque(layer) {
                break;
            }
        }
        Ok(Self { sources, held: None })
    }

    /// One directory as it is.
    pub(crate) fn plain(path: &Path) -> Result<Self> {
        Handle::of(path).map(Self::held)
    }

    fn held(directory: Handle) -> Self {
        Self { sources: vec![directory.path()], held: Some(Arc::new(directory)) }
    }

    /// Whether overlayfs's own marks are left out.
    pub(super) fn is_layered(&self) -> bool {
        self.held.is_none()
    }

    /// The directory whose owner, mode and times hold.
    pub(super) fn top(&self) -> Option<&Path> {
        self.sources.first().map(PathBuf::as_path)
    }

    /// What a plain name stands for.
    pub(super) fn lookup(&self, name: &OsStr) -> Result<Option<Entry>> {
        let mut merged = Vec::new();
        for source in &self.sources {
            let path = source.join(name);
            let Some(file) = Handle::at(&path)? else { continue };
            let metadata = file.metadata()?;
            if metadata.is_dir() && !self.is_layered() {
                return Ok(Some(Entry::Directory(Self::held(file))));
            } else if metadata.is_dir() {
                let opaque = is_opaque(&path);
                merged.push(path);
                if opaque {
                    break;
                }
            } else if merged.is_empty() && !(self.is_layered() && is_whiteout(&metadata)) {
                return Ok(Some(Entry::Other(file, metadata)));
            } else {
                // A whiteout, or a file below a directory: nothing lower shows.
                break;
            }
        }
        Ok((!merged.is_empty()).then_some(Entry::Directory(Self { sources: merged, held: None })))
    }

    /// All names that may stand for something, sorted.
    pub(super) fn names(&self) -> Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        for source in &self.sources {
            for entry in fs::read_dir(source).map_err(Error::io("list", source))? {
                names.insert(entry.map_err(Error::io("list", source))?.file_name());
            }
        }
        Ok(names)
    }

    /// The directory at a path, links followed inside this root; `None` when there is no directory.
    pub(super) fn resolve(&self, path: &Path) -> Result<Option<Self>> {
        let mut stack = vec![self.clone()];
        let mut pending: VecDeque<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == "/" {
                stack.truncate(1);
                continue;
            }
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Some(current) = stack.last() else { return Ok(None) };
            match current.lookup(&name)? {
                Some(Entry::Directory(directory)) => stack.push(directory),
                Some(Entry::Other(link, metadata)) if metadata.is_symlink() && links < MAX_LINKS => {
                    links += 1;
                    for name in components(&link.link()?).into_iter().rev() {
                        pending.push_front(name);
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(stack.pop())
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0_u8; 2];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| matches!(rustix::fs::lgetxattr(directory, *name, &mut value[..]), Ok(1) if value[0] == b'y'))
}
