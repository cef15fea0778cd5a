//! Compression of layers: which one a blob has, decoders, encoders.
use super::gzip::Gzip;
use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use oci::media_type;
use std::io::{self, BufReader, Cursor, Read, Write};
use zstd::zstd_safe::CParameter;

/// How a layer's archive is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// The one that every registry and client knows.
    #[default]
    Gzip,
    /// Faster to unpack.
    Zstd,
    /// As it is.
    None,
}

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 5;
/// Bytes of input per job; changing this changes the digests of all layers made from now on.
const ZSTD_JOB: u32 = 4 << 20;
/// Each thread holds a few jobs in memory.
const ZSTD_THREADS: usize = 4;

impl Compression {
    /// "gzip", "zstd" or "none"; empty is gzip.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            other => {
                Err(Error::InvalidName { what: "compression", name: other.into(), expected: "gzip, zstd or none" })
            }
        }
    }

    /// The OCI media type of a layer packed this way.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
            Self::None => media_type::LAYER,
        }
    }

    /// What a media type promises. Empty: nothing, the content decides.
    fn of_media_type(media_type: &str) -> Result<Option<Self>> {
        if media_type.is_empty() {
            return Ok(None);
        }
        if !media_type::is_layer(media_type) {
            return Err(Error::UnknownLayerType { media_type: media_type.into() });
        }
        match media_type.rsplit_once(['+', '.']).map_or("", |(_, suffix)| suffix) {
            "gzip" => Ok(Some(Self::Gzip)),
            "zstd" => Ok(Some(Self::Zstd)),
            "tar" => Ok(Some(Self::None)),
            _ => Err(Error::UnknownLayerType { media_type: media_type.into() }),
        }
    }

    fn of_magic(start: &[u8]) -> Self {
        if start.starts_with(GZIP_MAGIC) {
            Self::Gzip
        } else if start.starts_with(ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "plain tar",
        }
    }
}

/// A decoder of a layer's blob.
pub(crate) struct Decoder<'a> {
    /// What it decodes.
    pub format: Compression,
    reader: Box<dyn Read + Send + 'a>,
}

/// Looks at the first bytes and decodes accordingly: what the bytes are wins over what the media type says, as
/// registries hold plenty of layers with the wrong one; but a type that is no layer at all is refused.
pub(crate) fn decoder<'a, R: Read + Send + 'a>(mut blob: R, media_type: &str) -> Result<Decoder<'a>> {
    let promised = Compression::of_media_type(media_type)?;
    let failed = |source| Error::Decompress { format: promised.unwrap_or(Compression::None).name(), source };
    let mut start = Vec::with_capacity(4);
    blob.by_ref().take(4).read_to_end(&mut start).map_err(failed)?;
    let format = Compression::of_magic(&start);
    let whole = BufReader::with_capacity(128 * 1024, Cursor::new(start).chain(blob));
    let reader: Box<dyn Read + Send + 'a> = match format {
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole).map_err(failed)?),
        Compression::None => Box::new(whole),
    };
    Ok(Decoder { format, reader })
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Encodes into `out`.
pub(crate) enum Encoder<W: Write> {
    Gzip(Box<Gzip<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
    None(W),
}

impl<W: Write> Encoder<W> {
    /// Same input, same output: no time, no name, no thread count in it.
    pub(crate) fn new(how: Compression, out: W) -> io::Result<Self> {
        Self::leveled(how, None, out)
    }

    /// [`Self::new`] with a level of the compressor's own.
    pub(crate) fn leveled(how: Compression, level: Option<i32>, out: W) -> io::Result<Self> {
        let gzip = level.and_then(|level| u32::try_from(level).ok()).unwrap_or(GZIP_LEVEL);
        Ok(match how {
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new(out, gzip)?)),
            Compression::Zstd => Self::Zstd(Box::new(zstd_encoder(level.unwrap_or(ZSTD_LEVEL), out)?)),
            Compression::None => Self::None(out),
        })
    }

    /// Writes the end and gives the output back.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(e) => e.finish(),
            Self::Zstd(e) => e.finish(),
            Self::None(out) => Ok(out),
        }
    }
}

/// Jobs of a fixed size by at least one thread: libzstd's output then does not depend on how many there are.
fn zstd_encoder<W: Write>(level: i32, out: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(ZSTD_THREADS);
    encoder.set_parameter(CParameter::NbWorkers(u32::try_from(threads).unwrap_or(1)))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    Ok(encoder)
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(e) => e.write(bytes),
            Self::Zstd(e) => e.write(bytes),
            Self::None(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(e) => e.flush(),
            Self::Zstd(e) => e.flush(),
            Self::None(out) => out.flush(),
        }
    }
}
