//! Files with holes: GNU's old format (type `S`) and GNU's PAX formats 0.1 and 1.0.
use super::pax::{Sparse, decimal};
use super::{Entries, Entry, Source, bad};
use crate::Result;

/// Extents of one file; a map of more is an attack.
const MAX_EXTENTS: usize = 1 << 18;
/// Bytes of one, holes included; more is an attack on whoever reads the file.
const MAX_SIZE: u64 = 1 << 40;

impl<S: Source> Entries<S> {
    /// The map is in the header and in blocks that follow it.
    pub(super) fn old_sparse(&mut self, header: &tar::Header, entry: &mut Entry, start: u64) -> Result<()> {
        let wrong = || bad(start, "a sparse header that does not read");
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        let mut map = Vec::new();
        let mut add = |slots: &[tar::GnuSparseHeader]| -> std::io::Result<()> {
            for slot in slots.iter().filter(|s| !s.is_empty()) {
                map.push((slot.offset()?, slot.length()?));
            }
            if map.len() > MAX_EXTENTS { Err(std::io::ErrorKind::InvalidData.into()) } else { Ok(()) }
        };
        add(&gnu.sparse).map_err(|_| wrong())?;
        let mut more = gnu.is_extended();
        while more {
            let mut next = tar::GnuExtSparseHeader::new();
            *next.as_mut_bytes() = self.block()?.ok_or_else(wrong)?;
            add(next.sparse()).map_err(|_| wrong())?;
            more = next.is_extended();
        }
        entry.size = gnu.real_size().map_err(|_| wrong())?;
        finish(entry, map, self.data, start)
    }

    /// Formats 0.0 and 0.1 have the map in the extended header, 1.0 at the beginning of the data, in decimal lines.
    pub(super) fn pax_sparse(&mut self, sparse: Sparse, entry: &mut Entry, start: u64) -> Result<()> {
        let wrong = || bad(start, "a sparse map that does not read");
        let numbers = match (sparse.major, sparse.minor, sparse.map) {
            (0, _, Some(map)) => map,
            (1, 0, None) => self.leading_map(start)?,
            (major, minor, _) => return Err(bad(start, format!("a sparse file in the format {major}.{minor}"))),
        };
        if numbers.len() % 2 != 0 {
            return Err(wrong());
        }
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        entry.size = sparse.real_size.ok_or_else(wrong)?;
        finish(entry, numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), self.data, start)
    }

    fn leading_map(&mut self, start: u64) -> Result<Vec<u64>> {
        let wrong = || bad(start, "a sparse map that does not read");
        let before = self.offset;
        let count = usize::try_from(self.line(start)?).map_err(|_| wrong())?;
        if count > MAX_EXTENTS {
            return Err(wrong());
        }
        let numbers = (0..count * 2).map(|_| self.line(start)).collect::<Result<Vec<_>>>()?;
        // The map is padded to a whole block.
        let used = self.offset - before;
        let padding = used.next_multiple_of(super::BLOCK as u64) - used;
        if padding > self.data {
            return Err(wrong());
        }
        self.skip(padding)?;
        self.data -= padding;
        Ok(numbers)
    }

    fn line(&mut self, start: u64) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            match self.data()?.first().copied() {
                Some(b'\n') => break,
                Some(b) if digits.len() < 20 => digits.push(b),
                _ => return Err(bad(start, "a sparse map that does not read")),
            }
            self.took(1);
        }
        self.took(1);
        decimal(&digits).map_err(|e| bad(start, e))
    }
}

/// Extents must be in order, inside the file, and be as long together as the data.
fn finish(entry: &mut Entry, map: Vec<(u64, u64)>, data: u64, start: u64) -> Result<()> {
    let mut end = 0;
    let mut total = 0u64;
    for (offset, length) in &map {
        let stop = offset.checked_add(*length).filter(|stop| *offset >= end && *stop <= entry.size);
        end = stop.ok_or_else(|| bad(start, "a sparse map that does not fit its file"))?;
        total += length;
    }
    if entry.size > MAX_SIZE {
        return Err(bad(start, format!("a sparse file of {} bytes, more than {MAX_SIZE}", entry.size)));
    }
    if total != data || map.len() > MAX_EXTENTS {
        return Err(bad(start, "a sparse map that does not fit its data"));
    }
    entry.sparse = Some(map);
    Ok(())
}
