//! One command timed: wall time, and the CPU time of it and of all it has waited for.
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::Instant;

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    wall: f64,
    cpu: f64,
}

/// Runs a command that must succeed.
pub fn timed(command: &mut Command) -> Result<Sample> {
    let before = children_cpu()?;
    let begun = Instant::now();
    let status = command.status()?;
    let wall = begun.elapsed().as_secs_f64() * 1000.0;
    ensure!(status.success(), "{status}");
    Ok(Sample { wall, cpu: children_cpu()? - before })
}

/// "median | minimum | median of CPU", and the median of wall.
pub fn row(samples: &[Sample]) -> (String, f64) {
    let (wall, cpu) = (sorted(samples, |s| s.wall), sorted(samples, |s| s.cpu));
    let median = wall[wall.len() / 2];
    (format!("{median:.2} | {:.2} | {:.2}", wall[0], cpu[cpu.len() / 2]), median)
}

fn sorted(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn children_cpu() -> Result<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1000.0)
}
