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
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
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
    /// Mount a volume on a directory; it is in use until `umount`
    Mount {
        name: String,
        dir: PathBuf,
        /// Read-only
        #[arg(long)]
        ro: bool,
        /// Directory below the volume's root
        #[arg(long, default_value = "")]
        subpath: String,
    },
    /// Undo `mount`
    Umount { dir: PathBuf },
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
    Serve {
        /// unix://PATH, fd:// or tcp://ADDRESS:PORT; default: <run>/volume.sock
        #[arg(long)]
        listen: Option<rpc::Listen>,
        /// Numeric id of a group that may connect too
        #[arg(long, value_name = "GID")]
        group: Option<u32>,
    },
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
    /// type=, device=, o= as mount(8) takes them
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opts: Vec<String>,
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
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
    #[arg(long)]
    pub ro: bool,
    /// Directory below the volume's root
    #[arg(long, default_value = "")]
    pub subpath: String,
    /// Directory whose content an empty volume begins with; several are layers, lowest first
    #[arg(long, value_name = "DIR")]
    pub copy_up: Vec<PathBuf>,
    /// Path inside these directories
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub copy_up_path: PathBuf,
}
