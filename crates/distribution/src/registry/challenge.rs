//! What a registry asks for with a 401: `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution-spec, token.md).

use std::collections::HashMap;

/// One scheme of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads all challenges that we can answer; the strongest (bearer) first.
pub(super) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = headers.filter_map(parse_challenge).collect();
    found.sort_by_key(|c| matches!(c, Challenge::Basic));
    found
}

/// The token services that a `WWW-Authenticate` header names (RFC 9110 section 11.6.1).
#[must_use]
pub fn realms(header: &str) -> Vec<String> {
    let realm = |challenge| match challenge {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic => None,
    };
    parse_challenges([header].into_iter()).into_iter().filter_map(realm).collect()
}

fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parse_parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

/// `key="value with, commas", key2=token` → a map with lower-case keys.
fn parse_parameters(text: &str) -> HashMap<String, String> {
    let mut out = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => after.split_once(',').map_or((after.trim().to_owned(), ""), |(v, t)| (v.trim().to_owned(), t)),
        };
        out.insert(key, value);
        rest = tail;
    }
    out
}

fn take_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_bearer_challenge_with_commas_in_quotes() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse_challenges([header].into_iter()),
            [Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg".into()),
                scope: Some("repository:a/b:pull,push".into()),
            }]
        );
    }

    #[test]
    fn bearer_goes_before_basic_and_the_unknown_is_left_out() {
        let found = parse_challenges(["Negotiate", "Basic realm=x", "bearer realm=\"r\""].into_iter());
        assert_eq!(found.len(), 2);
        assert!(matches!(found[0], Challenge::Bearer { .. }));
        assert_eq!(found[1], Challenge::Basic);
    }
}
