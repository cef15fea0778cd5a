//! The command line.

mod trust;

use std::path::PathBuf;

pub use trust::{Attestation, Key, KeyKind, ListAttestations, Passphrase, Sign, TrustPolicy, Verify};

use clap::{Args as ClapArgs, Parser, Subcommand};
use console::{Format, Globals};

/// Images: registries, content, layers, snapshots. No daemon is needed.
#[derive(Debug, Parser)]
#[command(
    name = "pier-distribution",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 `check` found damage, 130 interrupted."
)]
pub struct Args {
    #[command(flatten)]
    pub globals: Globals,
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
    /// Show an image of the store, or of a place as `copy` knows it, as JSON
    Inspect(Inspect),
    /// List the tags of a repository on its registry
    Tags(Tags),
    /// Give an image one more name
    Tag { source: String, target: String },
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
    },
    /// Remove images without names, and what nothing holds any more
    Prune {
        /// Also images with names that no snapshot uses
        #[arg(short, long)]
        all: bool,
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
    /// Write images to an archive or layout
    Save(Save),
    /// Read images from an archive (plain, gzip, zstd) or OCI layout directory
    Load {
        /// File or directory; - or nothing: standard input
        path: Option<PathBuf>,
        /// The same, as docker has it
        #[arg(short, long, conflicts_with = "path")]
        input: Option<PathBuf>,
        #[command(flatten)]
        progress: Progress,
    },
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
    },
    /// Check credentials against a registry and store them
    Login(Login),
    /// Forget the credentials of a registry
    Logout {
        #[arg(default_value = "docker.io")]
        registry: String,
        #[command(flatten)]
        auth: AuthFile,
    },
    /// Delete content that no image, snapshot or lease holds
    Gc {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Also what interrupted pulls have left for their next try
        #[arg(long)]
        abandoned: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show how much space is used
    Df {
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

#[derive(Debug, Clone, ClapArgs)]
pub struct AuthFile {
    /// Credentials file [default: podman's auth.json, then docker's config.json; logins go to docker's]
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
}

/// Where registries are and how they are trusted.
#[derive(Debug, Clone, ClapArgs)]
pub struct RegistryFiles {
    /// Mirrors, blocked and insecure registries: containers-registries.conf(5)
    /// [default: /etc/pier/registries.conf, ~/.config/containers/registries.conf, /etc/containers/registries.conf]
    #[arg(long, env = "PIER_REGISTRIES_CONF", value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// CAs and client certificates in <host[:port]>/*.{crt,cert,key}: containers-certs.d(5)
    /// [default: ~/.config/containers/certs.d, /etc/{pier,containers,docker}/certs.d]
    #[arg(long, env = "PIER_CERTS_DIR", value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Registry {
    #[command(flatten)]
    pub auth: AuthFile,
    #[command(flatten)]
    pub files: RegistryFiles,
    /// Credentials, before any file is asked
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    /// Speak plain HTTP (ports of this machine are asked what they speak)
    #[arg(long)]
    pub plain_http: bool,
    /// Accept any TLS certificate
    #[arg(long)]
    pub tls_skip_verify: bool,
    #[command(flatten)]
    pub trust: TrustPolicy,
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
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Copy {
    pub source: String,
    pub destination: String,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Everything that the name stands for
    #[arg(short, long)]
    pub all_platforms: bool,
    #[command(flatten)]
    pub registry: Registry,
    /// Credentials of the source only
    #[arg(long, value_name = "USER:PASSWORD")]
    pub src_creds: Option<String>,
    /// Credentials of the destination only
    #[arg(long, value_name = "USER:PASSWORD")]
    pub dest_creds: Option<String>,
    #[command(flatten)]
    pub progress: Progress,
}

#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// An image of the store, or docker://, oci:, …
    pub image: String,
    /// The manifest or index, byte for byte
    #[arg(long)]
    pub raw: bool,
    /// The image config, byte for byte
    #[arg(long, conflicts_with = "raw")]
    pub config: bool,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub registry: Registry,
}

#[derive(Debug, ClapArgs)]
pub struct Tags {
    pub repository: String,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Ls {
    /// Only images whose name fits this pattern
    pub pattern: Option<String>,
    /// reference=, label=, dangling=, before=, since=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
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
    #[command(flatten)]
    pub progress: Progress,
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
}

#[derive(Debug, ClapArgs)]
pub struct Login {
    #[arg(default_value = "docker.io")]
    pub registry: String,
    #[arg(short, long)]
    pub username: Option<String>,
    /// Better: --password-stdin
    #[arg(short, long)]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    pub password_stdin: bool,
    #[command(flatten)]
    pub options: Registry,
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
        /// overlay or copy [default: what works here]
        #[arg(long, default_value = "")]
        snapshotter: String,
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
    /// unix://PATH, fd:// or tcp://ADDRESS:PORT [default: <run>/distribution.sock]
    #[arg(long)]
    pub listen: Option<String>,
    /// Processes of this group id may call too
    #[arg(long)]
    pub group: Option<u32>,
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
    /// Credentials for the upstream
    #[arg(long = "registry-proxy-creds", value_name = "USER:PASSWORD", requires = "proxy")]
    pub proxy_creds: Option<String>,
}
