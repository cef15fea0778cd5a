//! Mappings of ids (user_namespaces(7)) in the words of mount(8)'s `X-mount.idmap=`: `u:0:100000:65536 g:0:100000:65536`,
//! with `b:` or no letter for both.
use std::fmt;
use std::str::FromStr;

/// One line of uid_map or gid_map: `size` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// First id inside; of an idmapped mount, as it is stored.
    pub inside: u32,
    /// First id outside; of an idmapped mount, as it is seen.
    pub outside: u32,
    /// How many, at least 1.
    pub size: u32,
}

/// What the kernel shows for an id without a place in the mapping (user_namespaces(7)).
pub const NOBODY: u32 = 65_534;

/// Users' and groups' mappings; neither is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Of users.
    pub uids: Vec<Line>,
    /// Of groups.
    pub gids: Vec<Line>,
}

/// A text that is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no mapping of ids: {problem}")]
pub struct BadIdMap {
    /// As given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl FromStr for IdMap {
    type Err = BadIdMap;

    fn from_str(text: &str) -> Result<Self, BadIdMap> {
        let bad = |problem| BadIdMap { text: text.into(), problem };
        let (mut uids, mut gids) = (Vec::new(), Vec::new());
        for word in text.split_ascii_whitespace() {
            let (kind, numbers) = match word.split_once(':') {
                Some((kind @ ("u" | "g" | "b"), rest)) => (kind, rest),
                _ => ("b", word),
            };
            let line = Line::parse(numbers).ok_or_else(|| bad("expected [u:|g:|b:]INSIDE:OUTSIDE:SIZE"))?;
            if kind != "g" {
                uids.push(line);
            }
            if kind != "u" {
                gids.push(line);
            }
        }
        if uids.is_empty() || gids.is_empty() {
            return Err(bad("users and groups both need one"));
        }
        Ok(Self { uids, gids })
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u32> = text.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let [inside, outside, size] = numbers[..] else { return None };
        // 2^32 - 1 is no id.
        let fits = |first: u32| first.checked_add(size).is_some();
        (size > 0 && fits(inside) && fits(outside)).then_some(Self { inside, outside, size })
    }

    /// The part of this line that `next` maps on.
    fn then(&self, next: &Self) -> Option<Self> {
        let (from, to) = (self.outside.max(next.inside), (self.outside + self.size).min(next.inside + next.size));
        let size = to.checked_sub(from).filter(|size| *size > 0)?;
        Some(Self { inside: self.inside + (from - self.outside), outside: next.outside + (from - next.inside), size })
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |kind, list: &[Line]| -> Vec<String> {
            list.iter().map(|m| format!("{kind}:{}:{}:{}", m.inside, m.outside, m.size)).collect()
        };
        f.write_str(&[of("u", &self.uids), of("g", &self.gids)].concat().join(" "))
    }
}

impl IdMap {
    /// Ids from 0 on are those from `outside` on, users and groups alike.
    #[must_use]
    pub fn one(outside: u32, size: u32) -> Self {
        let line = Line { inside: 0, outside, size };
        Self { uids: vec![line], gids: vec![line] }
    }

    /// Ids from 0 on, all of them, as they are.
    #[must_use]
    pub fn same() -> Self {
        Self::one(0, u32::MAX)
    }

    /// Both mappings, one after the other: what is seen through this one is stored for `other`. `None` when no user or no group
    /// comes through both.
    #[must_use]
    pub fn then(&self, other: &Self) -> Option<Self> {
        let through = |first: &[Line], second: &[Line]| -> Vec<Line> {
            first.iter().flat_map(|one| second.iter().filter_map(|next| one.then(next))).collect()
        };
        let (uids, gids) = (through(&self.uids, &other.uids), through(&self.gids, &other.gids));
        (!uids.is_empty() && !gids.is_empty()).then_some(Self { uids, gids })
    }

    /// User and group as they are seen outside; `None` for what has no place there.
    #[must_use]
    pub fn seen(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let seen = |lines: &[Line], id: u32| {
            let line = lines.iter().find(|l| id >= l.inside && id - l.inside < l.size)?;
            Some(line.outside + (id - line.inside))
        };
        Some((seen(&self.uids, uid)?, seen(&self.gids, gid)?))
    }

    /// User and group as they are inside; what has no place there is [`NOBODY`].
    #[must_use]
    pub fn stored(&self, uid: u32, gid: u32) -> (u32, u32) {
        let stored = |lines: &[Line], id: u32| {
            let line = lines.iter().find(|l| id >= l.outside && id - l.outside < l.size);
            line.map_or(NOBODY, |l| l.inside + (id - l.outside))
        };
        (stored(&self.uids, uid), stored(&self.gids, gid))
    }

    /// First and last ids outside, of users and of groups.
    pub fn outside(&self) -> impl Iterator<Item = (u32, u32)> {
        self.uids.iter().chain(&self.gids).map(|line| (line.outside, line.outside + (line.size - 1)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words() {
        let map: IdMap = "u:0:100000:65536 g:0:200000:10 7:9:1".parse().unwrap();
        assert_eq!(map.to_string(), "u:0:100000:65536 u:7:9:1 g:0:200000:10 g:7:9:1");
        assert_eq!(map.to_string().parse(), Ok(map.clone()));
        assert!(map.outside().eq([(100_000, 165_535), (9, 9), (200_000, 200_009), (9, 9)]));
        assert_eq!(map.seen(5, 5), Some((100_005, 200_005)));
        assert_eq!((map.seen(5, 10), map.seen(70_000, 0)), (None, None));
        assert_eq!((map.stored(100_005, 200_009), map.stored(0, 9)), ((5, 9), (NOBODY, 7)));
        let container: IdMap = "0:100000:1000 1000:7:1".parse().unwrap();
        let mount: IdMap = "u:33:0:2 u:50:999:2 g:0:0:4294967295".parse().unwrap();
        let both = mount.then(&container).unwrap();
        assert_eq!(both.to_string(), "u:33:100000:2 u:50:100999:1 u:51:7:1 g:0:100000:1000 g:1000:7:1");
        assert_eq!(IdMap::same().then(&container), Some(container.clone()));
        assert_eq!("5:2000:1".parse::<IdMap>().unwrap().then(&container), None);
        for bad in ["", "u:0:1:1", "x:0:1:1", "0:1", "0:1:0", "0:1:2:3", "4294967295:1:1", "0:-1:1"] {
            assert!(bad.parse::<IdMap>().is_err(), "{bad}");
        }
    }
}
