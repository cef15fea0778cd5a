//! The command line.

mod artifact;
mod copy;
mod look;
mod make;
mod registry;
mod trust;

use std::path::PathBuf;

pub use trust::{Attestation, Key, KeyKind, ListAttestations, Passphrase, Sign, TrustPolicy, Verify};

use clap::{Args as ClapArgs, Parser, Subcommand};
use console::{Format, Globals};

pub use artifact::{Artifact, Push as ArtifactPush};
pub use copy::{Copy, Recast, Sync};
pub use look::{Diff, Digest, History, Inspect, Ls, Search, Tags};
pub use make::{Annotate, Flatten, Make, Manifest, Mutate, Rebase};
pub use registry::{AuthFile, Registry, RegistryFiles, Sides};

/// Images: registries, content, layers, snapshots. No daemon is needed.
#[derive(Debug, Parser)]
#[command(
    name = "pier-distribution",
    version,
    after_help = "Exit codes: 0 done, 1 failed (a sync that keeps going: something failed), 2 wrong usage, 3 `check` found damage, \
        130 interrupted. Results go to standard output, progress to standard error. With --format json a verb prints one JSON document, \
        `sync`, `check` and `events` one a line; where --format is that of images (copy, save, manifest push), --json does it."
)]
pub struct Args {
    #[command(flatten)]
    pub globals: Globals,
    /// For new snapshots where none is asked for: overlay, btrfs, fuse-overlayfs, copy, erofs [default: the first of these that works; erofs
    /// only when asked for]
    #[arg(
        long = "default-snapshotter",
        env = "PIER_SNAPSHOTTER",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub snapshotter: String,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring an image from its registry into the store and unpack it
    Pull(Pull),
    /// Send an image of the store to a registry
    Push(Push),
    /// Copy an image between docker://, oci:, oci-archive:, docker-archive:, dir: and store:
    Copy(Copy),
    /// Copy many images: repositories, lists, trees; what is there already stays
    Sync(Sync),
    /// Show an image of the store, or of a place as `copy` knows it, as JSON
    Inspect(Inspect),
    /// List the tags of a repository on its registry
    #[command(alias = "list-tags")]
    Tags(Tags),
    /// List the repositories of a registry
    Catalog {
        registry: String,
        #[command(flatten)]
        options: Registry,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Find repositories of a registry by a word
    Search(Search),
    /// Print the digest of an image, at its registry or elsewhere
    Digest(Digest),
    /// Show how an image came to be
    History(History),
    /// List what differs between two images, or between a snapshot and its image
    Diff(Diff),
    /// Delete a tag, or a manifest with all its tags, at its registry
    Delete {
        /// NAME:TAG is that tag only, NAME@DIGEST the manifest
        image: String,
        /// The manifest that the tag stands for
        #[arg(long)]
        manifest: bool,
        #[command(flatten)]
        registry: Registry,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Put an index for several platforms together
    #[command(subcommand, visible_alias = "index")]
    Manifest(Manifest),
    /// Make an image of one layer of an image
    Flatten(Flatten),
    /// Put an image on another base, without building it
    Rebase(Rebase),
    /// Change the config or annotations of an image, or add layers
    Mutate(Mutate),
    /// Files in registries and layouts
    #[command(subcommand)]
    Artifact(Artifact),
    /// Give an image one more name
    Tag {
        source: String,
        target: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List images
    #[command(visible_alias = "list", alias = "images")]
    Ls(Ls),
    /// Remove images or names
    #[command(alias = "rmi")]
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
        /// Also when snapshots use it, or an id has several names
        #[arg(short, long)]
        force: bool,
        /// Only the image for os/architecture[/variant]; its names stay for the others
        #[arg(long)]
        platform: Option<oci::Platform>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Remove images without names, and what nothing holds any more
    Prune {
        /// Also images with names that no snapshot uses
        #[arg(short, long)]
        all: bool,
        /// As with `ls`: until=24h, label=, label!=
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Write images to an archive or layout
    Save(Save),
    /// Read images from an archive (plain, gzip, zstd) or OCI layout directory
    Load(Load),
    /// Make an image of one layer from a tar of a root filesystem
    Import(Import),
    /// Write the flattened filesystem of an image or snapshot as a tar
    Export {
        /// Image, or snapshot with --snapshot
        name: String,
        /// NAME is a snapshot's key
        #[arg(long)]
        snapshot: bool,
        /// - or nothing: standard output
        #[arg(short, long, default_value = "-")]
        output: PathBuf,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Check credentials against a registry and store them
    Login(Login),
    /// Forget the credentials of a registry
    Logout {
        #[arg(default_value = "docker.io")]
        registry: String,
        #[command(flatten)]
        auth: AuthFile,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Delete content that no image, snapshot or lease holds
    Gc {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Also what interrupted pulls have left for their next try
        #[arg(long)]
        abandoned: bool,
        /// Also damaged objects that were set aside less than 30 days ago
        #[arg(long)]
        quarantine: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show how much space is used
    Df {
        /// By image and snapshot, with what each shares with others
        #[arg(short, long)]
        verbose: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show the store, its snapshotter, and why it is not another
    Info {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Verify all content; exit code 3 when something is damaged
    Check {
        /// Set damaged objects aside, so that a fresh pull heals
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Writable filesystems on images
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Print what happened to images, then follow
    Events {
        /// Seconds back
        #[arg(long, default_value_t = 0)]
        since: u64,
        /// End with the last event there is
        #[arg(long)]
        no_follow: bool,
        /// JSON lines for programs, plain ones for people
        #[arg(long, value_enum, default_value = "json")]
        format: Format,
    },
    /// Keys to sign with
    #[command(subcommand)]
    Key(Key),
    /// Sign an image of a registry or an OCI layout
    Sign(Sign),
    /// Check that an image is signed by a key
    Verify(Verify),
    /// Statements about an image: provenance, bills of materials
    #[command(subcommand, alias = "attestations")]
    Attestation(Attestation),
    /// Offer the same over gRPC, and as an OCI registry, in the foreground
    Serve(Serve),
    #[command(flatten)]
    Generate(console::Generate),
}

#[derive(Debug, ClapArgs)]
pub struct FormatArg {
    /// Table for people, JSON for programs
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, ClapArgs)]
pub struct Progress {
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value_t)]
    pub progress: console::progress::Mode,
    /// Only the result
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Pull {
    pub reference: String,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Everything that the name stands for
    #[arg(short, long)]
    pub all_platforms: bool,
    /// Only the blobs
    #[arg(long)]
    pub no_unpack: bool,
    /// always, missing, never
    #[arg(long, default_value = "always")]
    pub policy: String,
    /// Also what belongs to the image: signatures, attestations
    #[arg(long)]
    pub referrers: bool,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Push {
    /// Name or id in the store
    pub reference: String,
    /// Name at the registry [default: the same]
    pub destination: Option<String>,
    /// All platforms that are in the store
    #[arg(short, long)]
    pub all_platforms: bool,
    /// Also what belongs to the image and came with it: signatures, attestations
    #[arg(long)]
    pub referrers: bool,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Save {
    #[arg(required = true)]
    pub images: Vec<String>,
    /// File, or directory for oci-dir; - or nothing: standard output
    #[arg(short, long, default_value = "-")]
    pub output: PathBuf,
    /// oci-archive, docker-archive, oci-dir
    #[arg(long, default_value = "oci-archive")]
    pub format: String,
    /// Also what belongs to the images and came with them: signatures, attestations
    #[arg(long)]
    pub referrers: bool,
    /// Only the image for os/architecture[/variant] [default: all that are here, one in a docker-archive]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub progress: Progress,
}

#[derive(Debug, ClapArgs)]
pub struct Load {
    /// File or directory; - or nothing: standard input
    pub path: Option<PathBuf>,
    /// The same, as docker has it
    #[arg(short, long, conflicts_with = "path")]
    pub input: Option<PathBuf>,
    /// Also what belongs to the images: signatures, attestations
    #[arg(long)]
    pub referrers: bool,
    /// Only the images for os/architecture[/variant] [default: this host's, else what is there]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub trust: TrustPolicy,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The tar: plain, gzip or zstd; - is standard input
    pub file: PathBuf,
    /// Name of the new image
    pub reference: Option<String>,
    /// Dockerfile instruction for the config: 'CMD ["sh"]'
    #[arg(short, long)]
    pub change: Vec<String>,
    /// For the history
    #[arg(short, long, default_value = "")]
    pub message: String,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Login {
    #[arg(default_value = "docker.io")]
    pub registry: String,
    /// Asked for at a terminal when it is left out
    #[arg(short, long)]
    pub username: Option<String>,
    /// Better: --password-stdin, or to be asked
    #[arg(short, long)]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    pub password_stdin: bool,
    #[command(flatten)]
    pub options: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Make a snapshot and print its mounts
    Prepare {
        key: String,
        /// Image it is made from; without image and parents: an empty root
        image: Option<String>,
        /// Diff IDs of layers of the store, lowest first
        #[arg(long, conflicts_with = "image")]
        parent: Vec<String>,
        #[arg(long)]
        read_only: bool,
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// overlay, btrfs, fuse-overlayfs, copy or erofs [default: what works here]
        #[arg(long, default_value = "")]
        snapshotter: String,
        /// For a user namespace, in mount(8)'s words: "u:0:100000:65536 g:0:100000:65536"; files keep their ids
        #[arg(long, default_value = "", value_name = "MAPPING")]
        idmap: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Print the mounts of a snapshot, as arguments of mount(8) or as JSON
    Mounts {
        key: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List snapshots
    Ls {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Remove snapshots
    Rm {
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Make a layer, or with --image an image, of what was written into a snapshot
    Commit {
        key: String,
        /// Name of the new image: that of the snapshot's image with one more layer
        #[arg(long)]
        image: Option<String>,
        /// gzip, zstd, none
        #[arg(long, default_value = "gzip")]
        compression: String,
        /// The snapshot is used up
        #[arg(long)]
        consume: bool,
        /// Dockerfile instruction for the config
        #[arg(short, long)]
        change: Vec<String>,
        #[arg(short, long, default_value = "")]
        message: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List paths that differ from the image
    Diff {
        key: String,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Serve {
    #[command(flatten)]
    pub door: rpc::Door,
    /// Credentials file for callers that name none
    #[command(flatten)]
    pub auth: AuthFile,
    #[command(flatten)]
    pub files: RegistryFiles,
    #[command(flatten)]
    pub trust: TrustPolicy,
    #[command(flatten)]
    pub registry: ServeRegistry,
    /// Seconds between two collections of garbage
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub gc_interval: u64,
    /// What nothing holds stays while it is younger, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub gc_grace: u64,
    /// When the store is larger, images without a name go, the oldest first, in MiB
    #[arg(long, value_name = "MIB")]
    pub gc_keep: Option<u64>,
    /// The same when less of the disk is free, in percent
    #[arg(long, default_value_t = 5, value_name = "PERCENT")]
    pub gc_min_free: u64,
}

/// The registry beside (or instead of) the gRPC service.
#[derive(Debug, ClapArgs)]
pub struct ServeRegistry {
    /// Offer the store as an OCI registry on ADDRESS:PORT; an address that is not loopback needs TLS and users
    #[arg(id = "registry_listen", long = "registry", value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// Offer this directory instead of the store
    #[arg(long = "registry-dir", value_name = "DIR", requires = "registry_listen")]
    pub dir: Option<PathBuf>,
    /// Only the registry, no gRPC
    #[arg(long = "registry-only", requires = "registry_listen")]
    pub only: bool,
    /// Certificate chain, PEM
    #[arg(long = "registry-tls-cert", value_name = "FILE", requires_all = ["registry_listen", "tls_key"])]
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM
    #[arg(long = "registry-tls-key", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Users, as `htpasswd -B` writes them [default: everybody]
    #[arg(long = "registry-htpasswd", value_name = "FILE", requires = "registry_listen")]
    pub htpasswd: Option<PathBuf>,
    /// Listen on any address without TLS or without users
    #[arg(long = "registry-open", requires = "registry_listen")]
    pub open: bool,
    /// Be a read-only cache of this registry: what is missing is fetched from there
    #[arg(long = "registry-proxy", value_name = "URL", requires = "registry_listen")]
    pub proxy: Option<String>,
    /// When the cache takes more disk, what was asked for least recently goes, in MiB [default: no limit]
    #[arg(long = "registry-proxy-keep", env = "PIER_REGISTRY_PROXY_KEEP", value_name = "MIB", requires = "proxy")]
    pub proxy_keep: Option<u64>,
    /// Credentials for the upstream
    #[arg(long = "registry-proxy-creds", value_name = "USER:PASSWORD", requires = "proxy")]
    pub proxy_creds: Option<String>,
}
