//! A whole filesystem as one archive, merged from its parts without mounting anything.
use crate::layer::tree::{MAX_DEPTH, failed, join};
use crate::layer::{Place, Sink, TarSink, View, is_dir};
use crate::{Error, Result};
use std::io::{self, Write};

/// Writes what the view shows; gives the archive's bytes.
pub(super) fn export<W: Write>(view: &View, out: W) -> Result<u64> {
    let mut sink = TarSink::new(Counting { out, bytes: 0 }, None);
    if let Some(root) = view.top() {
        let stat = rustix::fs::fstat(root).map_err(failed("inspect", b""))?;
        sink.present(&Place { dir: root, name: b"", path: b"", stat: &stat })?;
    }
    dir(&mut sink, view, b"", 0)?;
    Ok(sink.finish().map_err(failed("write the archive of", b""))?.bytes)
}

fn dir(sink: &mut dyn Sink, view: &View, path: &[u8], depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::TarEntry { entry: String::new(), problem: "lies too deep".into() });
    }
    for (name, found) in view.list(path)? {
        let inner = join(path, &name);
        sink.present(&Place { dir: &found.dir, name: &name, path: &inner, stat: &found.stat })?;
        if is_dir(&found.stat) {
            dir(sink, &found.view, &inner, depth + 1)?;
        }
    }
    Ok(())
}

struct Counting<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
