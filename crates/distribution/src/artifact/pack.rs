//! Files and directories as blobs.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use oci::Descriptor;

use super::{FILE_TYPE, Input, TITLE, UNPACK, UNPACKED};
use crate::error::{Error, Result};
use crate::layer::{Compression, Hashing, Packed, pack, packed};
use crate::transport::made::Part;

/// A file, or a directory as a tar.
pub(super) fn input(input: &Input, scratch: &Path) -> Result<(Descriptor, Part)> {
    match input.path.is_dir() {
        true => directory(input, scratch),
        false => file(input),
    }
}

/// A file as it is. It is read again when it is sent, and must be the same then.
pub(super) fn file(input: &Input) -> Result<(Descriptor, Part)> {
    let failed = || Error::io("read", &input.path);
    let mut file = File::open(&input.path).map_err(failed())?;
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut file, &mut hashing).map_err(failed())?;
    let (_, digest, size) = hashing.finish();
    let kind = if input.media_type.is_empty() { FILE_TYPE } else { &input.media_type };
    let mut descriptor = Descriptor::new(kind, digest, size);
    descriptor.annotations.insert(TITLE.into(), title(&input.path)?);
    Ok((descriptor, Part::File(input.path.clone())))
}

/// A relative path is the title as it was given; of an absolute one, or one that leads up, the last name.
fn title(path: &Path) -> Result<String> {
    use std::path::Component;
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let title = match plain {
        true => path.components().filter(|part| matches!(part, Component::Normal(_))).collect(),
        false => path.file_name().map(std::path::PathBuf::from).unwrap_or_default(),
    };
    match title.to_str() {
        Some(title) if !title.is_empty() => Ok(title.to_owned()),
        _ => {
            let problem = "it has no name that can be a title".into();
            Err(Error::NameInvalid { what: "file of an artifact", name: path.display().to_string(), problem })
        }
    }
}

/// A gzip tar whose bytes depend on names, modes and contents only.
fn directory(input: &Input, scratch: &Path) -> Result<(Descriptor, Part)> {
    let title = title(&input.path)?;
    let failed = || Error::io("write a file in", scratch);
    let spool = tempfile::tempfile_in(scratch).map_err(failed())?;
    let mut tar = tar::Builder::new(pack(spool, Compression::Gzip).map_err(failed())?);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    tar.sparse(false);
    add(&mut tar, &input.path, Path::new(&title))?;
    let archive = tar.into_inner().map_err(failed())?;
    let Packed { file, mut descriptor, diff_id } = packed(archive, Compression::Gzip).map_err(failed())?;
    if !input.media_type.is_empty() {
        descriptor.media_type.clone_from(&input.media_type);
    }
    descriptor.annotations.insert(TITLE.into(), title);
    descriptor.annotations.insert(UNPACK.into(), "true".into());
    descriptor.annotations.insert(UNPACKED.into(), diff_id.to_string());
    Ok((descriptor, Part::Spool(Arc::new(file))))
}

fn add<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &Path, name: &Path) -> Result<()> {
    tar.append_path_with_name(path, name).map_err(Error::io("pack", path))?;
    if !path.symlink_metadata().map_err(Error::io("inspect", path))?.is_dir() {
        return Ok(());
    }
    let list =
        |path: &Path| std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = list(path).map_err(Error::io("list", path))?;
    names.sort();
    names.iter().try_for_each(|entry| add(tar, &path.join(entry), &name.join(entry)))
}
