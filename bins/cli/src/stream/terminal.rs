//! The user's terminal in raw mode, and back on every way out: return, error, panic, signal.

use std::io::IsTerminal;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::Context;
use api::supervisor::v1::TerminalSize;
use rustix::termios::{OptionalActions, Termios};

/// What to go back to; a static because a panic hook has to reach it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode for as long as this lives.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Puts stdin into raw mode.
    pub fn enter() -> anyhow::Result<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let raw_mode = Self(());
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)
            .context("cannot put the terminal into raw mode")?;
        Ok(raw_mode)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Goes back to the settings before [`Raw::enter`]; fine when there are none.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}

/// Whether stdin is a terminal.
pub fn is_stdin() -> bool {
    std::io::stdin().is_terminal()
}

/// Size of the terminal that stdout (or else stdin) is.
pub fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdin()))
        .ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| TerminalSize { width: size.ws_col.into(), height: size.ws_row.into() })
}
