//! `pier cp`

use std::io::{Read, Write};
use std::path::Path;

use anyhow::bail;
use api::supervisor::v1::{
    CopyFromRequest, CopyFromResponse, CopyToOpen, CopyToRequest, PathStat, copy_from_response, copy_to_request,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::archive::{self, At};
use crate::client::{Answer, Client, is_not_found, next};

/// Size of the pieces of a tar on the wire.
const CHUNK: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// CONTAINER:PATH, a path here, or "-" for a tar on stdin
    source: String,
    /// CONTAINER:PATH, a path here, or "-" for a tar on stdout
    target: String,
    /// Keep user and group
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link of the source points to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// No output but errors
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match (place(&self.source), place(&self.target)) {
            (Place::Container(id, path), Place::Container(..)) => {
                bail!("copying from container {id}:{path} to a container: one of the two has to be here")
            }
            (Place::Here(_), Place::Here(_)) => bail!("one of source and target is CONTAINER:PATH"),
            (Place::Container(id, path), Place::Here(target)) => self.fetch(client, id, path, target).await?,
            (Place::Here(source), Place::Container(id, path)) => self.send(client, source, id, path).await?,
        }
        Ok(0)
    }

    async fn fetch(&self, client: &Client, id: &str, source: &str, target: &str) -> anyhow::Result<()> {
        let (stat, stream) = open(client, id, source, self.follow_link).await?;
        let (sender, receiver) = channel(8);
        let writing: Box<dyn FnOnce() -> anyhow::Result<()> + Send> = if target == "-" {
            Box::new(move || {
                let mut stdout = std::io::stdout().lock();
                std::io::copy(&mut Chunks::new(receiver), &mut stdout)?;
                Ok(stdout.flush()?)
            })
        } else {
            let landing = archive::landing(source, kind(&stat), target, archive::local(Path::new(target)))?;
            if archive::local(Path::new(&landing.directory)) != At::Directory {
                bail!("{}: no such directory", landing.directory);
            }
            let owners = self.archive;
            Box::new(move || {
                let (reader, writer) = std::io::pipe()?;
                let name = landing.name.clone();
                let renaming =
                    std::thread::spawn(move || archive::rebase(Chunks::new(receiver), writer, name.as_deref()));
                let unpacked = archive::unpack(reader, Path::new(&landing.directory), owners);
                let renamed = renaming.join().map_err(|_| anyhow::anyhow!("the copying thread failed"))?;
                unpacked.and(renamed)
            })
        };
        let writing = tokio::task::spawn_blocking(writing);
        let fed = feed(stream, sender).await;
        writing.await??;
        fed
    }

    async fn send(&self, client: &Client, source: &str, id: &str, target: &str) -> anyhow::Result<()> {
        let there = match open(client, id, target, true).await {
            Ok((stat, _)) => kind(&stat),
            Err(error) if is_not_found(&error) => At::Nothing,
            // A path that is missing in a container that exists is no other failure than this one.
            Err(error) if is_missing_path(&error) => At::Nothing,
            Err(error) => return Err(error),
        };
        let (directory, packing): (String, Box<dyn FnOnce(Pieces) -> anyhow::Result<()> + Send>) = if source == "-" {
            if there != At::Directory {
                bail!("{target}: a tar is unpacked into a directory that exists");
            }
            let copy = |mut pieces: Pieces| {
                std::io::copy(&mut std::io::stdin().lock(), &mut pieces)?;
                Ok(pieces.flush()?)
            };
            (target.into(), Box::new(copy))
        } else {
            let path = Path::new(source).to_owned();
            let link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
            let is = if link && !self.follow_link { At::File } else { archive::local(&path) };
            let landing = archive::landing(source, is, target, there)?;
            let follow = self.follow_link;
            let name = landing.name.clone();
            (landing.directory, Box::new(move |pieces| archive::pack(&path, name.as_deref(), follow, pieces)))
        };
        let (sender, receiver) = channel(8);
        let open =
            CopyToOpen { id: id.into(), path: directory, no_overwrite_dir_non_dir: true, keep_owner: self.archive };
        sender.send(CopyToRequest { payload: Some(copy_to_request::Payload::Open(open)) }).await?;
        let packing = tokio::task::spawn_blocking(move || packing(Pieces(sender)));
        let sent = client.supervisor().await?.copy_to(ReceiverStream::new(receiver)).await.answer();
        // When the server gave up, its reason is the one that counts, not the broken pipe it caused here.
        let packed = packing.await?;
        sent?;
        packed
    }
}

