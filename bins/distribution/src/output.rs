//! Progress on standard error, and the paths that mean standard input and output.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use console::progress::{Mode, Renderer, Update};
use distribution::progress::Reporter;

use crate::args;

/// Shows the library's progress.
pub fn reporter(args: &args::Progress) -> Reporter {
    let mode = if args.quiet { Mode::None } else { args.progress };
    let renderer = Mutex::new(Renderer::new(mode));
    Reporter::new(move |update| {
        if let Ok(mut renderer) = renderer.lock() {
            renderer.update(&Update {
                id: &update.id,
                status: update.status,
                current: update.current,
                total: update.total,
                message: &update.message,
            });
        }
    })
}

/// `-` is standard input.
pub fn input(path: &Path) -> PathBuf {
    if path == Path::new("-") { "/proc/self/fd/0".into() } else { path.to_owned() }
}

/// `-` is standard output, unless that is a terminal.
pub fn output(path: &Path) -> anyhow::Result<PathBuf> {
    use std::io::IsTerminal as _;
    if path != Path::new("-") {
        return Ok(path.to_owned());
    }
    anyhow::ensure!(!std::io::stdout().is_terminal(), "an archive is not written to a terminal; use -o FILE");
    Ok("/proc/self/fd/1".into())
}
