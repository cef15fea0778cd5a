//! What has to be mounted for one reference alone, at `<run>/<id>.<mount id>`, while the reference is there:
//! - `sub`, a directory or a file below the volume's root (`subpath`): held by its mount, so that whoever shares the volume cannot put
//!   a link out of it in its place, neither before it is used nor before a restart of who uses it;
//! - `merged`, changes of its own (`:O`) over files whose owners look different: an overlay cannot be mapped, but what it is
//!   made of can (Linux 5.19); else fuse-overlayfs(1) does it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sys::mount::{self, Mount, overlay_options};
use sys::userns::{IdMaps, make_files_as};

use crate::error::OTHER_OWNERS;
use crate::handle::Handle;
use crate::mounted::{is_mount, take_away};
use crate::volumes::unsupported;
use crate::{Error, Result, Volume, Volumes, overlay, references, subpath};

/// Whose view: consumer and target.
pub(crate) type Who<'a> = (&'a str, &'a str);

/// What stands in one; `lower` and `upper` only while `merged` is being made.
const PLACES: [&str; 4] = ["merged", "upper", "lower", "sub"];

impl Volumes {
    fn view_place(&self, volume: &Volume, (consumer, target): Who<'_>) -> PathBuf {
        self.run.join(format!("{}.{}", volume.id, references::mount_id(consumer, target)))
    }

    /// A directory or a file below the data in `own`. Who may not mount gets its path. The caller holds the volume's lock alone.
    pub(crate) fn pin(&self, volume: &Volume, who: Who<'_>, own: &Path, wanted: &str) -> Result<PathBuf> {
        let found = subpath::open(&volume.name, own, wanted)?;
        let view = self.view_place(volume, who);
        let place = view.join("sub");
        if is_mount(&place) && same_file(&found, &place)? {
            return Ok(place);
        }
        take_away(&place)?;
        let bound = make_place(&place, found.metadata()?.is_dir()).and_then(|()| bind(&found.path(), &place, None));
        match bound {
            Ok(()) => Ok(place),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                remove(&view)?;
                fs::read_link(found.path()).map_err(Error::io("read", own))
            }
            Err(error) => Err(Error::io("mount", place)(error)),
        }
    }

    /// An overlay over `lower` with the changes of a reference, in which owners look as `map` says. The caller holds the
    /// volume's lock alone.
    pub(crate) fn overlaid(&self, volume: &Volume, who: Who<'_>, lower: &Path, map: &str) -> Result<PathBuf> {
        let view = self.view_place(volume, who);
        let merged = view.join("merged");
        // Before as well as after: somebody may have been killed in between.
        let clear = || ["lower", "upper"].iter().try_for_each(|part| take_away(&view.join(part)));
        clear()?;
        if is_mount(&merged) {
            return Ok(merged);
        }
        let changes = overlay::make(&self.root, &volume.id, who, lower)?;
        make_directory(&merged).map_err(Error::io("create", &merged))?;
        let by_kernel = mapped(&view, lower, &changes, map);
        clear()?;
        let Err(by_kernel) = by_kernel else { return Ok(merged) };
        let Err(by_fuse) = by_program(&merged, lower, &changes, map) else { return Ok(merged) };
        let why = format!("by the kernel: {by_kernel}; by a program: {by_fuse}");
        Err(unsupported(&volume.name, OTHER_OWNERS, &why))
    }

    /// Names of the views of a volume.
    pub(crate) fn views_of(&self, id: &str) -> Vec<String> {
        let names = fs::read_dir(&self.run).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('.'))).collect()
    }

    /// Takes a view away.
    pub(crate) fn drop_view(&self, name: &str) -> Result<()> {
        remove(&self.run.join(name))
    }
}

/// The kernel's overlay, of mapped mounts that are needed only until it is there.
fn mapped(view: &Path, lower: &Path, changes: &Path, map: &str) -> io::Result<()> {
    let (below, above) = (view.join("lower"), view.join("upper"));
    for (source, place) in [(lower, &below), (changes, &above)] {
        make_directory(place)?;
        bind(source, place, Some(map))?;
    }
    let (upper, work) = overlay::upper(&above);
    let options = overlay_options(&[below], Some((&upper, &work)));
    let overlay = Mount { fstype: "overlay".into(), source: "overlay".into(), options, ..Mount::default() };
    let (uid, gid) = IdMaps::parse(map)?.root();
    // Who mounts an overlay makes the files in its upper directory, and must have a place in the mapping.
    let mount = || make_files_as(uid, gid).and_then(|()| mount::mount_one(&overlay, &view.join("merged")));
    let broken = |_| Err(io::Error::other("the mounting thread broke"));
    std::thread::scope(|scope| scope.spawn(mount).join().unwrap_or_else(broken))
}

fn by_program(merged: &Path, lower: &Path, changes: &Path, map: &str) -> io::Result<()> {
    let (upper, work) = overlay::upper(changes);
    let mut options = overlay_options(&[lower.to_owned()], Some((&upper, &work)));
    options.push(format!("{}{map}", mount::IDMAP));
    let fuse =
        Mount { fstype: "fuse.fuse-overlayfs".into(), source: "fuse-overlayfs".into(), options, ..Mount::default() };
    mount::mount_one(&fuse, merged)
}

fn bind(source: &Path, place: &Path, map: Option<&str>) -> io::Result<()> {
    let mut options = vec![if map.is_some() { "bind".to_owned() } else { "rbind".to_owned() }];
    options.extend(map.map(|map| format!("{}{map}", mount::IDMAP)));
    let bind = Mount { fstype: "bind".into(), source: source.into(), options, ..Mount::default() };
    mount::mount_one(&bind, place)
}

fn make_directory(place: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(place)
}

/// For a directory to be mounted on, or a file.
fn make_place(place: &Path, directory: bool) -> io::Result<()> {
    match place.parent() {
        Some(parent) if !directory => make_directory(parent).and_then(|()| fs::write(place, "")),
        _ => make_directory(place),
    }
}

fn remove(view: &Path) -> Result<()> {
    PLACES.iter().try_for_each(|name| take_away(&view.join(name)))?;
    take_away(view)
}

fn same_file(file: &Handle, place: &Path) -> Result<bool> {
    let (one, other) = (file.metadata()?, fs::metadata(place).map_err(Error::io("read", place))?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