enum Place<'a> {
    Container(&'a str, &'a str),
    Here(&'a str),
}

/// As docker: what has a colon is in a container, unless it begins like a path.
fn place(text: &str) -> Place<'_> {
    if text == "-" || text.starts_with('/') || text.starts_with('.') {
        return Place::Here(text);
    }
    match text.split_once(':') {
        Some((id, path)) if !id.is_empty() => Place::Container(id, if path.is_empty() { "/" } else { path }),
        _ => Place::Here(text),
    }
}

async fn open(
    client: &Client,
    id: &str,
    path: &str,
    follow_links: bool,
) -> anyhow::Result<(PathStat, Streaming<CopyFromResponse>)> {
    let request = CopyFromRequest { id: id.into(), path: path.into(), follow_links };
    let mut stream = client.supervisor().await?.copy_from(request).await.answer()?;
    match next(&mut stream).await?.and_then(|message| message.payload) {
        Some(copy_from_response::Payload::Stat(stat)) => Ok((stat, stream)),
        _ => bail!("the supervisor did not say what {path} is"),
    }
}

fn kind(stat: &PathStat) -> At {
    // S_IFMT, S_IFDIR
    if stat.mode & 0o170_000 == 0o040_000 { At::Directory } else { At::File }
}

fn is_missing_path(error: &anyhow::Error) -> bool {
    let reason =
        |cause: &rpc::Failure| cause.reason == "CONTAINER_PATH" && format!("{error:#}").contains("No such file");
    error.chain().any(|cause| cause.downcast_ref::<rpc::Failure>().is_some_and(reason))
}

async fn feed(mut stream: Streaming<CopyFromResponse>, sender: Sender<Vec<u8>>) -> anyhow::Result<()> {
    while let Some(message) = next(&mut stream).await? {
        if let Some(copy_from_response::Payload::Tar(piece)) = message.payload
            && sender.send(piece.to_vec()).await.is_err()
        {
            // The other side failed and says so itself.
            return Ok(());
        }
    }
    Ok(())
}

/// Pieces of a tar from the wire, as a reader.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    current: std::io::Cursor<Vec<u8>>,
}

impl Chunks {
    fn new(receiver: Receiver<Vec<u8>>) -> Self {
        Self { receiver, current: std::io::Cursor::default() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.current.read(buffer)? {
                0 => match self.receiver.blocking_recv() {
                    Some(piece) => self.current = std::io::Cursor::new(piece),
                    None => return Ok(0),
                },
                length => return Ok(length),
            }
        }
    }
}

/// A writer whose pieces go over the wire.
struct Pieces(Sender<CopyToRequest>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(CHUNK)];
        let request = CopyToRequest { payload: Some(copy_to_request::Payload::Tar(piece.to_vec().into())) };
        self.0.blocking_send(request).map_err(|_| std::io::Error::other("the server stopped reading"))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places() {
        let show = |text| match place(text) {
            Place::Container(id, path) => format!("{id} at {path}"),
            Place::Here(path) => format!("here at {path}"),
        };
        for (text, want) in [
            ("web:/etc", "web at /etc"),
            ("web:", "web at /"),
            ("web:rel", "web at rel"),
            ("./a:b", "here at ./a:b"),
            ("/a:b", "here at /a:b"),
            ("file", "here at file"),
            ("-", "here at -"),
        ] {
            assert_eq!(show(text), want);
        }
    }

    #[test]
    fn chunks_read_as_one() {
        let (sender, receiver) = channel(4);
        for piece in [b"ab".to_vec(), Vec::new(), b"c".to_vec()] {
            sender.try_send(piece).unwrap();
        }
        drop(sender);
        let mut text = String::new();
        Chunks::new(receiver).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
