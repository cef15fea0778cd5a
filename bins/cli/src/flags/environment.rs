//! Environment variables, labels and the files that list them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};

/// `-e K=V` as it is; `-e K` takes the value of `lookup`, and vanishes when there is none.
pub fn variable(text: &str, lookup: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<String>> {
    if text.is_empty() || text.starts_with('=') {
        bail!("invalid environment variable {text:?}: expected NAME=VALUE or NAME");
    }
    match text.split_once('=') {
        Some(_) => Ok(Some(text.into())),
        None => Ok(lookup(text).map(|value| format!("{text}={value}"))),
    }
}

/// Lines of an env file: comments and blank lines go, names may not hold blanks.
pub fn lines(text: &str) -> anyhow::Result<Vec<&str>> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("line {}: {name:?} is no variable name", number + 1);
        }
        found.push(line);
    }
    Ok(found)
}

/// Env files first, then flags: later ones win where a container reads them.
pub fn variables(
    files: &[std::path::PathBuf],
    flags: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        let text = read(file)?;
        for line in lines(&text).with_context(|| format!("env file {}", file.display()))? {
            all.extend(variable(line, &lookup)?);
        }
    }
    for flag in flags {
        all.extend(variable(flag, &lookup)?);
    }
    Ok(all)
}

/// Label files and `-l k=v` (without "=": an empty value).
pub fn labels(files: &[std::path::PathBuf], flags: &[String]) -> anyhow::Result<HashMap<String, String>> {
    let mut all = HashMap::new();
    for file in files {
        let text = read(file)?;
        for line in lines(&text).with_context(|| format!("label file {}", file.display()))? {
            all.extend([pair(line)]);
        }
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            bail!("invalid label {flag:?}: expected KEY=VALUE");
        }
        all.extend([pair(flag)]);
    }
    Ok(all)
}

/// "K=V" flags that need a value.
pub fn pairs(flag: &str, texts: &[String]) -> anyhow::Result<HashMap<String, String>> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').with_context(|| format!("{flag} {text}: expected KEY=VALUE"))?;
            Ok((key.into(), value.into()))
        })
        .collect()
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.into(), value.into())
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn environment() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        for (text, want) in [
            ("A=b", Some("A=b")),
            ("A=", Some("A=")),
            ("A=b=c", Some("A=b=c")),
            ("HOME", Some("HOME=/root")),
            ("NOPE", None),
        ] {
            assert_eq!(variable(text, lookup).unwrap().as_deref(), want, "{text}");
        }
        assert!(variable("=x", lookup).is_err() && variable("", lookup).is_err());
        assert_eq!(lines("# c\n\nA=1\n  B=2 \nC").unwrap(), ["A=1", "B=2 ", "C"]);
        assert!(lines("A B=1").is_err());
    }

    #[test]
    fn label_flags() {
        let all = labels(&[], &["a=1".into(), "b".into(), "a=2".into()]).unwrap();
        assert_eq!((all["a"].as_str(), all["b"].as_str()), ("2", ""));
        assert!(labels(&[], &["=x".into()]).is_err());
    }
}
