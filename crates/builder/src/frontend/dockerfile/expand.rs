//! Quotes, escapes and `$variables` of instruction arguments, by the rules of Dockerfiles (not those of a shell).

use super::diagnostic::Problem;

type Result<T> = std::result::Result<T, Problem>;

/// Expands words with one escape character and one set of variables.
pub struct Expander<'a> {
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    undefined: std::cell::RefCell<Vec<String>>,
}

impl<'a> Expander<'a> {
    /// An expander that finds the values of variables with `lookup`.
    pub fn new(escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { escape, lookup, undefined: std::cell::RefCell::default() }
    }

    /// `text` as one string: quotes removed, variables replaced.
    pub fn word(&self, text: &str) -> Result<String> {
        Ok(self.scan(text)?.0)
    }

    /// `text` as the words it falls into after expansion; quoted white space does not split.
    pub fn words(&self, text: &str) -> Result<Vec<String>> {
        Ok(self.scan(text)?.1)
    }

    /// Only variables: quotes and escapes other than of `$` stay as they are, for here-documents.
    pub fn document(&self, text: &str) -> Result<String> {
        let mut scan = Scan { of: self, chars: text.chars().collect(), at: 0, words: Words::default() };
        let mut out = String::new();
        while let Some(c) = scan.next() {
            match scan.peek() {
                _ if c == '$' => {
                    scan.at -= 1;
                    out.push_str(&scan.dollar()?);
                }
                Some(next) if c == self.escape && (next == '$' || next == self.escape) => {
                    scan.at += 1;
                    out.push(next);
                }
                _ => out.push(c),
            }
        }
        Ok(out)
    }

    /// Names that were used without a value and without a modifier.
    pub fn undefined(&self) -> Vec<String> {
        self.undefined.borrow().clone()
    }

    fn scan(&self, text: &str) -> Result<(String, Vec<String>)> {
        let mut scan = Scan { of: self, chars: text.chars().collect(), at: 0, words: Words::default() };
        let out = scan.until(None)?;
        Ok((out, scan.words.finish()))
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }
}

/// Collects words while the same text is also collected as one string.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    open: bool,
}

impl Words {
    fn plain(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.close();
            } else {
                self.word.push(c);
                self.open = true;
            }
        }
    }

    fn quoted(&mut self, text: &str) {
        self.word.push_str(text);
        self.open = true;
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.close();
        self.done
    }
}

struct Scan<'a, 'b> {
    of: &'a Expander<'b>,
    chars: Vec<char>,
    at: usize,
    words: Words,
}

impl Scan<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Expands up to `stop` (which is consumed) or the end of the text.
    fn until(&mut self, stop: Option<char>) -> Result<String> {
        let mut out = String::new();
        loop {
            let Some(c) = self.peek() else {
                return match stop {
                    None => Ok(out),
                    Some(_) => Err(Problem::new("syntax error: the ${...} does not end")),
                };
            };
            if Some(c) == stop {
                self.at += 1;
                return Ok(out);
            }
            match c {
                '\'' => {
                    let part = self.single_quote()?;
                    self.words.quoted(&part);
                    out.push_str(&part);
                }
                '"' => {
                    let part = self.double_quote()?;
                    self.words.quoted(&part);
                    out.push_str(&part);
                }
                '$' => {
                    let part = self.dollar()?;
                    self.words.plain(&part);
                    out.push_str(&part);
                }
                _ => self.literal(&mut out),
            }
        }
    }

    fn literal(&mut self, out: &mut String) {
        let Some(mut c) = self.next() else { return };
        if c == self.of.escape {
            let Some(escaped) = self.next() else { return };
            c = escaped;
            self.words.quoted(c.encode_utf8(&mut [0; 4]));
        } else {
            self.words.plain(c.encode_utf8(&mut [0; 4]));
        }
        out.push(c);
    }

    fn single_quote(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(out);
            }
            out.push(c);
        }
        Err(Problem::new("a single quote is not closed"))
    }

    fn double_quote(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar()?),
                _ => {
                    self.at += 1;
                    if c == self.of.escape {
                        let Some(next) = self.next() else { break };
                        if !['"', '$', self.of.escape].contains(&next) {
                            out.push(c);
                        }
                        out.push(next);
                    } else {
                        out.push(c);
                    }
                }
            }
        }
        Err(Problem::new("a double quote is not closed"))
    }

    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { self.plain_value(name) });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err(Problem::new("syntax error: ${ needs the name of a variable"));
        }
        match self.next() {
            Some('}') => Ok(self.plain_value(name)),
            Some(':') => match self.next() {
                Some(c @ ('-' | '+' | '?')) => self.choice(&name, c, true),
                other => Err(unknown_modifier(&name, ':', other)),
            },
            Some(c @ ('-' | '+' | '?')) => self.choice(&name, c, false),
            Some(c @ ('#' | '%')) => self.strip(&name, c),
            Some('/') => self.replace(&name),
            Some(c) => Err(unknown_modifier(&name, c, None)),
            None => Err(Problem::new("syntax error: the ${...} does not end")),
        }
    }

    fn plain_value(&self, name: String) -> String {
        self.of.value(&name).unwrap_or_else(|| {
            self.of.undefined.borrow_mut().push(name);
            String::new()
        })
    }

    /// A name, one digit, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if name.is_empty() && (c.is_ascii_digit() || "@*#?-$!".contains(c)) {
                self.at += 1;
                return c.to_string();
            }
            if !(c.is_ascii_alphanumeric() || c == '_') {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    /// `-word`, `+word`, `?word`; with a colon an empty value counts as none.
    fn choice(&mut self, name: &str, operator: char, colon: bool) -> Result<String> {
        let word = self.inner('}')?;
        let value = self.of.value(name).filter(|value| !(colon && value.is_empty()));
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map_or_else(String::new, |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(Problem::new(format!("{name}: not allowed to be unset"))),
            (_, None) => Err(Problem::new(format!("{name}: {word}"))),
        }
    }

    /// `#`, `##`, `%`, `%%`: the shortest or longest matching beginning or end goes.
    fn strip(&mut self, name: &str, operator: char) -> Result<String> {
        let longest = self.peek() == Some(operator);
        if longest {
            self.at += 1;
        }
        let pattern: Vec<char> = self.inner('}')?.chars().collect();
        let value: Vec<char> = self.of.value(name).unwrap_or_default().chars().collect();
        let lengths: Vec<usize> = if longest { (0..=value.len()).rev().collect() } else { (0..=value.len()).collect() };
        for length in lengths {
            let (cut, rest) = match operator {
                '#' => (&value[..length], &value[length..]),
                _ => (&value[value.len() - length..], &value[..value.len() - length]),
            };
            if glob(&pattern, cut) {
                return Ok(rest.iter().collect());
            }
        }
        Ok(value.into_iter().collect())
    }

    /// `/pattern/text` replaces the first match, `//pattern/text` each.
    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern: Vec<char> = self.inner('/')?.chars().collect();
        let text = self.inner('}')?;
        let value: Vec<char> = self.of.value(name).unwrap_or_default().chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at < value.len() {
            let matched = (at + 1..=value.len()).rev().find(|end| glob(&pattern, &value[at..*end]));
            match matched {
                Some(end) if !done => {
                    out.push_str(&text);
                    at = end;
                    done = !all;
                }
                _ => {
                    out.push(value[at]);
                    at += 1;
                }
            }
        }
        Ok(out)
    }

    /// The word inside `${…}`; it does not split the outer words.
    fn inner(&mut self, stop: char) -> Result<String> {
        let outer = std::mem::take(&mut self.words);
        let word = self.until(Some(stop));
        self.words = outer;
        word
    }
}

