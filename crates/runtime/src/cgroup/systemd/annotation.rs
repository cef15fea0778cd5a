//! Annotations that are properties of the unit. Pure.

use zbus::Variant;

/// `org.systemd.property.NAME`: a value in GVariant's text format. `NAMESec` in seconds becomes `NAMEUSec`.
pub(super) fn property(name: &str, value: &str) -> Result<(String, Variant<'static>), String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err("the name is not of a property".into());
    }
    let value = variant(value.trim())?;
    match name.strip_suffix("Sec").filter(|n| n.ends_with(|c: char| c.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Variant<'_>) -> Result<Variant<'static>, String> {
    let seconds = match value {
        Variant::U8(n) => f64::from(*n),
        Variant::I32(n) => f64::from(*n),
        Variant::U32(n) => f64::from(*n),
        Variant::I64(n) => *n as f64,
        Variant::U64(n) => *n as f64,
        Variant::F64(n) => *n,
        _ => return Err("is not a number of seconds".into()),
    };
    if seconds < 0.0 { Err("is negative".into()) } else { Ok(Variant::U64((seconds * 1e6) as u64)) }
}

fn variant(text: &str) -> Result<Variant<'static>, String> {
    let bad = || format!("cannot parse {text:?}");
    if let Some(inner) = quoted(text) {
        return Ok(Variant::from(inner));
    }
    if let Some(inner) = text.strip_prefix("@as").map_or(text, str::trim).strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        let parts = inner.split(',').map(str::trim).filter(|p| !p.is_empty());
        let parts = parts.map(|p| quoted(p).ok_or_else(bad)).collect::<Result<Vec<String>, _>>()?;
        return Ok(Variant::from(parts));
    }
    let (kind, number) = text.split_once(' ').unwrap_or(("", text));
    let number = number.trim();
    match kind {
        "" if text == "true" || text == "false" => Ok(Variant::Bool(text == "true")),
        "" if text.contains('.') => text.parse().map(Variant::F64).map_err(|_| bad()),
        "" | "int32" => number.parse().map(Variant::I32).map_err(|_| bad()),
        "byte" => number.parse().map(Variant::U8).map_err(|_| bad()),
        "uint32" => number.parse().map(Variant::U32).map_err(|_| bad()),
        "int64" => number.parse().map(Variant::I64).map_err(|_| bad()),
        "uint64" => number.parse().map(Variant::U64).map_err(|_| bad()),
        "double" => number.parse().map(Variant::F64).map_err(|_| bad()),
        "boolean" => number.parse().map(Variant::Bool).map_err(|_| bad()),
        "string" => quoted(number).map(Variant::from).ok_or_else(bad),
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
        assert_eq!(of("TimeoutStopSec", "uint64 2").unwrap(), ("TimeoutStopUSec".into(), Variant::U64(2_000_000)));
        assert_eq!(of("CollectMode", "'inactive-or-failed'").unwrap().1, "inactive-or-failed".into());
        assert_eq!(of("After", "['a', \"b\"]").unwrap().1, Variant::from(vec!["a", "b"]));
        assert_eq!(of("SendSIGHUP", "true").unwrap().1, Variant::Bool(true));
        assert_eq!(of("DefaultTasksMax", "5").unwrap().1, Variant::I32(5));
        assert!(of("x", "1").is_err() && of("A-b", "1").is_err() && of("Name", "one").is_err());
    }
}
