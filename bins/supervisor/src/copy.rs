//! `cp`: between a container and this machine; "-" is a tar stream.

use std::io::{Read, Write as _};
use std::path::Path;

use anyhow::Context as _;
use supervisor::{CopyToOptions, Supervisor};
use tokio::sync::mpsc;

use crate::args::Copy;

/// Size of the pieces of a tar.
const PIECE: usize = 128 << 10;

pub async fn copy(supervisor: &Supervisor, args: &Copy) -> anyhow::Result<u8> {
    match (place(&args.source), place(&args.target)) {
        (Some((id, path)), None) => fetch(supervisor, args, id, path).await?,
        (None, Some((id, path))) => send(supervisor, args, id, path).await?,
        _ => anyhow::bail!("one of source and target is CONTAINER:PATH, the other is here"),
    }
    Ok(0)
}

/// As docker: what has a colon is in a container, unless it begins like a path.
fn place(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(id, _)| !id.is_empty())
}

async fn fetch(supervisor: &Supervisor, args: &Copy, id: &str, path: &str) -> anyhow::Result<()> {
    let (_, mut pieces) = supervisor.copy_from(id, path, args.follow_link).await?;
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(8);
    let target = args.target.clone();
    let owner = args.archive;
    let writing = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let mut tar = Chunks { receiver, piece: Vec::new(), at: 0 };
        if target == "-" {
            std::io::copy(&mut tar, &mut std::io::stdout().lock())?;
            return Ok(std::io::stdout().flush()?);
        }
        unpack(tar, Path::new(&target), owner)
    });
    while let Some(piece) = pieces.recv().await {
        if sender.send(piece?).await.is_err() {
            break;
        }
    }
    drop(sender);
    writing.await?
}

/// Into a directory that exists under its own name, else as `target`.
fn unpack(tar: impl Read, target: &Path, owner: bool) -> anyhow::Result<()> {
    let into = target.is_dir();
    let mut archive = tar::Archive::new(tar);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owner);
    if into {
        return archive.unpack(target).with_context(|| format!("unpack into {}", target.display()));
    }
    let stage = target.with_extension("pier-cp");
    std::fs::create_dir(&stage).with_context(|| format!("create {}", stage.display()))?;
    let result = archive.unpack(&stage).map_err(anyhow::Error::from).and_then(|()| {
        let first = std::fs::read_dir(&stage)?.next().context("the tar is empty")??;
        Ok(std::fs::rename(first.path(), target)?)
    });
    let _ = std::fs::remove_dir_all(&stage);
    result.with_context(|| format!("unpack to {}", target.display()))
}

async fn send(supervisor: &Supervisor, args: &Copy, id: &str, path: &str) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel(8);
    let there = supervisor.copy_from(id, path, true).await.ok().map(|(stat, _)| stat);
    let is_directory = there.is_some_and(|stat| stat.mode & 0o170_000 == 0o040_000);
    let source = args.source.clone();
    let (directory, name) = if is_directory || source == "-" {
        (path.to_owned(), None)
    } else {
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        (if parent.is_empty() { "/".to_owned() } else { parent.to_owned() }, Some(name.to_owned()))
    };
    let follow = args.follow_link;
    let packing = tokio::task::spawn_blocking(move || pack(&source, name, follow, Pieces(sender)));
    let options = CopyToOptions { path: directory, no_overwrite_dir_non_dir: true, keep_owner: args.archive };
    supervisor.copy_to(id, options, receiver).await?;
    packing.await?
}

fn pack(source: &str, name: Option<String>, follow: bool, mut pieces: Pieces) -> anyhow::Result<()> {
    if source == "-" {
        std::io::copy(&mut std::io::stdin().lock(), &mut pieces)?;
        return Ok(());
    }
    let path = std::fs::canonicalize(Path::new(source).parent().unwrap_or(Path::new(".")))
        .unwrap_or_default()
        .join(Path::new(source).file_name().unwrap_or_default());
    let name = name.or_else(|| path.file_name().map(|n| n.to_string_lossy().into_owned())).unwrap_or_default();
    let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(PIECE, pieces));
    tar.follow_symlinks(follow);
    let meta = std::fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
    if meta.is_dir() {
        tar.append_dir_all(&name, &path)?;
    } else {
        tar.append_path_with_name(&path, &name)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

struct Pieces(mpsc::Sender<Vec<u8>>);

impl std::io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
