//! Files that the kernel makes up (procfs, cgroupfs, resctrl): they have no size, and each read costs the kernel the work of
//! writing them, so one read should do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Most fit into one page.
const FIRST: usize = 4096;

/// The whole text.
///
/// # Errors
/// Those of open(2) and read(2); `InvalidData` if it is not UTF-8.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; FIRST];
    let mut len = 0;
    loop {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if len == bytes.len() {
            bytes.resize(len * 2, 0);
        }
    }
    bytes.truncate(len);
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes one value into one existing file, in one write(2).
///
/// # Errors
/// Those of open(2) and write(2).
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_of_it() {
        assert_eq!(read("/proc/self/mountinfo").unwrap(), std::fs::read_to_string("/proc/self/mountinfo").unwrap());
        let path = std::env::temp_dir().join(format!("pier-kernel-file-{}", std::process::id()));
        for size in [0, 1, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST] {
            std::fs::write(&path, "x".repeat(size)).unwrap();
            assert_eq!(read(&path).unwrap().len(), size);
        }
        std::fs::remove_file(path).unwrap();
    }
}
