//! From an asynchronous stream to a blocking reader: the work (hashing, unpacking, writing) runs on a thread of its own, with a
//! few chunks between them, so that neither memory nor the runtime's workers are taken up.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::ByteStream;
use crate::error::{Error, Result};

/// Chunks on their way; a chunk of HTTP is at most a few hundred KiB, and four layers come at once.
const CHUNKS: usize = 2;
/// Bytes of one chunk of a file.
const FILE_CHUNK: usize = 256 << 10;

enum Item {
    Chunk(Bytes),
    End,
    Broken,
}

/// What the work reads from. The end of the stream is its end; a broken stream is an error.
pub struct StreamReader {
    items: mpsc::Receiver<Item>,
    chunk: Bytes,
    ended: bool,
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.items.blocking_recv() {
                Some(Item::Chunk(chunk)) => self.chunk = chunk,
                Some(Item::End) => self.ended = true,
                Some(Item::Broken) => return Err(io::Error::other("the stream broke")),
                // The other side was dropped: whoever wanted this has given up.
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "canceled")),
            }
        }
        let taken = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

/// Feeds a stream to work on a blocking thread. When the stream fails, its error is the result, not what the work made of it.
///
/// # Errors
/// The stream's or the work's.
pub async fn pump<T: Send + 'static>(
    mut stream: ByteStream,
    work: impl FnOnce(&mut StreamReader) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, items) = mpsc::channel(CHUNKS);
    let worker = tokio::task::spawn_blocking(move || {
        let mut reader = StreamReader { items, chunk: Bytes::new(), ended: false };
        work(&mut reader)
    });
    let mut broken = None;
    loop {
        let item = match stream.next().await {
            Some(Ok(chunk)) => Item::Chunk(chunk),
            Some(Err(error)) => {
                broken = Some(error);
                Item::Broken
            }
            None => Item::End,
        };
        let last = !matches!(item, Item::Chunk(_));
        // A worker that reads no more has its reasons, and tells them below.
        if sender.send(item).await.is_err() || last {
            break;
        }
    }
    // A worker that reads on after the stream broke gets an error, not a wait without end.
    drop((stream, sender));
    let result = worker.await.map_err(canceled)?;
    match broken {
        Some(error) => Err(error),
        None => result,
    }
}

/// Runs blocking work.
///
/// # Errors
/// The work's.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(canceled)?
}

fn canceled(error: tokio::task::JoinError) -> Error {
    Error::Canceled { what: error.to_string() }
}

/// Part of a file as a stream.
#[must_use]
pub fn file_stream(file: std::fs::File, path: &std::path::Path, start: u64, length: u64) -> ByteStream {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    let path = path.to_owned();
    let open = async move {
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(FILE_CHUNK);
        file.seek(io::SeekFrom::Start(start)).await.map_err(Error::io("read", &path))?;
        let chunks = tokio_util::io::ReaderStream::with_capacity(file.take(length), FILE_CHUNK);
        Ok::<_, Error>(chunks.map(move |chunk| chunk.map_err(Error::io("read", &path))))
    };
    futures::StreamExt::boxed(futures::TryStreamExt::try_flatten(futures::stream::once(open)))
}

/// Bytes at hand as a stream.
#[must_use]
pub fn bytes_stream(bytes: Vec<u8>, offset: u64) -> ByteStream {
    let mut bytes = Bytes::from(bytes);
    let skip = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.advance(skip);
    futures::stream::once(async move { Ok(bytes) }).boxed()
}

/// Reads a whole stream that must have `size` bytes.
///
/// # Errors
/// The stream's; [`Error::ManifestInvalid`] when the size is not right.
pub async fn collect(mut stream: ByteStream, what: &str, size: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if (all.len() + chunk.len()) as u64 > size {
            return Err(Error::manifest(what, format!("more than the {size} bytes its descriptor says")));
        }
        all.extend_from_slice(&chunk);
    }
    if all.len() as u64 != size {
        return Err(Error::manifest(what, format!("{} bytes, its descriptor says {size}", all.len())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_worker_reads_what_the_stream_gives() {
        let chunks: Vec<Result<Bytes>> =
            vec![Ok(Bytes::from_static(b"ab")), Ok(Bytes::new()), Ok(Bytes::from_static(b"c"))];
        let text = pump(futures::stream::iter(chunks).boxed(), |reader| {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            Ok(text)
        });
        assert_eq!(text.await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn the_streams_error_wins() {
        let chunks: Vec<Result<Bytes>> =
            vec![Ok(Bytes::from_static(b"ab")), Err(Error::Canceled { what: "the test".into() })];
        let result = pump(futures::stream::iter(chunks).boxed(), |reader| {
            let mut all = Vec::new();
            assert!(reader.read_to_end(&mut all).is_err());
            assert!(reader.read_to_end(&mut all).is_err(), "it stays broken");
            Ok(())
        });
        assert_eq!(result.await.unwrap_err().to_string(), "canceled: the test");
    }

    #[tokio::test]
    async fn files_are_streamed_from_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let stream = file_stream(std::fs::File::open(&path).unwrap(), &path, 3, 4);
        assert_eq!(collect(stream, "f", 4).await.unwrap(), b"3456");
    }
}
