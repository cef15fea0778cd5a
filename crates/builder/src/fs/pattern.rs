//! File name patterns: those of COPY (one path component at a time) and those of `.dockerignore` (whole paths).
//!
//! The rules are Go's `filepath.Match` with `**` added: `*` and `?` do not match a slash, `[a-z]` and `[^a]` are
//! classes, a backslash takes the special meaning away.

/// One piece of a compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `**` at the end: everything.
    Deep,
    /// `**/`: any number of whole components, none included.
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

/// A pattern with an open class or a lone backslash at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(pub String);

impl Pattern {
    /// Compiles `text`; `**` has its special meaning only with `deep`.
    pub fn new(text: &str, deep: bool) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let chars: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let c = chars[at];
            at += 1;
            tokens.push(match c {
                '*' if deep && chars.get(at) == Some(&'*') => {
                    at += 1;
                    match chars.get(at) {
                        None => Token::Deep,
                        Some('/') => {
                            at += 1;
                            if at == chars.len() { Token::Deep } else { Token::Directories }
                        }
                        Some(_) => Token::Directories,
                    }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => {
                    at += 1;
                    Token::Char(*chars.get(at - 1).ok_or_else(bad)?)
                }
                '[' => class(&chars, &mut at).ok_or_else(bad)?,
                _ => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let mut failed = vec![false; (self.0.len() + 1) * (text.len() + 1)];
        self.from(0, &text, 0, &mut failed)
    }

    /// `failed` remembers dead ends, which keeps `*a*a*a*` linear enough.
    fn from(&self, token: usize, text: &[char], at: usize, failed: &mut [bool]) -> bool {
        let slot = token * (text.len() + 1) + at;
        if failed[slot] {
            return false;
        }
        let found = match self.0.get(token) {
            None => at == text.len(),
            Some(Token::Deep) => true,
            Some(Token::Many) => {
                self.from(token + 1, text, at, failed)
                    || (text.get(at).is_some_and(|c| *c != '/') && self.from(token, text, at + 1, failed))
            }
            Some(Token::Directories) => {
                self.from(token + 1, text, at, failed)
                    || (at..text.len()).any(|end| text[end] == '/' && self.from(token + 1, text, end + 1, failed))
            }
            Some(single) => {
                text.get(at).is_some_and(|c| single.takes(*c)) && self.from(token + 1, text, at + 1, failed)
            }
        };
        failed[slot] = !found;
        found
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One => c != '/',
            Self::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            _ => false,
        }
    }
}

fn class(chars: &[char], at: &mut usize) -> Option<Token> {
    let negated = chars.get(*at) == Some(&'^');
    if negated {
        *at += 1;
    }
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.get(*at) != Some(&']') {
        let low = class_char(chars, at)?;
        let mut high = low;
        if chars.get(*at) == Some(&'-') {
            *at += 1;
            high = class_char(chars, at)?;
        }
        ranges.push((low, high));
    }
    *at += 1;
    Some(Token::Class { negated, ranges })
}

fn class_char(chars: &[char], at: &mut usize) -> Option<char> {
    let mut c = *chars.get(*at)?;
    *at += 1;
    match c {
        '-' | ']' => return None,
        '\\' => {
            c = *chars.get(*at)?;
            *at += 1;
        }
        _ => {}
    }
    Some(c)
}

/// Whether the text has a character that is special in patterns.
pub fn has_wildcard(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn matches_like_filepath_match() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("*x", "xxx", true),
            ("a*b*c*d*e*", "axbxcxdxexxx", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern, false).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn two_stars_cross_directories() {
        let cases = [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/file", "file", true),
            ("**/file", "a/b/file", true),
            ("**/file", "a/xfile", false),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("dir/**", "dirx/file", false),
            ("**/dir/*.txt", "a/dir/b.txt", true),
            ("**/dir/*.txt", "a/dir/c/b.txt", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**/*.txt", "x.txt", true),
            ("abc/**", "abc/def/ghi", true),
            ("a**b", "axb", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern, true).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn refuses_bad_patterns() {
        for text in ["[", "[a", "[]a]", "[-]", "[x-]", "a\\", "[^"] {
            assert!(Pattern::new(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn is_not_exponential() {
        let pattern = Pattern::new(&"*a".repeat(40), false).unwrap();
        assert!(!pattern.matches(&"a".repeat(39)));
    }
}
