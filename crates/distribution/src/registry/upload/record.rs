//! What is remembered of an unfinished upload, so that the next process goes on with it. Losing a record costs bytes on the
//! wire, nothing else, so failures are not errors; registries drop old uploads, so do we.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Digest;
use reqwest::Url;

/// Older records are not worth a question.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Version of the format.
const FORMAT: u32 = 1;

/// The record of one blob for one repository. Who has it holds its lock: two processes must not feed one upload.
pub(super) struct Record(Option<(PathBuf, statedir::Lock)>);

impl Record {
    /// Without a directory, or while another process is at it, nothing is remembered.
    pub(super) fn of(directory: Option<&Path>, base: &Url, repository: &str, digest: &Digest) -> Self {
        let lock = |directory: &Path| {
            std::fs::create_dir_all(directory).ok()?;
            sweep(directory);
            let name = Digest::of(format!("{base} {repository} {digest}").as_bytes());
            let path = directory.join(format!("{}.json", name.hex()));
            let lock = statedir::Lock::try_acquire(&path.with_extension("lock")).ok()??;
            Some((path, lock))
        };
        Self(directory.and_then(lock))
    }

    /// Where the upload goes on.
    pub(super) fn read(&self) -> Option<Url> {
        let (path, _) = self.0.as_ref()?;
        statedir::read_json::<String>(path, FORMAT).ok()?.parse().ok()
    }

    /// Remembers where the upload is.
    pub(super) fn write(&self, session: &Url) {
        let Some((path, _)) = &self.0 else { return };
        if let Err(error) = statedir::write_json(path, FORMAT, &session.as_str()) {
            tracing::debug!(%error, "the upload is not remembered");
        }
    }

    /// The upload has ended.
    pub(super) fn forget(&self) {
        if let Some((path, _)) = &self.0 {
            let _ = std::fs::remove_file(path);
            let _ = std::fs::remove_file(path.with_extension("lock"));
        }
    }
}

/// Removes what is too old to be of use.
fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > AGE_MAX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_remembered_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let base = Url::parse("https://example.com/").unwrap();
        let of = |repository: &str| Record::of(Some(&dir.path().join("uploads")), &base, repository, &Digest::of(b""));
        assert_eq!(of("a").read(), None);
        of("a").write(&base);
        assert_eq!((of("a").read(), of("b").read()), (Some(base.clone()), None));
        let held = of("a");
        assert_eq!(of("a").read(), None, "another one is at it");
        held.forget();
        drop(held);
        assert_eq!(of("a").read(), None);
    }
}
