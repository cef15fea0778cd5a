#![allow(clippy::unwrap_used)]
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

/// A volume's directory and two layers below a directory of its own that goes with it.
struct Bed(PathBuf);

impl Bed {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("pier-copy-up-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for directory in ["volume/_data", "low/etc/app/sub", "high/etc/app/sub"] {
            DirBuilder::new().recursive(true).create(root.join(directory)).unwrap();
        }
        Self(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn fill(&self, path: &str) -> Result<()> {
        fill(
            &self.at("volume"),
            &self.at("volume"),
            &CopyUp { layers: vec![self.at("low"), self.at("high")], path: path.into() },
        )
    }

    fn data(&self, path: &str) -> PathBuf {
        self.at("volume/_data").join(path)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0), 0).unwrap();
}

#[test]
fn merges_layers() {
    let bed = Bed::new("merge");
    fs::write(bed.at("low/etc/app/a"), "low").unwrap();
    fs::write(bed.at("low/etc/app/b"), "low").unwrap();
    fs::write(bed.at("low/etc/app/gone"), "low").unwrap();
    fs::write(bed.at("low/etc/app/sub/hidden"), "low").unwrap();
    fs::write(bed.at("high/etc/app/b"), "high").unwrap();
    fs::write(bed.at("high/etc/app/sub/shown"), "high").unwrap();
    whiteout(&bed.at("high/etc/app/gone"));
    rustix::fs::lsetxattr(bed.at("high/etc/app/sub"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    bed.fill("/etc/app").unwrap();
    assert_eq!(fs::read_to_string(bed.data("a")).unwrap(), "low");
    assert_eq!(fs::read_to_string(bed.data("b")).unwrap(), "high");
    assert!(!bed.data("gone").exists() && !bed.data("sub/hidden").exists() && bed.data("sub/shown").exists());
    let mut value = [0_u8; 8];
    assert!(rustix::fs::lgetxattr(bed.data("sub"), "trusted.overlay.opaque", &mut value[..]).is_err());
}

#[test]
fn keeps_what_makes_a_file() {
    let bed = Bed::new("attributes");
    let file = bed.at("low/etc/app/tool");
    fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(12), Some(34)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
    rustix::fs::lsetxattr(&file, "user.colour", b"blue", XattrFlags::empty()).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
    fs::hard_link(&file, bed.at("low/etc/app/twin")).unwrap();
    symlink("/nowhere", bed.at("low/etc/app/link")).unwrap();
    std::os::unix::fs::lchown(bed.at("low/etc/app/link"), Some(7), Some(8)).unwrap();
    rustix::fs::mknodat(CWD, bed.at("low/etc/app/null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), 0x103)
        .unwrap();
    fs::set_permissions(bed.at("low/etc/app/null"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(bed.at("high/etc/app"), fs::Permissions::from_mode(0o1777)).unwrap();
    bed.fill("/etc/app").unwrap();
    let copy = fs::metadata(bed.data("tool")).unwrap();
    assert_eq!((copy.uid(), copy.gid(), copy.mode() & 0o7777), (12, 34, 0o4750));
    assert_eq!((copy.mtime(), copy.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(copy.ino(), fs::metadata(bed.data("twin")).unwrap().ino());
    let mut value = [0_u8; 8];
    assert_eq!(rustix::fs::lgetxattr(bed.data("tool"), "user.colour", &mut value[..]).unwrap(), 4);
    let link = fs::symlink_metadata(bed.data("link")).unwrap();
    assert_eq!((link.uid(), link.gid(), fs::read_link(bed.data("link")).unwrap()), (7, 8, "/nowhere".into()));
    let null = fs::metadata(bed.data("null")).unwrap();
    assert_eq!((null.rdev(), null.mode() & 0o777), (0x103, 0o666));
    assert_eq!(fs::metadata(bed.at("volume/_data")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn leaves_content_alone_and_ignores_absent_paths() {
    let bed = Bed::new("absent");
    bed.fill("/nope").unwrap();
    fs::write(bed.at("low/etc/app/file"), "image").unwrap();
    bed.fill("/etc/app/file").unwrap();
    assert_eq!(fs::read_dir(bed.data("")).unwrap().count(), 0);
    fs::write(bed.data("mine"), "mine").unwrap();
    bed.fill("/etc/app").unwrap();
    assert!(!bed.data("file").exists());
}

#[test]
fn follows_links_inside() {
    let bed = Bed::new("links");
    fs::write(bed.at("low/etc/app/a"), "low").unwrap();
    symlink("/etc", bed.at("high/conf")).unwrap();
    symlink("../../../../etc/app", bed.at("high/etc/alias")).unwrap();
    bed.fill("/conf/alias").unwrap();
    assert!(bed.data("a").exists());
    symlink("loop", bed.at("high/loop")).unwrap();
    let bed_two = merged::Directory::new(&[bed.at("high")]).unwrap();
    assert!(bed_two.resolve(Path::new("/loop")).unwrap().is_none());
}

#[test]
fn recovers() {
    let bed = Bed::new("recover");
    // Killed while copying: thrown away, copied again.
    DirBuilder::new().create(bed.at("volume/copy-up.partial")).unwrap();
    fs::write(bed.at("volume/copy-up.partial/half"), "x").unwrap();
    fs::write(bed.at("low/etc/app/a"), "low").unwrap();
    bed.fill("/etc/app").unwrap();
    assert!(bed.data("a").exists() && !bed.data("half").exists());
    // Killed while moving: finished.
    DirBuilder::new().create(bed.at("volume/copy-up.ready")).unwrap();
    fs::write(bed.at("volume/copy-up.ready/rest"), "x").unwrap();
    recover(&bed.at("volume")).unwrap();
    assert!(bed.data("a").exists() && bed.data("rest").exists() && !bed.at("volume/copy-up.ready").exists());
}

#[test]
fn plain_copies_keep_everything() {
    let bed = Bed::new("plain");
    let from = bed.at("low/etc/app");
    whiteout(&from.join("marker"));
    rustix::fs::lsetxattr(from.join("sub"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 4 << 20).unwrap();
    fs::create_dir(bed.at("copy")).unwrap();
    copy::tree(&merged::Directory::plain(&from).unwrap(), &bed.at("copy")).unwrap();
    assert_eq!(fs::symlink_metadata(bed.at("copy/marker")).unwrap().rdev(), 0);
    let mut value = [0_u8; 8];
    assert_eq!(rustix::fs::lgetxattr(bed.at("copy/sub"), "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
    let copy = fs::metadata(bed.at("copy/sparse")).unwrap();
    assert!(copy.len() == 8 << 20 && copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
    assert_eq!(fs::read(bed.at("copy/sparse")).unwrap(), fs::read(from.join("sparse")).unwrap());
}
