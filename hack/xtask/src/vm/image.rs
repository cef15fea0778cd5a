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

/// The programs under test, the tests, and a root file system for containers.
pub fn programs(dir: &Path, tests: &Path) -> Result<PathBuf> {
    let tree = fresh(&dir.join("programs"))?;
    let built = tests.parent().and_then(Path::parent).context("target directory")?;
    let program = |name| (built.join(name), name);
    for (from, to) in
        [program("pier-runtime"), program("pier-volume"), program("pier-network"), (tests.to_path_buf(), "tests")]
    {
        must(Command::new("strip").arg("-o").arg(tree.join(to)).arg(from))?;
    }
    for script in ["plain", "systemd", "storage"] {
        std::fs::copy(guest(script), tree.join(script))?;
    }
    let busybox = crate::proto::workspace().join("integration/fixtures/busybox.sh");
    must(Command::new("sh").arg(busybox).arg(tree.join("rootfs")))?;
    disk(&tree, &dir.join("programs.img"), "200M")
}

/// A small Debian with systemd and D-Bus.
pub fn systemd(dir: &Path) -> Result<PathBuf> {
    debian(dir, "debian-pam", "systemd,systemd-sysv,dbus,libpam-systemd", |_| Ok(()))
}

/// A small Debian with the kernel's modules, and what makes and serves file systems and links.
pub fn storage(dir: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let tools = "kmod,jq,iproute2,e2fsprogs,xfsprogs,quota,nfs-kernel-server,ksmbd-tools,cifs-utils,cryptsetup-bin,\
                 nftables,socat,tcpdump";
    debian(dir, "debian-storage", tools, |tree| {
        let modules = tree.join("usr/lib/modules");
        std::fs::create_dir_all(&modules)?;
        must(Command::new("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
        let version = kernel.modules.file_name().context("a version")?;
        must(Command::new("/sbin/depmod").arg("-b").arg(tree).arg(version)).map(drop)
    })
}

/// Made once for a list of packages.
fn debian(dir: &Path, name: &str, packages: &str, more: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let [image, list] = ["img", "packages"].map(|kind| dir.join(format!("{name}.{kind}")));
    if image.exists() && std::fs::read_to_string(&list).is_ok_and(|made| made == packages) {
        return Ok(image);
    }
    let tree = dir.join(name);
    let _ = std::fs::remove_dir_all(&tree);
    must(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            .args(["doc", "man", "locale"].map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")))
            .arg(SUITE)
            .arg(&tree)
            .arg(archive()?),
    )?;
    more(&tree)?;
    let stage = disk(&tree, &dir.join(format!("{name}.stage.img")), "600M")?;
    std::fs::remove_dir_all(&tree)?;
    std::fs::rename(stage, &image)?;
    std::fs::write(list, packages)?;
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
