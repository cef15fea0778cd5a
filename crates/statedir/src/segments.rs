//! Append-only files of whole lines that are rotated by size: `x`, `x.1` (newer), `x.2`, ... (older).
//!
//! A [`Follower`] reads across rotations by inode, not by name, so that it neither loses nor repeats a line; what was
//! deleted before it came there is counted as lost. A file is never written again once it was renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// When to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after which the current file is rotated; 0: never.
    pub max_size: u64,
    /// Files kept, the current one included; 0 counts as 1.
    pub max_files: u32,
}

/// The only writer of its files.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    limits: Limits,
    mode: u32,
    file: File,
    size: u64,
}

impl Writer {
    /// Opens `path` for appending, creating it with `mode`. A torn last line (of a killed writer) is ended.
    pub fn open(path: &Path, mode: u32, limits: Limits) -> io::Result<Self> {
        let mut file = open_append(path, mode)?;
        let mut size = file.metadata()?.len();
        if size > 0 && !ends_with_newline(path, size)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { path: path.to_owned(), limits, mode, file, size })
    }

    /// Appends whole lines with one write, in a new file when the current one is full.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let full = self.limits.max_size > 0 && self.size > 0 && self.size + lines.len() as u64 > self.limits.max_size;
        if full {
            rotate(&self.path, self.limits.max_files)?;
            self.file = open_append(&self.path, self.mode)?;
            self.size = 0;
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }
}

/// Appends one line to a file that several processes append to, and rotates it when it is full.
pub fn append_shared(path: &Path, mode: u32, limits: Limits, line: &[u8]) -> io::Result<()> {
    let mut file = loop {
        let file = open_append(path, mode)?;
        // Who rotates holds the lock exclusively: with it, the file under the name is the one being written.
        flock(&file, FlockOperation::LockShared)?;
        if fs::metadata(path).is_ok_and(|meta| meta.ino() == file.metadata().map_or(0, |own| own.ino())) {
            break file;
        }
    };
    file.write_all(line)?;
    let size = file.metadata()?.len();
    if limits.max_size == 0 || size < limits.max_size {
        return Ok(());
    }
    flock(&file, FlockOperation::LockExclusive)?;
    if fs::metadata(path).is_ok_and(|meta| meta.ino() == file.metadata().map_or(0, |own| own.ino())) {
        rotate(path, limits.max_files)?;
        open_append(path, mode)?;
    }
    Ok(())
}

fn open_append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

fn ends_with_newline(path: &Path, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0_u8; 1];
    File::open(path)?.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

