//! Cargo, called from a program that cargo itself runs.
use crate::proto::workspace;
use std::process::Command;

/// `cargo ARGS` in the workspace. What cargo tells the programs that it runs is taken away: build scripts watch some of it, and would
/// build their crates anew.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}
