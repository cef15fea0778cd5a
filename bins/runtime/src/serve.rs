//! `serve`: the only verb with threads. This process becomes `pier-runtime-serve`, which lies beside it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::args::Parsed;

/// Becomes the server; returns only if that fails.
pub fn main(parsed: &Parsed, root: &Path, run: &Path) -> ExitCode {
    let listen = match parsed.flags.last("listen") {
        Some(address) => OsString::from(address),
        None => [OsString::from("unix://"), run.join("runtime.sock").into()].into_iter().collect(),
    };
    let failed = |e: std::io::Error| {
        eprintln!("Error: cannot run pier-runtime-serve, which belongs beside this program: {e}");
        ExitCode::FAILURE
    };
    let server = match std::env::current_exe() {
        Ok(exe) => exe.with_file_name("pier-runtime-serve"),
        Err(e) => return failed(e),
    };
    failed(Command::new(server).arg(root).arg(listen).args(parsed.flags.last("group")).exec())
}
