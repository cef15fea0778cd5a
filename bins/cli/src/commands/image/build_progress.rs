//! The steps of a build: numbered lines with their logs, or bars on a terminal, or JSON.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use api::builder::v1::build_response::Payload;
use api::builder::v1::{VertexLog, VertexStatus, VertexUpdate};
use console::progress::{Renderer, Update};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// How steps are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// tty on a terminal, else plain.
    #[default]
    Auto,
    Tty,
    Plain,
    Json,
    #[value(alias = "quiet")]
    None,
}

/// Shows a build's messages.
pub struct Steps {
    mode: Mode,
    /// Number of each step, in order of appearance; docker's #1, #2.
    numbers: HashMap<String, usize>,
    names: HashMap<String, String>,
    logs: HashMap<String, Vec<u8>>,
    bars: HashMap<String, ProgressBar>,
    screen: MultiProgress,
    transfers: Renderer,
}

impl Steps {
    /// `Auto` looks at stderr once, now.
    pub fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if std::io::stderr().is_terminal() => Mode::Tty,
            Mode::Auto => Mode::Plain,
            other => other,
        };
        let transfers = Renderer::new(match mode {
            Mode::Tty => console::progress::Mode::None,
            Mode::Plain => console::progress::Mode::Plain,
            _ => console::progress::Mode::None,
        });
        Self {
            mode,
            numbers: HashMap::new(),
            names: HashMap::new(),
            logs: HashMap::new(),
            bars: HashMap::new(),
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            transfers,
        }
    }

    /// One message.
    pub fn show(&mut self, payload: &Payload) -> std::io::Result<()> {
        match (self.mode, payload) {
            (Mode::None, _) => self.keep(payload),
            (Mode::Json, _) => {
                self.keep(payload);
                writeln!(std::io::stderr(), "{}", document(payload))?;
            }
            (_, Payload::Vertex(vertex)) if self.mode == Mode::Tty => self.bar(vertex),
            (_, Payload::Vertex(vertex)) => self.lines(vertex)?,
            (_, Payload::Log(log)) => self.log(log)?,
            (_, Payload::Progress(progress)) => self.transfers.update(&Update {
                id: &progress.id,
                status: &progress.status,
                current: progress.current.max(0).unsigned_abs(),
                total: progress.total.max(0).unsigned_abs(),
                message: &progress.message,
            }),
            (_, Payload::Result(_)) => {}
        }
        Ok(())
    }

    /// Logs are kept where they are not shown: a failure prints them.
    fn keep(&mut self, payload: &Payload) {
        match payload {
            Payload::Log(log) => self.logs.entry(log.digest.clone()).or_default().extend_from_slice(&log.data),
            Payload::Vertex(vertex) => {
                self.names.insert(vertex.digest.clone(), vertex.name.clone());
                if vertex.status() == VertexStatus::Done {
                    self.logs.remove(&vertex.digest);
                }
            }
            _ => {}
        }
    }

    /// The build failed: what the unfinished steps wrote, if it was not shown.
    pub fn failed(&mut self) {
        if !matches!(self.mode, Mode::Tty | Mode::None) {
            return;
        }
        for bar in self.bars.values() {
            bar.abandon();
        }
        for (digest, log) in &self.logs {
            let name = self.names.get(digest).map_or("", String::as_str);
            let _ = writeln!(std::io::stderr(), "------\n > {name}:");
            let _ = std::io::stderr().write_all(log);
            let _ = writeln!(std::io::stderr(), "------");
        }
    }

    fn number(&mut self, digest: &str) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(digest.into()).or_insert(next)
    }

    fn lines(&mut self, vertex: &VertexUpdate) -> std::io::Result<()> {
        let first = !self.numbers.contains_key(&vertex.digest);
        let number = self.number(&vertex.digest);
        let mut stderr = std::io::stderr().lock();
        if first {
            writeln!(stderr, "#{number} {}", vertex.name)?;
        }
        match vertex.status() {
            VertexStatus::Cached => writeln!(stderr, "#{number} CACHED\n"),
            VertexStatus::Done => writeln!(stderr, "#{number} DONE {}\n", seconds(vertex)),
            VertexStatus::Failed => writeln!(stderr, "#{number} ERROR {}\n", vertex.error),
            VertexStatus::Canceled => writeln!(stderr, "#{number} CANCELED\n"),
            VertexStatus::Started | VertexStatus::Unspecified => Ok(()),
        }
    }

    fn log(&mut self, log: &VertexLog) -> std::io::Result<()> {
        if self.mode == Mode::Tty {
            let buffer = self.logs.entry(log.digest.clone()).or_default();
            buffer.extend_from_slice(&log.data);
            let last = String::from_utf8_lossy(buffer).trim_end().lines().last().unwrap_or_default().to_owned();
            if let (Some(bar), Some(name)) = (self.bars.get(&log.digest), self.names.get(&log.digest)) {
                bar.set_message(format!("{name}  {last}"));
            }
            return Ok(());
        }
        let number = self.number(&log.digest);
        let mut stderr = std::io::stderr().lock();
        for line in String::from_utf8_lossy(&log.data).lines() {
            writeln!(stderr, "#{number} {line}")?;
        }
        Ok(())
    }

    fn bar(&mut self, vertex: &VertexUpdate) {
        self.names.insert(vertex.digest.clone(), vertex.name.clone());
        let bar = self.bars.entry(vertex.digest.clone()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new_spinner());
            bar.set_style(style(" => {wide_msg} {elapsed}"));
            bar.enable_steady_tick(std::time::Duration::from_millis(200));
            bar
        });
        let name = &vertex.name;
        match vertex.status() {
            VertexStatus::Cached => {
                bar.set_style(style(" => {wide_msg}"));
                bar.abandon_with_message(format!("CACHED {name}"));
            }
            VertexStatus::Done => {
                self.logs.remove(&vertex.digest);
                bar.set_style(style(" => {wide_msg}"));
                bar.abandon_with_message(format!("{name} {}", seconds(vertex)));
            }
            VertexStatus::Failed => bar.abandon_with_message(format!("ERROR {name}")),
            VertexStatus::Canceled => bar.abandon_with_message(format!("CANCELED {name}")),
            VertexStatus::Started | VertexStatus::Unspecified => bar.set_message(name.clone()),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn seconds(vertex: &VertexUpdate) -> String {
    let nanoseconds = (vertex.completed_unix_nano - vertex.started_unix_nano).max(0);
    format!("{:.1}s", nanoseconds as f64 / 1e9)
}

fn document(payload: &Payload) -> serde_json::Value {
    match payload {
        Payload::Vertex(vertex) => json!({"vertex": {
            "digest": vertex.digest, "name": vertex.name, "inputs": vertex.inputs,
            "status": vertex.status().as_str_name().trim_start_matches("VERTEX_STATUS_").to_lowercase(),
            "error": vertex.error, "started": vertex.started_unix_nano, "completed": vertex.completed_unix_nano,
        }}),
        Payload::Log(log) => json!({"log": {
            "digest": log.digest, "stream": log.stream, "data": String::from_utf8_lossy(&log.data),
        }}),
        Payload::Progress(progress) => json!({"progress": {
            "id": progress.id, "status": progress.status, "current": progress.current, "total": progress.total,
            "message": progress.message,
        }}),
        Payload::Result(result) => json!({"result": {
            "image_id": result.image_id, "manifest_digest": result.manifest_digest, "names": result.names,
            "executed": result.executed, "cached": result.cached,
        }}),
    }
}
