//! Tars for `cp`: docker's rules for where things land, the change of a tar's root name, packing and unpacking.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use tar::{Archive, Builder, EntryType, Header};

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Nothing,
    File,
    Directory,
}

/// Where a tar whose root is the source's base name goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// Directory to unpack into.
    pub directory: String,
    /// New name of the tar's root; `None`: the content of the root goes into `directory` itself.
    pub name: Option<String>,
}

/// Docker's rules. `source` and `target` are as typed (a final "/." of a source means its content, a final "/" of a target means a
/// directory).
pub fn landing(source: &str, source_is: At, target: &str, target_is: At) -> anyhow::Result<Landing> {
    let content = source.ends_with("/.") || source == ".";
    let base = base_name(source);
    match (source_is, target_is) {
        (At::Nothing, _) => bail!("{source}: no such file or directory"),
        (At::File, _) if content => bail!("{source}: not a directory"),
        (At::Directory, At::File) => bail!("cannot copy directory {source} over file {target}"),
        (_, At::Directory) if content => Ok(Landing { directory: target.into(), name: None }),
        (_, At::Directory) => Ok(Landing { directory: target.into(), name: Some(base) }),
        (At::File, At::File) if target.ends_with('/') => bail!("{target}: not a directory"),
        (At::File, At::Nothing) if target.ends_with('/') => bail!("{target}: no such directory"),
        (At::File, _) | (At::Directory, At::Nothing) => {
            let trimmed = target.trim_end_matches("/.").trim_end_matches('/');
            let (directory, name) = match trimmed.rsplit_once('/') {
                Some(("", name)) => ("/", name),
                Some((directory, name)) => (directory, name),
                None => (".", trimmed),
            };
            Ok(Landing { directory: directory.into(), name: Some(name.into()) })
        }
    }
}

/// Last name of a path; "/" for the root.
pub fn base_name(path: &str) -> String {
    let trimmed = path.trim_end_matches("/.").trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some(name) if !name.is_empty() && name != "." && name != ".." => name.into(),
        _ => "/".into(),
    }
}

/// Copies a tar with its root renamed (`None`: removed). Entries that would leave it are refused.
pub fn rebase(input: impl Read, output: impl Write, name: Option<&str>) -> anyhow::Result<()> {
    let mut archive = Archive::new(input);
    let mut builder = Builder::new(output);
    let mut root = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let first = root.get_or_insert_with(|| first_part(&path)).clone();
        let Some(moved) = moved(&path, &first, name)? else { continue };
        let mut header: Header = entry.header().clone();
        if entry.header().entry_type() == EntryType::Link {
            let target = entry.link_name()?.context("a hard link without a target")?.into_owned();
            let target = self::moved(&target, &first, name)?.context("a hard link to the root")?;
            builder.append_link(&mut header, moved, target)?;
        } else if entry.header().entry_type() == EntryType::Symlink {
            let target = entry.link_name()?.context("a symbolic link without a target")?.into_owned();
            builder.append_link(&mut header, moved, target)?;
        } else {
            header.set_size(entry.size());
            builder.append_data(&mut header, moved, &mut entry)?;
        }
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn first_part(path: &Path) -> PathBuf {
    path.components()
        .find(|part| matches!(part, Component::Normal(_)))
        .map(|part| part.as_os_str().into())
        .unwrap_or_default()
}

/// The path with its root renamed; `None` for the root itself when that goes.
fn moved(path: &Path, root: &Path, name: Option<&str>) -> anyhow::Result<Option<PathBuf>> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the tar has a path that leaves it: {}", path.display())
            }
        }
    }
    let rest = clean.strip_prefix(root).unwrap_or(&clean).to_path_buf();
    Ok(match name {
        Some(name) => Some(Path::new(name).join(rest)).map(|path| path.components().collect()),
        None if rest.as_os_str().is_empty() => None,
        None => Some(rest),
    })
}

