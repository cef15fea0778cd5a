//! Cache keys.

use std::fmt;

/// Identity of a result: the same key means the same content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// "sha256:…"
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes fields, each with its length, so that no two different sequences of fields agree.
pub struct KeyWriter(oci::digest::Hasher);

impl KeyWriter {
    /// Starts a key of one kind; different kinds never agree.
    pub fn new(kind: &str) -> Self {
        Self(oci::digest::Hasher::sha256()).field(kind.as_bytes())
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds fields.
    #[must_use]
    pub fn fields<'a>(self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        fields.into_iter().fold(self, |writer, field| writer.field(field.as_bytes()))
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(self.0.finish().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let key = |fields: &[&str]| KeyWriter::new("x").fields(fields.iter().copied()).finish();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
