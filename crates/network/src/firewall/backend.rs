//! Which firewall a stack uses, and what is known of it while it does.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::iptables::Variant;
use crate::error::{Error, Result};

/// By what means the rules come into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Tables of our own, by nft(8) and netlink.
    Nft,
    /// Chains of our own in the tables raw, nat and filter, by iptables-restore(8) and ip6tables-restore(8).
    Iptables(Variant),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft => f.write_str("nft"),
            Self::Iptables(variant) => write!(f, "iptables{}", variant.suffix()),
        }
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "nft" => Self::Nft,
            "iptables" => Self::Iptables(Variant::AsInstalled),
            "iptables-nft" => Self::Iptables(Variant::Nft),
            "iptables-legacy" => Self::Iptables(Variant::Legacy),
            _ => {
                let why = "known are auto, nft, iptables, iptables-nft and iptables-legacy";
                return Err(Error::invalid(format!("firewall {word:?}"), why));
            }
        })
    }
}

impl Backend {
    /// What it is at the moment, for each family, where that can change.
    pub(super) fn kinds(self) -> Vec<Self> {
        match self {
            Self::Iptables(Variant::AsInstalled) => Variant::installed().map(Self::Iptables).to_vec(),
            _ => Vec::new(),
        }
    }

    /// What this host has: nft before iptables.
    ///
    /// # Errors
    /// [`Error::NoFirewall`].
    pub(super) fn found() -> Result<Self> {
        if is_installed("nft") {
            return Ok(Self::Nft);
        }
        if is_installed("iptables-restore") { Ok(Self::Iptables(Variant::AsInstalled)) } else { Err(Error::NoFirewall) }
    }
}

fn is_installed(program: &str) -> bool {
    installed(program).is_some()
}

/// The file behind a program's name, which an alternative is a link to.
pub(super) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())?;
    fs::canonicalize(file).ok()
}

/// `<run>/network/firewall`: the backend in use, and behind it those whose rules have still to go, a word each; for the
/// host's `iptables` also which that and its `ip6tables` were, after `=`. It is changed under the stack's lock only, and goes with a
/// reboot as the rules do.
#[derive(Debug, Clone)]
pub(super) struct Record(PathBuf);

impl Record {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn read(&self) -> Vec<Backend> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// What the host's `iptables` and `ip6tables` were when the rules were written.
    pub(super) fn kinds(&self) -> Vec<Backend> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.strip_prefix('=')?.parse().ok()).collect()
    }

    /// Written beside it and renamed: nobody reads a half.
    pub(super) fn write(&self, backends: &[Backend], kinds: &[Backend]) -> Result<()> {
        let mut words: Vec<String> = backends.iter().map(ToString::to_string).collect();
        words.extend(kinds.iter().map(|kind| format!("={kind}")));
        let fresh = self.0.with_extension("new");
        let written = fs::create_dir_all(self.0.parent().unwrap_or(&self.0))
            .and_then(|()| fs::write(&fresh, words.join(" ") + "\n"))
            .and_then(|()| fs::rename(&fresh, &self.0));
        written.map_err(Error::io(&self.0))
    }

    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in ["nft", "iptables", "iptables-nft", "iptables-legacy"] {
            assert_eq!(word.parse::<Backend>().unwrap().to_string(), word);
        }
        assert!("ebtables".parse::<Backend>().is_err());
        let dir = std::env::temp_dir().join(format!("pier-firewall-{}", std::process::id()));
        let record = Record::at(&dir.join("firewall"));
        assert!(record.read().is_empty());
        record.write(&[Backend::Iptables(Variant::Legacy), Backend::Nft], &[]).unwrap();
        assert_eq!(record.read(), [Backend::Iptables(Variant::Legacy), Backend::Nft]);
        assert!(record.kinds().is_empty());
        let kinds = [Variant::Nft, Variant::Legacy].map(Backend::Iptables);
        record.write(&[Backend::Iptables(Variant::AsInstalled)], &kinds).unwrap();
        assert_eq!(record.read(), [Backend::Iptables(Variant::AsInstalled)]);
        assert_eq!(record.kinds(), kinds);
        fs::remove_dir_all(&dir).unwrap();
    }
}
