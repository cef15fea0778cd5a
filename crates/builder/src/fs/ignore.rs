//! `.dockerignore`: which paths of a build context do not exist for the build.
//!
//! Patterns are anchored at the context, the last one that matches a path or one of its parents decides, and `!`
//! brings back what an earlier one took. This differs from `.gitignore`.

use super::pattern::{BadPattern, Pattern};

/// An ordered set of patterns.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    include: bool,
}

impl Ignore {
    /// Compiles patterns as `parse` returns them.
    pub fn new(patterns: &[String]) -> Result<Self, BadPattern> {
        let rule = |text: &String| {
            let (include, text) = text.strip_prefix('!').map_or((false, text.as_str()), |rest| (true, rest));
            Ok(Rule { pattern: Pattern::new(text, true)?, include })
        };
        Ok(Self { rules: patterns.iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// Whether `path` (relative to the context, with slashes) is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            if rule.include == excluded && rule.covers(path) {
                excluded = !rule.include;
            }
        }
        excluded
    }

    /// Whether something below an excluded directory may come back.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.include)
    }
}

impl Rule {
    fn covers(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.pattern.matches(&path[..end]))
    }
}

/// The patterns of the text of a `.dockerignore`, cleaned: no comments, no leading slash, `a/../b` resolved.
pub fn parse(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(normalise).filter(|line| !line.is_empty()).collect()
}

fn normalise(line: &str) -> String {
    let (mark, rest) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
    if rest.is_empty() {
        return mark.to_owned();
    }
    let cleaned = clean(rest);
    let cleaned = if cleaned.len() > 1 { cleaned.trim_start_matches('/') } else { cleaned.as_str() };
    format!("{mark}{cleaned}")
}

/// Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_files() {
        let text = "\u{feff}# comment\n\n  foo  \n/abs\na/../b/./c/\n!  keep \n #not a comment\n**/x\n/\n!\n";
        assert_eq!(parse(text), ["foo", "abs", "b/c", "!keep", "#not a comment", "**/x", "/", "!"]);
    }

    #[test]
    fn decides() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["foo"], "foo", true),
            (&["foo"], "foo/bar/baz", true),
            (&["foo"], "a/foo", false),
            (&["*.md"], "README.md", true),
            (&["*.md"], "docs/README.md", false),
            (&["**/*.md"], "docs/README.md", true),
            (&["*.md", "!README.md"], "README.md", false),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
            (&["*", "!src"], "src/main.rs", false),
            (&["*", "!src"], "target", true),
            (&["*", "!src/keep"], "src/other", true),
            (&["*", "!src/keep"], "src/keep/x", false),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["dir/**"], "dir", false),
            (&["dir/**"], "dir/a", true),
            (&["!foo"], "foo", false),
            (&["fo?"], "foo/x", true),
            (&["a[b-d]e"], "ace", true),
            (&["a.|)$(}+{b"], "a.|)$(}+{b", true),
            (&[".*"], ".git/config", true),
            (&[".*"], "a.b", false),
            (&[], "x", false),
        ];
        for (patterns, path, expected) in cases {
            let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(Ignore::new(&patterns).unwrap().excludes(path), *expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn refuses_bad_patterns() {
        assert!(Ignore::new(&["[".to_owned()]).is_err());
    }

    #[test]
    fn cleans() {
        for (text, expected) in
            [("a//b/", "a/b"), ("./a", "a"), ("/../a", "/a"), ("../a", "../a"), ("a/..", "."), ("/", "/")]
        {
            assert_eq!(clean(text), expected);
        }
    }
}
