//! `hack/dev conform`: the suites of runc and youki against the built runtime.
//!
//! Each suite runs first against runc itself, which says what can pass on this machine, then against ours. A case that only runc
//! passes is a difference, unless `hack/conform/<suite>.expected` lists it with its reason; so is a listed case that passes. The
//! suites come from checkouts of theirs, built, given by path: nothing of theirs is in this tree.
mod bats;
mod contest;
mod expected;
mod isolated;
mod verdict;

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use verdict::Results;

/// What one invocation runs.
struct Options {
    /// A checkout of runc with `runc` and `tests/cmd/_bin` built (`make runc test-binaries`).
    runc: PathBuf,
    /// A directory with youki's `contest`, `runtimetest` and `bundle.tar.gz`.
    contest: Option<PathBuf>,
    /// The runtime under test.
    runtime: PathBuf,
    /// Only files or groups whose name contains this.
    only: Option<String>,
    /// Run the reference again although its results are there.
    fresh: bool,
}

const USAGE: &str =
    "hack/dev conform [bats|contest] --runc DIR [--contest DIR] [--runtime FILE] [--only NAME] [--fresh]
  (or RUNC_SRC=DIR, CONTEST=DIR in the environment)";

/// Runs the named suites, or both as far as their paths are given. Fails on any difference.
pub fn run(words: &[&str]) -> Result<()> {
    let (suites, options) = parse(words)?;
    ensure!(options.runc.join("runc").is_file(), "{}: no built runc in it\n{USAGE}", options.runc.display());
    let mut differences = 0;
    for suite in suites {
        differences += match suite {
            "bats" => compare("bats", &options, |runtime| bats::run(&options.runc, runtime, options.only.as_deref()))?,
            _ => {
                let dir =
                    options.contest.as_deref().with_context(|| format!("contest needs --contest DIR\n{USAGE}"))?;
                compare("contest", &options, |runtime| contest::run(dir, runtime, options.only.as_deref()))?
            }
        };
    }
    ensure!(differences == 0, "{differences} differences from runc");
    Ok(())
}

fn parse<'a>(words: &[&'a str]) -> Result<(Vec<&'a str>, Options)> {
    let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut options = Options {
        runc: env("RUNC_SRC").unwrap_or_default(),
        contest: env("CONTEST"),
        runtime: built()?,
        only: None,
        fresh: false,
    };
    let mut suites = vec![];
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().copied().with_context(|| format!("{word} needs a value\n{USAGE}"));
        match *word {
            "bats" | "contest" => suites.push(*word),
            "--runc" => options.runc = value()?.into(),
            "--contest" => options.contest = Some(value()?.into()),
            "--runtime" => options.runtime = value()?.into(),
            "--only" => options.only = Some(value()?.into()),
            "--fresh" => options.fresh = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    if suites.is_empty() {
        suites = if options.contest.is_some() { vec!["bats", "contest"] } else { vec!["bats"] };
    }
    options.runc = std::path::absolute(&options.runc)?;
    options.contest = options.contest.map(std::path::absolute).transpose()?;
    options.runtime = std::path::absolute(&options.runtime)?;
    Ok((suites, options))
}

/// The runtime beside this very program.
fn built() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("pier-runtime"))
}

/// Runs a suite against both and prints the difference; returns how many cases it has.
fn compare(suite: &str, options: &Options, run: impl Fn(&Path) -> Result<Results>) -> Result<usize> {
    println!("== {suite}: runc, the reference");
    let mut reference = reference(suite, options, &run)?;
    println!("== {suite}: {}", options.runtime.display());
    let ours = run(&options.runtime)?;
    let mut listed = expected::read(Path::new("hack/conform").join(format!("{suite}.expected")).as_path())?;
    if let Some(only) = &options.only {
        let wanted = |case: &str| case.split(": ").next().is_some_and(|group| group.contains(only.as_str()));
        reference.retain(|case, _| wanted(case));
        listed.retain(|case, _| wanted(case));
    }
    let mut report = expected::compare(&reference, &ours, &listed);
    if options.only.is_none() {
        report.check_share();
    }
    print!("{report}");
    Ok(report.differences.len())
}

/// The reference's results: of an earlier run with the same runc, else from running it.
fn reference(suite: &str, options: &Options, run: &impl Fn(&Path) -> Result<Results>) -> Result<Results> {
    let kept = built()?.with_file_name(format!("conform-{suite}.reference"));
    let newer =
        || Some(kept.metadata().ok()?.modified().ok()? > options.runc.join("runc").metadata().ok()?.modified().ok()?);
    if !options.fresh
        && newer() == Some(true)
        && let Ok(text) = std::fs::read_to_string(&kept)
    {
        println!("   (results of an earlier run; --fresh runs it again)");
        return Ok(verdict::parse(&text));
    }
    let results = run(&options.runc.join("runc"))?;
    if options.only.is_none() {
        std::fs::write(&kept, verdict::print(&results))?;
    }
    Ok(results)
}
