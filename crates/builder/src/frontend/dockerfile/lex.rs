//! From bytes to logical lines: parser directives, comments, continuations and here-documents.

use super::diagnostic::Problem;
use super::expand::Expander;

/// What the comments at the very top of a Dockerfile may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: a frontend image.
    pub syntax: Option<String>,
    /// `# escape=`: the escape character, backslash or backquote.
    pub escape: char,
    /// `# check=`: settings of the linter.
    pub check: Option<String>,
}

/// The body of `<<NAME … NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter, which COPY uses as file name.
    pub name: String,
    /// `<<-`: leading tabs are not part of the content.
    pub strip_tabs: bool,
    /// False when the delimiter was quoted.
    pub expand: bool,
    /// The lines, each with its newline.
    pub content: String,
}

/// One instruction's text, joined over continuations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// First physical line, from 1.
    pub start: usize,
    /// Last physical line.
    pub end: usize,
    /// The text without comments and escapes at line ends.
    pub text: String,
    /// Here-documents in the order of their marks.
    pub heredocs: Vec<Heredoc>,
}

/// A Dockerfile in logical lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lexed {
    /// Settings at the top.
    pub directives: Directives,
    /// The instructions' lines.
    pub lines: Vec<Line>,
    /// Line and text of what works but should not be written so.
    pub warnings: Vec<(usize, String)>,
}

/// Splits a Dockerfile into logical lines. The error carries the physical line.
pub fn lex(text: &str) -> Result<Lexed, (usize, Problem)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let directives = directives(&physical)?;
    let mut lexer = Lexer { physical, at: 0, escape: directives.escape, warnings: Vec::new(), lines: Vec::new() };
    while lexer.at < lexer.physical.len() {
        lexer.logical_line()?;
    }
    Ok(Lexed { directives, lines: lexer.lines, warnings: lexer.warnings })
}

