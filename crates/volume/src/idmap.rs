//! Owners of a volume's files as the consumer sees them, without changing them on disk (mount_setattr(2), idmapped
//! mounts): pure.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::{Error, Result};

/// One range: `count` ids from `disk` on look like those from `seen` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First id on disk.
    pub disk: u32,
    /// First id as the host's processes see it.
    pub seen: u32,
    /// How many.
    pub count: u32,
}

/// Ranges of users and groups; ids outside of them look like nobody, and nothing can be made by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub users: Vec<Range>,
    /// Group ids.
    pub groups: Vec<Range>,
}

/// The kernel takes so many lines (user_namespaces(7)).
const MOST_RANGES: usize = 340;

impl IdMap {
    /// Reads `uids=DISK-SEEN-COUNT#...;gids=...` (podman's words; of one kind alone, the other is as on disk), or
    /// `keep-id:uid=U,gid=G`: who owns the volume's directory and U:G change places, all others stay.
    ///
    /// # Errors
    /// No such words, numbers that are none, ranges that overlap.
    pub fn parse(text: &str, owner: &Metadata) -> Result<Self> {
        let wrong = |why: &str| Error::Invalid { field: "idmap", value: text.into(), why: why.into() };
        if let Some(who) = text.strip_prefix("keep-id") {
            let (mut uid, mut gid) = (None, None);
            for word in who.trim_start_matches(':').split(',').filter(|word| !word.is_empty()) {
                match word.split_once('=').map(|(key, value)| (key, value.parse::<u32>())) {
                    Some(("uid", Ok(id))) => uid = Some(id),
                    Some(("gid", Ok(id))) => gid = Some(id),
                    _ => return Err(wrong("expected keep-id:uid=NUMBER,gid=NUMBER")),
                }
            }
            let uid = uid.ok_or_else(|| wrong("keep-id needs uid="))?;
            return Ok(Self { users: exchange(owner.uid(), uid), groups: exchange(owner.gid(), gid.unwrap_or(uid)) });
        }
        let (mut users, mut groups) = (None, None);
        for part in text.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("uids", list)) => users = Some(ranges(list).ok_or_else(|| wrong("bad uids"))?),
                Some(("gids", list)) => groups = Some(ranges(list).ok_or_else(|| wrong("bad gids"))?),
                _ => return Err(wrong("expected uids=DISK-SEEN-COUNT#...;gids=... or keep-id:uid=U,gid=G")),
            }
        }
        let same = || vec![Range { disk: 0, seen: 0, count: u32::MAX }];
        if users.is_none() && groups.is_none() {
            return Err(wrong("it names no ids"));
        }
        let map = Self { users: users.unwrap_or_else(same), groups: groups.unwrap_or_else(same) };
        for list in [&map.users, &map.groups] {
            if list.len() > MOST_RANGES || overlaps(list, |range| range.disk) || overlaps(list, |range| range.seen) {
                return Err(wrong("ranges overlap, or are too many"));
            }
        }
        Ok(map)
    }

    /// As an option of mount(8).
    #[must_use]
    pub fn word(&self) -> String {
        let list = |kind: char, ranges: &[Range]| {
            let words = ranges.iter().map(|r| format!("{kind}:{}:{}:{}", r.disk, r.seen, r.count));
            words.collect::<Vec<_>>().join(" ")
        };
        format!("X-mount.idmap={} {}", list('u', &self.users), list('g', &self.groups))
    }
}

fn ranges(list: &str) -> Option<Vec<Range>> {
    let range = |text: &str| {
        let mut numbers = text.trim_start_matches('@').split('-').map(|number| number.parse::<u32>().ok());
        let range = Range { disk: numbers.next()??, seen: numbers.next()??, count: numbers.next()?? };
        let fits = range.count > 0 && range.disk.checked_add(range.count - 1).is_some();
        (fits && range.seen.checked_add(range.count - 1).is_some() && numbers.next().is_none()).then_some(range)
    };
    list.split('#').map(range).collect()
}

fn overlaps(list: &[Range], first: impl Fn(&Range) -> u32) -> bool {
    let mut spans: Vec<(u64, u64)> =
        list.iter().map(|range| (u64::from(first(range)), u64::from(first(range)) + u64::from(range.count))).collect();
    spans.sort_unstable();
    spans.windows(2).any(|pair| matches!(pair, [one, next] if one.1 > next.0))
}

/// All ids, with two that change places.
fn exchange(one: u32, other: u32) -> Vec<Range> {
    let (low, high) = (one.min(other), one.max(other));
    let mut all = Vec::new();
    let mut add = |disk: u32, seen: u32, count: u32| {
        if count > 0 {
            all.push(Range { disk, seen, count });
        }
    };
    add(0, 0, low);
    if low == high {
        add(low, low, u32::MAX - low);
        return all;
    }
    add(low, high, 1);
    add(low + 1, low + 1, high - low - 1);
    add(high, low, 1);
    // The last id, u32::MAX, is no id.
    add(high + 1, high + 1, u32::MAX - high - 1);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn word(text: &str) -> Result<String> {
        IdMap::parse(text, &std::fs::metadata("/").unwrap()).map(|map| map.word())
    }

    #[test]
    fn reads() {
        assert_eq!(word("uids=0-1-10#10-11-10;gids=0-100-10").unwrap(), "X-mount.idmap=u:0:1:10 u:10:11:10 g:0:100:10");
        assert_eq!(word("uids=0-5-1").unwrap(), "X-mount.idmap=u:0:5:1 g:0:0:4294967295");
        assert_eq!(
            word("keep-id:uid=2,gid=0").unwrap(),
            "X-mount.idmap=u:0:2:1 u:1:1:1 u:2:0:1 u:3:3:4294967292 g:0:0:4294967295"
        );
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
            "uids=0-0-1-1",
            "uids=0-5-2#7-6-1",
        ] {
            assert!(word(bad).is_err(), "{bad}");
        }
    }
}
