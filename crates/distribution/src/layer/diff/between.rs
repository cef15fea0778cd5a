//! What differs between two merged trees, for people.
use super::{
    Change, ChangeKind, Entry, Found, Kind, MAX_DEPTH, Result, View, entry, failed, is_dir, join, open_file, too_deep,
};
use std::io::Read;

/// Lists what `new` has otherwise than `old`, in the order of a walk. Times do not count: two builds of the same files are the
/// same. Files are compared byte by byte, unless they are one file.
pub(crate) fn between(old: &View, new: &View) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    dir(old, new, b"", 0, &mut changes)?;
    Ok(changes)
}

fn dir(old: &View, new: &View, path: &[u8], depth: usize, changes: &mut Vec<Change>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(too_deep(path));
    }
    let mut before = old.list(path)?;
    for (name, now) in new.list(path)? {
        let inner = join(path, &name);
        let was = before.remove(&name);
        match &was {
            Some(was) if same(was, &now, &name, &inner)? => {}
            Some(_) => push(changes, &inner, ChangeKind::Modified),
            None => push(changes, &inner, ChangeKind::Added),
        }
        let below = was.map(|was| was.view).unwrap_or_default();
        if is_dir(&now.stat) {
            dir(&below, &now.view, &inner, depth + 1, changes)?;
        }
    }
    for (name, _) in before {
        push(changes, &join(path, &name), ChangeKind::Deleted);
    }
    Ok(())
}

fn push(changes: &mut Vec<Change>, path: &[u8], kind: ChangeKind) {
    changes.push(Change { path: format!("/{}", String::from_utf8_lossy(path)), kind });
}

fn same(was: &Found, now: &Found, name: &[u8], path: &[u8]) -> Result<bool> {
    if (was.stat.st_dev, was.stat.st_ino) == (now.stat.st_dev, now.stat.st_ino) {
        return Ok(true);
    }
    let timeless = |found: &Found| -> Result<Option<Entry>> {
        let entry = entry(&found.dir, name, path, &found.stat)?;
        Ok(entry.map(|entry| Entry { mtime: (0, 0), ..entry }))
    };
    let (a, b) = (timeless(was)?, timeless(now)?);
    if a != b {
        return Ok(false);
    }
    match a {
        Some(entry) if entry.kind == Kind::File && entry.size > 0 => same_content(was, now, name, path),
        _ => Ok(true),
    }
}

fn same_content(was: &Found, now: &Found, name: &[u8], path: &[u8]) -> Result<bool> {
    let open = |found: &Found| open_file(&found.dir, name).map_err(failed("read", path));
    let (mut a, mut b) = (open(was)?, open(now)?);
    let (mut left, mut right) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let read = a.read(&mut left).map_err(failed("read", path))?;
        if read == 0 {
            return Ok(b.read(&mut right[..1]).map_err(failed("read", path))? == 0);
        }
        match b.read_exact(&mut right[..read]) {
            Ok(()) if left[..read] == right[..read] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(failed("read", path)(e)),
        }
    }
}
