//! `hack/dev bench [NAME...]`: Pier's release programs against peers, interleaved in one run on one machine, as medians and
//! ratios. It prints; it never judges. Everything runs in throw-away namespaces (`integration/isolate.sh`).
mod arena;
mod memory;
mod network;
mod pull;
mod run;
mod runtime;
mod timed;
mod volume;

use anyhow::{Result, bail, ensure};
use arena::Arena;
use std::process::Command;

const INSIDE: &str = "PIER_BENCH_INSIDE";

/// Runs the named benchmarks, or all.
pub fn run(names: &[&str]) -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return again_inside(names);
    }
    let arena = Arena::new()?;
    let all = ["runtime", "run", "pull", "memory", "network", "volume"];
    let chosen = if names.is_empty() { all.to_vec() } else { names.to_vec() };
    let mut failed = Vec::new();
    for name in chosen {
        println!("\n## {name}");
        let done = match name {
            "runtime" => runtime::run(&arena),
            "run" => run::run(&arena),
            "pull" => pull::run(&arena),
            "memory" => memory::run(&arena),
            "network" => network::run(&arena),
            "volume" => volume::run(&arena),
            other => bail!("no benchmark {other:?}; there are {all:?}"),
        };
        if let Err(e) = done {
            println!("failed: {e:#}");
            failed.push(name);
        }
    }
    arena.close();
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(())
}

fn again_inside(names: &[&str]) -> Result<()> {
    arena::make_fixtures()?;
    let script = crate::proto::workspace().join("integration/isolate.sh").canonicalize()?;
    let cgroup = format!("pier-bench-{}", std::process::id());
    let mut command = Command::new(script);
    command.arg(&cgroup).arg(std::env::current_exe()?).arg("bench").args(names).env(INSIDE, "1");
    let status = command.status()?;
    // Empty by now; what is left goes with the next reboot at the latest.
    let _ = Command::new("bash")
        .arg("-c")
        .arg(format!("find /sys/fs/cgroup/*/{cgroup} -depth -type d -exec rmdir {{}} + 2>/dev/null"))
        .status();
    ensure!(status.success(), "the benchmarks failed");
    Ok(())
}
