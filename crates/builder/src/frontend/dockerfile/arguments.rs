//! Build arguments: those before the first FROM, those every build has, those of the person who builds.

use std::collections::{BTreeMap, BTreeSet};

use super::Options;
use super::diagnostic::Problem;
use super::expand::Expander;

/// Arguments that need no ARG to be given and that show up in no history.
const PROXY: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The scope of FROM lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    given: BTreeMap<String, String>,
    used: std::cell::RefCell<BTreeSet<String>>,
}

impl Globals {
    /// The platform arguments and what the person gives.
    pub(super) fn new(options: &Options) -> Self {
        let mut values = BTreeMap::new();
        for (prefix, platform) in [("BUILD", &options.host), ("TARGET", &options.platform)] {
            values.insert(format!("{prefix}PLATFORM"), platform.to_string());
            values.insert(format!("{prefix}OS"), platform.os.clone());
            values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            values.insert(format!("{prefix}VARIANT"), platform.variant.clone());
        }
        values.insert("TARGETSTAGE".into(), options.target.clone().unwrap_or_else(|| "default".into()));
        Self { values, given: options.build_args.clone(), used: std::cell::RefCell::default() }
    }

    /// `ARG` before the first FROM.
    pub(super) fn declare(&mut self, name: &str, default: Option<&str>, escape: char) -> Result<(), Problem> {
        let value = match (self.given(name), default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(self.expand(default, escape)?),
            (None, None) => None,
        };
        if let Some(value) = value {
            self.values.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Expands an argument of FROM.
    pub(super) fn expand(&self, text: &str, escape: char) -> Result<String, Problem> {
        Expander::new(escape, &|name| self.values.get(name).cloned()).word(text)
    }

    /// The value of an ARG in a stage: the person's, else its own default, else that of the scope of FROM.
    pub(super) fn value(&self, name: &str, default: Option<String>) -> Option<String> {
        self.given(name).or(default).or_else(|| self.values.get(name).cloned())
    }

    /// Proxy settings, which every RUN sees.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        PROXY.iter().filter_map(|name| Some(((*name).to_owned(), self.given(name)?))).collect()
    }

    /// Arguments that were given and that nothing asked for.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let known = |name: &str| PROXY.contains(&name) || name == "SOURCE_DATE_EPOCH" || name.starts_with("BUILDKIT_");
        self.given.keys().filter(|name| !used.contains(*name) && !known(name)).cloned().collect()
    }

    fn given(&self, name: &str) -> Option<String> {
        self.used.borrow_mut().insert(name.to_owned());
        self.given.get(name).cloned()
    }
}
