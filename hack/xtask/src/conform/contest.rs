//! youki's contest: a process per group, since a panic in one ends the run; each in namespaces of its own.
use super::isolated::Isolated;
use super::verdict::{Results, Verdict};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A group takes up to 20 s with runc on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `contest` out of `dir` against `runtime`.
pub fn run(dir: &Path, runtime: &Path, only: Option<&str>) -> Result<Results> {
    let list = Command::new(dir.join("contest")).arg("list").current_dir(dir).output().context("contest list")?;
    ensure!(list.status.success(), "contest list: {}", String::from_utf8_lossy(&list.stderr));
    let groups = String::from_utf8(list.stdout)?;
    let mut results = Results::new();
    for group in groups.lines().filter(|g| !g.is_empty() && only.is_none_or(|o| g.contains(o))) {
        let output = run_group(dir, runtime, group)?;
        let cases = parse(&output);
        println!("   {group}: {} cases, not ok: {:?}", cases.len(), failed(&cases));
        if cases.is_empty() {
            results.insert(format!("{group}: (aborted)"), Verdict::Failed(tail(&output)));
        }
        results.extend(cases.into_iter().map(|(case, v)| (format!("{group}: {case}"), v)));
    }
    Ok(results)
}

fn run_group(dir: &Path, runtime: &Path, group: &str) -> Result<String> {
    // The suite skips what a kind of runtime is known not to do: none of it for ours.
    let line = "cd \"$CONTEST\" && RUNTIME_KIND=runc exec ./contest run --runtime \"$RUNTIME\" --runtimetest ./runtimetest -t ";
    let mut run = Isolated::start(&format!("{line}{group}"), &[("CONTEST", dir), ("RUNTIME", runtime)])?;
    let begin = Instant::now();
    loop {
        let ended = run.ended()?;
        let output = run.output();
        if ended || output.contains(&format!("# End group {group}")) || begin.elapsed() > LIMIT {
            return Ok(output);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `N / M : NAME : ok|skipped|not ok`, the reason below.
fn parse(text: &str) -> Vec<(String, Verdict)> {
    let mut cases: Vec<(String, Verdict)> = vec![];
    for line in text.lines().map(|l| l.trim_end_matches('\r')) {
        let mut parts = line.splitn(3, " : ");
        let found = match (parts.next(), parts.next(), parts.next()) {
            (Some(count), Some(name), Some(word)) if count.contains(" / ") => Some((name, word)),
            _ => None,
        };
        match (found, cases.last_mut()) {
            (Some((name, "ok")), _) => cases.push((name.to_owned(), Verdict::Passed)),
            (Some((name, "skipped")), _) => cases.push((name.to_owned(), Verdict::Skipped)),
            (Some((name, _)), _) => cases.push((name.to_owned(), Verdict::Failed(String::new()))),
            (None, Some((_, Verdict::Failed(why)))) => why.push_str(&format!("{}\n", line.trim())),
            (None, _) => {}
        }
    }
    cases
}

fn failed(cases: &[(String, Verdict)]) -> Vec<&str> {
    cases.iter().filter(|(_, v)| matches!(v, Verdict::Failed(_))).map(|(c, _)| c.as_str()).collect()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group() {
        let text =
            "# Start group g\n1 / 3 : a : ok\n2 / 3 : b : not ok\n\twhy\n3 / 3 : c : skipped\n\tno\n# End group g\n";
        let cases = parse(text);
        assert_eq!(cases.len(), 3);
        assert_eq!(cases[1], ("b".into(), Verdict::Failed("why\n".into())));
        assert_eq!(cases[2].1, Verdict::Skipped);
    }
}
