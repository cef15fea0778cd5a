//! The committed list of cases that cannot pass, and the difference between two runs beyond it.
use super::verdict::{Results, Verdict};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Most of the reference's passing cases that may be listed.
const SHARE: f64 = 0.05;

/// Case → reason. A line is `case<TAB>reason`; `#` begins a comment, an absent file is an empty list.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| path.display().to_string())?,
    };
    let mut list = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (case, reason) = line.split_once('\t').with_context(|| format!("{}: no reason: {line}", path.display()))?;
        ensure!(!reason.trim().is_empty(), "{}: no reason: {line}", path.display());
        list.insert(case.to_owned(), reason.to_owned());
    }
    Ok(list)
}

/// What two runs differ in.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that the reference passes, that we pass of those, that are listed.
    counts: (usize, usize, usize),
    /// What must not be, each with its reason.
    pub differences: Vec<String>,
    /// Cases that only we pass.
    better: Vec<String>,
}

/// Compares. Pure.
pub fn compare(reference: &Results, ours: &Results, listed: &BTreeMap<String, String>) -> Report {
    let mut report = Report::default();
    let passes = |results: &Results, case: &str| results.get(case) == Some(&Verdict::Passed);
    for case in reference.keys().filter(|c| passes(reference, c)) {
        report.counts.0 += 1;
        match (ours.get(case), listed.contains_key(case)) {
            (Some(Verdict::Passed), false) => report.counts.1 += 1,
            (Some(Verdict::Passed), true) => {
                report.differences.push(format!("{case}: listed, but it passes: take it off the list"))
            }
            (_, true) => report.counts.2 += 1,
            (Some(Verdict::Failed(why)), false) => report.differences.push(format!("{case}: fails\n{}", indented(why))),
            (Some(Verdict::Skipped), false) => report.differences.push(format!("{case}: is skipped")),
            (None, false) => report.differences.push(format!("{case}: did not run")),
        }
    }
    for case in listed.keys().filter(|c| !reference.contains_key(*c)) {
        report.differences.push(format!("{case}: listed, but there is no such case"));
    }
    report.better = ours
        .keys()
        .filter(|c| passes(ours, c) && matches!(reference.get(*c), Some(Verdict::Failed(_))))
        .cloned()
        .collect();
    report
}

impl Report {
    /// Of the whole suite not too much may be listed.
    pub fn check_share(&mut self) {
        let (all, _, listed) = self.counts;
        if listed as f64 > all as f64 * SHARE {
            self.differences.push(format!("{listed} of {all} are listed: more than {SHARE}"));
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().take(12).map(|l| format!("      {l}\n")).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, passed, listed) = self.counts;
        for difference in &self.differences {
            writeln!(f, "DIFFERENCE {difference}")?;
        }
        for case in &self.better {
            writeln!(f, "only ours passes: {case}")?;
        }
        writeln!(
            f,
            "{passed} of the {all} cases that runc passes pass, {listed} are listed, {} differ",
            self.differences.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(list: &[(&str, Verdict)]) -> Results {
        list.iter().map(|(c, v)| ((*c).to_owned(), v.clone())).collect()
    }

    #[test]
    fn differences() {
        let failed = || Verdict::Failed("why".into());
        let reference = results(&[
            ("same", Verdict::Passed),
            ("lost", Verdict::Passed),
            ("known", Verdict::Passed),
            ("stale", Verdict::Passed),
            ("theirs too", failed()),
        ]);
        let ours = results(&[
            ("same", Verdict::Passed),
            ("lost", failed()),
            ("known", failed()),
            ("stale", Verdict::Passed),
            ("theirs too", Verdict::Passed),
        ]);
        let listed = ["known", "stale", "gone"].map(|c| (c.to_owned(), "reason".to_owned())).into();
        let mut report = compare(&reference, &ours, &listed);
        report.check_share();
        assert_eq!(report.counts, (4, 1, 1));
        // And that a quarter is listed.
        assert_eq!(report.differences.len(), 4, "{report}");
        assert!(report.differences[0].starts_with("lost: fails") && report.differences[1].starts_with("stale: listed"));
        assert!(report.differences[2].starts_with("gone: listed"));
        assert_eq!(report.better, ["theirs too"]);
    }

    #[test]
    fn the_committed_lists_can_be_read() {
        for suite in ["bats", "contest"] {
            read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../conform").join(format!("{suite}.expected"))).unwrap();
        }
    }
}