fn unknown_modifier(name: &str, first: char, second: Option<char>) -> Problem {
    let modifier: String = std::iter::once(first).chain(second).collect();
    Problem::new(format!("unsupported modifier {modifier:?} in ${{{name}...}}"))
        .hint("known are :- - :+ + :? ? # ## % %% / //")
}

/// Shell pattern with `*`, `?` and escapes; `*` matches slashes too.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.first() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|skip| glob(&pattern[1..], &text[skip..])),
        Some('?') => !text.is_empty() && glob(&pattern[1..], &text[1..]),
        Some('\\') if pattern.len() > 1 => text.first() == Some(&pattern[1]) && glob(&pattern[2..], &text[1..]),
        Some(c) => text.first() == Some(c) && glob(&pattern[1..], &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "x" => "value",
            "empty" => "",
            "list" => "a b",
            "path" => "/usr/local/bin/tool.tar.gz",
            "_u1" => "under",
            _ => return None,
        };
        Some(value.into())
    }

    #[test]
    fn expands_words() {
        let cases = [
            ("plain", "plain"),
            ("$x", "value"),
            ("${x}y", "valuey"),
            ("$x/y", "value/y"),
            ("$_u1-", "under-"),
            ("$nope.", "."),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x\"", "value"),
            ("\"a\\\"b\"", "a\"b"),
            ("\"a\\nb\"", "a\\nb"),
            ("a\\ b", "a b"),
            ("'a'\"b\"c", "abc"),
            ("$", "$"),
            ("a$", "a$"),
            ("$1x", "x"),
            ("${x:-d}", "value"),
            ("${nope:-d}", "d"),
            ("${nope:-$x}", "value"),
            ("${nope:-${also:-deep}}", "deep"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${nope-d}", "d"),
            ("${x:+set}", "set"),
            ("${empty:+set}", ""),
            ("${empty+set}", "set"),
            ("${nope+set}", ""),
            ("${x:?missing}", "value"),
            ("${path##*/}", "tool.tar.gz"),
            ("${path#*/}", "usr/local/bin/tool.tar.gz"),
            ("${path%.*}", "/usr/local/bin/tool.tar"),
            ("${path%%.*}", "/usr/local/bin/tool"),
            ("${path/bin/sbin}", "/usr/local/sbin/tool.tar.gz"),
            ("${path//l/L}", "/usr/LocaL/bin/tooL.tar.gz"),
            ("${x#zz}", "value"),
            ("${nope:-'a b'}", "a b"),
        ];
        for (text, expected) in cases {
            assert_eq!(Expander::new('\\', &lookup).word(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn splits_words() {
        let cases: &[(&str, &[&str])] = &[
            ("a  b", &["a", "b"]),
            ("$list c", &["a", "b", "c"]),
            ("\"$list\" c", &["a b", "c"]),
            ("a\\ b 'c d'", &["a b", "c d"]),
            ("$nope", &[]),
            ("''", &[""]),
        ];
        for (text, expected) in cases {
            assert_eq!(&Expander::new('\\', &lookup).words(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_bad_syntax() {
        for text in ["${x", "${}", "${x:z}", "'a", "\"a", "${nope:?gone}", "${nope?}", "${x!}"] {
            assert!(Expander::new('\\', &lookup).word(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_escape_and_undefined_names() {
        let expander = Expander::new('`', &lookup);
        assert_eq!(expander.word("c:\\dir`$x $nope").unwrap(), "c:\\dir$x ");
        assert_eq!(expander.undefined(), ["nope"]);
    }

    #[test]
    fn documents_keep_quotes() {
        let text = Expander::new('\\', &lookup).document("'$x' \"\\$x\" \\n").unwrap();
        assert_eq!(text, "'value' \"$x\" \\n");
    }
}
