//! Restart policy, logging and health check.

use anyhow::{Context, bail};
use api::supervisor::v1::{Healthcheck, LogConfig, RestartMode, RestartPolicy};

use super::container::Health;
use super::environment::pairs;
use super::time::duration_ns;

/// "no", "always", "unless-stopped", "on-failure[:max]".
pub fn restart(text: &str) -> anyhow::Result<RestartPolicy> {
    let wrong = || format!("invalid restart policy {text:?}: expected no, always, unless-stopped or on-failure[:MAX]");
    let (name, max) = match text.split_once(':') {
        Some((name, max)) => (name, Some(max)),
        None => (text, None),
    };
    let mode = match name {
        "no" | "" => RestartMode::No,
        "always" => RestartMode::Always,
        "unless-stopped" => RestartMode::UnlessStopped,
        "on-failure" => RestartMode::OnFailure,
        _ => bail!(wrong()),
    };
    let max_retries = match max {
        None => 0,
        Some(max) if mode == RestartMode::OnFailure => max.parse().ok().with_context(wrong)?,
        Some(_) => bail!("{}: only on-failure takes a number", wrong()),
    };
    Ok(RestartPolicy { mode: mode.into(), max_retries })
}

/// Docker's name of a policy, and the number of retries.
pub fn restart_name(policy: Option<&RestartPolicy>) -> (&'static str, u32) {
    let Some(policy) = policy else { return ("no", 0) };
    let name = match policy.mode() {
        RestartMode::Always => "always",
        RestartMode::OnFailure => "on-failure",
        RestartMode::UnlessStopped => "unless-stopped",
        _ => "no",
    };
    (name, policy.max_retries)
}

/// `--log-driver` and `--log-opt`; `None`: the supervisor's default.
pub fn log(driver: Option<&str>, options: &[String]) -> anyhow::Result<Option<LogConfig>> {
    if driver.is_none() && options.is_empty() {
        return Ok(None);
    }
    let driver = driver.unwrap_or("json-file");
    if !matches!(driver, "json-file" | "none") {
        bail!("unknown log driver {driver:?}: known are json-file and none");
    }
    Ok(Some(LogConfig { driver: driver.into(), options: pairs("--log-opt", options)? }))
}

/// `--health-*` and `--no-healthcheck`; `None`: the image's.
pub fn health(flags: &Health) -> anyhow::Result<Option<Healthcheck>> {
    let given = flags.health_cmd.is_some()
        || flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_start_period.is_some()
        || flags.health_retries.is_some();
    if flags.no_healthcheck {
        if given {
            bail!("--no-healthcheck conflicts with --health-* flags");
        }
        return Ok(Some(Healthcheck { test: vec!["NONE".into()], ..Default::default() }));
    }
    if !given {
        return Ok(None);
    }
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), duration_ns);
    Ok(Some(Healthcheck {
        test: flags.health_cmd.iter().flat_map(|command| ["CMD-SHELL".to_owned(), command.clone()]).collect(),
        interval_ns: time(&flags.health_interval)?,
        timeout_ns: time(&flags.health_timeout)?,
        start_period_ns: time(&flags.health_start_period)?,
        retries: flags.health_retries.unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn policies() {
        for (text, want) in [
            ("no", ("no", 0)),
            ("always", ("always", 0)),
            ("on-failure", ("on-failure", 0)),
            ("on-failure:3", ("on-failure", 3)),
            ("unless-stopped", ("unless-stopped", 0)),
        ] {
            assert_eq!(restart_name(Some(&restart(text).unwrap())), want, "{text}");
        }
        for bad in ["sometimes", "always:3", "on-failure:", "on-failure:x", "on-failure:-1"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn checks() {
        assert_eq!(health(&Health::default()).unwrap(), None);
        let none = Health { no_healthcheck: true, ..Default::default() };
        assert_eq!(health(&none).unwrap().unwrap().test, ["NONE"]);
        let command = Health {
            health_cmd: Some("true".into()),
            health_interval: Some("5s".into()),
            health_retries: Some(2),
            ..Default::default()
        };
        let check = health(&command).unwrap().unwrap();
        assert_eq!(
            (check.test, check.interval_ns, check.retries),
            (vec!["CMD-SHELL".into(), "true".into()], 5_000_000_000, 2)
        );
        assert!(health(&Health { no_healthcheck: true, ..command }).is_err());
        assert!(log(Some("syslog"), &[]).is_err());
        assert_eq!(log(None, &["max-size=1m".into()]).unwrap().unwrap().driver, "json-file");
    }
}
