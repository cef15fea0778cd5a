//! `-v`, `--mount` and `--tmpfs`.

use std::path::Path;

use anyhow::{Context, bail};
use api::engine::v1::{MountKind, VolumeMount};

const FLAGS: [&str; 6] = ["exec", "noexec", "suid", "nosuid", "dev", "nodev"];
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `-v [source:]target[:options]`; options as docker's and podman's, and `idmap=` with podman's maps or `keep-id`. A source with a slash first or a dot is a host path (made absolute from `cwd`).
pub fn volume(text: &str, cwd: &Path) -> anyhow::Result<VolumeMount> {
    let wrong = || format!("invalid volume {text:?}: expected [SOURCE:]TARGET[:OPTIONS]");
    // A map has colons and commas of its own, so it comes last.
    let (text, idmap) = match text.find(",idmap=").or_else(|| text.find(":idmap=")) {
        Some(at) => (text.get(..at).unwrap_or(text), text.get(at + ",idmap=".len()..).unwrap_or_default()),
        None => (text, ""),
    };
    let (source, target, options) = match text.split(':').collect::<Vec<_>>()[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => bail!(wrong()),
    };
    let mut mount = VolumeMount { target: self::target(target).with_context(wrong)?, ..Default::default() };
    if source.starts_with('/') || source.starts_with('.') {
        mount.set_kind(MountKind::Bind);
        mount.source = absolute(source, cwd);
        mount.create_host_path = true;
    } else {
        if !source.is_empty() && !oci::name::is_valid(source) {
            bail!("{}: {source:?} is neither a volume name nor an absolute path", wrong());
        }
        if source.is_empty() && text.contains(':') {
            bail!(wrong());
        }
        mount.set_kind(MountKind::Volume);
        mount.source = source.into();
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => mount.no_copy = true,
            // SELinux relabelling and consistency hints: nothing to do on this host.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "rro" => (mount.read_only, mount.recursive_read_only) = (true, true),
            "O" => mount.overlay = true,
            "U" => mount.chown = true,
            "idmap" => mount.idmap = "keep-id".into(),
            "rbind" => mount.non_recursive = false,
            "bind" => mount.non_recursive = true,
            flag if FLAGS.contains(&flag) => mount.flags.push(flag.into()),
            option if PROPAGATIONS.contains(&option) => mount.propagation = option.into(),
            _ => bail!("{}: unknown option {option:?}", wrong()),
        }
    }
    if !idmap.is_empty() {
        mount.idmap = idmap.into();
    }
    Ok(mount)
}

/// `--tmpfs target[:options]`.
pub fn tmpfs(text: &str) -> anyhow::Result<VolumeMount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = self::target(target).with_context(|| format!("invalid tmpfs {text:?}: expected TARGET[:OPTIONS]"))?;
    let read_only = options.split(',').any(|option| option == "ro");
    let mut mount = VolumeMount { target, tmpfs_options: options.into(), read_only, ..Default::default() };
    mount.set_kind(MountKind::Tmpfs);
    Ok(mount)
}

