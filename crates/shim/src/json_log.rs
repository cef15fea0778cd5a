//! The log, in docker's json-file form: one JSON object a line, `{"log":…,"stream":…,"time":…}`.

use std::io;
use std::path::Path;

use oci::shim::LogFile;
use statedir::segments::{Limits, Writer};

/// Longest piece of a line; a longer one is cut, all pieces but the last without a newline.
const MAX_LINE: usize = 16 << 10;
/// Bytes of JSON after which a batch is written.
const BATCH: usize = 32 << 10;

/// Which stream a byte came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// Cuts output into lines and appends them. A write that fails (a full disk) loses lines, never blocks.
pub(crate) struct JsonLog {
    writer: Writer,
    partial: [Vec<u8>; 2],
    batch: Vec<u8>,
    batch_limit: usize,
    lost: u64,
}

impl JsonLog {
    pub(crate) fn open(log: &LogFile) -> io::Result<Self> {
        let limits = Limits { max_size: log.max_size, max_files: log.max_files };
        let writer = Writer::open(Path::new(&log.path), 0o640, limits)?;
        let share = usize::try_from(log.max_size / 8).unwrap_or(BATCH).max(1);
        let batch_limit = if log.max_size == 0 { BATCH } else { BATCH.min(share) };
        Ok(Self { writer, partial: [Vec::new(), Vec::new()], batch: Vec::new(), batch_limit, lost: 0 })
    }

    /// Takes what one read gave.
    pub(crate) fn write(&mut self, stream: Stream, mut data: &[u8]) {
        let time = now();
        while !data.is_empty() {
            let partial = &mut self.partial[stream as usize];
            let room = (MAX_LINE - partial.len()).min(data.len());
            let newline = data[..room].iter().position(|byte| *byte == b'\n');
            let (piece, rest) = data.split_at(newline.map_or(room, |at| at + 1));
            partial.extend_from_slice(piece);
            data = rest;
            if newline.is_some() {
                encode(partial, stream, &time, &mut self.batch);
                partial.clear();
            } else if partial.len() >= MAX_LINE {
                let whole = whole_characters(partial);
                encode(&partial[..whole], stream, &time, &mut self.batch);
                partial.drain(..whole);
            }
            if self.batch.len() >= self.batch_limit {
                self.flush_batch();
            }
        }
        self.flush_batch();
    }

    /// Writes unfinished lines: their stream has ended.
    pub(crate) fn finish(&mut self) {
        let time = now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                encode(&rest, stream, &time, &mut self.batch);
            }
        }
        self.flush_batch();
    }

    fn flush_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(error) = self.writer.append(&self.batch) {
            if self.lost == 0 {
                eprintln!("pier-shim: the log cannot be written: {error}");
            }
            self.lost += 1;
        }
        self.batch.clear();
        if self.batch.capacity() > BATCH {
            self.batch.shrink_to(0);
        }
    }
}

/// RFC 3339 with nine digits, as docker writes it.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// How many bytes at the start form whole characters: a multi-byte one at the end stays for the next piece.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let at = bytes.len() - back;
        let wanted = match bytes[at] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => break,
        };
        return if wanted > back { at } else { bytes.len() };
    }
    bytes.len()
}

fn encode(line: &[u8], stream: Stream, time: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(line, out);
    out.extend_from_slice(if stream == Stream::Stdout {
        b"\",\"stream\":\"stdout\",\"time\":\""
    } else {
        b"\",\"stream\":\"stderr\",\"time\":\""
    });
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// JSON string contents; bytes that are no UTF-8 become U+FFFD.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..=0x1f => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.extend_from_slice(b"\\u00");
                    out.push(HEX[usize::from(byte >> 4)]);
                    out.push(HEX[usize::from(byte & 15)]);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn logged(pieces: &[&[u8]]) -> Vec<String> {
        let dir = std::env::temp_dir().join(format!(
            "pier-json-log-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("x.log");
        let file = LogFile { path: path.to_str().unwrap().into(), max_size: 0, max_files: 1 };
        let mut log = JsonLog::open(&file).unwrap();
        for piece in pieces {
            log.write(Stream::Stdout, piece);
        }
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_joined_and_escaped() {
        assert_eq!(logged(&[b"a \"q\"\\", b"\x01\nb", b"\n", b"rest"]), ["a \"q\"\\\u{1}\n", "b\n", "rest"]);
        assert_eq!(logged(&[b"\xff\xfeok\n"]), ["\u{fffd}\u{fffd}ok\n"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut text = "x".repeat(MAX_LINE - 1);
        text.push('ä');
        text.push_str("tail\n");
        let lines = logged(&[text.as_bytes()]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines.concat(), text);
        assert_eq!(lines[0].len(), MAX_LINE - 1);
    }
}
