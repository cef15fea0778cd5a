//! HTTP by hand, for registries that misbehave: a thread per connection, one function that answers.
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request; its body may be read.
pub struct Ask<'a> {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: &'a mut dyn Read,
}

impl Ask<'_> {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer. `length`: what is declared when it is not the truth.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Box<dyn Read>,
    pub length: u64,
}

pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let length = body.len() as u64;
    Answer { status, headers: Vec::new(), body: Box::new(std::io::Cursor::new(body)), length }
}

impl Answer {
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

/// A server and what it was asked.
pub struct Server {
    pub address: String,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&mut Ask<'_>) -> Answer + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, handler) = (asked.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || serve(connection, handler.as_ref(), &log));
            }
        });
        Ok(Self { address, asked })
    }

    /// Requests whose line contains the text.
    pub fn count(&self, text: &str) -> usize {
        self.asked.lock().map_or(0, |asked| asked.iter().filter(|line| line.contains(text)).count())
    }
}

fn serve(
    connection: TcpStream,
    handler: &(dyn Fn(&mut Ask<'_>) -> Answer + Send + Sync),
    log: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut connection = connection;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
        log.lock().ok()?.push(format!("{method} {path}"));
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = (&mut reader).take(length);
        let mut ask = Ask { method, path, headers, body: &mut body };
        let head = ask.method == "HEAD";
        let answer = handler(&mut ask);
        std::io::copy(&mut body, &mut std::io::sink()).ok()?;
        write(&mut connection, answer, head)?;
    }
}

fn write(connection: &mut TcpStream, mut answer: Answer, head: bool) -> Option<()> {
    let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.length);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    connection.write_all(text.as_bytes()).ok()?;
    if head {
        return Some(());
    }
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0;
    while written < answer.length {
        let read = answer.body.read(&mut buffer).ok()?;
        // The body is shorter than declared: the connection ends here.
        if read == 0 {
            return None;
        }
        connection.write_all(&buffer[..read]).ok()?;
        written += read as u64;
    }
    Some(())
}
