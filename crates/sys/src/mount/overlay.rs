//! Overlay mounts (Documentation/filesystems/overlayfs.rst): directory by directory through fsconfig(2) where the kernel
//! takes `lowerdir+` (Linux 6.7), else in the one page of options of mount(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags};

use super::idmapped::Over;
use super::{Mount, Plan, attributes, image, said};
use crate::userns::{IdMaps, make_files_as};

/// fsconfig(2) takes 256 bytes with the NUL.
const MAX_VALUE: usize = 255;
/// mount(2) takes a page with the NUL.
const MAX_OPTIONS: usize = 4095;

/// What an overlay is made of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layers<'a> {
    /// Topmost first.
    lower: Vec<PathBuf>,
    /// `upperdir` and `workdir`.
    upper: Vec<(&'a str, PathBuf)>,
    /// Everything else.
    rest: Vec<&'a str>,
}

/// Why the newer calls did not do it.
enum Refused {
    /// The kernel (or a filter) does not know them.
    Unknown,
    Failed(io::Error),
}

/// Mounts on `target`. With mapped ids, lower and upper directories lie on one file system, and files are made by the user
/// that is root inside.
pub(super) fn mount(mount: &Mount, plan: &Plan<'_>, target: &Path) -> io::Result<()> {
    let layers = Layers::of(&plan.rest);
    // Held before anything covers it.
    let target = crate::fd::open_dir(target)?;
    let Some(ids) = &plan.ids else { return attempt(mount, plan, &layers, &target, None) };
    let base = layers.base();
    if base == Path::new("/") {
        let why = "the directories of the overlay have none in common whose ids could be mapped";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let _mapped = Over::mount(&base, ids)?;
    on_its_own_thread(|| attempt(mount, plan, &layers, &target, Some(ids)))
}

fn attempt(
    mount: &Mount,
    plan: &Plan<'_>,
    layers: &Layers<'_>,
    target: &OwnedFd,
    ids: Option<&IdMaps>,
) -> io::Result<()> {
    let (uid, gid) = ids.map(IdMaps::root).unwrap_or_default();
    // Who mounts an overlay makes the files in its upper directory, and must have a place in the mapping.
    let enter = || if ids.is_some() { make_files_as(uid, gid) } else { Ok(()) };
    match by_fsconfig(mount, plan, layers, target, ids, enter) {
        Err(Refused::Unknown) if layers.lower.iter().any(|lower| lower.is_file()) => {
            let why = "layers in erofs images cannot be mounted by this kernel, or under this filter of system calls";
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }
        Err(Refused::Unknown) => by_mount(mount, plan, layers, target, enter),
        Err(Refused::Failed(e)) => Err(e),
        Ok(()) => Ok(()),
    }
}

fn by_fsconfig(
    mount: &Mount,
    plan: &Plan<'_>,
    layers: &Layers<'_>,
    target: &OwnedFd,
    ids: Option<&IdMaps>,
    enter: impl FnOnce() -> io::Result<()>,
) -> Result<(), Refused> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NOSYS | Errno::PERM => Refused::Unknown,
        e => Refused::Failed(e.into()),
    })?;
    let base = layers.open_base_for_long_names().map_err(Refused::Failed)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&fs, key, value);
    let failed = |step: &str, e: Errno| Refused::Failed(said(e, &format!("{step}{}", log(&fs))));
    // Until the overlay holds them itself.
    let mut images = Vec::new();
    for (n, dir) in layers.lower.iter().enumerate() {
        let name = if dir.is_file() {
            let image = image::mapped(dir, ids).map_err(Refused::Failed)?;
            let name = format!("/proc/self/fd/{}", image.as_raw_fd());
            images.push(image);
            name
        } else {
            base.name(dir, str::to_owned).map_err(Refused::Failed)?
        };
        set("lowerdir+", &name).map_err(|e| match e {
            Errno::INVAL | Errno::NOSYS if n == 0 => Refused::Unknown,
            e => failed(&format!("lowerdir+={name}"), e),
        })?;
    }
    for (key, dir) in &layers.upper {
        let name = base.name(dir, escaped).map_err(Refused::Failed)?;
        set(key, &name).map_err(|e| failed(&format!("{key}={name}"), e))?;
    }
    for option in &layers.rest {
        let done = match option.split_once('=') {
            Some((key, value)) => set(key, value),
            None => rustix::mount::fsconfig_set_flag(&fs, *option),
        };
        done.map_err(|e| failed(option, e))?;
    }
    let name = mount.source.to_string_lossy();
    set("source", &name).map_err(|e| failed("source", e))?;
    enter().map_err(Refused::Failed)?;
    rustix::mount::fsconfig_create(&fs).map_err(|e| failed("create", e))?;
    let made = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes(plan.flags))
        .map_err(|e| failed("fsmount", e))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&made, "", target, "", flags).map_err(|e| failed("move_mount", e))
}

/// What the kernel says about the last failure: lines of a letter, a space and words.
fn log(fs: &OwnedFd) -> String {
    let mut words = String::new();
    let mut line = [0_u8; 512];
    while let Ok(n @ 1..) = rustix::io::read(fs, &mut line) {
        let text = String::from_utf8_lossy(&line[..n]);
        words = format!("{words}: {}", text.trim().trim_start_matches(['e', 'w', 'i']).trim());
    }
    words
}