/// `--mount type=...,source=...,target=...,...`: fields as CSV.
pub fn mount(text: &str, cwd: &Path) -> anyhow::Result<VolumeMount> {
    let wrong = |why: &str| format!("invalid mount {text:?}: {why}");
    let mut mount = VolumeMount::default();
    mount.set_kind(MountKind::Volume);
    let (mut tmpfs_options, mut writable): (Vec<String>, Option<bool>) = (Vec::new(), None);
    for field in csv(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let needed = || value.with_context(|| wrong(&format!("{key} needs a value")));
        match key {
            "type" => mount.set_kind(match needed()? {
                "bind" => MountKind::Bind,
                "volume" => MountKind::Volume,
                "tmpfs" => MountKind::Tmpfs,
                "image" => MountKind::Image,
                other => bail!(wrong(&format!("type {other:?} is not bind, volume, tmpfs or image"))),
            }),
            "source" | "src" => mount.source = needed()?.into(),
            "target" | "dst" | "destination" => {
                mount.target = target(needed()?).with_context(|| wrong("the target is an absolute path"))?;
            }
            "readonly" | "ro" => mount.read_only = truth(value).with_context(|| wrong("readonly is true or false"))?,
            "rw" | "readwrite" => writable = Some(truth(value).with_context(|| wrong("rw is true or false"))?),
            "bind-recursive" => match needed()? {
                "enabled" => {}
                "disabled" => mount.non_recursive = true,
                "writable" => mount.writable_below = true,
                "readonly" => mount.recursive_read_only = true,
                _ => bail!(wrong("bind-recursive is enabled, disabled, writable or readonly")),
            },
            "bind-nonrecursive" => {
                mount.non_recursive = truth(value).with_context(|| wrong("bind-nonrecursive is true or false"))?;
            }
            flag if FLAGS.contains(&flag) && value.is_none() => mount.flags.push(flag.into()),
            "overlay" | "O" => mount.overlay = truth(value).with_context(|| wrong("overlay is true or false"))?,
            "idmap" => mount.idmap = value.unwrap_or("keep-id").into(),
            "U" | "chown" => mount.chown = truth(value).with_context(|| wrong("chown is true or false"))?,
            "pull" => mount.pull = needed()?.into(),
            "volume-driver" => mount.driver = needed()?.into(),
            "volume-opt" | "volume-label" => {
                let (name, value) = needed()?.split_once('=').unwrap_or((needed()?, ""));
                let map = if key == "volume-opt" { &mut mount.driver_options } else { &mut mount.labels };
                map.insert(name.into(), value.into());
            }
            "bind-propagation" if PROPAGATIONS.contains(&needed()?) => mount.propagation = needed()?.into(),
            "bind-create-src" => mount.create_host_path = truth(value).with_context(|| wrong(key))?,
            "volume-nocopy" => mount.no_copy = truth(value).with_context(|| wrong("volume-nocopy is true or false"))?,
            "volume-subpath" | "image-subpath" | "subpath" => mount.subpath = needed()?.into(),
            "tmpfs-size" => tmpfs_options.push(format!("size={}", super::quantity::bytes(needed()?)?)),
            "tmpfs-mode" => tmpfs_options.push(format!("mode={}", needed()?)),
            "consistency" => {}
            _ => bail!(wrong(&format!("unknown field {field:?}"))),
        }
    }
    if mount.target.is_empty() {
        bail!(wrong("target is required"));
    }
    mount.tmpfs_options = tmpfs_options.join(",");
    match (mount.kind(), writable) {
        // Of an image only what is written over it can be.
        (MountKind::Image, Some(writable)) => mount.overlay = writable,
        (_, Some(writable)) => mount.read_only = !writable,
        (_, None) => {}
    }
    match mount.kind() {
        MountKind::Image if mount.source.is_empty() => bail!(wrong("an image mount needs a source")),
        MountKind::Bind if mount.source.is_empty() => bail!(wrong("a bind needs a source")),
        MountKind::Bind => mount.source = absolute(&mount.source, cwd),
        MountKind::Tmpfs if !mount.source.is_empty() => bail!(wrong("a tmpfs has no source")),
        MountKind::Volume if !mount.source.is_empty() && !oci::name::is_valid(&mount.source) => {
            bail!(wrong(&format!("{:?} is no volume name", mount.source)));
        }
        _ => {}
    }
    Ok(mount)
}

fn target(text: &str) -> anyhow::Result<String> {
    if !text.starts_with('/') || text.trim_end_matches('/').is_empty() {
        bail!("the target is an absolute path below /");
    }
    Ok(text.into())
}

fn absolute(path: &str, cwd: &Path) -> String {
    let mut whole = std::path::PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            std::path::Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole.display().to_string()
}

fn truth(value: Option<&str>) -> anyhow::Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => bail!("{other:?} is neither true nor false"),
    }
}

