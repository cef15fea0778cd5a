//! Which package may depend on which: the table in ARCHITECTURE.md against the manifests, so that text and code cannot
//! drift.
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Fails on an edge between our packages that the table does not have.
pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(crate::proto::workspace().join("ARCHITECTURE.md"))?;
    let allowed = table(&text)?;
    let mut problems = Vec::new();
    for (package, used) in edges()? {
        let Some(may) = allowed.get(&package) else {
            problems.push(format!("{package} is missing in the layer table"));
            continue;
        };
        problems.extend(used.difference(may).map(|to| format!("{package} → {to} is not allowed")));
    }
    ensure!(problems.is_empty(), "layers (ARCHITECTURE.md):\n{}", problems.join("\n"));
    Ok(())
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Lines `a, b → c, d` of the first fenced block after "## Layers".
fn table(text: &str) -> Result<Edges> {
    let section = text.split("## Layers").nth(1).context("ARCHITECTURE.md has no section \"## Layers\"")?;
    let block = section.split("```").nth(1).context("no table under \"## Layers\"")?;
    let words =
        |s: &str| -> Vec<String> { s.split(',').map(|w| w.trim().to_string()).filter(|w| !w.is_empty()).collect() };
    let mut out = Edges::new();
    for line in block.lines() {
        let Some((from, to)) = line.split_once('→') else { continue };
        let to: BTreeSet<String> = words(to).into_iter().filter(|w| w != "nothing of ours").collect();
        for package in words(from) {
            out.insert(package, to.clone());
        }
    }
    Ok(out)
}

fn edges() -> Result<Edges> {
    let packages = metadata(&["--no-deps"])?;
    let packages = packages["packages"].as_array().context("metadata")?.clone();
    let ours: BTreeSet<String> = packages.iter().filter_map(|p| Some(p["name"].as_str()?.to_string())).collect();
    let mut out = Edges::new();
    for package in &packages {
        let used = package["dependencies"].as_array().into_iter().flatten();
        // A crates.io package may share a name with one of ours ("console"): only path dependencies count.
        let used = used.filter(|d| d["path"].is_string() && d["kind"].as_str() != Some("dev"));
        let used: BTreeSet<String> =
            used.filter_map(|d| Some(d["name"].as_str()?.to_string())).filter(|n| ours.contains(n)).collect();
        out.insert(package["name"].as_str().unwrap_or_default().to_string(), used);
    }
    Ok(out)
}

/// `cargo metadata` as JSON.
pub fn metadata(args: &[&str]) -> Result<Value> {
    let output = Command::new("cargo").args(["metadata", "--format-version", "1", "--locked"]).args(args).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() -> Result<()> {
        let t = table("## Layers\n```\na, b → nothing of ours\nc → a,  b\n```\n")?;
        assert!(t["a"].is_empty() && t["c"].contains("b") && t.len() == 3);
        Ok(())
    }
}
