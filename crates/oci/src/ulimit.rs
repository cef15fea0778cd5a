//! Limits of a process as people write them: `nofile=1024:2048` (`--ulimit` of docker, ulimit of sh).

use std::fmt;
use std::str::FromStr;

/// The limits of getrlimit(2), as docker names them.
pub const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
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
];

/// A soft and a hard limit.
///
/// ```
/// let ulimit: oci::ulimit::Ulimit = "nofile=1024".parse().unwrap();
/// assert_eq!((ulimit.kind(), ulimit.hard), ("RLIMIT_NOFILE".into(), 1024));
/// assert_eq!(ulimit.to_string(), "nofile=1024:1024");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// In units of the limit; `u64::MAX` is none.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid ulimit {text:?}: {why}")]
pub struct UlimitError {
    /// As it was given.
    pub text: String,
    /// In words.
    pub why: String,
}

impl Ulimit {
    /// The name of config.json (`process.rlimits[].type`, runtime-spec config.md).
    #[must_use]
    pub fn kind(&self) -> String {
        format!("RLIMIT_{}", self.name.to_ascii_uppercase())
    }
}

impl FromStr for Ulimit {
    type Err = UlimitError;

    /// `NAME=SOFT[:HARD]`; `-1` and `unlimited` are no limit.
    fn from_str(text: &str) -> Result<Self, UlimitError> {
        let wrong = |why: &str| UlimitError { text: text.into(), why: why.into() };
        let (name, limits) = text.split_once('=').ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
        let known = || wrong(&format!("known are {}", NAMES.join(", ")));
        let name = NAMES.into_iter().find(|known| *known == name).ok_or_else(known)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |part: &str| match part {
            "-1" | "unlimited" => Ok(u64::MAX),
            part => part.parse().map_err(|_| wrong("a limit is a number, or -1 for none")),
        };
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        Ok(Self { name, soft, hard })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |limit: u64| if limit == u64::MAX { "-1".to_owned() } else { limit.to_string() };
        write!(f, "{}={}:{}", self.name, text(self.soft), text(self.hard))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        let read = |text: &str| text.parse::<Ulimit>().unwrap().to_string();
        assert_eq!(read("nofile=1024"), "nofile=1024:1024");
        assert_eq!(read("as=1024:2048"), "as=1024:2048");
        assert_eq!(read("core=-1"), "core=-1:-1");
        assert_eq!(read("memlock=5:unlimited"), "memlock=5:-1");
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=5:4", "nope=1", "nofile=-1:5", "nofile=-2"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad}");
        }
    }
}
