//! The engine's configuration file (TOML). Unknown keys are refused: a misspelt one must not be silently without effect.
use crate::tools::Tool;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What can be set; every key can change by a reload (SIGHUP), but for `tools`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The network of containers that name none.
    pub default_network: String,
    /// Runtime of containers that name none; empty: the supervisor's own default.
    pub default_runtime: String,
    /// Names for OCI runtime binaries.
    pub runtimes: BTreeMap<String, String>,
    /// For each tool by name: more arguments after `serve`, used when the engine starts it.
    pub tools: BTreeMap<String, ToolSettings>,
}

/// Of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ToolSettings {
    /// More arguments after `serve`.
    pub arguments: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, or a value of the wrong type; says line and column.
    #[error("the configuration cannot be read")]
    Parse(#[source] toml::de::Error),
    /// A value that makes no sense.
    #[error("{key} = {value:?}: {why}")]
    Value {
        /// Where.
        key: &'static str,
        /// What.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_network: "bridge".into(),
            default_runtime: String::new(),
            runtimes: BTreeMap::new(),
            tools: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads and checks the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let settings: Self = toml::from_str(text).map_err(ConfigError::Parse)?;
        settings.check()?;
        Ok(settings)
    }

    /// Adds `NAME=PATH` of the command line.
    pub fn add_runtime(&mut self, text: &str) -> Result<(), ConfigError> {
        let bad = || ConfigError::Value { key: "--runtime", value: text.into(), why: "expected NAME=PATH" };
        let (name, path) = text.split_once('=').ok_or_else(bad)?;
        if name.is_empty() || path.is_empty() {
            return Err(bad());
        }
        self.runtimes.insert(name.into(), path.into());
        Ok(())
    }

    /// The binary that a container's `runtime` means.
    pub fn runtime(&self, wanted: &str) -> String {
        let name = if wanted.is_empty() { &self.default_runtime } else { wanted };
        self.runtimes.get(name).cloned().unwrap_or_else(|| name.to_string())
    }

    /// Arguments of every tool by [`Tool::index`].
    pub fn tool_arguments(&self) -> [Vec<String>; Tool::ALL.len()] {
        Tool::ALL.map(|tool| self.tools.get(tool.name()).map(|t| t.arguments.clone()).unwrap_or_default())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, value: &str, why| Err(ConfigError::Value { key, value: value.into(), why });
        if !oci::name::is_valid(&self.default_network) {
            return value("default-network", &self.default_network, "not a network's name");
        }
        if let Some((name, _)) = self.runtimes.iter().find(|(name, path)| name.is_empty() || path.is_empty()) {
            return value("runtimes", name, "name and path must not be empty");
        }
        if let Some(name) = self.tools.keys().find(|name| !Tool::ALL.iter().any(|t| t.name() == *name)) {
            return value("tools", name, "no such tool");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_it_knows_and_refuses_the_rest() {
        let text = "default-network = \"lan\"\ndefault-runtime = \"fast\"\n[runtimes]\nfast = \"/usr/bin/crun\"\n\
            [tools.network]\narguments = [\"--log-level\", \"debug\"]\n";
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.runtime(""), "/usr/bin/crun");
        assert_eq!(settings.runtime("runc"), "runc");
        assert_eq!(settings.tool_arguments()[Tool::Network.index()], ["--log-level", "debug"]);
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        for bad in
            ["default-netwrok = \"x\"", "[tools.nope]\n", "default-network = \"a b\"", "[tools.network]\nargs=[]"]
        {
            assert!(Settings::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sample_is_valid() {
        assert_eq!(Settings::parse(include_str!("../../../packaging/pierd.toml")).unwrap().default_network, "bridge");
    }
}
