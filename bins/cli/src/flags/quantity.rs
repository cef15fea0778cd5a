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
}
