//! The value of `RUN --mount=…`.

use super::diagnostic::{Problem, nearest};
use super::instruction::{RunMount, RunMountKind};

type Result<T> = std::result::Result<T, Problem>;

const KEYS: [&str; 17] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "id",
    "sharing",
    "readonly",
    "ro",
    "rw",
    "readwrite",
    "required",
    "uid",
    "gid",
    "mode",
];

/// Parses `type=cache,target=/x,…`.
pub(super) fn parse(text: &str) -> Result<RunMount> {
    let mut mount = RunMount { sharing: "shared".into(), ..RunMount::default() };
    let mut readonly = None;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "readonly" | "ro" => readonly = Some(boolean(&key, value)?),
            "rw" | "readwrite" => readonly = Some(!boolean(&key, value)?),
            "required" => mount.required = boolean(&key, value)?,
            _ => {
                let value = value.ok_or_else(|| Problem::new(format!("--mount: the field {key:?} needs a value")))?;
                set(&mut mount, &key, value)?;
            }
        }
    }
    mount.readonly = readonly.unwrap_or(mount.kind == RunMountKind::Bind);
    check(mount)
}

fn set(mount: &mut RunMount, key: &str, value: &str) -> Result<()> {
    match key {
        "type" => {
            mount.kind = match value {
                "bind" => RunMountKind::Bind,
                "cache" => RunMountKind::Cache,
                "tmpfs" => RunMountKind::Tmpfs,
                "secret" => RunMountKind::Secret,
                other => {
                    return Err(Problem::new(format!("--mount=type={other} is not supported"))
                        .hint("known are bind, cache, tmpfs and secret"));
                }
            }
        }
        "target" | "dst" | "destination" => mount.target = value.into(),
        "source" | "src" => mount.source = value.into(),
        "from" => mount.from = value.into(),
        "id" => mount.id = value.into(),
        "env" => mount.env = Some(value.into()),
        "sharing" if ["shared", "private", "locked"].contains(&value) => mount.sharing = value.into(),
        "size" => mount.size = number(key, value, 10)?,
        "uid" => mount.uid = u32::try_from(number(key, value, 10)?).map_err(|_| bad(key, value))?,
        "gid" => mount.gid = u32::try_from(number(key, value, 10)?).map_err(|_| bad(key, value))?,
        "mode" => mount.mode = Some(u32::try_from(number(key, value, 8)?).map_err(|_| bad(key, value))?),
        "sharing" => return Err(bad(key, value).hint("known are shared, private and locked")),
        _ => {
            let problem = Problem::new(format!("--mount: unknown field {key:?}"));
            return Err(match nearest(key, &KEYS) {
                Some(near) => problem.hint(format!("did you mean {near}?")),
                None => problem,
            });
        }
    }
    Ok(())
}

fn check(mut mount: RunMount) -> Result<RunMount> {
    if mount.kind == RunMountKind::Secret {
        if mount.id.is_empty() {
            mount.id = mount.source.rsplit('/').next().unwrap_or_default().to_owned();
        }
        if mount.id.is_empty() {
            mount.id = mount.target.rsplit('/').next().unwrap_or_default().to_owned();
        }
        if mount.id.is_empty() {
            return Err(Problem::new("--mount=type=secret needs an id"));
        }
        if mount.target.is_empty() && mount.env.is_none() {
            mount.target = format!("/run/secrets/{}", mount.id);
        }
        return Ok(mount);
    }
    if mount.target.is_empty() {
        return Err(Problem::new("--mount needs a target").hint("write target=/path"));
    }
    if mount.kind == RunMountKind::Cache && mount.id.is_empty() {
        mount.id = mount.target.clone();
    }
    Ok(mount)
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(bad(key, other)),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<i64> {
    i64::from_str_radix(value, radix).ok().filter(|number| *number >= 0).ok_or_else(|| bad(key, value))
}

fn bad(key: &str, value: &str) -> Problem {
    Problem::new(format!("--mount: invalid value {value:?} of {key}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_mounts() {
        let cache = parse("type=cache,target=/root/.cache,sharing=locked").unwrap();
        assert_eq!((cache.kind, cache.id.as_str(), cache.readonly), (RunMountKind::Cache, "/root/.cache", false));
        let bind = parse("target=/src,from=build,rw").unwrap();
        assert_eq!((bind.kind, bind.from.as_str(), bind.readonly), (RunMountKind::Bind, "build", false));
        assert!(parse("target=/src").unwrap().readonly);
        let secret = parse("type=secret,id=token").unwrap();
        assert_eq!(secret.target, "/run/secrets/token");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in ["type=ssh", "type=cache", "target=/x,tpye=cache", "target=/x,uid=-1", "target=/x,ro=maybe"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
