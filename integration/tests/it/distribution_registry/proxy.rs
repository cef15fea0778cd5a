//! A proxy that cuts every connection after so many bytes, and counts what passes.
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Proxy {
    pub address: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    /// Bytes from clients that pass, over all connections.
    limit: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of `upstream`; a connection ends after `cut` bytes, both ways together.
    pub fn start(upstream: &str, cut: u64) -> std::io::Result<Self> {
        Self::with(upstream, cut, u64::MAX)
    }

    /// Lets so many bytes of the clients pass; then they wait until it is opened.
    pub fn limited(upstream: &str, limit: u64) -> std::io::Result<Self> {
        Self::with(upstream, u64::MAX, limit)
    }

    /// Ends the limit.
    pub fn open(&self) {
        self.limit.store(u64::MAX, Ordering::SeqCst);
    }

    /// Bytes from the clients.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::SeqCst)
    }

    fn with(upstream: &str, cut: u64, limit: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let limit = Arc::new(AtomicU64::new(limit));
        let (counts, most, upstream) = ((up.clone(), down.clone()), limit.clone(), upstream.to_string());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else { continue };
                let left = Arc::new(AtomicU64::new(cut));
                forward(&client, &server, left.clone(), counts.0.clone(), most.clone());
                forward(&server, &client, left, counts.1.clone(), Arc::new(AtomicU64::new(u64::MAX)));
            }
        });
        Ok(Self { address, up, down, limit })
    }

    /// Bytes from the clients since the last call.
    pub fn take_up(&self) -> u64 {
        self.up.swap(0, Ordering::SeqCst)
    }

    /// Bytes to the clients since the last call.
    pub fn take_down(&self) -> u64 {
        self.down.swap(0, Ordering::SeqCst)
    }
}

fn forward(from: &TcpStream, to: &TcpStream, left: Arc<AtomicU64>, count: Arc<AtomicU64>, limit: Arc<AtomicU64>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            let room = left.load(Ordering::SeqCst).min(buffer.len() as u64) as usize;
            if room == 0 {
                break;
            }
            let Ok(read @ 1..) = from.read(&mut buffer[..room]) else { break };
            let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |l| Some(l.saturating_sub(read as u64)));
            let read = read.min(before.unwrap_or(0) as usize);
            count.fetch_add(read as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
            while count.load(Ordering::SeqCst) >= limit.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
