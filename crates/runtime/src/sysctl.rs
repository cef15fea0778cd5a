//! `linux.sysctl`: kernel parameters of the container's own namespaces. Which may be set is libcontainer's validator's list.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandleBuilder};

use crate::error::words;
use crate::mounting::Step;

/// Where a parameter lies below `/proc/sys`. The first separator says which of `.` and `/` separates, as for sysctl(8): the
/// other one is part of a name (`net.ipv4.conf.eth0/100.forwarding` is that of `eth0.100`).
fn path_of(name: &str) -> Option<PathBuf> {
    let swap = name.find(['.', '/']).is_some_and(|at| name.as_bytes().get(at) == Some(&b'.'));
    let swapped = |c: char| match c {
        '.' if swap => '/',
        '/' if swap => '.',
        other => other,
    };
    let path: String = name.chars().map(swapped).collect();
    let good = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    good.then(|| Path::new("sys").join(path))
}

/// Sets them, inside the container's namespaces.
pub(crate) fn apply(settings: &HashMap<String, String>) -> Step {
    if settings.is_empty() {
        return Ok(());
    }
    // An own procfs: the one at /proc could be covered by the image's mounts (CVE-2025-52881).
    let proc = ProcfsHandleBuilder::new().unmasked().build().map_err(|e| format!("sysctl: {e}"))?;
    for (name, value) in settings {
        let path = path_of(name).ok_or_else(|| format!("sysctl {name:?} is not a name"))?;
        proc.open(ProcfsBase::ProcRoot, path, OpenFlags::O_WRONLY | OpenFlags::O_CLOEXEC)
            .map_err(|e| e.to_string())
            .and_then(|mut file| file.write_all(value.as_bytes()).map_err(words))
            .map_err(|e| format!("sysctl {name}: {e}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let path = |name| path_of(name).map(|p| p.display().to_string());
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("sys/net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/ip_forward").as_deref(), Some("sys/net/ipv4/ip_forward"));
        assert_eq!(path("net.ipv4.conf.eth0/100.forwarding"), path("net/ipv4/conf/eth0.100/forwarding"));
        assert_eq!(path("net/../../1/attr"), None);
        assert_eq!(path(""), None);
    }
}
