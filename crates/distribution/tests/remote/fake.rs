//! A registry that misbehaves on demand: plain HTTP by hand, one request per connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use oci::{Descriptor, Digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request's head.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Ask {
    /// Where a `Range` begins.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok()
    }
}

/// An answer; `length` is what `Content-Length` says when that is not the truth, `cut` how much of the body is sent.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub length: Option<usize>,
    pub cut: Option<usize>,
}

pub fn status(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

pub fn ok(kind: &str, body: &[u8]) -> Answer {
    let headers = vec![("Content-Type".into(), kind.into())];
    Answer { status: 200, headers, body: body.to_vec(), ..Answer::default() }
}

impl Answer {
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

/// The server and what it was asked.
pub struct Fake {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Ask>>>,
    pub sent: Arc<Mutex<usize>>,
}

impl Fake {
    pub async fn start(answer: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (log, count, answer) = (asked.clone(), sent.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
                tokio::spawn(async move {
                    let _ = serve(connection, &log, &count, answer.as_ref()).await;
                });
            }
        });
        Self { address, asked, sent }
    }

    pub fn reference(&self, name: &str) -> oci::Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

async fn serve(
    mut connection: TcpStream,
    log: &Mutex<Vec<Ask>>,
    count: &Mutex<usize>,
    answer: &(dyn Fn(&Ask) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let path = first.next().unwrap_or_default().to_owned();
    let headers: HashMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    let ask = Ask { method, path, headers, body };
    log.lock().unwrap().push(ask.clone());
    let answer = answer(&ask);
    let length = answer.length.unwrap_or(answer.body.len());
    let mut out = format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {length}\r\n", answer.status);
    for (name, value) in &answer.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    connection.write_all(out.as_bytes()).await?;
    let end = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
    if ask.method != "HEAD" {
        connection.write_all(&answer.body[..end]).await?;
        *count.lock().unwrap() += end;
    }
    connection.shutdown().await
}

/// An image of one layer.
#[derive(Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// With a file of `size` bytes that do not compress.
    pub fn of_size(size: usize, architecture: &str) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let content: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "file", &content[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::Write::write_all(&mut gzip, &tar).unwrap();
        Self::new(gzip.finish().unwrap(), &Digest::of(&tar), architecture)
    }

    /// From a layer that need not be one.
    pub fn new(layer: Vec<u8>, diff_id: &Digest, architecture: &str) -> Self {
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::media_type::MANIFEST,
            "config": Descriptor::of(oci::media_type::CONFIG, &config),
            "layers": [Descriptor::of(oci::media_type::LAYER_GZIP, &layer)],
        });
        Self { layer, config, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    /// What an honest registry would say.
    pub fn answer(&self, ask: &Ask) -> Answer {
        let path = ask.path.as_str();
        if path.contains("/manifests/") {
            return ok(oci::media_type::MANIFEST, &self.manifest);
        }
        match path.rsplit('/').next() {
            Some(name) if name == Digest::of(&self.config).as_str() => ok("application/octet-stream", &self.config),
            Some(name) if name == Digest::of(&self.layer).as_str() => ok("application/octet-stream", &self.layer),
            _ => status(404),
        }
    }

    pub fn is_layer(&self, ask: &Ask) -> bool {
        ask.path.ends_with(Digest::of(&self.layer).as_str())
    }
}