/// Fields between commas; a field in double quotes may hold commas ("" is a quote).
fn csv(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn show(mount: &VolumeMount) -> String {
        let mut text = format!("{:?} {:?} {}", mount.kind(), mount.source, mount.target);
        for (set, word) in [
            (mount.read_only, "ro"),
            (mount.no_copy, "nocopy"),
            (mount.create_host_path, "create"),
            (mount.recursive_read_only, "recursive"),
            (mount.writable_below, "writable-below"),
            (mount.non_recursive, "alone"),
            (!mount.flags.is_empty(), mount.flags.join("+").as_str()),
            (mount.overlay, "overlay"),
            (!mount.idmap.is_empty(), mount.idmap.as_str()),
            (mount.chown, "chown"),
            (!mount.pull.is_empty(), mount.pull.as_str()),
            (!mount.driver.is_empty(), mount.driver.as_str()),
            (!mount.propagation.is_empty(), mount.propagation.as_str()),
            (!mount.subpath.is_empty(), mount.subpath.as_str()),
            (!mount.tmpfs_options.is_empty(), mount.tmpfs_options.as_str()),
        ] {
            if set {
                text = format!("{text} {word}");
            }
        }
        text
    }

    #[test]
    fn volumes() {
        let cwd = Path::new("/home/me");
        for (text, want) in [
            ("data:/data", r#"Volume "data" /data"#),
            ("/data", r#"Volume "" /data"#),
            ("data:/data:ro,nocopy", r#"Volume "data" /data ro nocopy"#),
            ("/srv:/data:rw,rshared", r#"Bind "/srv" /data create rshared"#),
            ("./x/../y:/data", r#"Bind "/home/me/y" /data create"#),
            ("/srv/:/data:z", r#"Bind "/srv" /data create"#),
            ("data:/data:rro", r#"Volume "data" /data ro recursive"#),
            ("data:/data:O", r#"Volume "data" /data overlay"#),
            (
                "data:/data:ro,idmap=uids=0-1-10#10-11-10;gids=0-100-10",
                r#"Volume "data" /data ro uids=0-1-10#10-11-10;gids=0-100-10"#,
            ),
            ("/srv:/data:idmap=keep-id:uid=1,gid=2", r#"Bind "/srv" /data create keep-id:uid=1,gid=2"#),
            ("data:/data:idmap", r#"Volume "data" /data keep-id"#),
            ("data:/data:ro,U", r#"Volume "data" /data ro chown"#),
            ("/srv:/data:bind,noexec,nosuid", r#"Bind "/srv" /data create alone noexec+nosuid"#),
        ] {
            assert_eq!(show(&volume(text, cwd).unwrap()), want, "{text}");
        }
        for bad in ["", "data", "data:", ":/data", "data:data", "a:/b:c:d", "a:/b:nope", "a b:/c", "a/b:/c", "x:/"] {
            assert!(volume(bad, cwd).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let cwd = Path::new("/home/me");
        for (text, want) in [
            ("type=bind,src=/a,dst=/b,readonly", r#"Bind "/a" /b ro"#),
            ("source=v,target=/b,volume-nocopy,volume-subpath=x", r#"Volume "v" /b nocopy x"#),
            ("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770", r#"Tmpfs "" /t size=1048576,mode=1770"#),
            (r#"type=bind,"src=/a,b",dst=/c,bind-propagation=rslave"#, r#"Bind "/a,b" /c rslave"#),
            ("type=bind,src=rel,dst=/c,ro=false", r#"Bind "/home/me/rel" /c"#),
            ("type=image,source=box:1,dst=/c,subpath=bin", r#"Image "box:1" /c bin"#),
            ("type=image,source=box:1,dst=/c,rw=true", r#"Image "box:1" /c overlay"#),
            ("type=image,source=box:1,dst=/c,pull=never", r#"Image "box:1" /c never"#),
            ("src=v,dst=/c,chown=true", r#"Volume "v" /c chown"#),
            ("type=bind,src=/a,dst=/c,ro,bind-recursive=readonly", r#"Bind "/a" /c ro recursive"#),
            ("src=v,dst=/c,volume-driver=toy,volume-opt=a=b,volume-label=c", r#"Volume "v" /c toy"#),
            ("src=v,dst=/c,rw=false", r#"Volume "v" /c ro"#),
            ("type=bind,src=/a,dst=/c,ro,bind-recursive=writable", r#"Bind "/a" /c ro writable-below"#),
            ("type=bind,src=/a,dst=/c,bind-recursive=disabled,nodev", r#"Bind "/a" /c alone nodev"#),
            ("type=bind,src=/a,dst=/c,idmap", r#"Bind "/a" /c keep-id"#),
        ] {
            assert_eq!(show(&mount(text, cwd).unwrap()), want, "{text}");
        }
        for bad in [
            "",
            "type=nope,target=/x",
            "type=bind,target=/x",
            "src=a",
            "target=x",
            "target=/x,foo=1",
            "type=tmpfs,src=a,dst=/x",
        ] {
            assert!(mount(bad, cwd).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_mounts() {
        assert_eq!(show(&tmpfs("/run").unwrap()), r#"Tmpfs "" /run"#);
        assert_eq!(show(&tmpfs("/run:size=64m,ro").unwrap()), r#"Tmpfs "" /run ro size=64m,ro"#);
        assert!(tmpfs("run").is_err());
    }
}
