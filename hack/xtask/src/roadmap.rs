//! ROADMAP.md against the tests: every ID is there, and every test that it names exists.
use crate::proto::workspace;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;

/// Fails on a missing ID, an unknown state, or a test that is not there.
pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(workspace().join("ROADMAP.md"))?;
    let rows: Vec<Vec<&str>> =
        text.lines().filter(|l| l.starts_with("| S")).map(|l| l.split('|').map(str::trim).collect()).collect();
    let mut problems = Vec::new();
    let ids: BTreeSet<&str> = rows.iter().filter_map(|r| r.get(1).copied()).collect();
    problems.extend(
        (1..=63)
            .map(|n| format!("S{n:02}"))
            .filter(|id| !ids.contains(id.as_str()))
            .map(|id| format!("{id} is missing")),
    );
    for row in &rows {
        let (id, state, test) = (row[1], row.get(3).copied().unwrap_or(""), row.get(4).copied().unwrap_or(""));
        match (state, test.trim_matches('`')) {
            ("planned", "") => {}
            ("done" | "part", test) if exists(test) => {}
            ("done" | "part", test) => problems.push(format!("{id}: no test {test:?} in integration/tests/it")),
            (state, _) => problems.push(format!("{id}: state {state:?}")),
        }
    }
    ensure!(problems.is_empty(), "ROADMAP.md:\n{}", problems.join("\n"));
    Ok(())
}

fn exists(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let black_box = workspace().join("integration/tests/it").join(format!("{file}.rs"));
    let path = if file.contains('/') { workspace().join(file) } else { black_box };
    std::fs::read_to_string(path).is_ok_and(|code| code.contains(&format!("fn {name}(")))
}
