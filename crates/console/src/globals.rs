//! Flags that every program has.
use crate::ErrorFormat;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Where `--help` shows the flags that every verb has.
pub const GLOBAL: &str = "Global options";

/// Flatten this into a program's clap struct.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Directory of the data that outlives a reboot; each tool has its own folder in it
    #[arg(long, global = true, help_heading = GLOBAL, env = "PIER_ROOT", default_value_os_t = default_root(), value_name = "DIR", hide_default_value = true)]
    pub root: PathBuf,
    /// Directory of sockets and what a reboot may take
    #[arg(long, global = true, help_heading = GLOBAL, env = "PIER_RUN", default_value_os_t = default_run(), value_name = "DIR", hide_default_value = true)]
    pub run: PathBuf,
    /// What is logged to stderr: error, warn, info, debug, trace, or a tracing filter
    #[arg(long, global = true, help_heading = GLOBAL, env = "PIER_LOG", default_value = "warn", value_name = "LEVEL")]
    pub log_level: String,
    /// How it is logged
    #[arg(
        long,
        global = true, help_heading = GLOBAL,
        env = "PIER_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide = true
    )]
    pub log_format: LogFormat,
    /// How a failure is printed on stderr
    #[arg(long, global = true, help_heading = GLOBAL, env = "PIER_ERROR_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub error_format: ErrorFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line each, for people.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

impl Globals {
    /// `<root>/<tool>`.
    pub fn tool_root(&self, tool: &str) -> PathBuf {
        self.root.join(tool)
    }

    /// `<run>/<tool>`.
    pub fn tool_run(&self, tool: &str) -> PathBuf {
        self.run.join(tool)
    }

    /// Makes both directories absolute, so that a later chdir or another process reads them alike.
    ///
    /// # Errors
    /// When the current directory is gone.
    pub fn absolute(mut self) -> std::io::Result<Self> {
        self.root = std::path::absolute(&self.root)?;
        self.run = std::path::absolute(&self.run)?;
        Ok(self)
    }

    /// Starts logging to stderr. Call once.
    pub fn init_logging(&self) {
        let filter = EnvFilter::try_new(&self.log_level).unwrap_or_else(|_| EnvFilter::new("warn"));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(BoxMakeWriter::new(std::io::stderr))
            .with_ansi(false)
            .with_target(false);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

fn default_root() -> PathBuf {
    match rootless() {
        true => xdg("XDG_DATA_HOME", ".local/share").join("pier"),
        false => "/var/lib/pier".into(),
    }
}

fn default_run() -> PathBuf {
    match rootless() {
        true => match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) => Path::new(&dir).join("pier"),
            None => format!("/tmp/pier-{}", rustix::process::geteuid().as_raw()).into(),
        },
        false => "/run/pier".into(),
    }
}

fn rootless() -> bool {
    !rustix::process::geteuid().is_root()
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(below_home);
    std::env::var_os(variable).map_or_else(home, PathBuf::from)
}
