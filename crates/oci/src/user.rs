//! Users and groups as an image's own /etc/passwd and /etc/group define them (passwd(5), group(5)).

/// Ids of a process, with the home directory of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups: memberships in /etc/group (only when the group was not named) and the additional ones.
    pub additional_gids: Vec<u32>,
    /// Home directory; "/" when the user has no entry.
    pub home: String,
}

/// A user or group that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUser {
    /// Not a number and not in passwd.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// Not a number and not in group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// Above 2^31-1.
    #[error("uid or gid {0} is out of range 0..=2147483647")]
    Range(String),
}

/// Largest id accepted: the kernel's -1 and negative ids of signed interfaces stay out (CVE-2024-40635).
pub const MAX_ID: u32 = i32::MAX as u32;

/// Resolves `name`, `uid`, `name:group` or `uid:gid` (empty: root) and additional groups by name or number.
pub fn resolve(user: &str, additional: &[String], passwd: &str, group: &str) -> Result<User, UnknownUser> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd_entry(user, passwd);
    let uid = match (&entry, number(user)) {
        (Some(e), _) => e.uid,
        (None, Some(n)) => in_range(n, user)?,
        (None, None) => return Err(UnknownUser::User(user.into())),
    };
    let gid = match wanted_group {
        Some(g) if !g.is_empty() => group_id(g, group)?,
        _ => entry.as_ref().map_or(0, |e| e.gid),
    };
    let mut gids: Vec<u32> = Vec::new();
    if wanted_group.is_none_or(str::is_empty)
        && let Some(e) = &entry
    {
        gids.extend(groups_of(&e.name, group));
    }
    for g in additional {
        gids.push(group_id(g, group)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    gids.retain(|g| seen.insert(*g));
    let home = entry.map(|e| e.home).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".into());
    Ok(User { uid, gid, additional_gids: gids, home })
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn passwd_entry(user: &str, passwd: &str) -> Option<Entry> {
    let entries = || {
        passwd.lines().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let home = f.get(5).copied().unwrap_or("").to_string();
            Some(Entry { name: (*f.first()?).into(), uid: f.get(2)?.parse().ok()?, gid: f.get(3)?.parse().ok()?, home })
        })
    };
    // A name wins over a number, as in docker.
    entries().find(|e| e.name == user).or_else(|| entries().find(|e| number(user) == Some(u64::from(e.uid))))
}

fn group_id(name: &str, group: &str) -> Result<u32, UnknownUser> {
    let by_name = group.lines().find_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        (*f.first()? == name).then(|| f.get(2)?.parse().ok())?
    });
    match (by_name, number(name)) {
        (Some(gid), _) => Ok(gid),
        (None, Some(n)) => in_range(n, name),
        (None, None) => Err(UnknownUser::Group(name.into())),
    }
}

fn groups_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let f: Vec<&str> = line.split(':').collect();
        f.get(3)?.split(',').any(|m| m == user).then(|| f.get(2)?.parse().ok())?
    })
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn in_range(n: u64, text: &str) -> Result<u32, UnknownUser> {
    u32::try_from(n).ok().filter(|n| *n <= MAX_ID).ok_or_else(|| UnknownUser::Range(text.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,x\n";

    #[test]
    fn table() {
        let r = |u: &str| resolve(u, &[], PASSWD, GROUP);
        assert_eq!(r("").unwrap(), User { uid: 0, gid: 0, additional_gids: vec![], home: "/root".into() });
        assert_eq!(r("web").unwrap(), User { uid: 33, gid: 33, additional_gids: vec![29], home: "/srv".into() });
        assert_eq!(r("web:audio").unwrap().gid, 29);
        assert!(r("web:audio").unwrap().additional_gids.is_empty());
        assert_eq!(r("1000:1000").unwrap(), User { uid: 1000, gid: 1000, additional_gids: vec![], home: "/".into() });
        assert_eq!(r("33").unwrap().home, "/srv");
        assert!(matches!(r("nobody"), Err(UnknownUser::User(_))));
        assert!(matches!(r("0:nope"), Err(UnknownUser::Group(_))));
        assert!(matches!(r("4294967295"), Err(UnknownUser::Range(_))));
        assert!(matches!(r("99999999999999999999999"), Err(UnknownUser::User(_))));
        assert_eq!(resolve("0", &["audio".into(), "7".into()], PASSWD, GROUP).unwrap().additional_gids, [29, 7]);
    }
}
