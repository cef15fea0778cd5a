//! Owners of a volume's files as the consumer sees them, without changing them on disk (mount_setattr(2), idmapped
//! mounts): pure.

use oci::idmap::{IdMap, Line};

use crate::{Error, Result};

/// The kernel takes so many lines (user_namespaces(7)).
const MOST_LINES: usize = 340;

/// Reads what a caller wants, for a directory that belongs to `owner`: `uids=DISK-SEEN-COUNT#...;gids=...` (podman's words;
/// of one kind alone, the other is as on disk), or `keep-id:uid=U,gid=G`: who owns the directory and U:G change places, all
/// others stay. Ids outside of the ranges look like nobody, and nothing can be made by them.
///
/// # Errors
/// No such words, numbers that are none, ranges that overlap.
pub(crate) fn parse(text: &str, owner: (u32, u32)) -> Result<IdMap> {
    let map = match text.strip_prefix("keep-id") {
        Some(who) => {
            let (uid, gid) = kept(text, who)?;
            exchanged(owner, (uid, gid))
        }
        None => ranges(text)?,
    };
    for lines in [&map.uids, &map.gids] {
        if overlaps(lines, |line| line.inside) || overlaps(lines, |line| line.outside) {
            return Err(wrong(text, "ranges overlap"));
        }
    }
    Ok(map)
}

/// In the words of mount(8)'s `X-mount.idmap=`.
///
/// # Errors
/// More lines than the kernel takes.
pub(crate) fn word(map: &IdMap) -> Result<String> {
    let word = map.to_string();
    if map.uids.len().max(map.gids.len()) > MOST_LINES {
        return Err(wrong(&word, "there are too many ranges"));
    }
    Ok(word)
}

/// All ids, with two users and two groups that change places.
pub(crate) fn exchanged(one: (u32, u32), other: (u32, u32)) -> IdMap {
    IdMap { uids: exchange(one.0, other.0), gids: exchange(one.1, other.1) }
}

fn wrong(text: &str, why: &str) -> Error {
    Error::Invalid { field: "idmap", value: text.into(), why: why.into() }
}

fn kept(text: &str, who: &str) -> Result<(u32, u32)> {
    let (mut uid, mut gid) = (None, None);
    for word in who.trim_start_matches(':').split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=').map(|(key, value)| (key, value.parse::<u32>())) {
            Some(("uid", Ok(id))) if id != u32::MAX => uid = Some(id),
            Some(("gid", Ok(id))) if id != u32::MAX => gid = Some(id),
            _ => return Err(wrong(text, "expected keep-id:uid=NUMBER,gid=NUMBER")),
        }
    }
    let uid = uid.ok_or_else(|| wrong(text, "keep-id needs uid="))?;
    Ok((uid, gid.unwrap_or(uid)))
}

fn ranges(text: &str) -> Result<IdMap> {
    let (mut uids, mut gids) = (None, None);
    for part in text.split(';').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("uids", list)) => uids = Some(lines(list).ok_or_else(|| wrong(text, "bad uids"))?),
            Some(("gids", list)) => gids = Some(lines(list).ok_or_else(|| wrong(text, "bad gids"))?),
            _ => return Err(wrong(text, "expected uids=DISK-SEEN-COUNT#...;gids=... or keep-id:uid=U,gid=G")),
        }
    }
    if uids.is_none() && gids.is_none() {
        return Err(wrong(text, "it names no ids"));
    }
    let same = IdMap::same();
    Ok(IdMap { uids: uids.unwrap_or(same.uids), gids: gids.unwrap_or(same.gids) })
}

/// podman's "@" says that SEEN is the container's id; here it always is.
fn lines(list: &str) -> Option<Vec<Line>> {
    let line = |text: &str| {
        let mut numbers = text.trim_start_matches('@').split('-').map(|number| number.parse::<u32>().ok());
        let line = Line { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? };
        // 2^32 - 1 is no id.
        let fits = |first: u32| first.checked_add(line.size).is_some();
        (line.size > 0 && fits(line.inside) && fits(line.outside) && numbers.next().is_none()).then_some(line)
    };
    list.split('#').map(line).collect()
}

fn overlaps(lines: &[Line], first: impl Fn(&Line) -> u32) -> bool {
    let mut spans: Vec<(u64, u64)> =
        lines.iter().map(|line| (u64::from(first(line)), u64::from(first(line)) + u64::from(line.size))).collect();
    spans.sort_unstable();
    spans.windows(2).any(|pair| matches!(pair, [one, next] if one.1 > next.0))
}

fn exchange(one: u32, other: u32) -> Vec<Line> {
    let (low, high) = (one.min(other), one.max(other));
    let line = |inside, outside, size| Line { inside, outside, size };
    let mut all = if low == high {
        vec![line(0, 0, u32::MAX)]
    } else {
        let between = line(low + 1, low + 1, high - low - 1);
        // The last id, u32::MAX, is no id.
        let above = line(high + 1, high + 1, u32::MAX - high - 1);
        vec![line(0, 0, low), line(low, high, 1), between, line(high, low, 1), above]
    };
    all.retain(|line| line.size > 0);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(text: &str) -> Result<String> {
        parse(text, (0, 0)).and_then(|map| word(&map))
    }

    #[test]
    fn reads() {
        assert_eq!(shown("uids=0-1-10#10-11-10;gids=0-100-10").unwrap(), "u:0:1:10 u:10:11:10 g:0:100:10");
        assert_eq!(shown("uids=@0-5-1").unwrap(), "u:0:5:1 g:0:0:4294967295");
        assert_eq!(shown("keep-id:uid=2,gid=0").unwrap(), "u:0:2:1 u:1:1:1 u:2:0:1 u:3:3:4294967292 g:0:0:4294967295");
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "x",
            "uids=",
            "uids=1-2",
            "uids=0-0-0",
            "uids=0-5-2#1-9-1",
            "uids=4294967295-0-2",
            "keep-id",
            "keep-id:uid=x",
            "keep-id:uid=4294967295",
            "uids=0-0-1-1",
            "uids=0-5-2#7-6-1",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..341).map(|n| format!("{n}-{n}-1")).collect();
        assert!(shown(&format!("uids={}", many.join("#"))).is_err());
    }
}