fn directives(physical: &[&str]) -> Result<Directives, (usize, Problem)> {
    let mut found = Directives { syntax: None, escape: '\\', check: None };
    let mut seen: Vec<String> = Vec::new();
    for (index, line) in physical.iter().enumerate() {
        let Some((key, value)) = directive(line) else { break };
        let number = index + 1;
        if !["syntax", "escape", "check"].contains(&key.as_str()) {
            continue;
        }
        if seen.contains(&key) {
            return Err((number, Problem::new(format!("the directive {key} is given twice"))));
        }
        match key.as_str() {
            "syntax" => found.syntax = Some(value),
            "check" => found.check = Some(value),
            _ => {
                found.escape = match value.as_str() {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape character {other:?}: it must be \\ or `");
                        return Err((number, Problem::new(message)));
                    }
                }
            }
        }
        seen.push(key);
    }
    Ok(found)
}

fn directive(line: &str) -> Option<(String, String)> {
    let rest = line.trim().strip_prefix('#')?.trim_start();
    let (key, value) = rest.split_once('=')?;
    let key = key.trim_end();
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    plain.then(|| (key.to_ascii_lowercase(), value.trim().to_owned()))
}

struct Lexer<'a> {
    physical: Vec<&'a str>,
    at: usize,
    escape: char,
    warnings: Vec<(usize, String)>,
    lines: Vec<Line>,
}

impl Lexer<'_> {
    fn logical_line(&mut self) -> Result<(), (usize, Problem)> {
        let first = self.physical[self.at];
        self.at += 1;
        if is_comment(first) || first.trim().is_empty() {
            return Ok(());
        }
        let start = self.at;
        let (text, end) = self.join(first.trim_start());
        let text = text.trim().to_owned();
        if text.is_empty() {
            return Ok(());
        }
        let heredocs = self.heredocs(&text, start)?;
        let end = if heredocs.is_empty() { end } else { self.at };
        self.lines.push(Line { start, end, text, heredocs });
        Ok(())
    }

    /// Appends the lines that continue `first`; comments between them vanish, and so do blank lines (with a warning).
    fn join(&mut self, first: &str) -> (String, usize) {
        let (mut text, mut open) = self.continued(first);
        let mut end = self.at;
        let mut warned = false;
        while open && self.at < self.physical.len() {
            let line = self.physical[self.at];
            self.at += 1;
            if is_comment(line) {
                continue;
            }
            if line.trim().is_empty() {
                if !warned {
                    self.warnings.push((self.at, "empty line in a continued instruction".into()));
                    warned = true;
                }
                continue;
            }
            let (part, more) = self.continued(line);
            text.push_str(&part);
            open = more;
            end = self.at;
        }
        (text, end)
    }

    /// A line without its trailing escape, and whether there was one. A doubled escape is a literal one.
    fn continued(&self, line: &str) -> (String, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest.to_owned(), true),
            _ => (line.to_owned(), false),
        }
    }

    fn heredocs(&mut self, text: &str, start: usize) -> Result<Vec<Heredoc>, (usize, Problem)> {
        let mut found = marks(text, self.escape);
        for doc in &mut found {
            loop {
                let Some(line) = self.physical.get(self.at) else {
                    let problem = Problem::new(format!("the here-document {} does not end", doc.name))
                        .hint(format!("put a line with nothing but {} after it", doc.name));
                    return Err((start, problem));
                };
                self.at += 1;
                let line = if doc.strip_tabs { line.trim_start_matches('\t') } else { line };
                if line == doc.name {
                    break;
                }
                doc.content.push_str(line);
                doc.content.push('\n');
            }
        }
        Ok(found)
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The here-document marks of a RUN, COPY or ADD line (also behind ONBUILD).
fn marks(text: &str, escape: char) -> Vec<Heredoc> {
    let mut rest = text;
    loop {
        let (word, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match word.to_ascii_uppercase().as_str() {
            "ONBUILD" => rest = tail.trim_start(),
            "RUN" | "COPY" | "ADD" => {
                rest = tail.trim_start();
                break;
            }
            _ => return Vec::new(),
        }
    }
    if rest.starts_with('[') && serde_json::from_str::<Vec<String>>(rest).is_ok() {
        return Vec::new();
    }
    raw_words(rest, escape).iter().filter_map(|word| mark(word, escape)).collect()
}

/// `3<<-"NAME"` and its simpler forms.
pub(super) fn mark(word: &str, escape: char) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let literal = |_: &str| None;
    let name = Expander::new(escape, &literal).word(rest).ok()?;
    let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let expand = !rest.contains(['"', '\'']);
    valid.then(|| Heredoc { name, strip_tabs, expand, content: String::new() })
}

/// Splits at white space outside of quotes; quotes and escapes stay in the words.
pub fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn texts(source: &str) -> Vec<(usize, String)> {
        lex(source).unwrap().lines.into_iter().map(|line| (line.start, line.text)).collect()
    }

    #[test]
    fn joins_continuations_and_drops_comments() {
        let cases: &[(&str, &[(usize, &str)])] = &[
            ("FROM a\nRUN b\n", &[(1, "FROM a"), (2, "RUN b")]),
            ("# hello\n\n  FROM a  \n", &[(3, "FROM a")]),
            ("RUN a \\\n  b\n", &[(1, "RUN a   b")]),
            ("RUN a \\  \n# note\n  && b\nCMD c", &[(1, "RUN a   && b"), (4, "CMD c")]),
            ("RUN a\\\\\nCMD b", &[(1, "RUN a\\\\"), (2, "CMD b")]),
            ("RUN a \\\n\n\n b\n", &[(1, "RUN a  b")]),
            ("RUN echo '#no comment'\r\nCMD x\r\n", &[(1, "RUN echo '#no comment'"), (2, "CMD x")]),
            ("RUN a \\", &[(1, "RUN a")]),
            ("\u{feff}FROM a", &[(1, "FROM a")]),
            ("RUN a # b", &[(1, "RUN a # b")]),
        ];
        for (source, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
            assert_eq!(texts(source), expected, "{source:?}");
        }
    }

    #[test]
    fn reads_directives() {
        let lexed = lex("# syntax=docker/dockerfile:1\n# escape=`\n# other=1\nFROM a\nRUN dir `\n c:\\").unwrap();
        assert_eq!(lexed.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(lexed.directives.escape, '`');
        assert_eq!(lexed.lines[1].text, "RUN dir  c:\\");
    }

    #[test]
    fn directives_end_at_the_first_other_line() {
        for source in ["FROM a\n# escape=`\n", "# comment\n# escape=`\nFROM a", "\n# escape=`\nFROM a"] {
            assert_eq!(lex(source).unwrap().directives.escape, '\\', "{source:?}");
        }
    }

    #[test]
    fn refuses_bad_directives() {
        assert_eq!(lex("# escape=x\nFROM a").unwrap_err().0, 1);
        assert_eq!(lex("# escape=\\\n# escape=\\\nFROM a").unwrap_err().0, 2);
    }

    #[test]
    fn reads_heredocs() {
        let lexed = lex("RUN <<EOF cat\na\n# b\nEOF\nCOPY <<-'x.txt' <<y /d/\n\t1\nx.txt\n2 \\\ny\nCMD z").unwrap();
        let run = &lexed.lines[0];
        assert_eq!((run.start, run.end, run.text.as_str()), (1, 4, "RUN <<EOF cat"));
        assert_eq!(run.heredocs[0].content, "a\n# b\n");
        assert!(run.heredocs[0].expand);
        let copy = &lexed.lines[1];
        assert_eq!(copy.heredocs[0].name, "x.txt");
        assert!(!copy.heredocs[0].expand);
        assert_eq!(copy.heredocs[0].content, "1\n");
        assert_eq!(copy.heredocs[1].content, "2 \\\n");
        assert_eq!(lexed.lines[2].text, "CMD z");
    }

    #[test]
    fn heredoc_only_where_it_may_stand() {
        assert!(lex("ENV a=<<EOF\nCMD b").unwrap().lines[0].heredocs.is_empty());
        assert!(lex("RUN [\"cat\", \"<<EOF\"]").unwrap().lines[0].heredocs.is_empty());
        assert!(lex("RUN cat <<< word").unwrap().lines[0].heredocs.is_empty());
        assert_eq!(lex("FROM a\nRUN <<EOF\nx").unwrap_err().0, 2);
    }

    #[test]
    fn warns_of_blank_lines_inside() {
        assert_eq!(lex("RUN a \\\n\n b").unwrap().warnings.len(), 1);
    }
}
