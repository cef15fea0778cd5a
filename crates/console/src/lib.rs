//! What every program shows and understands in the same way: global flags, logging, errors with causes and hints,
//! exit codes, tables, JSON, progress, completion scripts and manual pages.
//!
//! It knows no tool and no protocol.
//!
//! ```no_run
//! # fn run() -> anyhow::Result<u8> { Ok(0) }
//! fn main() -> std::process::ExitCode {
//!     console::finish("pier-network", console::ErrorFormat::Text, run(), |_| (None, None))
//! }
//! ```
mod error;
mod generate;
mod globals;
mod human;
pub mod progress;
mod prompt;
mod table;
mod template;

pub use error::{ErrorFormat, Exit, Hint, exit_code, finish, hint};
pub use generate::{Generate, generate};
pub use globals::{GLOBAL, Globals, LogFormat};
pub use human::{human_ago, human_duration, human_size, parse_size};
pub use prompt::{ask, ask_secret, can_ask};
pub use table::{Format, Table, print_json, print_json_line};
pub use template::Template;

/// Exit codes of `pier run` and of every program (docker's).
pub mod exit {
    /// The engine or the tool itself failed.
    pub const ENGINE: u8 = 125;
    /// The container's command cannot be executed.
    pub const CANNOT_EXECUTE: u8 = 126;
    /// The container's command was not found.
    pub const NOT_FOUND: u8 = 127;
    /// Wrong usage (clap's).
    pub const USAGE: u8 = 2;
    /// Everything else that failed.
    pub const FAILURE: u8 = 1;
}
