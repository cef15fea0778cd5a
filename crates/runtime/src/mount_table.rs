//! `/proc/self/mountinfo` (proc(5)): which mounts there are, and what lies below what.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::{Errno, Result};

use crate::kernel_file;

/// The mounts of this namespace, as seen from the root of this process.
pub(crate) struct Table(Vec<Entry>);

struct Entry {
    id: u64,
    parent: u64,
    path: PathBuf,
    shared: bool,
}

impl Table {
    /// Reads it; `ENOSYS` without a procfs.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self::parse(&kernel_file::read("/proc/self/mountinfo").map_err(|_| Errno::NOSYS)?))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(entry).collect())
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.0.iter().any(|e| e.id == id)
    }

    pub(crate) fn is_shared(&self, id: u64) -> bool {
        self.0.iter().any(|e| e.id == id && e.shared)
    }

    /// The mounts below mount `id` with their paths relative to it; of several at one place the one on top.
    pub(crate) fn below(&self, id: u64) -> Vec<(u64, PathBuf)> {
        let Some(top) = self.0.iter().find(|e| e.id == id) else { return vec![] };
        let mut found: Vec<(u64, PathBuf)> = vec![];
        let mut todo = vec![id];
        while let Some(parent) = todo.pop() {
            for e in self.0.iter().filter(|e| e.parent == parent && e.id != parent) {
                let path = e.path.strip_prefix(&top.path).unwrap_or(Path::new("")).to_owned();
                found.retain(|(_, other)| *other != path);
                found.push((e.id, path));
                todo.push(e.id);
            }
        }
        found
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let path = unescape(words.nth(2)?);
    let shared = words.skip(1).take_while(|w| *w != "-").any(|w| w.starts_with("shared:"));
    Some(Entry { id, parent, path, shared })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(word: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_tree() {
        let table = Table::parse(
            "22 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n30 22 0:5 / /a rw master:2 - proc proc rw\n\
             33 31 0:6 / /a/b\\040c/d\\134 rw - sysfs sysfs rw\n31 30 0:6 / /a/b\\040c rw - tmpfs t rw\n\
             34 31 0:7 / /a/b\\040c rw - tmpfs shared:9 rw\n40 22 0:7 / /ab rw - tmpfs t rw\n",
        );
        assert!(table.contains(40) && !table.contains(41));
        assert!(table.is_shared(22) && !table.is_shared(30) && !table.is_shared(34));
        assert_eq!(table.below(30), [(33, "b c/d\\".into()), (34, "b c".into())]);
        assert!(table.below(40).is_empty());
        assert_eq!(table.below(22).len(), 4);
    }
}
