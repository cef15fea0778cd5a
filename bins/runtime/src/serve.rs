//! The verbs that no container waits for: this process becomes `pier-runtime-serve`, which lies beside it and carries what they
//! need (a gRPC server, a generator of manual pages).

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::args::Parsed;

/// `serve`: the only verb with threads.
pub fn serve(parsed: &Parsed, root: &Path, run: &Path) -> ExitCode {
    let flags = parsed.verb.map_or(&[][..], |verb| verb.flags).iter();
    let given = flags.filter_map(|flag| Some(format!("--{}={}", flag.name, parsed.flags.last(flag.name)?)));
    let given: Vec<OsString> = given.map(OsString::from).collect();
    let fixed = [OsStr::new("serve"), root.as_os_str(), run.as_os_str()];
    become_server(fixed.into_iter().chain(given.iter().map(OsString::as_os_str)))
}

/// `completion SHELL` and `man DIR`.
pub fn generate(parsed: &Parsed) -> ExitCode {
    let verb = parsed.verb.map_or("", |v| v.name);
    let operand = parsed.operands.first().map(String::as_str).unwrap_or_default();
    become_server([OsStr::new(verb), OsStr::new(operand)])
}

/// Returns only if that fails.
fn become_server<'a>(args: impl IntoIterator<Item = &'a OsStr>) -> ExitCode {
    let server = std::env::current_exe().map(|exe| exe.with_file_name("pier-runtime-serve"));
    let failed = match server {
        Ok(server) => Command::new(server).args(args).exec(),
        Err(e) => e,
    };
    eprintln!("Error: cannot run pier-runtime-serve, which belongs beside this program: {failed}");
    ExitCode::FAILURE
}
