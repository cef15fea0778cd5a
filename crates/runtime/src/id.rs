//! Container ids.

use crate::{Error, Result};

/// The longest id, in bytes: it becomes a directory name.
pub const MAX: usize = 255;

/// Checks an id: `[A-Za-z0-9_+.-]+`, not `.` or `..`.
///
/// # Errors
/// [`Error::InvalidId`].
pub fn check(id: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'.' | b'-');
    if id.is_empty() || id.len() > MAX || id == "." || id == ".." || !id.bytes().all(allowed) {
        return Err(Error::InvalidId { id: id.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn ids() {
        for good in ["a", "web-1", "A_b+c.d", "..."] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ä", "a\n", long.as_str()] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
