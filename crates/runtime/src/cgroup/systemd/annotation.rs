//! Annotations that are properties of the unit. Pure.

use crate::dbus::Arg;

/// `org.systemd.property.NAME`: a value in GVariant's text format. `NAMESec` in seconds becomes `NAMEUSec`.
pub(super) fn property(name: &str, value: &str) -> Result<(String, Arg), String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err("the name is not of a property".into());
    }
    let value = variant(value.trim())?;
    match name.strip_suffix("Sec").filter(|n| n.ends_with(|c: char| c.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Arg) -> Result<Arg, String> {
    let seconds = match value {
        Arg::Byte(n) => f64::from(*n),
        Arg::I32(n) => f64::from(*n),
        Arg::U32(n) => f64::from(*n),
        Arg::I64(n) => *n as f64,
        Arg::U64(n) => *n as f64,
        Arg::F64(n) => *n,
        _ => return Err("is not a number of seconds".into()),
    };
    if seconds < 0.0 { Err("is negative".into()) } else { Ok(Arg::U64((seconds * 1e6) as u64)) }
}

fn variant(text: &str) -> Result<Arg, String> {
    let bad = || format!("cannot parse {text:?}");
    if let Some(inner) = quoted(text) {
        return Ok(Arg::Text(inner));
    }
    if let Some(inner) = text.strip_prefix("@as").map_or(text, str::trim).strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        let parts = inner.split(',').map(str::trim).filter(|p| !p.is_empty());
        return Ok(Arg::Texts(parts.map(|p| quoted(p).ok_or_else(bad)).collect::<Result<_, _>>()?));
    }
    let (kind, number) = text.split_once(' ').unwrap_or(("", text));
    let number = number.trim();
    match kind {
        "" if text == "true" || text == "false" => Ok(Arg::Bool(text == "true")),
        "" if text.contains('.') => text.parse().map(Arg::F64).map_err(|_| bad()),
        "" | "int32" => number.parse().map(Arg::I32).map_err(|_| bad()),
        "byte" => number.parse().map(Arg::Byte).map_err(|_| bad()),
        "uint32" => number.parse().map(Arg::U32).map_err(|_| bad()),
        "int64" => number.parse().map(Arg::I64).map_err(|_| bad()),
        "uint64" => number.parse().map(Arg::U64).map_err(|_| bad()),
        "double" => number.parse().map(Arg::F64).map_err(|_| bad()),
        "boolean" => number.parse().map(Arg::Bool).map_err(|_| bad()),
        "string" => quoted(number).map(Arg::Text).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn annotations() {
        let of = |name: &str, value: &str| property(name, value);
        assert_eq!(of("TimeoutStopSec", "uint64 2").unwrap(), ("TimeoutStopUSec".into(), Arg::U64(2_000_000)));
        assert_eq!(of("CollectMode", "'inactive-or-failed'").unwrap().1, "inactive-or-failed".into());
        assert_eq!(of("After", "['a', \"b\"]").unwrap().1, Arg::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(of("SendSIGHUP", "true").unwrap().1, Arg::Bool(true));
        assert_eq!(of("DefaultTasksMax", "5").unwrap().1, Arg::I32(5));
        assert!(of("x", "1").is_err() && of("A-b", "1").is_err() && of("Name", "one").is_err());
    }
}
