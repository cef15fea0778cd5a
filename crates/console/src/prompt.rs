//! Questions to the person at the terminal.
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, BufRead, Write};

/// Whether somebody can be asked: standard input is a terminal.
#[must_use]
pub fn can_ask() -> bool {
    isatty(io::stdin())
}

/// Asks on standard error and reads a line.
///
/// # Errors
/// Those of reading; [`io::ErrorKind::UnexpectedEof`] when nothing is answered.
pub fn ask(question: &str) -> io::Result<String> {
    write!(io::stderr(), "{question}: ")?;
    line()
}

/// [`ask`] for what the terminal must not show.
///
/// # Errors
/// Those of [`ask`] and of tcsetattr(3).
pub fn ask_secret(question: &str) -> io::Result<String> {
    let before = tcgetattr(io::stdin())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // Read again as it was also when reading fails.
    let _shown = Restore(before);
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
    let answer = ask(question);
    writeln!(io::stderr())?;
    answer
}

struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn line() -> io::Result<String> {
    let mut text = String::new();
    if io::stdin().lock().read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
