//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Named storage for containers: volumes that outlive what uses them.
///
/// Every verb works without a daemon; `serve` offers the same as pier.volume.v1 on a socket.
#[derive(Debug, Parser)]
#[command(name = "pier-volume", version)]
pub struct Cli {
    #[command(flatten)]
    pub globals: console::Globals,
    /// How long a driver outside may take to answer, in seconds
    #[arg(long, global = true, help_heading = console::GLOBAL, env = "PIER_DRIVER_TIMEOUT", default_value_t = 20.0, value_name = "SECONDS")]
    pub driver_timeout: f64,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a volume and print its name; one that exists alike is fine
    Create(Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Print volumes as JSON
    Inspect {
        #[arg(required = true)]
        names: Vec<String>,
        /// Also count the bytes on disk
        #[arg(long)]
        size: bool,
    },
    /// Remove volumes that nobody uses
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
        /// A missing volume is no error
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the anonymous volumes that nobody uses
    Prune {
        /// Named ones too
        #[arg(short, long)]
        all: bool,
        /// name=, driver=, label=, label!=
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// Take a volume into use for a consumer and print the mount that shows it, as JSON
    Acquire(Acquire),
    /// Give back what a consumer uses
    Release {
        consumer: String,
        /// Only this volume
        name: Option<String>,
        /// Also remove anonymous volumes that nobody uses any more
        #[arg(long)]
        remove_anonymous: bool,
    },
    /// Mount again what a consumer uses, should it not be: after a reboot
    Remount { consumer: String },
    /// Mount a volume on a directory; it is in use until `umount`
    Mount {
        name: String,
        dir: PathBuf,
        #[command(flatten)]
        look: Look,
    },
    /// Undo `mount`
    Umount { dir: PathBuf },
    /// Change labels and size
    Update {
        name: String,
        /// Set a label, KEY=VALUE
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// Take a label away
        #[arg(long = "label-rm", value_name = "KEY")]
        label_rm: Vec<String>,
        /// Most bytes that the data may take, such as 10g
        #[arg(long)]
        size: Option<String>,
    },
    /// Give a volume another name, also while it is used
    Rename { name: String, new_name: String },
    /// Make a volume with the same content; blocks are shared where the file system can
    Clone {
        name: String,
        new_name: String,
        /// Instead of the volume's labels
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Keep states of a volume
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Write a volume's content as a tar, to stdout or a file, or send it as an OCI artifact
    Export {
        name: String,
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// docker://REGISTRY/NAME:TAG, oci:/DIRECTORY:TAG
        #[arg(long, conflicts_with = "output")]
        artifact: Option<String>,
    },
    /// Fill a volume from a tar (stdin, or a file) or an OCI artifact; one that is missing is made
    Import {
        name: String,
        file: Option<PathBuf>,
        /// docker://REGISTRY/NAME:TAG, oci:/DIRECTORY:TAG
        #[arg(long, conflicts_with = "file")]
        artifact: Option<String>,
        /// In place of what the volume has
        #[arg(long)]
        replace: bool,
    },
    /// Bytes on disk of volumes
    Du {
        names: Vec<String>,
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// Look for what is not as it should be; ends with 1 when something is left so
    Check {
        /// Mend it
        #[arg(long)]
        repair: bool,
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// List the drivers outside that can be found now
    Drivers {
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// Print what happens to volumes, a JSON object a line, until interrupted
    Events {
        /// RFC 3339 time, or seconds since the epoch; without it: from now on
        #[arg(long)]
        since: Option<String>,
        /// When to end
        #[arg(long)]
        until: Option<String>,
        /// event=, volume=, label=
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
    /// Serve pier.volume.v1 until SIGTERM
    Serve(rpc::Door),
    #[command(flatten)]
    Generate(console::Generate),
}

#[derive(Debug, Args)]
pub struct Create {
    /// Without a name: a random one, and the volume is anonymous
    #[arg(default_value = "")]
    pub name: String,
    #[arg(short, long, default_value = "local")]
    pub driver: String,
    /// type=, device=, o= as mount(8) takes them; type=ext4|xfs without a device is a file of that size;
    /// type=erofs with from=DIR a read-only image; encryption-key=FILE with type=ext4, encryption=luks;
    /// for -d image: image=NAME, pull=missing|always|never
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opts: Vec<String>,
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Most bytes that the data may take, such as 10g
    #[arg(long)]
    pub size: Option<String>,
    /// Owner of the root directory
    #[arg(long)]
    pub uid: Option<u32>,
    /// Group of the root directory
    #[arg(long)]
    pub gid: Option<u32>,
    /// Mode of the root directory, octal
    #[arg(long, value_parser = mode)]
    pub mode: Option<u32>,
    #[arg(long, value_enum, default_value_t)]
    pub format: console::Format,
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| "expected an octal number".into())
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| "expected UID:GID".into())
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Keep the present state of a volume
    Create { volume: String, name: String },
    /// List the states that were kept
    #[command(visible_alias = "list")]
    Ls {
        volume: String,
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// Remove one
    Rm { volume: String, name: String },
    /// Put one in place of the volume's content, which nobody may use
    Restore { volume: String, name: String },
}

/// How a volume looks to who uses it.
#[derive(Debug, Args)]
pub struct Look {
    /// Read-only
    #[arg(long)]
    pub ro: bool,
    /// Read-only with all that is mounted below
    #[arg(long)]
    pub rro: bool,
    /// Directory or file below the volume's root
    #[arg(long, default_value = "")]
    pub subpath: String,
    /// Keep what is written apart, and drop it at the end
    #[arg(long)]
    pub overlay: bool,
    /// uids=DISK-SEEN-COUNT#...;gids=..., or keep-id:uid=U,gid=G
    #[arg(long, default_value = "")]
    pub idmap: String,
    /// Ids of the user namespace it is mounted for: u:INSIDE:OUTSIDE:SIZE g:INSIDE:OUTSIDE:SIZE
    #[arg(long, default_value = "", value_name = "MAPPING")]
    pub userns: String,
    /// Give all files to this user and group: UID:GID
    #[arg(long, value_parser = owner, value_name = "UID:GID")]
    pub owner: Option<(u32, u32)>,
    /// rprivate, rslave, rshared, ...
    #[arg(long, default_value = "")]
    pub propagation: String,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// name=, driver=, label=, dangling=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Names only
    #[arg(short, long)]
    pub quiet: bool,
    /// Also count the bytes on disk
    #[arg(long)]
    pub size: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: console::Format,
}

#[derive(Debug, Args)]
pub struct Acquire {
    pub name: String,
    /// Who uses it
    pub consumer: String,
    /// Where it is mounted; only recorded and given back
    pub target: String,
    #[command(flatten)]
    pub look: Look,
    /// Directory whose content an empty volume begins with; several are layers, lowest first
    #[arg(long, value_name = "DIR")]
    pub copy_up: Vec<PathBuf>,
    /// Path inside these directories
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub copy_up_path: PathBuf,
}
