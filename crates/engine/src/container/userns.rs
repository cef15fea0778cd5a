//! docker's and podman's words for user namespaces: whose ids a container has.
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::engine::v1::ContainerConfig;
use api::supervisor::v1::ListContainersRequest;
use oci::idmap::IdMap;

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
    }
}

/// Whether the container gets ids of its own.
pub fn is_wanted(config: &ContainerConfig) -> bool {
    !matches!(parse(config), Ok(Wanted::Host))
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
    Map(IdMap),
}

fn parse(config: &ContainerConfig) -> Result<Wanted, Error> {
    let text = config.security.as_ref().map_or("", |s| s.userns.as_str());
    let bad = |why: &str| Error::invalid("user namespace", text, why.to_owned());
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "host", "") => Ok(Wanted::Host),
        ("auto", "") => Ok(Wanted::Auto(DEFAULT_SIZE)),
        ("auto", option) => {
            let size =
                option.strip_prefix("size=").and_then(|n| n.parse().ok()).filter(|n| *n > 0 && *n < POOL.1 - POOL.0);
            size.map(Wanted::Auto).ok_or_else(|| bad("expected auto:size=NUMBER"))
        }
        ("u" | "g" | "b", _) => text.parse().map(Wanted::Map).map_err(|e: oci::idmap::BadIdMap| bad(e.problem)),
        _ => Err(bad("it is host, auto, auto:size=NUMBER, or a mapping (u:INSIDE:OUTSIDE:SIZE g:INSIDE:OUTSIDE:SIZE)")),
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
        for bad in ["keep-id", "auto:size=0", "auto:x", "b:0:1", "u:0:1:1"] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
