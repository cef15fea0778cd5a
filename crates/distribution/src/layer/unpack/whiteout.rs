//! Deletions: image-spec, layer.md, "Whiteouts".
use super::super::root::{is_dir, look};
use super::{Unpacker, escapes, failed};
use crate::Result;
use crate::layer::entry::Entry;
use rustix::fs::{FileType, Mode};

impl Unpacker {
    /// `.wh.<hidden>` in the directory `parent`.
    pub(super) fn whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &[u8]) -> Result<()> {
        match hidden {
            b".wh..opq" if parent.is_empty() => {
                self.done.unresolved.opaque_root = true;
                self.done.whiteouts = true;
                return Ok(());
            }
            b".wh..opq" => {
                let dir = self.parent(entry, parent)?;
                self.done.whiteouts = true;
                return self.marks.set_opaque(&dir).map_err(failed("mark opaque", entry));
            }
            // Other names of this kind are aufs's bookkeeping.
            _ if hidden.starts_with(b".wh.") => return Ok(()),
            b"" | b"." | b".." => return Err(escapes(entry, "would delete a directory outside of its own")),
            _ => {}
        }
        self.done.whiteouts = true;
        let dir = self.parent(entry, parent)?;
        match look(&*dir, hidden).map_err(failed("look at what is deleted", entry))? {
            // The deletion is of what the parents have; what this layer itself has stays, and hides the parents'.
            Some(there) if is_dir(&there) => {
                let path = [parent, hidden].join(&b'/');
                let made = self.root.dir(if parent.is_empty() { hidden } else { &path });
                self.marks.set_opaque(&*made.map_err(failed("open", entry))?).map_err(failed("mark opaque", entry))
            }
            Some(_) => Ok(()),
            None => rustix::fs::mknodat(&*dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed("create the whiteout", entry)),
        }
    }
}
