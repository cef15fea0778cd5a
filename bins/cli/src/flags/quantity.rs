//! Sizes, CPUs and limits.

use anyhow::{Context, bail};

/// Bytes of "64m", "1.5g", "512".
pub fn bytes(text: &str) -> anyhow::Result<i64> {
    let size = console::parse_size(text)
        .with_context(|| format!("invalid size {text:?}: expected a number with b, k, m, g or t, such as 64m"))?;
    i64::try_from(size).with_context(|| format!("size {text} is too large"))
}

/// Bytes, or -1 for no limit.
pub fn bytes_or_unlimited(text: &str) -> anyhow::Result<i64> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// Billionths of a CPU of "0.5".
pub fn nano_cpus(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("invalid number of CPUs {text:?}: expected a positive number such as 1.5");
    let cpus: f64 = text.parse().ok().with_context(wrong)?;
    if !cpus.is_finite() || cpus <= 0.0 || cpus > 1e6 {
        bail!(wrong());
    }
    Ok((cpus * 1e9).round() as i64)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
    "locks",
];

/// "nofile=1024" or "nofile=1024:2048", checked and with both numbers.
pub fn ulimit(text: &str) -> anyhow::Result<String> {
    let (name, value) =
        text.split_once('=').with_context(|| format!("invalid ulimit {text:?}: expected NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        bail!("invalid ulimit {name:?}: known are {}", ULIMITS.join(", "));
    }
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let number = |part: &str| {
        part.parse::<i64>()
            .ok()
            .filter(|n| *n >= -1)
            .with_context(|| format!("invalid ulimit {text:?}: {part:?} is no limit"))
    };
    let (soft_limit, hard_limit) = (number(soft)?, number(hard)?);
    if hard_limit != -1 && (soft_limit > hard_limit || soft_limit == -1) {
        bail!("invalid ulimit {text:?}: the soft limit is above the hard one");
    }
    Ok(format!("{name}={soft_limit}:{hard_limit}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [("64m", 64 << 20), ("1g", 1 << 30), ("1024", 1024), ("10k", 10240)] {
            assert_eq!(bytes(text).unwrap(), want, "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1").unwrap(), -1);
        for bad in ["", "-1", "x", "64q"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(nano_cpus("0.5").unwrap(), 500_000_000);
        assert_eq!(nano_cpus("2").unwrap(), 2_000_000_000);
        for bad in ["0", "-1", "x", "inf", "NaN"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits() {
        assert_eq!(ulimit("nofile=1024").unwrap(), "nofile=1024:1024");
        assert_eq!(ulimit("nofile=1024:2048").unwrap(), "nofile=1024:2048");
        assert_eq!(ulimit("core=-1").unwrap(), "core=-1:-1");
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=5:4", "nope=1", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
