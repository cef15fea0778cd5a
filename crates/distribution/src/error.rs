//! Everything that can go wrong here, with the code and the reason that callers see.
use oci::Digest;
use std::io;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file or directory failed.
    #[error("cannot {step} {path}", path = path.display())]
    Io {
        /// What was tried: a verb that fits "cannot ...".
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The database refused.
    #[error("cannot {step} in the image database")]
    Database {
        /// What was tried.
        step: &'static str,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A row of the database does not read.
    #[error("the image database has a damaged record of {what}: {problem}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database was written by a newer release.
    #[error("{path} was written by a newer release (format {found}, this one knows {known})", path = path.display())]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// The store's directory cannot be used as one.
    #[error("{path} cannot be the store's directory: {problem}", path = path.display())]
    BadRoot {
        /// The directory.
        path: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// No such thing in the store.
    #[error("{what} {name} is not in the store")]
    NotFound {
        /// "blob", "layer", "snapshot", "image", "lease".
        what: &'static str,
        /// Its key.
        name: String,
    },
    /// The key is taken.
    #[error("{what} {name} exists already")]
    Exists {
        /// "snapshot", "lease".
        what: &'static str,
        /// Its key.
        name: String,
    },
    /// A key with characters that keys must not have.
    #[error("invalid {what} {name:?}: expected {expected}")]
    InvalidName {
        /// "snapshot key", "lease id", "snapshotter", "compression".
        what: &'static str,
        /// The text.
        name: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Content is not what its digest says.
    #[error("{what} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// "blob", "layer".
        what: &'static str,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("blob {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Promised bytes.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// A blob that is to be read whole is too big for that.
    #[error("blob {digest} has {size} bytes, more than the {max} allowed here")]
    TooBig {
        /// The blob.
        digest: Digest,
        /// Its bytes.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// Content cannot be decompressed.
    #[error("cannot decompress the layer ({format})")]
    Decompress {
        /// "gzip", "zstd", "plain tar".
        format: &'static str,
        /// The decoder's word.
        source: io::Error,
    },
    /// A blob that grows beyond measure when it is decompressed.
    #[error("the layer grows from {compressed} to more than {uncompressed} bytes")]
    LayerExpands {
        /// Bytes of the blob so far.
        compressed: u64,
        /// Bytes of the archive so far.
        uncompressed: u64,
    },
    /// The blob's own reader failed (a connection, a disk).
    #[error("cannot read the layer's blob")]
    BlobRead {
        /// The reader's word.
        source: io::Error,
    },
    /// A layer of a kind that cannot be unpacked.
    #[error("layers of type {media_type} cannot be unpacked here")]
    UnknownLayerType {
        /// The media type.
        media_type: String,
    },
    /// The archive is not a sound tar.
    #[error("the layer is not a sound tar archive at byte {offset}: {problem}")]
    BadTar {
        /// Offset in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// An entry would write outside of the layer.
    #[error("the layer's entry {entry:?} {problem}")]
    TarEscapes {
        /// The entry's name.
        entry: String,
        /// What it tries.
        problem: String,
    },
    /// An entry that cannot be honoured.
    #[error("the layer's entry {entry:?} {problem}")]
    TarEntry {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A system call on behalf of an entry failed.
    #[error("cannot {step} for the layer's entry {entry:?}")]
    Unpack {
        /// What was tried.
        step: &'static str,
        /// The entry's name.
        entry: String,
        /// The system's word.
        source: io::Error,
    },
    /// A system call on a path of a snapshot or layer failed.
    #[error("cannot {step} /{entry}")]
    Tree {
        /// What was tried.
        step: &'static str,
        /// Path inside the filesystem.
        entry: String,
        /// The system's word.
        source: io::Error,
    },
    /// A lease that is gone.
    #[error("lease {id} does not exist or has expired")]
    LeaseExpired {
        /// The lease.
        id: String,
    },
    /// A snapshot whose directories are gone or do not fit its record.
    #[error("snapshot {key} is damaged: {problem}")]
    SnapshotDamaged {
        /// The snapshot.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A snapshot that cannot do what is asked.
    #[error("snapshot {key} {problem}")]
    SnapshotState {
        /// The snapshot.
        key: String,
        /// Why not.
        problem: &'static str,
    },
    /// The wanted snapshotter does not work here.
    #[error("the {snapshotter} snapshotter does not work here: {problem}")]
    SnapshotterUnavailable {
        /// Which one.
        snapshotter: String,
        /// Why.
        problem: String,
    },
    /// The kernel cannot show a snapshot's files as another user's.
    #[error("snapshot {key} cannot be made for a user namespace")]
    IdsUnmapped {
        /// The snapshot.
        key: String,
        /// Why not.
        source: io::Error,
    },
    /// Anything between us and a registry.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// What keeps an image out.
    #[error(transparent)]
    Trust(#[from] crate::trust::Error),
    /// What keeps a registry from being served.
    #[error(transparent)]
    Server(#[from] crate::server::Error),
    /// No image by that name, id or digest in the store.
    #[error("no such image: {name}")]
    ImageNotFound {
        /// As asked for.
        name: String,
    },
    /// An id prefix that fits several images.
    #[error("{prefix} is the beginning of {count} image ids")]
    IdAmbiguous {
        /// As asked for.
        prefix: String,
        /// How many it fits.
        count: usize,
    },
    /// The image is used by snapshots or has more names.
    #[error("image {name} is in use: {by}")]
    ImageInUse {
        /// As asked for.
        name: String,
        /// By what.
        by: String,
    },
    /// A text that is not what it should be, or one that the operation cannot take.
    #[error("{name:?} is not a valid {what}: {problem}")]
    NameInvalid {
        /// What it should have been: "image reference", "image location".
        what: &'static str,
        /// The text.
        name: String,
        /// Why not.
        problem: String,
    },
    /// A manifest, index or config that cannot be used.
    #[error("manifest of {what} cannot be used: {problem}")]
    ManifestInvalid {
        /// Name or digest.
        what: String,
        /// Why.
        problem: String,
    },
    /// No manifest for the platform.
    #[error("{what} has no image for {platform}; there are: {available}")]
    PlatformMissing {
        /// Name.
        what: String,
        /// Wanted.
        platform: String,
        /// What the index lists.
        available: String,
    },
    /// A layer whose blob is what the manifest says, but which cannot be unpacked.
    #[error("layer {digest} cannot be unpacked")]
    LayerCorrupt {
        /// The blob.
        digest: Digest,
        /// Why.
        source: Box<Error>,
    },
    /// An archive or layout that is none.
    #[error("{path} is not an image archive or layout: {problem}", path = path.display())]
    ArchiveInvalid {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The image of a layer, for snapshots of the erofs snapshotter, cannot be made.
    #[error("cannot make {path}: {problem}", path = path.display())]
    LayerImage {
        /// The image.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The work was given up by its caller.
    #[error("canceled: {what}")]
    Canceled {
        /// What.
        what: String,
    },
}

impl Error {
    /// A manifest that cannot be used.
    pub(crate) fn manifest(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::ManifestInvalid { what: what.into(), problem: problem.to_string() }
    }

    /// An archive that is none.
    pub(crate) fn archive(path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self::ArchiveInvalid { path: path.into(), problem: problem.to_string() }
    }

    /// For `map_err` after [`statedir`].
    pub(crate) fn state(path: impl Into<PathBuf>) -> impl FnOnce(statedir::Error) -> Self {
        let path = path.into();
        move |e| match e {
            statedir::Error::Io { action, path, source } => Self::Io { step: action, path, source },
            other => Self::Io { step: "use", path, source: io::Error::other(other) },
        }
    }

    /// For `map_err`: names the step and the path.
    pub(crate) fn io<E: Into<io::Error>>(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |e| Self::Io { step, path, source: e.into() }
    }

    /// For `map_err`: names the step.
    pub(crate) fn db(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { step, source }
    }

    /// No such thing.
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    /// The disk (or the quota) is full.
    pub(crate) fn is_full(&self) -> bool {
        let io = match self {
            Self::Io { source, .. } | Self::Unpack { source, .. } | Self::Tree { source, .. } => source,
            Self::LayerCorrupt { source, .. } => return source.is_full(),
            Self::Database { source, .. } => return source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => return false,
        };
        matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl Error {
    /// The database file itself is damaged.
    pub(crate) fn is_corrupt_database(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let code = match self {
            Self::Database { source, .. } => source.sqlite_error_code(),
            _ => None,
        };
        matches!(code, Some(DatabaseCorrupt | NotADatabase))
    }
}

impl rpc::Coded for Error {
    fn code(&self) -> rpc::Code {
        use rpc::Code;
        match self {
            _ if self.is_full() => Code::ResourceExhausted,
            Self::Io { .. } | Self::Database { .. } | Self::Unpack { .. } | Self::Tree { .. } => Code::Internal,
            Self::BlobRead { .. } => Code::Unavailable,
            Self::Record { .. } | Self::SnapshotDamaged { .. } => Code::DataLoss,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::Decompress { .. } => Code::DataLoss,
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::InvalidName { .. } | Self::BadTar { .. } | Self::TarEscapes { .. } => Code::InvalidArgument,
            Self::TarEntry { .. } | Self::UnknownLayerType { .. } | Self::BadRoot { .. } => Code::InvalidArgument,
            Self::TooBig { .. } | Self::LayerExpands { .. } => Code::ResourceExhausted,
            Self::TooNew { .. } | Self::LeaseExpired { .. } | Self::SnapshotState { .. } => Code::FailedPrecondition,
            Self::SnapshotterUnavailable { .. } | Self::IdsUnmapped { .. } | Self::LayerImage { .. } => {
                Code::FailedPrecondition
            }
            Self::Registry(inner) => inner.code(),
            Self::Server(inner) => inner.code(),
            Self::Trust(inner) => inner.code(),
            Self::ImageNotFound { .. } | Self::PlatformMissing { .. } => Code::NotFound,
            Self::IdAmbiguous { .. } | Self::NameInvalid { .. } => Code::InvalidArgument,
            Self::ManifestInvalid { .. } | Self::ArchiveInvalid { .. } => Code::InvalidArgument,
            Self::ImageInUse { .. } => Code::FailedPrecondition,
            Self::LayerCorrupt { source, .. } => match &**source {
                Self::TarEscapes { .. } => Code::InvalidArgument,
                Self::LayerExpands { .. } => Code::ResourceExhausted,
                _ => Code::DataLoss,
            },
            Self::Canceled { .. } => Code::Canceled,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            _ if self.is_full() => "NO_SPACE",
            Self::Io { .. } => "IO",
            Self::Database { .. } => "DATABASE",
            Self::Record { .. } => "RECORD_DAMAGED",
            Self::TooNew { .. } => "STORE_TOO_NEW",
            Self::BadRoot { .. } => "BAD_ROOT",
            Self::NotFound { what, .. } => match *what {
                "blob" => "BLOB_NOT_FOUND",
                "layer" => "LAYER_NOT_FOUND",
                "snapshot" => "SNAPSHOT_NOT_FOUND",
                "lease" => "LEASE_NOT_FOUND",
                "index" | "manifest of the index" => "INDEX_NOT_FOUND",
                _ => "IMAGE_NOT_FOUND",
            },
            Self::Exists { what, .. } => match *what {
                "lease" => "LEASE_EXISTS",
                "index" => "INDEX_EXISTS",
                "file" => "FILE_EXISTS",
                _ => "SNAPSHOT_EXISTS",
            },
            Self::InvalidName { .. } => "NAME_INVALID",
            Self::DigestMismatch { .. } => "DIGEST_MISMATCH",
            Self::SizeMismatch { .. } => "SIZE_MISMATCH",
            Self::TooBig { .. } => "BLOB_TOO_BIG",
            Self::Decompress { .. } => "LAYER_CORRUPT",
            Self::LayerExpands { .. } => "LAYER_EXPANDS",
            Self::BlobRead { .. } => "BLOB_READ_FAILED",
            Self::UnknownLayerType { .. } => "LAYER_TYPE_UNKNOWN",
            Self::BadTar { .. } => "LAYER_CORRUPT",
            Self::TarEscapes { .. } => "TAR_ESCAPES",
            Self::TarEntry { .. } => "TAR_ENTRY",
            Self::Unpack { .. } => "UNPACK_FAILED",
            Self::Tree { .. } => "IO",
            Self::LeaseExpired { .. } => "LEASE_EXPIRED",
            Self::SnapshotDamaged { .. } => "SNAPSHOT_DAMAGED",
            Self::SnapshotState { .. } => "SNAPSHOT_STATE",
            Self::SnapshotterUnavailable { .. } => "SNAPSHOTTER_UNAVAILABLE",
            Self::IdsUnmapped { .. } => "IDS_UNMAPPED",
            Self::Registry(inner) => inner.reason(),
            Self::Server(inner) => inner.reason(),
            Self::Trust(inner) => inner.reason(),
            Self::ImageNotFound { .. } => "IMAGE_NOT_FOUND",
            Self::IdAmbiguous { .. } => "IMAGE_ID_AMBIGUOUS",
            Self::ImageInUse { .. } => "IMAGE_IN_USE",
            Self::NameInvalid { .. } => "NAME_INVALID",
            Self::ManifestInvalid { .. } => "MANIFEST_INVALID",
            Self::PlatformMissing { .. } => "PLATFORM_MISSING",
            Self::LayerCorrupt { source, .. } => match &**source {
                Self::TarEscapes { .. } => "TAR_ESCAPES",
                Self::LayerExpands { .. } => "LAYER_EXPANDS",
                _ => "LAYER_CORRUPT",
            },
            Self::ArchiveInvalid { .. } => "ARCHIVE_INVALID",
            Self::LayerImage { .. } => "LAYER_IMAGE",
            Self::Canceled { .. } => "CANCELED",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::NotFound { name, .. } | Self::Exists { name, .. } | Self::InvalidName { name, .. } => name.clone(),
            Self::DigestMismatch { expected, .. } => expected.to_string(),
            Self::SizeMismatch { digest, .. } | Self::TooBig { digest, .. } => digest.to_string(),
            Self::TarEscapes { entry, .. } | Self::TarEntry { entry, .. } | Self::Unpack { entry, .. } => entry.clone(),
            Self::IdsUnmapped { key, .. } => key.clone(),
            Self::SnapshotDamaged { key, .. } | Self::SnapshotState { key, .. } => key.clone(),
            Self::LeaseExpired { id } => id.clone(),
            Self::Registry(inner) => inner.subject(),
            Self::Server(inner) => inner.subject(),
            Self::Trust(inner) => inner.subject(),
            Self::ImageNotFound { name } | Self::ImageInUse { name, .. } | Self::NameInvalid { name, .. } => {
                name.clone()
            }
            Self::IdAmbiguous { prefix, .. } => prefix.clone(),
            Self::ManifestInvalid { what, .. } | Self::PlatformMissing { what, .. } | Self::Canceled { what } => {
                what.clone()
            }
            Self::LayerCorrupt { digest, .. } => digest.to_string(),
            Self::ArchiveInvalid { path, .. } | Self::LayerImage { path, .. } => path.display().to_string(),
            Self::Io { path, .. } | Self::BadRoot { path, .. } => path.display().to_string(),
            _ => String::new(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            _ if self.is_full() => Some("free some space: `pier-distribution gc`, `pier-distribution df`".into()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some("a store lies where it can be written, also when it is only read: another --root?".into())
            }
            Self::LayerExpands { .. } => {
                Some("the image is a decompression bomb; nothing of this layer was kept".into())
            }
            Self::TarEscapes { .. } => Some("the image is malformed or hostile; nothing of this layer was kept".into()),
            _ if self.is_corrupt_database() => {
                Some("`pier-distribution check --repair` makes a new database from what is on disk".into())
            }
            Self::SnapshotDamaged { .. } | Self::Record { .. } => {
                Some("`pier-distribution check --repair` sets damaged objects aside; pull the image again".into())
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Some("pull again".into()),
            Self::IdsUnmapped { .. } => Some(
                "it takes root of the machine, Linux 5.19, and a store on ext4, xfs, btrfs or tmpfs; or no user namespace".into(),
            ),
            Self::Registry(inner) => inner.hint(),
            Self::Server(inner) => inner.hint(),
            Self::Trust(inner) => inner.hint(),
            Self::ImageNotFound { name } => Some(format!("pull it first: pier-distribution pull {name}")),
            Self::ImageInUse { .. } => Some("remove what uses it first, or add --force".into()),
            Self::PlatformMissing { .. } => Some("choose one of these with --platform".into()),
            Self::IdAmbiguous { .. } => Some("give more digits of the id".into()),
            Self::LayerImage { .. } => Some("another snapshotter does without: --default-snapshotter overlay".into()),
            Self::Exists { what: "index", .. } => Some("`manifest create --amend` adds to it, --replace begins it anew".into()),
            Self::Exists { what: "file", .. } => Some("--force replaces files that are there".into()),
            Self::LayerCorrupt { source, .. } => source.hint(),
            _ => None,
        }
    }
}
