//! gzip (RFC 1952) by several threads: one member, its deflate stream made of blocks of a fixed number of input bytes,
//! each compressed alone and ended at a byte. So the output depends on the input and the level, and on nothing else.
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use std::collections::VecDeque;
use std::io::{self, Write};

/// Input bytes of a block. Changing this changes the digests of all layers made from now on.
const BLOCK: usize = 1 << 20;
/// More threads would need more memory than they are worth.
const MAX_THREADS: usize = 8;
/// No name, no time, "unknown" system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block on its way to a thread, and where its result goes.
struct Job {
    input: Vec<u8>,
    last: bool,
    done: Sender<io::Result<Done>>,
}

struct Done {
    output: Vec<u8>,
    crc: Crc,
    /// To be filled again.
    input: Vec<u8>,
}

/// Compresses what is written to it.
pub(crate) struct Gzip<W: Write> {
    out: W,
    level: Compression,
    block: Vec<u8>,
    spare: Vec<Vec<u8>>,
    crc: Crc,
    /// None until there is more than one block.
    jobs: Option<Sender<Job>>,
    threads: usize,
    running: VecDeque<Receiver<io::Result<Done>>>,
}

impl<W: Write> Gzip<W> {
    /// Writes the header.
    pub(crate) fn new(mut out: W, level: u32) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        Ok(Self {
            out,
            level: Compression::new(level),
            block: Vec::new(),
            spare: Vec::new(),
            crc: Crc::new(),
            jobs: None,
            threads,
            running: VecDeque::new(),
        })
    }

    /// Writes the end and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let block = std::mem::take(&mut self.block);
        self.start(block, true)?;
        while !self.running.is_empty() {
            self.collect()?;
        }
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn start(&mut self, input: Vec<u8>, last: bool) -> io::Result<()> {
        let (done, result) = bounded(1);
        let job = Job { input, last, done };
        self.running.push_back(result);
        if last && self.jobs.is_none() {
            // A small layer: no thread for it.
            job.run(self.level);
            return Ok(());
        }
        if self.jobs.is_none() {
            self.jobs = Some(workers(self.threads, self.level)?);
        }
        match self.jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the compressing threads have ended")),
        }
    }

    /// Takes the oldest block's result.
    fn collect(&mut self) -> io::Result<()> {
        let Some(result) = self.running.pop_front() else { return Ok(()) };
        let done = result.recv().map_err(|_| io::Error::other("a compressing thread has ended"))??;
        self.out.write_all(&done.output)?;
        self.crc.combine(&done.crc);
        self.spare.push(done.input);
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            let next = self.spare.pop().unwrap_or_default();
            let full = std::mem::replace(&mut self.block, next);
            self.block.clear();
            self.start(full, false)?;
            // One block per thread, and one waiting.
            if self.running.len() > self.threads + 1 {
                self.collect()?;
            }
        }
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    /// Does nothing: a block is written when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that end when the sender is dropped.
fn workers(count: usize, level: Compression) -> io::Result<Sender<Job>> {
    let (jobs, queue) = unbounded::<Job>();
    for _ in 0..count {
        let queue = queue.clone();
        let work = move || queue.iter().for_each(|job| job.run(level));
        std::thread::Builder::new().name("gzip".into()).spawn(work)?;
    }
    Ok(jobs)
}

impl Job {
    fn run(self, level: Compression) {
        let mut crc = Crc::new();
        crc.update(&self.input);
        let output = deflate(&self.input, self.last, level);
        // Nobody waits for it any more when the writer was dropped.
        let _ = self.done.send(output.map(|output| Done { output, crc, input: self.input }));
    }
}

/// Raw deflate of one block, ended at a byte so that the next one can follow.
fn deflate(input: &[u8], last: bool, level: Compression) -> io::Result<Vec<u8>> {
    let mut state = Compress::new(level, false);
    let mut output = Vec::with_capacity(input.len() / 2 + 1024);
    let how = if last { FlushCompress::Finish } else { FlushCompress::Full };
    loop {
        let rest = &input[usize::try_from(state.total_in()).unwrap_or(input.len())..];
        let status = state.compress_vec(rest, &mut output, how).map_err(io::Error::other)?;
        let room = output.len() < output.capacity();
        if status == Status::StreamEnd || (!last && room) {
            return Ok(output);
        }
        output.reserve(input.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    fn compress(data: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), 5).unwrap();
        gzip.threads = threads;
        for piece in data.chunks(piece) {
            gzip.write_all(piece).unwrap();
        }
        gzip.finish().unwrap()
    }

    #[test]
    fn same_output_whatever_the_threads_and_writes() {
        let text: Vec<u8> = (0..400_000u32).flat_map(|n| (n % 7919).to_string().into_bytes()).collect();
        let noise: Vec<u8> =
            (0..700_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect();
        for data in [&text[..], &noise, &text[..BLOCK], &text[..=BLOCK], &[0; 3 * BLOCK], b"x", b""] {
            let one = compress(data, 1, 100_000);
            assert_eq!(one, compress(data, 5, 7777), "{} bytes", data.len());
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut back).unwrap();
            assert!(back == data, "{} bytes", data.len());
        }
    }

    #[test]
    fn dropping_it_half_way_ends_its_threads() {
        let mut gzip = Gzip::new(Vec::new(), 5).unwrap();
        gzip.write_all(&vec![1; 9 * BLOCK]).unwrap();
        let queue = gzip.jobs.clone().unwrap();
        drop(gzip);
        assert!(!queue.is_full());
    }
}
