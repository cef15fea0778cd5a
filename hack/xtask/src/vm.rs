//! `hack/dev vm [plain|systemd|storage][:TEST]`: tests that need a machine with cgroup v2 alone, with systemd, or with file systems
//! that the kernel at hand may lack, in a virtual one.
//!
//! qemu in software (no KVM needed) boots Debian's newer cloud kernel; `integration/tests/guest` runs inside as root and its
//! output comes back over the serial line. Downloads are kept under `target/vm`; nothing of them is installed.
mod boot;
mod image;
mod kernel;

use crate::cargo::cargo;
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::Command;

/// The release whose kernel and whose systemd are used.
const SUITE: &str = "trixie";

/// Runs the named machines, or all; of `NAME:TEST` only the tests whose path has `TEST` in it.
pub fn run(names: &[&str]) -> Result<()> {
    let names = if names.is_empty() { vec!["plain", "systemd", "storage"] } else { names.to_vec() };
    let dir = crate::proto::workspace().join("target/vm").components().collect::<PathBuf>();
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let kernel = kernel::fetch(&dir)?;
    let initrd = image::initrd(&dir, &kernel)?;
    let programs = image::programs(&dir, &guest_tests()?)?;
    for name in names {
        let (name, only) = name.split_once(':').unwrap_or((name, ""));
        let disks = match name {
            "plain" => vec![programs.clone()],
            "systemd" => vec![programs.clone(), image::systemd(&dir)?],
            "storage" => vec![programs.clone(), image::storage(&dir, &kernel)?],
            other => bail!("no machine {other:?}; there are plain, systemd and storage"),
        };
        boot::run(name, only, &kernel.image, &initrd, &disks)?;
    }
    Ok(())
}

/// Builds the tests that run inside, and says where they are.
fn guest_tests() -> Result<PathBuf> {
    // The whole workspace, as everywhere: with other features most dependencies would be built once more.
    let build = cargo(&["build", "--quiet", "--workspace"]).output()?;
    ensure!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let tests = ["test", "--quiet", "--workspace", "--test", "guest", "--no-run", "--message-format=json"];
    let tests = cargo(&tests).output()?;
    ensure!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
    let text = String::from_utf8(tests.stdout)?;
    let path = text
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
        .find_map(|m| (m["target"]["name"] == "guest").then(|| m["executable"].as_str().map(PathBuf::from)).flatten());
    path.context("cargo names no executable for the guest's tests")
}

/// Runs a command, or says what it printed.
fn must(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
