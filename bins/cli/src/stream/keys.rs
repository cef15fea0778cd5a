//! The key sequence that leaves an attached container running: pure.

use anyhow::bail;

/// Docker's default.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Looks for the sequence in what is typed. Keys that might begin it are held back until it is clear.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// "ctrl-p,ctrl-q", "ctrl-a,x"; empty: none.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut sequence = Vec::new();
        for key in text.split(',').filter(|key| !key.is_empty()) {
            sequence.push(match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(letter), _) => match letter.as_bytes() {
                    [letter @ (b'a'..=b'z' | b'A'..=b'Z')] => letter.to_ascii_lowercase() - b'a' + 1,
                    [b'@'] => 0,
                    [symbol @ (b'[' | b'\\' | b']' | b'^' | b'_')] => symbol - b'@',
                    _ => bail!("invalid detach key {key:?}: expected a letter or ctrl- and a letter or one of @[\\]^_"),
                },
                (None, [letter]) => *letter,
                _ => bail!("invalid detach key {key:?}: expected a letter or ctrl- and a letter"),
            });
        }
        Ok(Self { sequence, matched: 0 })
    }

    /// Takes typed bytes; returns what to pass on, and true when the sequence is complete.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        if self.sequence.is_empty() {
            return (typed.to_vec(), false);
        }
        for byte in typed {
            if *byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = usize::from(*byte == self.sequence[0]);
            if self.matched == 0 {
                pass.push(*byte);
            } else if self.sequence.len() == 1 {
                self.matched = 0;
                return (pass, true);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_sequence() {
        let mut keys = DetachKeys::parse(DEFAULT).unwrap();
        assert_eq!(keys.feed(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.feed(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (Vec::new(), true));
        let mut single = DetachKeys::parse("ctrl-]").unwrap();
        assert_eq!(single.feed(b"x\x1d"), (b"x".to_vec(), true));
        let mut none = DetachKeys::parse("").unwrap();
        assert_eq!(none.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn refused() {
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,xyz"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
