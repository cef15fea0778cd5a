//! Whose the files of a volume are to its consumer: mapped at the mount, or changed on disk where it was asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci::idmap::IdMap;
use sys::userns::IdMaps;

use crate::option::Backing;
use crate::volumes::unsupported;
use crate::{Acquire, Error, Result, Volume, Volumes, chown, idmap};

impl Volumes {
    /// Makes files belong to whom the consumer wants: ids on disk and those seen of the mount that does it, if one does.
    pub(crate) fn owners(
        &self,
        volume: &Volume,
        backing: &Backing,
        own: &Path,
        wanted: &Acquire,
    ) -> Result<Option<String>> {
        // The content of an image is an overlay, which the kernel cannot map: everybody can read what root may let them.
        let plain = wanted.idmap.is_empty() && wanted.owner.is_none();
        let as_it_is = matches!(backing, Backing::Content { .. }) && !wanted.overlay;
        if plain && (wanted.userns.is_empty() || as_it_is) {
            return Ok(None);
        }
        let namespace = namespace(&wanted.userns)?;
        let looks = match wanted.owner {
            Some(owner) => match self.give_to(volume, backing, own, owner, &namespace)? {
                Some(looks) => looks,
                None => return Ok(None),
            },
            None if wanted.idmap.is_empty() => IdMap::same(),
            None => idmap::parse(&wanted.idmap, owner_of(own)?)?,
        };
        let why = || "nothing of it is in the user namespace".to_owned();
        let seen = looks.then(&namespace).ok_or_else(|| Error::Invalid {
            field: "idmap",
            value: wanted.idmap.clone(),
            why: why(),
        })?;
        // Nothing looks different.
        if seen == IdMap::same() { Ok(None) } else { idmap::word(&seen).map(Some) }
    }

    /// Gives all files to `owner`, and says how they have to look for that; `None`: as they are.
    fn give_to(
        &self,
        volume: &Volume,
        backing: &Backing,
        own: &Path,
        owner: (u32, u32),
        namespace: &IdMap,
    ) -> Result<Option<IdMap>> {
        if backing.is_read_only() {
            return Err(unsupported(&volume.name, "a change of owners", "it cannot be written"));
        }
        let host = namespace.seen(owner.0, owner.1).ok_or_else(|| Error::Invalid {
            field: "owner",
            value: format!("{}:{}", owner.0, owner.1),
            why: "the user namespace has no such ids".into(),
        })?;
        if let Backing::Bind { .. } = backing {
            if let Some(one) = chown::only_owner(own)?
                && can_be_mapped(own)
            {
                return Ok(Some(idmap::exchanged(one, owner)));
            }
            return chown::tree(own, host).map(|()| None);
        }
        chown::tree(own, owner).map(|()| Some(IdMap::same()))
    }
}

/// The ids of a user namespace; all ids when there is none.
///
/// # Errors
/// The text is no mapping.
pub(crate) fn namespace(text: &str) -> Result<IdMap> {
    let bad =
        |error: oci::idmap::BadIdMap| Error::Invalid { field: "userns", value: error.text, why: error.problem.into() };
    if text.is_empty() { Ok(IdMap::same()) } else { text.parse().map_err(bad) }
}

/// Not every file system can be, and none could before Linux 5.12.
fn can_be_mapped(path: &Path) -> bool {
    IdMaps::parse(&IdMap::same().to_string()).and_then(|ids| sys::mount::mapped_tree(path, &ids, false)).is_ok()
}

fn owner_of(path: &Path) -> Result<(u32, u32)> {
    std::fs::metadata(path).map(|found| (found.uid(), found.gid())).map_err(Error::io("read", path))
}
