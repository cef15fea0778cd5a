//! Overlay mounts: whether they work here, and the options of one.
use crate::Store;
use crate::layer::Part;
use crate::store::Staging;
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::io;
use std::path::{Path, PathBuf};
use sys::mount::Mount;

/// The kernel's limit of lower directories.
pub(crate) const MAX_LOWER: usize = 500;

/// Which snapshotter works here.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// Why overlay does not.
    pub overlay: std::result::Result<(), String>,
    /// Options that make what is written independent of this kernel's defaults.
    pub options: Vec<String>,
}

/// Tries a real overlay mount in a staging directory, attached nowhere: deletes a file of the lower directory through
/// it and looks whether the upper directory got its whiteout.
pub(crate) fn probe(store: &Store) -> Probe {
    let options = options();
    let overlay = match store.stage() {
        _ if store.root().as_os_str().as_encoded_bytes().iter().any(|b| b":,\\\"\n".contains(b)) => {
            Err("the store's path has characters that overlay options cannot carry".into())
        }
        Ok(staging) => attempt(&staging, &options).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    Probe { overlay, options }
}

fn attempt(staging: &Staging, options: &[String]) -> io::Result<()> {
    let path = |name: &str| staging.path().join(name);
    for name in ["lower", "lower2", "upper", "work"] {
        std::fs::create_dir(path(name))?;
    }
    std::fs::write(path("lower/file"), b"")?;
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let lower = format!("{}:{}", path("lower").display(), path("lower2").display());
    // A short value: fsconfig takes at most 255 bytes at once.
    if lower.len() < 256 {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir", lower)?;
    } else {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir", path("lower"))?;
    }
    rustix::mount::fsconfig_set_string(&fs, "upperdir", path("upper"))?;
    rustix::mount::fsconfig_set_string(&fs, "workdir", path("work"))?;
    for option in options {
        if let Some((key, value)) = option.split_once('=') {
            rustix::mount::fsconfig_set_string(&fs, key, value)?;
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::fs::unlinkat(&mount, "file", AtFlags::empty())?;
    let there = rustix::fs::statat(CWD, path("upper/file"), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(there.st_mode) != FileType::CharacterDevice {
        return Err(io::Error::other("deletions leave no whiteouts"));
    }
    // Directories that hide their parents need trusted attributes.
    rustix::fs::mkdirat(&mount, "file", Mode::from_raw_mode(0o755))?;
    let mut value = [0u8; 4];
    rustix::fs::lgetxattr(path("upper/file"), crate::layer::OPAQUE, &mut value)?;
    Ok(())
}

/// Only those that this kernel knows: it refuses a mount with others.
fn options() -> Vec<String> {
    let parameters = Path::new("/sys/module/overlay/parameters");
    // index and metacopy would make an upper directory mean something only above its own parents; redirects would
    // make a renamed directory's content invisible to a diff.
    [("index", "off"), ("redirect_dir", "nofollow"), ("metacopy", "off")]
        .iter()
        .filter(|(name, _)| parameters.join(name).exists())
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The mount of layers (topmost first) with `fs` above them: writable, or as one more lower directory.
pub(crate) fn mount(parts: &[Part], fs: &Path, work: Option<&Path>, options: &[String]) -> Mount {
    let mut lower: Vec<PathBuf> = parts.iter().map(|p| p.fs.clone()).collect();
    if work.is_none() {
        lower.insert(0, fs.to_owned());
    }
    let text: Vec<String> = lower.iter().map(|p| p.display().to_string()).collect();
    let mut all = vec![format!("lowerdir={}", text.join(":"))];
    match work {
        Some(work) => {
            all.push(format!("upperdir={}", fs.display()));
            all.push(format!("workdir={}", work.display()));
        }
        None => all.insert(0, "ro".into()),
    }
    all.extend(options.iter().cloned());
    Mount { fstype: "overlay".into(), source: "overlay".into(), target: PathBuf::new(), options: all }
}

/// A bind of one directory.
pub(crate) fn bind(fs: &Path, read_only: bool) -> Mount {
    let options = vec!["rbind".into(), if read_only { "ro".into() } else { "rw".into() }];
    Mount { fstype: "bind".into(), source: fs.to_owned(), target: PathBuf::new(), options }
}
