//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use console::{Format, Generate, Globals};

/// Keep containers alive and observed: run OCI bundles, with or without a daemon
#[derive(Debug, Parser)]
#[command(name = "pier-supervisor", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    /// OCI runtime for containers that name none: a name on PATH or a path
    #[arg(long, global = true, help_heading = console::GLOBAL, env = "PIER_RUNTIME", default_value = "pier-runtime", value_name = "RUNTIME")]
    pub runtime: String,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create and start a container
    Run(Run),
    /// Create a container without starting it
    Create(Create),
    /// Start containers
    Start(Start),
    /// Stop containers: signal, wait, SIGKILL
    Stop(Stop),
    /// Stop and start containers
    Restart(Stop),
    /// Send a signal to containers
    Kill(Kill),
    /// Remove containers
    Rm(Remove),
    /// List containers
    #[command(alias = "ls")]
    Ps(List),
    /// Run one more process in a container
    Exec(Exec),
    /// Connect to a container's first process
    Attach(Attach),
    /// Wait until containers end, print their exit codes
    Wait(Wait),
    /// Show what a container has written
    Logs(Logs),
    /// Show the processes of a container
    Top(Top),
    /// Show what containers use
    Stats(Stats),
    /// Freeze containers
    Pause(Ids),
    /// Thaw containers
    Unpause(Ids),
    /// Show containers as JSON
    Inspect(Ids),
    /// Give a container another name
    Rename(Rename),
    /// Show what happens to containers, as JSON lines
    Events(Events),
    /// Show counts and settings as JSON
    Info,
    /// Copy files: CONTAINER:PATH DEST or SRC CONTAINER:PATH; "-" is a tar stream
    Cp(Copy),
    /// Serve pier.supervisor.v1 in the foreground: restarts, removals, and the API
    Serve(Serve),
    #[command(flatten)]
    Generate(Generate),
}

#[derive(Debug, Args)]
pub struct Ids {
    /// Ids, unique prefixes of ids, or names
    #[arg(required = true, value_name = "CONTAINER")]
    pub ids: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Create {
    /// Name
    #[arg(long, default_value = "")]
    pub name: String,
    /// OCI bundle: a directory with config.json and its rootfs
    #[arg(long, value_name = "DIR", required_unless_present = "rootfs", conflicts_with = "rootfs")]
    pub bundle: Option<PathBuf>,
    /// A root file system, run with the default configuration and CMD
    #[arg(long, value_name = "DIR", requires = "command")]
    pub rootfs: Option<PathBuf>,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User in the container: name, uid, name:group or uid:gid
    #[arg(short, long, default_value = "")]
    pub user: String,
    /// no, always, on-failure[:N] or unless-stopped
    #[arg(long, default_value = "no", value_parser = parse_restart)]
    pub restart: supervisor::RestartPolicy,
    /// Label, key=value
    #[arg(short, long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// json-file or none
    #[arg(long, default_value = "json-file")]
    pub log_driver: String,
    /// max-size=10m, max-file=5
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    pub log_options: Vec<String>,
    /// Signal for stop
    #[arg(long, default_value = "")]
    pub stop_signal: String,
    /// Seconds until SIGKILL
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub stop_timeout: u32,
    /// Remove it after its end
    #[arg(long)]
    pub rm: bool,
    /// Command of --rootfs
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Do not wait: print the id
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub create: Create,
}

#[derive(Debug, Args)]
pub struct Start {
    /// Connect to stdout and stderr, end with its exit code
    #[arg(short, long)]
    pub attach: bool,
    /// Connect stdin, too
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub containers: Ids,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds until SIGKILL; negative: never
    #[arg(short, long = "timeout", alias = "time", allow_negative_numbers = true)]
    pub time: Option<i32>,
    /// Signal
    #[arg(short, long, default_value = "")]
    pub signal: String,
    #[command(flatten)]
    pub containers: Ids,
}

#[derive(Debug, Args)]
pub struct Kill {
    /// Name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: String,
    #[command(flatten)]
    pub containers: Ids,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Kill running ones first; missing ones are fine
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub containers: Ids,
}

#[derive(Debug, Args)]
pub struct List {
    /// Those that do not run, too
    #[arg(short, long)]
    pub all: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// table or json (one object a line)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    /// User in the container
    #[arg(short, long, default_value = "")]
    pub user: String,
    /// Working directory
    #[arg(short, long, default_value = "")]
    pub workdir: String,
    /// Environment, NAME=VALUE
    #[arg(short, long)]
    pub env: Vec<String>,
    /// All capabilities
    #[arg(long)]
    pub privileged: bool,
    /// Id, unique prefix or name
    pub container: String,
    /// Command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// Do not connect stdin
    #[arg(long)]
    pub no_stdin: bool,
    /// First show what the log holds
    #[arg(long)]
    pub logs: bool,
    /// Id, unique prefix or name
    pub container: String,
}

#[derive(Debug, Args)]
pub struct Wait {
    /// not-running, next-exit or removed
    #[arg(long, default_value = "not-running", value_parser = ["not-running", "next-exit", "removed"])]
    pub condition: String,
    #[command(flatten)]
    pub containers: Ids,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Last lines only: a number or "all"
    #[arg(short = 'n', long, default_value = "all")]
    pub tail: String,
    /// With times
    #[arg(short, long)]
    pub timestamps: bool,
    /// From this time on: RFC 3339, Unix seconds, or a span back from now (10m)
    #[arg(long, default_value = "")]
    pub since: String,
    /// Up to this time
    #[arg(long, default_value = "")]
    pub until: String,
    /// Id, unique prefix or name
    pub container: String,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Id, unique prefix or name
    pub container: String,
    /// Arguments of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Stats {
    /// One sample only
    #[arg(long)]
    pub no_stream: bool,
    /// table or json (one object a line)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Ids, unique prefixes or names; none: all that run
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Rename {
    /// Id, unique prefix or name
    pub container: String,
    /// New name
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Events {
    /// From this time on: RFC 3339, Unix seconds, or a span back from now (10m)
    #[arg(long, default_value = "")]
    pub since: String,
    /// Up to this time
    #[arg(long, default_value = "")]
    pub until: String,
}

#[derive(Debug, Args)]
pub struct Copy {
    /// Follow a symbolic link in the source
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Keep uid and gid
    #[arg(short, long)]
    pub archive: bool,
    /// PATH, CONTAINER:PATH or -
    pub source: String,
    /// PATH, CONTAINER:PATH or -
    pub target: String,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub door: rpc::Door,
}

fn parse_restart(text: &str) -> Result<supervisor::RestartPolicy, String> {
    use supervisor::RestartMode::{Always, No, OnFailure, UnlessStopped};
    let (word, retries) = text.split_once(':').unwrap_or((text, "0"));
    let max_retries = retries.parse().map_err(|_| format!("{retries:?} is no number of retries"))?;
    let mode = match word {
        "no" | "" => No,
        "always" => Always,
        "on-failure" => OnFailure,
        "unless-stopped" => UnlessStopped,
        other => return Err(format!("unknown policy {other:?}")),
    };
    if mode != OnFailure && text.contains(':') {
        return Err("only on-failure takes a number".into());
    }
    Ok(supervisor::RestartPolicy { mode, max_retries })
}
