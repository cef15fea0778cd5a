//! Capabilities, profiles, privileges.

use std::path::Path;

use anyhow::{Context, bail};
use api::engine::v1::Security;

use super::container::Privileges;

/// All security flags as one configuration.
pub fn config(flags: &Privileges) -> anyhow::Result<Security> {
    let mut security = Security {
        privileged: flags.privileged,
        cap_add: flags.cap_add.iter().map(|name| capability(name)).collect(),
        cap_drop: flags.cap_drop.iter().map(|name| capability(name)).collect(),
        userns: match &flags.userns {
            Some(mode) => of_caller(mode, (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())),
            None => mapping(&flags.uidmap, &flags.gidmap),
        },
        ..Default::default()
    };
    for text in &flags.security_opt {
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match key {
            "no-new-privileges" => security.no_new_privileges = value != "false",
            "seccomp" if matches!(value, "unconfined" | "builtin" | "default") => {
                security.seccomp = if value == "unconfined" { value.into() } else { String::new() };
            }
            "seccomp" => security.seccomp = profile(Path::new(value))?,
            "apparmor" => security.apparmor = value.into(),
            // No SELinux on this host's kernels: nothing to label.
            "label" => {}
            _ => bail!("unknown --security-opt {text:?}: known are no-new-privileges, seccomp=, apparmor=, label="),
        }
    }
    Ok(security)
}

/// "net_admin" and "CAP_NET_ADMIN" are the same; "ALL" stays.
fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// Whose ids `keep-id` keeps: the caller's.
fn of_caller(mode: &str, (uid, gid): (u32, u32)) -> String {
    let of = format!("of={uid}:{gid}");
    match mode.split_once(':').unwrap_or((mode, "")) {
        ("keep-id", "") => format!("keep-id:{of}"),
        ("keep-id", more) if !more.split(',').any(|word| word.starts_with("of=")) => format!("keep-id:{of},{more}"),
        _ => mode.into(),
    }
}

/// podman's `--uidmap` and `--gidmap` as one text.
fn mapping(uids: &[String], gids: &[String]) -> String {
    let gids = if gids.is_empty() { uids } else { gids };
    let words = |letter, list: &[String]| -> Vec<String> { list.iter().map(|m| format!("{letter}:{m}")).collect() };
    [words("u", uids), words("g", gids)].concat().join(" ")
}

fn profile(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read seccomp profile {}", path.display()))?;
    serde_json::from_str::<serde_json::Value>(&text)
        .with_context(|| format!("seccomp profile {} is no JSON", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keep_id_is_the_callers() {
        for (mode, want) in [
            ("keep-id", "keep-id:of=7:8"),
            ("keep-id:uid=1,gid=2", "keep-id:of=7:8,uid=1,gid=2"),
            ("keep-id:of=1:2", "keep-id:of=1:2"),
            ("auto:size=5", "auto:size=5"),
            ("host", "host"),
        ] {
            assert_eq!(of_caller(mode, (7, 8)), want);
        }
    }

    #[test]
    fn options() {
        let ask = |options: &[&str]| {
            config(&Privileges {
                security_opt: options.iter().map(|option| (*option).to_owned()).collect(),
                cap_add: vec!["net_admin".into(), "all".into()],
                ..Default::default()
            })
        };
        let security = ask(&["no-new-privileges", "seccomp=unconfined"]).unwrap();
        assert!(security.no_new_privileges && security.seccomp == "unconfined");
        assert_eq!(security.cap_add, ["CAP_NET_ADMIN", "ALL"]);
        assert!(!ask(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert!(ask(&["nope"]).is_err() && ask(&["seccomp=/no/such/file"]).is_err());
    }
}
