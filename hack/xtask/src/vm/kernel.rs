//! Debian's newer cloud kernel: downloaded with an apt state of its own and only unpacked.
use super::{SUITE, must};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel to boot.
pub struct Kernel {
    /// The compressed image.
    pub image: PathBuf,
    /// The directory with `kernel/`.
    pub modules: PathBuf,
}

/// Makes sure that `dir/kernel` has it.
pub fn fetch(dir: &Path) -> Result<Kernel> {
    let tree = dir.join("kernel");
    if !tree.exists() {
        let stage = dir.join("kernel.stage");
        let _ = std::fs::remove_dir_all(&stage);
        std::fs::create_dir_all(&stage)?;
        let package = download(dir)?;
        must(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&stage))?;
        std::fs::remove_file(package)?;
        std::fs::rename(stage, &tree)?;
    }
    let image = only(&tree.join("boot"), "vmlinuz")?;
    let modules = only(&tree.join("usr/lib/modules"), "")?;
    Ok(Kernel { image, modules })
}

/// The one entry of a directory whose name begins so.
fn only(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let found = std::fs::read_dir(dir)?.flatten().find(|e| e.file_name().to_string_lossy().starts_with(prefix));
    Ok(found.with_context(|| format!("no {prefix}* in {}", dir.display()))?.path())
}

/// The archive that this machine's own apt uses.
pub fn archive() -> Result<String> {
    let targets = must(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(REPO_URI) $(CODENAME)",
        "Created-By: Packages",
    ]))?;
    let main = |l: &str| {
        let (origin, rest) = l.split_once(' ')?;
        let (uri, codename) = rest.split_once(' ')?;
        (origin == "Debian" && !codename.contains('-')).then(|| uri.to_owned())
    };
    targets.lines().find_map(main).context("apt on this machine knows no Debian archive: run apt-get update")
}

fn download(dir: &Path) -> Result<PathBuf> {
    let apt = dir.join("apt");
    for sub in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(apt.join(sub))?;
    }
    let at = apt.display();
    std::fs::write(apt.join("sources.list"), format!("deb [signed-by={KEYS}] {} {SUITE} main\n", archive()?))?;
    std::fs::write(
        apt.join("apt.conf"),
        format!(
            "Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\nDir::State::status \"/dev/null\";\nDir::Cache \
             \"{at}/cache\";\nDir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \
             \"/dev/null\";\nAPT::Sandbox::User \"root\";\n"
        ),
    )?;
    let run = |program: &str, args: &[&str]| {
        must(Command::new(program).args(args).env("APT_CONFIG", apt.join("apt.conf")).current_dir(&apt))
    };
    run("apt-get", &["-qq", "update"])?;
    let depends = run("apt-cache", &["depends", "linux-image-cloud-amd64"])?;
    let name = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ")).context("no cloud kernel")?.to_owned();
    run("apt-get", &["-qq", "download", &name])?;
    only(&apt, &name)
}