/// Packs a path as a tar whose root is `name` (`None`: its content, without a root).
pub fn pack(path: &Path, name: Option<&str>, follow: bool, output: impl Write) -> anyhow::Result<()> {
    let mut builder = Builder::new(output);
    builder.follow_symlinks(false);
    let metadata = if follow { path.metadata() } else { path.symlink_metadata() }
        .with_context(|| format!("cannot read {}", path.display()))?;
    let real = if follow { path.canonicalize()? } else { path.to_owned() };
    let failed = || format!("cannot pack {}", path.display());
    if metadata.is_dir() {
        builder.append_dir_all(name.unwrap_or("."), &real).with_context(failed)?;
    } else {
        builder.append_path_with_name(&real, name.unwrap_or(".")).with_context(failed)?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

/// Unpacks into a directory; nothing lands outside of it. With `owners`, uid and gid are kept.
pub fn unpack(input: impl Read, directory: &Path, owners: bool) -> anyhow::Result<()> {
    let mut archive = Archive::new(input);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owners);
    archive.set_overwrite(true);
    archive.unpack(directory).with_context(|| format!("cannot unpack into {}", directory.display()))
}

/// What is at a local path, links followed.
pub fn local(path: &Path) -> At {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => At::Directory,
        Ok(_) => At::File,
        Err(_) => At::Nothing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn landings() {
        use At::{Directory, File, Nothing};
        for (source, is, target, there, want) in [
            ("/etc/a", File, "/tmp", Directory, Some(("/tmp", Some("a")))),
            ("/etc/a", File, "/tmp/b", Nothing, Some(("/tmp", Some("b")))),
            ("/etc/a", File, "b", File, Some((".", Some("b")))),
            ("/etc/a", File, "/b", Nothing, Some(("/", Some("b")))),
            ("/etc/a", File, "/tmp/b/", Nothing, None),
            ("/etc/a", File, "/tmp/b/", File, None),
            ("/etc", Directory, "/tmp", Directory, Some(("/tmp", Some("etc")))),
            ("/etc/", Directory, "/tmp/new", Nothing, Some(("/tmp", Some("new")))),
            ("/etc/.", Directory, "/tmp", Directory, Some(("/tmp", None))),
            ("/etc/.", Directory, "/tmp/new/", Nothing, Some(("/tmp", Some("new")))),
            ("/etc", Directory, "/tmp/f", File, None),
            ("/nope", Nothing, "/tmp", Directory, None),
        ] {
            let got = landing(source, is, target, there).ok();
            let want =
                want.map(|(directory, name)| Landing { directory: directory.into(), name: name.map(Into::into) });
            assert_eq!(got, want, "{source} {target}");
        }
    }

    #[test]
    fn there_and_back() {
        let bed = std::env::temp_dir().join(format!("pier-cp-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&bed);
        std::fs::create_dir_all(bed.join("src/deep")).unwrap();
        std::fs::create_dir_all(bed.join("out")).unwrap();
        std::fs::write(bed.join("src/deep/file"), "x").unwrap();
        std::os::unix::fs::symlink("file", bed.join("src/deep/link")).unwrap();
        let mut packed = Vec::new();
        pack(&bed.join("src"), Some("src"), false, &mut packed).unwrap();
        let mut renamed = Vec::new();
        rebase(&packed[..], &mut renamed, Some("new")).unwrap();
        unpack(&renamed[..], &bed.join("out"), false).unwrap();
        assert_eq!(std::fs::read_to_string(bed.join("out/new/deep/link")).unwrap(), "x");
        let mut content = Vec::new();
        rebase(&packed[..], &mut content, None).unwrap();
        unpack(&content[..], &bed.join("out"), false).unwrap();
        assert!(bed.join("out/deep/file").exists());
        std::fs::remove_dir_all(&bed).unwrap();
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/"), "/");
        assert!(moved(Path::new("a/../../x"), Path::new("a"), None).is_err());
    }
}