fn rotate(path: &Path, max_files: u32) -> io::Result<()> {
    if max_files <= 1 {
        return fs::remove_file(path);
    }
    for number in (0..max_files - 1).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Deletes the file and its older ones.
pub fn remove(path: &Path) -> io::Result<()> {
    for number in numbers(path)? {
        match fs::remove_file(numbered(path, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Numbers that exist, oldest (highest) first.
fn numbers(path: &Path) -> io::Result<Vec<u32>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        let Some(rest) = entry.to_str().and_then(|entry| entry.strip_prefix(name)) else { continue };
        if rest.is_empty() {
            numbers.push(0);
        } else if let Some(number) = rest.strip_prefix('.').and_then(|n| n.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// All files, oldest first, as they stand at one moment.
fn snapshot(path: &Path) -> io::Result<Vec<File>> {
    let mut before: Option<Vec<(u64, u64)>> = None;
    let mut files = Vec::new();
    // A rotation under way shows as two different looks; a hundred in a row would be a writer gone mad.
    for _ in 0..100 {
        files.clear();
        let mut look = Vec::new();
        for number in numbers(path)? {
            let Ok(file) = File::open(numbered(path, number)) else { continue };
            let meta = file.metadata()?;
            look.push((meta.dev(), meta.ino()));
            files.push(file);
        }
        if before.as_ref() == Some(&look) {
            return Ok(files);
        }
        before = Some(look);
    }
    Ok(files)
}

/// Reads all files from the oldest on, then what is appended, in order and once.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    current: Option<File>,
    lost: u64,
}

impl Follower {
    /// Starts at the oldest byte there is.
    pub fn from_start(path: &Path) -> io::Result<Self> {
        let first = snapshot(path).or_else(none_when_missing)?.into_iter().next();
        Ok(Self { path: path.to_owned(), current: first, lost: 0 })
    }

    /// Starts at the end: only what comes.
    pub fn from_end(path: &Path) -> io::Result<Self> {
        use std::io::{Seek as _, SeekFrom};
        let mut last = snapshot(path).or_else(none_when_missing)?.into_iter().next_back();
        if let Some(file) = &mut last {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Self { path: path.to_owned(), current: last, lost: 0 })
    }

    /// How often files were deleted before they were read.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads more; 0: nothing at the moment.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.read_current(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let Some(next) = self.newer()? else { return Ok(0) };
            // The writer had left this file before the newer one appeared: one more look takes all of it.
            let read = self.read_current(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.current = Some(next);
        }
    }

    fn read_current(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.current {
            Some(file) => file.read(buffer),
            None => Ok(0),
        }
    }

    fn newer(&mut self) -> io::Result<Option<File>> {
        let own = match &self.current {
            Some(file) => {
                let meta = file.metadata()?;
                if meta.nlink() > 0 && fs::metadata(&self.path).is_ok_and(|now| same(&now, &meta)) {
                    return Ok(None);
                }
                Some(meta)
            }
            None => None,
        };
        let files = snapshot(&self.path).or_else(none_when_missing)?;
        let Some(own) = own else { return Ok(files.into_iter().next()) };
        let mut position = None;
        for (index, file) in files.iter().enumerate() {
            if same(&file.metadata()?, &own) {
                position = Some(index);
            }
        }
        if position.is_none() && !files.is_empty() {
            self.lost += 1;
        }
        Ok(files.into_iter().nth(position.map_or(0, |index| index + 1)))
    }
}

fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    a.ino() == b.ino() && a.dev() == b.dev()
}

fn none_when_missing(error: io::Error) -> io::Result<Vec<File>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A fixed pseudo-random walk: enough variety without a dependency.
    fn walk(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        }
    }

    #[test]
    fn a_follower_sees_every_line_once_whatever_the_interleaving() {
        for seed in 1..200 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.log");
            let mut next = walk(seed);
            let limits = Limits { max_size: 20 + next(200), max_files: 3 };
            let mut writer = Writer::open(&path, 0o640, limits).unwrap();
            let mut follower = Follower::from_start(&path).unwrap();
            let (mut wrote, mut read, mut behind) = (String::new(), Vec::new(), 0_u64);
            for number in 0..200 {
                let line = format!("line {number}\n");
                // Never so far behind that a file is deleted unread.
                if behind + line.len() as u64 > limits.max_size || next(3) == 0 {
                    let mut buffer = vec![0; 1 + next(50) as usize];
                    loop {
                        let count = follower.read(&mut buffer).unwrap();
                        if count == 0 {
                            break;
                        }
                        read.extend_from_slice(&buffer[..count]);
                    }
                    behind = 0;
                }
                writer.append(line.as_bytes()).unwrap();
                behind += line.len() as u64;
                wrote.push_str(&line);
            }
            let mut buffer = [0; 64];
            while let count @ 1.. = follower.read(&mut buffer).unwrap() {
                read.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(String::from_utf8(read).unwrap(), wrote, "seed {seed}");
            assert_eq!(follower.lost(), 0);
            assert!(numbers(&path).unwrap().len() <= 3);
        }
    }

    #[test]
    fn a_concurrent_follower_keeps_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut writer = Writer::open(&path, 0o640, Limits { max_size: 4096, max_files: 50 }).unwrap();
        let mut follower = Follower::from_start(&path).unwrap();
        let thread = std::thread::spawn(move || {
            for number in 0..10_000 {
                writer.append(format!("{number}\n").as_bytes()).unwrap();
            }
        });
        let mut read = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let done = thread.is_finished();
            let count = follower.read(&mut buffer).unwrap();
            read.extend_from_slice(&buffer[..count]);
            if count == 0 && done {
                break;
            }
        }
        thread.join().unwrap();
        let numbers: Vec<u32> = String::from_utf8(read).unwrap().lines().map(|l| l.parse().unwrap()).collect();
        assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn several_writers_share_a_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let limits = Limits { max_size: 500, max_files: 1000 };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..200 {
                        append_shared(path, 0o600, limits, format!("{writer} {number}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut follower = Follower::from_start(&path).unwrap();
        let (mut read, mut buffer) = (Vec::new(), [0; 100]);
        while let count @ 1.. = follower.read(&mut buffer).unwrap() {
            read.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(String::from_utf8(read).unwrap().lines().count(), 800);
    }

    #[test]
    fn a_torn_line_is_ended_and_one_file_suffices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "torn").unwrap();
        let mut writer = Writer::open(&path, 0o640, Limits { max_size: 8, max_files: 1 }).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "torn\n");
        writer.append(b"whole\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n");
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
