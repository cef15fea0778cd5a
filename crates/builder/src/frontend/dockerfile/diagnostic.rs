//! What is wrong with a Dockerfile, where, and what the line looks like.

use std::fmt;

/// A mistake, before it is known in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A mistake in a file, with the source line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Path as given, or `<inline>`.
    pub file: String,
    /// Physical line, from 1.
    pub line: usize,
    /// The line as it stands in the file.
    pub source_line: String,
    /// What is wrong and what to do.
    pub problem: Problem,
}

impl Diagnostic {
    /// Places a problem in `source`.
    pub fn at(file: &str, source: &str, line: usize, problem: Problem) -> Self {
        let source_line = source.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end().to_owned();
        Self { file: file.to_owned(), line, source_line, problem }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem.message)?;
        if !self.source_line.is_empty() {
            write!(f, "\n{:>4} | {}", self.line, self.source_line)?;
        }
        Ok(())
    }
}

/// The candidate nearest to `word` by edit distance, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1) + 1;
    let scored = candidates.iter().map(|candidate| (distance(word, candidate), *candidate));
    scored.filter(|(score, _)| *score <= limit).min_by_key(|(score, _)| *score).map(|(_, name)| name)
}

/// Edit distance where an exchange of neighbours counts one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in table.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in table[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(table[i - 2][j - 2] + 1);
            }
            table[i][j] = best;
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_name() {
        let names = ["FROM", "RUN", "COPY", "ENTRYPOINT", "WORKDIR"];
        let cases =
            [("FORM", Some("FROM")), ("CPY", Some("COPY")), ("ENTRYPIONT", Some("ENTRYPOINT")), ("XYZZY", None)];
        for (word, expected) in cases {
            assert_eq!(nearest(word, &names), expected, "{word}");
        }
    }

    #[test]
    fn shows_the_line() {
        let problem = Problem::new("unknown instruction RUNN");
        let text = Diagnostic::at("Dockerfile", "FROM a\nRUNN x\n", 2, problem).to_string();
        assert_eq!(text, "Dockerfile:2: unknown instruction RUNN\n   2 | RUNN x");
    }
}
