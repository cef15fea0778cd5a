//! docker's and podman's words for user namespaces: whose ids a container has.
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::engine::v1::ContainerConfig;
use api::supervisor::v1::ListContainersRequest;
use oci::idmap::{IdMap, Line};

/// Ids that `auto` hands out where nothing is set aside for containers: systemd's range for them
/// (<https://systemd.io/UIDS-GIDS>), without what `/etc/subuid` has given to users.
const POOL: (u32, u32) = (524_288, 1_879_048_191);
/// Owner of the ids that `/etc/subuid` sets aside for containers (containers-storage.conf(5)).
const POOL_OWNER: &str = "containers";
/// Ids that a container gets without asking.
const DEFAULT_SIZE: u32 = 65_536;

/// The container's mapping; `None` shares the host's ids.
///
/// # Errors
/// [`Error::Invalid`] for a mode or mapping that is none, and when no ids are left.
pub async fn resolve(engine: &Engine, id: &str, config: &ContainerConfig) -> Result<Option<IdMap>, Error> {
    match parse(config)? {
        Wanted::Host => Ok(None),
        Wanted::Map(map) => Ok(Some(map)),
        Wanted::Auto(size) => Ok(Some(engine.allot_ids(id, |reserved| free(engine, reserved, size)).await?)),
        Wanted::Keep(kept) => {
            let own = [kept.outside.0, kept.outside.1].map(|id| (id, id));
            let taken = |reserved: Vec<(u32, u32)>| [reserved, own.to_vec()].concat();
            let others = engine.allot_ids(id, |reserved| free(engine, taken(reserved), kept.size)).await?;
            Ok(Some(kept.among(&others)))
        }
    }
}

/// The container's user, when that is who keeps his ids and nobody else was named.
pub fn user(config: &ContainerConfig) -> Option<String> {
    match parse(config) {
        Ok(Wanted::Keep(kept)) if config.user.is_empty() => Some(format!("{}:{}", kept.inside.0, kept.inside.1)),
        _ => None,
    }
}

/// Refuses what cannot be, before anything is made.
pub fn check(config: &ContainerConfig) -> Result<(), Error> {
    if matches!(parse(config)?, Wanted::Host) {
        return Ok(());
    }
    for (what, word) in
        [("--pid", &config.pid_mode), ("--ipc", &config.ipc_mode), ("--cgroupns", &config.cgroupns_mode)]
    {
        if word.starts_with("container:") {
            let hint = "namespaces of containers with other ids cannot be joined; leave out --userns";
            return Err(Error::Unsupported { what: format!("{what} {word} with --userns"), hint });
        }
    }
    if config.security.as_ref().is_some_and(|s| s.privileged) {
        let hint = "add --userns=host";
        return Err(Error::Unsupported { what: "--privileged in a user namespace".into(), hint });
    }
    Ok(())
}

enum Wanted {
    Host,
    Auto(u32),
    Keep(Kept),
    Map(IdMap),
}

/// A user of the host who is somebody in the container; all other ids are the container's own.
struct Kept {
    /// User and group on the host.
    outside: (u32, u32),
    /// And in the container.
    inside: (u32, u32),
    /// How many ids the container has of its own.
    size: u32,
}

impl Kept {
    /// `of=UID:GID[,uid=U][,gid=G][,size=N]`
    fn parse(text: &str) -> Option<Self> {
        let (mut of, mut uid, mut gid, mut size) = (None, None, None, DEFAULT_SIZE);
        let id = |text: &str| text.parse().ok().filter(|id: &u32| *id <= oci::user::MAX_ID);
        for word in text.split(',') {
            match word.split_once('=')? {
                ("of", who) => {
                    let (user, group) = who.split_once(':')?;
                    of = Some((id(user)?, id(group)?));
                }
                ("uid", user) => uid = Some(id(user)?),
                ("gid", group) => gid = Some(id(group)?),
                ("size", number) => size = own_size(number)?,
                _ => return None,
            }
        }
        let outside: (u32, u32) = of?;
        Some(Self { outside, inside: (uid.unwrap_or(outside.0), gid.unwrap_or(outside.1)), size })
    }

    /// The mapping, with these ids for all others.
    fn among(&self, others: &IdMap) -> IdMap {
        let lines = |others: &[Line], inside: u32, outside: u32| -> Vec<Line> {
            let around = |line: &Line| {
                let before = inside.saturating_sub(line.inside).min(line.size);
                let behind = line.size.saturating_sub(before + 1);
                let last = line.size - behind;
                [
                    Line { size: before, ..*line },
                    Line { inside: line.inside + last, outside: line.outside + last, size: behind },
                ]
            };
            let kept = Line { inside, outside, size: 1 };
            let mut all: Vec<Line> = others.iter().flat_map(around).chain([kept]).collect();
            all.retain(|line| line.size > 0);
            all.sort_unstable();
            all
        };
        IdMap {
            uids: lines(&others.uids, self.inside.0, self.outside.0),
            gids: lines(&others.gids, self.inside.1, self.outside.1),
        }
    }
}

/// How many ids somebody asks for.
fn own_size(text: &str) -> Option<u32> {
    text.parse().ok().filter(|size| *size > 0 && *size < POOL.1 - POOL.0)
}

