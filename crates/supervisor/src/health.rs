//! Health checks, docker's way: a command in the container every so often. The daemon checks; the word stands in the
//! container's run directory, so that every reader sees it and it goes with the run.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::attach::Output;
use crate::definition::Healthcheck;
use crate::observe::chain;
use crate::{Error, ExecOptions, Status, Supervisor};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

/// A check with docker's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    args: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    retries: u32,
}

/// `None`: nothing is checked.
fn plan(check: &Healthcheck) -> Option<Plan> {
    let args = match check.test.split_first() {
        Some((word, rest)) if word == "CMD" && !rest.is_empty() => rest.to_vec(),
        Some((word, [command])) if word == "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), command.clone()],
        _ => return None,
    };
    let span = |ns: i64, default| u64::try_from(ns).ok().filter(|ns| *ns > 0).map_or(default, Duration::from_nanos);
    Some(Plan {
        args,
        interval: span(check.interval_ns, INTERVAL),
        timeout: span(check.timeout_ns, TIMEOUT),
        start_period: span(check.start_period_ns, Duration::ZERO),
        retries: if check.retries == 0 { RETRIES } else { check.retries },
    })
}

/// What the checks so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Health {
    word: &'static str,
    failures: u32,
}

impl Health {
    const STARTING: Self = Self { word: "starting", failures: 0 };

    /// Failures in the start period count for nothing as long as no check has succeeded.
    fn after(self, success: bool, ran: Duration, plan: &Plan) -> Self {
        if success {
            return Self { word: "healthy", failures: 0 };
        }
        if self.word == "starting" && ran < plan.start_period {
            return self;
        }
        let failures = self.failures + 1;
        Self { word: if failures >= plan.retries { "unhealthy" } else { self.word }, failures }
    }
}

/// Checks for as long as it is polled; never returns.
pub(crate) async fn watch(supervisor: &Supervisor, id: &str) {
    let check = supervisor.store().definition(id).ok().and_then(|definition| definition.healthcheck);
    if let Some(plan) = check.as_ref().and_then(plan) {
        let started = Instant::now();
        let mut health = Health::STARTING;
        publish(supervisor, id, health.word);
        loop {
            tokio::time::sleep(plan.interval).await;
            if !supervisor.observe(id).is_ok_and(|seen| seen.status == Status::Running) {
                continue;
            }
            let success = matches!(tokio::time::timeout(plan.timeout, run(supervisor, id, &plan)).await, Ok(Ok(true)));
            let next = health.after(success, started.elapsed(), &plan);
            if next.word != health.word {
                publish(supervisor, id, next.word);
                supervisor.journal_of(id, &format!("health_status: {}", next.word), &[]);
            }
            health = next;
        }
    }
    std::future::pending::<()>().await;
}

fn publish(supervisor: &Supervisor, id: &str, word: &str) {
    let path = supervisor.store().run_dir(id).join("health");
    if let Err(error) = std::fs::write(&path, word) {
        tracing::warn!(id, %error, "health");
    }
}

/// Ends a check that is given up.
struct KillOnDrop(Option<std::os::fd::OwnedFd>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = sys::pidfd::send_signal(process.as_fd(), crate::signal::KILL);
        }
    }
}

async fn run(supervisor: &Supervisor, id: &str, plan: &Plan) -> Result<bool, Error> {
    let options = ExecOptions { args: plan.args.clone(), ..ExecOptions::default() };
    let mut executed = supervisor.exec(id, options).await.inspect_err(|error| {
        tracing::debug!(id, error = %chain(error), "health check");
    })?;
    let _process = KillOnDrop(sys::pidfd::open(executed.pid).ok());
    while let Some(output) = executed.streams.next().await? {
        if let Output::Exit(exit) = output {
            return Ok(exit.code == 0);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_after_the_start_period() {
        let check = Healthcheck {
            test: vec!["CMD-SHELL".into(), "true".into()],
            start_period_ns: 5_000_000_000,
            ..Healthcheck::default()
        };
        let Some(plan) = plan(&check) else { return assert!(check.test.is_empty()) };
        assert_eq!(plan.args, ["/bin/sh", "-c", "true"]);
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(9));
        let mut health = Health::STARTING.after(false, early, &plan);
        assert_eq!(health, Health::STARTING);
        for _ in 0..2 {
            health = health.after(false, late, &plan);
            assert_eq!(health.word, "starting");
        }
        assert_eq!(health.after(false, late, &plan).word, "unhealthy");
        assert_eq!(health.after(true, late, &plan), Health { word: "healthy", failures: 0 });
    }

    #[test]
    fn none_means_none() {
        for test in [vec![], vec!["NONE".to_owned()], vec!["CMD".to_owned()]] {
            assert_eq!(plan(&Healthcheck { test, ..Healthcheck::default() }), None);
        }
    }
}
