//! The two uses of a diff: an archive, and a list for people.
use super::{
    Archive, Change, ChangeKind, Entry, HashMap, Kind, Place, Result, Sink, View, Write, entry, failed, open_file,
};

/// Writes changes as a layer's archive.
pub(crate) struct TarSink<W: Write> {
    archive: Archive<W>,
    /// Times after this become this.
    latest: Option<i64>,
    /// Files with several names: device and inode to the first path.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The root itself was written.
    pub root_entry: bool,
    pub whiteouts: bool,
    pub entries: u64,
}

impl<W: Write> TarSink<W> {
    pub(crate) fn new(out: W, latest: Option<i64>) -> Self {
        Self {
            archive: Archive::new(out),
            latest,
            linked: HashMap::new(),
            root_entry: false,
            whiteouts: false,
            entries: 0,
        }
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(self) -> std::io::Result<W> {
        self.archive.finish()
    }

    fn clamp(&self, entry: &mut Entry) {
        if let Some(latest) = self.latest
            && entry.mtime > (latest, 0)
        {
            entry.mtime = (latest, 0);
        }
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn present(&mut self, place: &Place<'_>) -> Result<()> {
        let fail = failed("write the archive entry of", place.path);
        let shown: &[u8] = if place.path.is_empty() { b"." } else { place.path };
        let Some(mut entry) = entry(place.dir, place.name, shown, place.stat)? else { return Ok(()) };
        self.root_entry |= place.path.is_empty();
        self.clamp(&mut entry);
        self.entries += 1;
        if entry.kind != Kind::Directory && place.stat.st_nlink > 1 {
            let key = (place.stat.st_dev, place.stat.st_ino);
            if let Some(first) = self.linked.get(&key) {
                let link = Entry { kind: Kind::HardLink, link: first.clone(), size: 0, xattrs: Vec::new(), ..entry };
                return self.archive.add(&link).map_err(fail);
            }
            self.linked.insert(key, place.path.to_vec());
        }
        if entry.kind != Kind::File {
            return self.archive.add(&entry).map_err(fail);
        }
        let file = open_file(place.dir, place.name).map_err(failed("read", place.path))?;
        entry.size = file.metadata().map_err(failed("inspect", place.path))?.len();
        self.archive.add_file(&entry, &file).map_err(fail)
    }

    fn deleted(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = crate::layer::root::split(path);
        let hidden = crate::layer::tree::join(parent, &[b".wh.", name].concat());
        let mut entry = Entry {
            path: hidden,
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        };
        self.clamp(&mut entry);
        self.entries += 1;
        self.whiteouts = true;
        self.archive.add(&entry).map_err(failed("write the deletion of", path))
    }
}

/// Collects changes for people.
pub(crate) struct ChangeList {
    parents: View,
    pub changes: Vec<Change>,
}

impl ChangeList {
    pub(crate) fn new(parents: View) -> Self {
        Self { parents, changes: Vec::new() }
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change { path: format!("/{}", String::from_utf8_lossy(path)), kind });
    }
}

impl Sink for ChangeList {
    fn present(&mut self, place: &Place<'_>) -> Result<()> {
        let known = place.path.is_empty() || self.parents.walk(place.path)?.is_some();
        self.push(place.path, if known { ChangeKind::Modified } else { ChangeKind::Added });
        Ok(())
    }

    fn deleted(&mut self, path: &[u8]) -> Result<()> {
        self.push(path, ChangeKind::Deleted);
        Ok(())
    }
}
