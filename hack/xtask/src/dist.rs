//! `hack/dev release`: the programs to ship, with manual pages and completions made by the programs themselves.
use crate::proto::workspace;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every program that is shipped.
pub const PROGRAMS: [&str; 9] = [
    "pier",
    "pierd",
    "pier-runtime",
    "pier-shim",
    "pier-supervisor",
    "pier-distribution",
    "pier-network",
    "pier-volume",
    "pier-builder",
];

/// Started by one of them, from beside it: neither manual page nor completion.
const HELPERS: [&str; 1] = ["pier-runtime-serve"];

/// Builds and fills `target/dist`. Returns its `bin`.
pub fn run() -> Result<PathBuf> {
    let dist = workspace().join("target/dist").components().collect::<PathBuf>();
    let bin = dist.join("bin");
    for dir in ["bin", "man", "completion"] {
        std::fs::create_dir_all(dist.join(dir))?;
    }
    let mut build = crate::cargo::cargo(&["build", "--release", "--quiet"]);
    build.args(PROGRAMS.iter().flat_map(|p| ["--package", p]));
    ensure!(build.status()?.success(), "cargo build --release");
    let built = built_dir()?;
    for helper in HELPERS {
        std::fs::copy(built.join(helper), bin.join(helper)).with_context(|| helper.to_string())?;
    }
    for program in PROGRAMS {
        std::fs::copy(built.join(program), bin.join(program)).with_context(|| program.to_string())?;
        documents(&bin.join(program), program, &dist)?;
    }
    println!("{}", bin.display());
    Ok(bin)
}

fn built_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let debug = exe.parent().context("target directory")?;
    Ok(debug.parent().context("target directory")?.join("release"))
}

/// The shim is not for people: it has neither.
fn documents(program: &Path, name: &str, dist: &Path) -> Result<()> {
    if name == "pier-shim" {
        return Ok(());
    }
    let man = Command::new(program).arg("man").arg(dist.join("man")).status()?;
    ensure!(man.success(), "{name} man");
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(program).args(["completion", shell]).output()?;
        ensure!(script.status.success(), "{name} completion {shell}");
        std::fs::write(dist.join(format!("completion/{name}.{shell}")), script.stdout)?;
    }
    Ok(())
}
