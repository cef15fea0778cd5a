//! Taking a volume into use.

use std::path::PathBuf;

use crate::option::{self, Backing, Mount};
use crate::{Error, Result, Volume, Volumes, copy_up, record, references, subpath};

/// Who wants which volume, and how.
#[derive(Debug, Clone, Default)]
pub struct Acquire {
    /// The volume.
    pub name: String,
    /// Who uses it: any non-empty string, a container's id.
    pub consumer: String,
    /// Becomes the mount's target.
    pub target: String,
    /// The mount is read-only.
    pub read_only: bool,
    /// Directory below the volume's root to show; empty: the root.
    pub subpath: String,
    /// Content for a volume that is still empty.
    pub copy_up: Option<CopyUp>,
}

/// Image content that a volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyUp {
    /// Root directories of unpacked layers, lowest first; later ones win, with overlayfs whiteouts and opaque directories.
    pub layers: Vec<PathBuf>,
    /// Path inside them; symbolic links on the way are followed inside. Nothing there: nothing is copied.
    pub path: PathBuf,
}

impl Volumes {
    /// Takes a reference and returns the mount that shows the volume. The same call again returns the same.
    ///
    /// # Errors
    /// [`Error::NotFound`], a bad subpath, a bind whose directory is missing, a failed copy; no reference is left then.
    pub fn acquire(&self, wanted: &Acquire) -> Result<Mount> {
        record::check_name(&wanted.name)?;
        if wanted.consumer.is_empty() {
            return Err(Error::Invalid { field: "consumer", value: String::new(), why: "it is required".into() });
        }
        let (volume, new) = self.references.write("acquire", |transaction| {
            // Below the write lock: no removal comes between the look and the reference.
            let volume = record::read(&self.directory(&wanted.name), &wanted.name)?
                .ok_or_else(|| Error::NotFound(wanted.name.clone()))?;
            let new = references::add(transaction, &wanted.name, &wanted.consumer, &wanted.target, wanted.read_only)?;
            Ok((volume, new))
        })?;
        let mount = self.show(&volume, wanted);
        if mount.is_err() && new {
            self.references.write("give back", |transaction| {
                transaction
                    .execute(
                        "DELETE FROM refs WHERE volume = ?1 AND consumer = ?2 AND target = ?3",
                        (&wanted.name, &wanted.consumer, &wanted.target),
                    )
                    .map_err(Into::into)
            })?;
        }
        mount
    }

    fn show(&self, volume: &Volume, wanted: &Acquire) -> Result<Mount> {
        let backing = option::backing(&volume.options)?;
        let mut own = match &backing {
            Backing::Own => volume.mountpoint.clone(),
            Backing::Bind { device, .. } => PathBuf::from(device),
            Backing::Filesystem { .. } if wanted.subpath.is_empty() => PathBuf::new(),
            Backing::Filesystem { fstype, .. } => {
                let why = format!("a volume of type {fstype} has no directory on the host to look into");
                return Err(Error::Subpath { name: volume.name.clone(), subpath: wanted.subpath.clone(), why });
            }
        };
        if let Backing::Bind { .. } = backing {
            std::fs::metadata(&own).map_err(Error::io("find", &own))?;
        }
        if let (Backing::Own, Some(content)) = (&backing, &wanted.copy_up) {
            copy_up::fill(&self.directory(&volume.name), content)?;
        }
        if !wanted.subpath.is_empty() {
            own = subpath::resolve(&volume.name, &own, &wanted.subpath)?;
        }
        Ok(option::mount(&backing, &own, &wanted.target, wanted.read_only))
    }
}
