//! Where a container's cgroup may be: pure checks of `linux.cgroupsPath`.

use std::path::{Component, Path, PathBuf};

use super::Layout;
use crate::{Error, Result};

/// Turns `linux.cgroupsPath` into a path relative to each hierarchy's root.
///
/// Absent or empty means `<id>`, as in runc. It is never the root, never has `..`, and is never a cgroup that this very process
/// is in or below: that one, and everything in it, would be killed when the container goes.
///
/// # Errors
/// [`Error::Refused`].
pub fn sanitise(wanted: Option<&Path>, id: &str, layout: &Layout) -> Result<PathBuf> {
    let refuse =
        |why: &str| Err(Error::Refused(format!("linux.cgroupsPath {:?}: {why}", wanted.unwrap_or(Path::new("")))));
    let relative = match wanted {
        None => PathBuf::from(id),
        Some(p) if p.as_os_str().is_empty() => PathBuf::from(id),
        Some(p) => {
            let mut out = PathBuf::new();
            for part in p.components() {
                match part {
                    Component::Normal(name) => out.push(name),
                    Component::ParentDir => return refuse("has \"..\""),
                    _ => {}
                }
            }
            out
        }
    };
    if relative.as_os_str().is_empty() {
        return refuse("is the root of the hierarchy");
    }
    for hierarchy in &layout.hierarchies {
        if hierarchy.own.starts_with(&relative) {
            return refuse("is a cgroup that the runtime itself is in");
        }
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::layout::Hierarchy;
    use super::*;

    fn layout(own: &str) -> Layout {
        Layout {
            unified: false,
            hierarchies: vec![Hierarchy { controllers: vec!["cpu".into()], mount: "/c".into(), own: own.into() }],
        }
    }

    #[test]
    fn defaults_and_normal_paths() {
        let l = layout("");
        assert_eq!(sanitise(None, "x", &l).unwrap(), Path::new("x"));
        assert_eq!(sanitise(Some(Path::new("")), "x", &l).unwrap(), Path::new("x"));
        assert_eq!(sanitise(Some(Path::new("/a//b/./c")), "x", &l).unwrap(), Path::new("a/b/c"));
        assert_eq!(sanitise(Some(Path::new("a")), "x", &l).unwrap(), Path::new("a"));
    }

    #[test]
    fn dangerous_paths_are_refused() {
        let l = layout("user/me/shell");
        for bad in ["/", "//", "/.", "..", "/a/../b", "a/..", "/user", "user/me", "/user/me/shell"] {
            assert!(sanitise(Some(Path::new(bad)), "x", &l).is_err(), "{bad}");
        }
        for good in ["/user/me/shell/box", "/user/you", "/use"] {
            assert!(sanitise(Some(Path::new(good)), "x", &l).is_ok(), "{good}");
        }
    }
}