fn parse(config: &ContainerConfig) -> Result<Wanted, Error> {
    let text = config.security.as_ref().map_or("", |s| s.userns.as_str());
    let bad = |why: &str| Error::invalid("user namespace", text, why.to_owned());
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "host", "") => Ok(Wanted::Host),
        ("auto", "") => Ok(Wanted::Auto(DEFAULT_SIZE)),
        ("auto", option) => {
            let size = option.strip_prefix("size=").and_then(own_size);
            size.map(Wanted::Auto).ok_or_else(|| bad("expected auto:size=NUMBER"))
        }
        ("keep-id", who) => {
            let kept = Kept::parse(who).map(Wanted::Keep);
            kept.ok_or_else(|| bad("expected keep-id:of=UID:GID[,uid=UID][,gid=GID][,size=NUMBER]"))
        }
        ("u" | "g" | "b", _) => text.parse().map(Wanted::Map).map_err(|e: oci::idmap::BadIdMap| bad(e.problem)),
        _ => Err(bad(
            "it is host, auto, auto:size=NUMBER, keep-id, or a mapping (u:INSIDE:OUTSIDE:SIZE g:INSIDE:OUTSIDE:SIZE)",
        )),
    }
}

/// A range of ids that no other container has, now or in the making.
async fn free(engine: &Engine, mut taken: Vec<(u32, u32)>, size: u32) -> Result<IdMap, Error> {
    let request = ListContainersRequest { all: true, ..Default::default() };
    for container in engine.clients().supervisor_list(request).await?.containers {
        let map: Option<IdMap> = Record::of(&container).and_then(|record| record.idmap.parse().ok());
        tracing::trace!(container = id_of(&container), ?map, "ids");
        taken.extend(map.iter().flat_map(IdMap::outside));
    }
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let pool = pool(&read("/etc/subuid"), &read("/etc/subgid"), &mut taken);
    let first = first_free(pool, &taken, size).ok_or_else(|| {
        Error::invalid("user namespace", "auto", format!("no {size} ids are left between {} and {}", pool.0, pool.1))
    })?;
    Ok(IdMap::one(first, size))
}

/// Where to look: first and last id. What belongs to others is noted as taken.
fn pool(subuid: &str, subgid: &str, taken: &mut Vec<(u32, u32)>) -> (u32, u32) {
    let own =
        ranges(subuid, Some(POOL_OWNER)).into_iter().find(|range| ranges(subgid, Some(POOL_OWNER)).contains(range));
    own.unwrap_or_else(|| {
        taken.extend(ranges(subuid, None));
        taken.extend(ranges(subgid, None));
        POOL
    })
}

/// First and last ids of the lines `owner:first:count` of subuid(5).
fn ranges(text: &str, owner: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut parts = line.trim().split(':');
        let name = parts.next()?;
        let (first, count): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let last = first.checked_add(count.checked_sub(1)?)?;
        owner.is_none_or(|owner| owner == name).then_some((first, last))
    };
    text.lines().filter_map(range).collect()
}

fn first_free((first, last): (u32, u32), taken: &[(u32, u32)], size: u32) -> Option<u32> {
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let mut at = first;
    for (from, to) in taken {
        if from >= at && from - at >= size {
            break;
        }
        at = at.max(to.checked_add(1)?);
    }
    (at.checked_add(size - 1)? <= last).then_some(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        let mut taken = vec![(524_288 + 65_536, 524_288 + 2 * 65_536 - 1)];
        let pool = pool("dave:100000:65536\neve:524288:10", "", &mut taken);
        assert_eq!(pool, POOL);
        let mut got = Vec::new();
        for _ in 0..3 {
            let first = first_free(pool, &taken, 65_536).unwrap();
            got.push(first);
            taken.push((first, first + 65_535));
        }
        assert_eq!(got, [655_360, 720_896, 786_432]);
        assert_eq!(first_free((10, 19), &[(10, 14)], 5), Some(15));
        assert_eq!(first_free((10, 19), &[(10, 14)], 6), None);
        assert_eq!(first_free((10, 19), &[], 10), Some(10));
    }

    #[test]
    fn what_is_set_aside_for_containers_comes_first() {
        let mut taken = Vec::new();
        let text = "dave:100000:65536\ncontainers:2000000:1000000";
        assert_eq!(pool(text, text, &mut taken), (2_000_000, 2_999_999));
        assert!(taken.is_empty());
        assert_eq!(pool(text, "containers:1:5", &mut taken), POOL);
    }

    #[test]
    fn words() {
        let ask = |userns: &str| {
            let security = api::engine::v1::Security { userns: userns.into(), ..Default::default() };
            parse(&ContainerConfig { security: Some(security), ..Default::default() })
        };
        assert!(matches!(ask(""), Ok(Wanted::Host)) && matches!(ask("host"), Ok(Wanted::Host)));
        assert!(matches!(ask("auto:size=1000"), Ok(Wanted::Auto(1000))));
        assert!(matches!(ask("b:0:100000:10"), Ok(Wanted::Map(_))));
        let kept = |text: &str| match ask(text) {
            Ok(Wanted::Keep(kept)) => kept.among(&IdMap::one(500_000, 10)).to_string(),
            _ => panic!("{text}"),
        };
        assert_eq!(
            kept("keep-id:of=1000:1001,uid=3,gid=0"),
            "u:0:500000:3 u:3:1000:1 u:4:500004:6 g:0:1001:1 g:1:500001:9"
        );
        assert_eq!(kept("keep-id:of=9:10"), "u:0:500000:9 u:9:9:1 g:0:500000:10 g:10:10:1");
        for bad in [
            "keep-id",
            "keep-id:of=1",
            "keep-id:uid=1",
            "keep-id:of=1:4294967295",
            "auto:size=0",
            "auto:x",
            "b:0:1",
            "u:0:1:1",
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
