//! What became of each case.
use std::collections::BTreeMap;

/// The end of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Skipped,
    /// With what the suite printed about it.
    Failed(String),
}

/// By the case's name, `file: case` or `group: case`.
pub type Results = BTreeMap<String, Verdict>;

/// Reads TAP (testanything.org, version 12) as bats prints it: the cases whose result line has come, in order.
pub fn tap(text: &str) -> Vec<(String, Verdict)> {
    let mut cases: Vec<(String, Verdict)> = vec![];
    for line in text.lines() {
        let (ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                if let (Some((_, Verdict::Failed(why))), Some(more)) = (cases.last_mut(), line.strip_prefix("# ")) {
                    why.push_str(more);
                    why.push('\n');
                }
                continue;
            }
        };
        let Some((_, rest)) = rest.split_once(' ') else { continue };
        let (name, skipped) = match rest.split_once(" # skip") {
            Some((name, _)) => (name, true),
            None => (rest.split(" # timeout").next().unwrap_or(rest), false),
        };
        let verdict = match (ok, skipped) {
            (true, true) => Verdict::Skipped,
            (true, false) => Verdict::Passed,
            (false, _) => Verdict::Failed(String::new()),
        };
        cases.push((name.trim().to_owned(), verdict));
    }
    cases
}

/// One line per case, for [`parse`].
pub fn print(results: &Results) -> String {
    let word = |v: &Verdict| match v {
        Verdict::Passed => "ok",
        Verdict::Skipped => "skipped",
        Verdict::Failed(_) => "failed",
    };
    results.iter().map(|(case, v)| format!("{}\t{case}\n", word(v))).collect()
}

/// The reverse of [`print`], without the failures' texts.
pub fn parse(text: &str) -> Results {
    let line = |line: &str| {
        let (word, case) = line.split_once('\t')?;
        let verdict = match word {
            "ok" => Verdict::Passed,
            "skipped" => Verdict::Skipped,
            _ => Verdict::Failed(String::new()),
        };
        Some((case.to_owned(), verdict))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_of_bats() {
        let text =
            "1..4\nok 1 a b\nnot ok 2 c\n# because\n# of that\nok 3 d # skip needs e\nnot ok 4 f # timeout after 9s\n";
        let cases = tap(text);
        assert_eq!(cases[0], ("a b".into(), Verdict::Passed));
        assert_eq!(cases[1], ("c".into(), Verdict::Failed("because\nof that\n".into())));
        assert_eq!(cases[2], ("d".into(), Verdict::Skipped));
        assert_eq!(cases[3], ("f".into(), Verdict::Failed(String::new())));
        let results: Results =
            cases.into_iter().map(|(n, v)| (n, if v == Verdict::Passed { v } else { Verdict::Skipped })).collect();
        assert_eq!(parse(&print(&results)), results);
    }
}
