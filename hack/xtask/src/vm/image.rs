//! What the machines boot from: a small initrd, a disk with the programs under test, a disk with Debian and systemd.
use super::kernel::{Kernel, archive};
use super::{SUITE, must};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules of the kernel package that the guests need.
const MODULES: [&str; 3] = ["drivers/block/virtio_blk", "block/bfq", "fs/overlayfs/overlay"];

/// busybox, modules and `integration/guest/init`.
pub fn initrd(dir: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let tree = fresh(&dir.join("initrd"))?;
    std::fs::create_dir(tree.join("bin"))?;
    std::fs::copy("/bin/busybox", tree.join("bin/busybox")).context("busybox-static")?;
    std::fs::copy(guest("init"), tree.join("init"))?;
    for module in MODULES {
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let packed = kernel.modules.join(format!("kernel/{module}.ko.xz"));
        let text = Command::new("xz").arg("-dc").arg(&packed).output()?;
        std::fs::write(tree.join(format!("{name}.ko")), text.stdout)?;
    }
    let file = dir.join("initrd.cpio");
    let script = format!("find . | cpio --quiet -o -H newc >'{}'", file.display());
    must(Command::new("sh").arg("-c").arg(script).current_dir(&tree))?;
    Ok(file)
}

/// `pier-runtime`, the tests, and a root file system for containers.
pub fn programs(dir: &Path, tests: &Path) -> Result<PathBuf> {
    let tree = fresh(&dir.join("programs"))?;
    let built = tests.parent().and_then(Path::parent).context("target directory")?;
    for (from, to) in [(built.join("pier-runtime"), "pier-runtime"), (tests.to_path_buf(), "tests")] {
        must(Command::new("strip").arg("-o").arg(tree.join(to)).arg(from))?;
    }
    for script in ["plain", "systemd"] {
        std::fs::copy(guest(script), tree.join(script))?;
    }
    let busybox = crate::proto::workspace().join("integration/fixtures/busybox.sh");
    must(Command::new("sh").arg(busybox).arg(tree.join("rootfs")))?;
    disk(&tree, &dir.join("programs.img"), "200M")
}

/// A small Debian with systemd and D-Bus, made once.
pub fn debian(dir: &Path) -> Result<PathBuf> {
    let image = dir.join("debian-pam.img");
    if image.exists() {
        return Ok(image);
    }
    let tree = dir.join("debian");
    let _ = std::fs::remove_dir_all(&tree);
    must(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,libpam-systemd"])
            .args(["doc", "man", "locale"].map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")))
            .arg(SUITE)
            .arg(&tree)
            .arg(archive()?),
    )?;
    let stage = disk(&tree, &dir.join("debian.stage.img"), "600M")?;
    std::fs::remove_dir_all(&tree)?;
    std::fs::rename(stage, &image)?;
    Ok(image)
}

/// An ext4 image of a tree, without mounting anything.
fn disk(tree: &Path, image: &Path, size: &str) -> Result<PathBuf> {
    let _ = std::fs::remove_file(image);
    must(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(image).arg(size))?;
    Ok(image.to_path_buf())
}

fn guest(name: &str) -> PathBuf {
    crate::proto::workspace().join("integration/guest").join(name)
}

fn fresh(dir: &Path) -> Result<PathBuf> {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir)?;
    Ok(dir.to_path_buf())
}
