//! Each guard of `pier-runtime` is taken away in turn, and its test has to notice.
//!
//! A patch of `hack/guards` puts the naive way back for whoever has its name in `PIER_WITHOUT`; its first line names the test. So
//! one build has them all, and the same program shows that a test passes with the guard. They are applied to a throw-away
//! worktree of the last commit; no program that is used has heard of the variable.
use crate::cargo::cargo;
use crate::proto::workspace;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The patches call it.
const SWITCH: &str = "\npub(crate) fn without(guard: &str) -> bool {\n    std::env::var(\"PIER_WITHOUT\").is_ok_and(|name| name == guard)\n}\n";

struct Guard {
    name: String,
    test: String,
}

/// All guards, or those named.
pub fn run(names: &[&str]) -> Result<()> {
    let guards: Vec<Guard> =
        all()?.into_iter().filter(|g| names.is_empty() || names.contains(&g.name.as_str())).collect();
    ensure!(!guards.is_empty(), "no such guard in hack/guards: {names:?}");
    let bin = build()?;
    let mut wrong = 0;
    println!("{:24} {:64} with   without", "guard", "test");
    for guard in guards {
        let (with, without) = (passes(&bin, &guard.test, "")?, passes(&bin, &guard.test, &guard.name)?);
        let word = |passes| if passes { "passes" } else { "fails" };
        println!("{:24} {:64} {} {}", guard.name, guard.test, word(with), word(without));
        wrong += usize::from(!with || without);
    }
    ensure!(wrong == 0, "{wrong} tests do not tell a runtime with the guard from one without");
    Ok(())
}

fn patches() -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(workspace().join("hack/guards"))? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

fn all() -> Result<Vec<Guard>> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path)?;
        let test = text.lines().next().and_then(|l| l.strip_prefix("# test: "));
        let test = test.with_context(|| format!("{} does not begin with \"# test: \"", path.display()))?.to_owned();
        Ok(Guard { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), test })
    };
    patches()?.into_iter().map(read).collect()
}

/// Where the program that can do without is. The usual ones are built after it, into the same target directory.
fn build() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let (tree, bin) = (target.join("guards/tree"), target.join("guards/bin"));
    std::fs::create_dir_all(&bin)?;
    let remove = || git(&workspace(), &["worktree", "remove", "--force"], &tree);
    if tree.exists() {
        remove()?;
    }
    git(&workspace(), &["worktree", "add", "--quiet", "--detach"], &tree)?;
    let built = patch(&tree).and_then(|()| {
        let args = ["build", "--quiet", "--workspace", "--bin", "pier-runtime"];
        done(cargo(&args).current_dir(&tree).env("CARGO_TARGET_DIR", &target))?;
        let built = std::env::current_exe()?.with_file_name("pier-runtime");
        Ok(std::fs::copy(built, bin.join("pier-runtime")).map(drop)?)
    });
    remove()?;
    built?;
    done(&mut cargo(&["build", "--quiet", "--workspace"]))?;
    Ok(bin)
}

fn patch(tree: &Path) -> Result<()> {
    for patch in patches()? {
        git(tree, &["apply", "-C1", "--recount"], &patch)?;
    }
    let library = tree.join("crates/runtime/src/lib.rs");
    let text = std::fs::read_to_string(&library)? + SWITCH;
    Ok(std::fs::write(library, text)?)
}

fn git(dir: &Path, args: &[&str], path: &Path) -> Result<()> {
    done(Command::new("git").arg("-C").arg(dir).args(args).arg(path))
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Whether the tests, full names with blanks between, pass on that program without the guard.
fn passes(bin: &Path, tests: &str, without: &str) -> Result<bool> {
    let names: Vec<&str> = tests.split(' ').collect();
    let mut command = cargo(&["test", "--quiet", "--workspace", "--test", "it", "--", "--exact"]);
    let out = command.args(&names).env("PIER_BIN", bin).env("PIER_WITHOUT", without).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(text.contains(&format!("running {} test", names.len())), "{tests}: not the names of tests\n{text}");
    if out.status.success() != without.is_empty() {
        println!("{text}");
    }
    Ok(out.status.success())
}
