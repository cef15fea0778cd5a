//! CRIU's log: what went wrong is its last lines that say `Error`.

use std::path::Path;

/// How many lines an error message quotes.
const QUOTED: usize = 5;

/// Errors that CRIU survives, and which would only mislead.
const HARMLESS: &str = "Can't setup RLIMIT_NOFILE for self";

/// The last errors of a log's text, without their time stamps, in one line. Empty when there are none.
pub(crate) fn errors(text: &str) -> String {
    let wanted = |line: &&str| line.contains("Error") && !line.contains(HARMLESS);
    let mut lines: Vec<&str> = text.lines().rev().filter(wanted).take(QUOTED).map(without_time).collect();
    lines.reverse();
    lines.join("; ")
}

/// `(00.591565) Error ...`: from `Error` on.
fn without_time(line: &str) -> &str {
    match line.split_once(") ") {
        Some((time, rest)) if time.starts_with('(') => rest.trim(),
        _ => line.trim(),
    }
}

/// The errors of a log file; a log that cannot be read has none.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| errors(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_quoted() {
        let log = "(00.1) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: no\n\
                   (00.2) Dumping\n(00.5) Error (criu/a.c:1): Can't lookup mount=43 for fd=1\n\
                   (00.6) \tUnseizing 7\n(00.7) Error (criu/b.c:2): Dumping FAILED.\n";
        assert_eq!(
            errors(log),
            "Error (criu/a.c:1): Can't lookup mount=43 for fd=1; Error (criu/b.c:2): Dumping FAILED."
        );
        assert_eq!(errors("all is well\n"), "");
        let many: String = (0..9).map(|n| format!("Error {n}\n")).collect();
        assert_eq!(errors(&many), "Error 4; Error 5; Error 6; Error 7; Error 8");
    }
}