/// Directories get short names, relative to the one that they share, which a thread of its own makes its working
/// directory: nobody else's changes.
fn by_mount(
    mount: &Mount,
    plan: &Plan<'_>,
    layers: &Layers<'_>,
    target: &OwnedFd,
    enter: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    let base = layers.base();
    let data = layers.options(&base);
    if data.len() > MAX_OPTIONS {
        let why = format!(
            "{} layers do not fit into a page of mount options ({} bytes), and this kernel takes them in no other way \
             (Linux 6.7 does)",
            layers.lower.len(),
            data.len()
        );
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, why));
    }
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    on_its_own_thread(|| {
        // SAFETY: CLONE_FS changes no memory; the thread ends before anybody could miss the shared working directory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
        rustix::process::chdir(&base)?;
        enter()?;
        Ok(rustix::mount::mount(&mount.source, &target, "overlay", plan.flags, Some(data.as_c_str()))?)
    })
}

fn on_its_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let broken = |_| Err(io::Error::other("the mounting thread broke"));
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(broken))
}

impl<'a> Layers<'a> {
    fn of(options: &[&'a str]) -> Self {
        let mut all = Self::default();
        for option in options {
            match option.split_once('=') {
                Some(("lowerdir", dirs)) => all.lower.extend(split(dirs)),
                Some(("lowerdir+", dir)) => all.lower.push(dir.into()),
                Some((key @ ("upperdir" | "workdir"), dir)) => {
                    all.upper.extend(split_at(dir, None).into_iter().map(|dir| (key, dir)));
                }
                _ => all.rest.push(option),
            }
        }
        all
    }

    /// The directory that all have in common.
    fn base(&self) -> PathBuf {
        let mut dirs = self.lower.iter().chain(self.upper.iter().map(|(_, dir)| dir));
        let mut base = dirs.next().and_then(|dir| dir.parent()).unwrap_or(Path::new("/")).to_owned();
        for dir in dirs {
            while !dir.starts_with(&base) && base.pop() {}
        }
        base
    }

    /// For mount(2), relative to `base`.
    fn options(&self, base: &Path) -> String {
        let short = |dir: &Path| {
            let rest = dir.strip_prefix(base).unwrap_or(dir);
            escaped(&rest.to_string_lossy()).replace(':', "\\:")
        };
        let lower: Vec<String> = self.lower.iter().map(|dir| short(dir)).collect();
        let mut all = vec![format!("lowerdir={}", lower.join(":"))];
        let relative = |dir: &Path| escaped(&dir.strip_prefix(base).unwrap_or(dir).to_string_lossy());
        all.extend(self.upper.iter().map(|(key, dir)| format!("{key}={}", relative(dir))));
        all.extend(self.rest.iter().map(|option| (*option).to_owned()));
        all.join(",")
    }

    fn open_base_for_long_names(&self) -> io::Result<Base> {
        let long = |dir: &PathBuf| escaped(&dir.to_string_lossy()).len() > MAX_VALUE;
        if !self.lower.iter().chain(self.upper.iter().map(|(_, dir)| dir)).any(long) {
            return Ok(Base::default());
        }
        let path = self.base();
        let fd = crate::fd::open_dir(&path)?;
        Ok(Base { path, fd: Some(fd) })
    }
}

/// The directory that the others lie in, open when some of their names are too long.
#[derive(Default)]
struct Base {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

impl Base {
    /// A name that fits into one fsconfig(2).
    fn name(&self, dir: &Path, escape: impl Fn(&str) -> String) -> io::Result<String> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidFilename, format!("{}: {why}", dir.display()));
        let whole = dir.to_str().ok_or_else(|| bad("is not UTF-8"))?;
        let short = escape(whole);
        let short = match &self.fd {
            Some(fd) if short.len() > MAX_VALUE => {
                let rest = dir.strip_prefix(&self.path).ok().and_then(Path::to_str).unwrap_or(whole);
                format!("/proc/self/fd/{}/{}", fd.as_raw_fd(), escape(rest))
            }
            _ => short,
        };
        if short.len() > MAX_VALUE { Err(bad("is too long a name for an overlay")) } else { Ok(short) }
    }
}

/// Directories between colons; a backslash takes the meaning from what follows.
fn split(list: &str) -> Vec<PathBuf> {
    split_at(list, Some(':'))
}

fn split_at(list: &str, separator: Option<char>) -> Vec<PathBuf> {
    let mut out = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.last_mut().into_iter().for_each(|s| s.extend(chars.next())),
            c if Some(c) == separator => out.push(String::new()),
            c => out.last_mut().into_iter().for_each(|s| s.push(c)),
        }
    }
    out.retain(|s| !s.is_empty());
    out.into_iter().map(PathBuf::from).collect()
}

/// A directory as `upperdir` and mount(2) take it.
fn escaped(dir: &str) -> String {
    dir.replace('\\', "\\\\").replace(',', "\\,")
}

/// The options `lowerdir`, `upperdir`, `workdir` of an overlay mount (upper with work), lower directories topmost first.
pub fn overlay_options(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Vec<String> {
    let word = |dir: &Path| escaped(&String::from_utf8_lossy(dir.as_os_str().as_bytes()));
    let lower: Vec<String> = lower.iter().map(|dir| word(dir).replace(':', "\\:")).collect();
    let mut all = vec![format!("lowerdir={}", lower.join(":"))];
    if let Some((upper, work)) = upper {
        all.push(format!("upperdir={}", word(upper)));
        all.push(format!("workdir={}", word(work)));
    }
    all
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
