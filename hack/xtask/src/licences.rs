//! Licences and banned crates of everything that is linked, against `deny.toml`.
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

#[derive(serde::Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(serde::Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    /// For packages whose manifest has a licence file instead of an expression.
    #[serde(default)]
    clarify: Vec<Clarify>,
}

#[derive(serde::Deserialize)]
struct Clarify {
    crate_name: String,
    expression: String,
}

#[derive(serde::Deserialize)]
struct Bans {
    deny: BTreeSet<String>,
}

/// Fails on a package with a licence that is not listed, or that is banned.
pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(crate::proto::workspace().join("deny.toml"))?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = crate::layers::metadata(&["--filter-platform", &platform])?;
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let clarified = deny.licenses.clarify.iter().find(|c| c.crate_name == name).map(|c| c.expression.as_str());
        let licence = package["license"].as_str().or(clarified).unwrap_or_default();
        if deny.bans.deny.contains(name) {
            problems.push(format!("{name} is banned"));
        }
        if !allowed(licence, &deny.licenses.allow) {
            problems.push(format!("{name}: licence {licence:?} is not listed"));
        }
    }
    ensure!(problems.is_empty(), "deny.toml:\n{}", problems.join("\n"));
    Ok(())
}

/// SPDX expressions as crates write them: OR of ANDs, with parentheses only around ORs; "/" is an old OR.
fn allowed(expression: &str, list: &BTreeSet<String>) -> bool {
    let plain = expression.replace('/', " OR ");
    let term = |t: &str| list.contains(t.trim().trim_matches(['(', ')']).trim());
    let all = |conj: &str| conj.split(" AND ").all(term);
    plain.split(" OR ").any(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let list = BTreeSet::from(["MIT".to_string(), "Unicode-3.0".into(), "Apache-2.0".into()]);
        assert!(allowed("MIT/GPL-3.0", &list) && allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &list));
        assert!(!allowed("GPL-3.0", &list) && !allowed("MIT AND GPL-3.0", &list) && !allowed("", &list));
    }
}
