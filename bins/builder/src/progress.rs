//! Shows a build: `#3 [2/4] RUN make`, its output, how it ended.

use api::builder::v1 as pb;
use console::progress::{Mode, Renderer, Update};
use pb::build_response::Payload;
use serde_json::json;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};

use crate::args::Progress;

/// Lines of a failed step's output that are shown again.
const TAIL: usize = 20;

/// Prints to standard error.
pub struct Screen {
    how: Progress,
    quiet: bool,
    bars: Renderer,
    steps: HashMap<String, Step>,
}

struct Step {
    number: usize,
    name: String,
    started: i64,
    /// An unfinished line of output.
    line: Vec<u8>,
    tail: VecDeque<String>,
}

impl Screen {
    /// A screen for one build.
    pub fn new(how: Progress, quiet: bool) -> Self {
        let how = match how {
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Tty,
            Progress::Auto => Progress::Plain,
            other => other,
        };
        let mode = match how {
            _ if quiet => Mode::None,
            Progress::Tty => Mode::Tty,
            Progress::Json => Mode::Json,
            _ => Mode::Plain,
        };
        Self { how, quiet, bars: Renderer::new(mode), steps: HashMap::new() }
    }

    /// Shows one message.
    pub fn show(&mut self, message: &pb::BuildResponse) {
        if self.how == Progress::Json && !self.quiet {
            return json_line(message);
        }
        match &message.payload {
            Some(Payload::Vertex(update)) => self.vertex(update),
            Some(Payload::Log(log)) => self.log(log),
            Some(Payload::Progress(progress)) => self.bars.update(&Update {
                id: &progress.id,
                status: &progress.status,
                current: u64::try_from(progress.current).unwrap_or(0),
                total: u64::try_from(progress.total).unwrap_or(0),
                message: &progress.message,
            }),
            _ => {}
        }
    }

    /// Shows a warning.
    pub fn warn(&self, text: &str) {
        if !self.quiet && self.how != Progress::Json {
            self.print(&format!("warning: {text}"));
        }
    }

    fn step(&mut self, digest: &str) -> &mut Step {
        let number = self.steps.len() + 1;
        self.steps.entry(digest.to_owned()).or_insert_with(|| Step {
            number,
            name: String::new(),
            started: 0,
            line: Vec::new(),
            tail: VecDeque::new(),
        })
    }

    fn vertex(&mut self, update: &pb::VertexUpdate) {
        let step = self.step(&update.digest);
        let new = step.name.is_empty();
        step.name.clone_from(&update.name);
        if update.started_unix_nano > 0 {
            step.started = update.started_unix_nano;
        }
        let (number, name) = (step.number, step.name.clone());
        let seconds = seconds(update.completed_unix_nano - step.started);
        let word = match update.status() {
            pb::VertexStatus::Started | pb::VertexStatus::Unspecified => String::new(),
            pb::VertexStatus::Done => format!("DONE {seconds}"),
            pb::VertexStatus::Cached => "CACHED".into(),
            pb::VertexStatus::Failed => format!("ERROR: {}", update.error),
            pb::VertexStatus::Canceled => "CANCELED".into(),
        };
        if self.how == Progress::Tty {
            return self.bar(number, &name, &word);
        }
        if new {
            self.print(&format!("#{number} {name}"));
        }
        if !word.is_empty() {
            self.flush(&update.digest);
            self.print(&format!("#{number} {word}"));
        }
        if update.status() == pb::VertexStatus::Failed {
            self.failed(&update.digest);
        }
    }

    fn bar(&mut self, number: usize, name: &str, word: &str) {
        let status = match word {
            "" => "running",
            "CACHED" => "cached",
            "CANCELED" => "canceled",
            _ if word.starts_with("ERROR") => "failed",
            _ => "done",
        };
        let id = format!("#{number}");
        self.bars.update(&Update { id: &id, status, current: 0, total: 0, message: name });
        if status == "failed" {
            let digest = self.steps.iter().find(|(_, step)| step.number == number).map(|(digest, _)| digest.clone());
            self.failed(&digest.unwrap_or_default());
        }
    }

    fn log(&mut self, log: &pb::VertexLog) {
        let step = self.step(&log.digest);
        step.line.extend_from_slice(&log.data);
        let Some(end) = step.line.iter().rposition(|byte| *byte == b'\n') else { return };
        let rest = step.line.split_off(end + 1);
        let lines = std::mem::replace(&mut step.line, rest);
        self.lines(&log.digest, &lines);
    }

    fn flush(&mut self, digest: &str) {
        let line = std::mem::take(&mut self.step(digest).line);
        if !line.is_empty() {
            self.lines(digest, &line);
        }
    }

    fn lines(&mut self, digest: &str, bytes: &[u8]) {
        let (how, step) = (self.how, self.step(digest));
        let number = step.number;
        let since = seconds(now() - step.started);
        let text = String::from_utf8_lossy(bytes).into_owned();
        for line in text.lines() {
            step.tail.push_back(line.to_owned());
            if step.tail.len() > TAIL {
                step.tail.pop_front();
            }
        }
        if how == Progress::Plain {
            for line in text.lines() {
                self.print(&format!("#{number} {since} {line}"));
            }
        }
    }

    /// Where its output was not shown while it ran, shows the end of it.
    fn failed(&mut self, digest: &str) {
        self.flush(digest);
        let shown = self.how == Progress::Plain && !self.quiet;
        let step = self.step(digest);
        let (name, tail) = (step.name.clone(), std::mem::take(&mut step.tail));
        if shown || tail.is_empty() {
            return;
        }
        let mut text = format!("------\n > {name}:\n");
        for line in tail {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str("------");
        match self.quiet {
            true => eprintln!("{text}"),
            false => self.bars.line(&text),
        }
    }

    fn print(&self, text: &str) {
        if !self.quiet {
            self.bars.line(text);
        }
    }
}

fn seconds(nanos: i64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let seconds = nanos.max(0) as f64 / 1e9;
    format!("{seconds:.1}s")
}

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos())).unwrap_or(i64::MAX)
}

fn json_line(message: &pb::BuildResponse) {
    let value = match &message.payload {
        Some(Payload::Vertex(update)) => json!({"vertex": {
            "digest": update.digest, "name": update.name, "inputs": update.inputs,
            "status": update.status().as_str_name().trim_start_matches("VERTEX_STATUS_").to_ascii_lowercase(),
            "error": update.error, "started_unix_nano": update.started_unix_nano,
            "completed_unix_nano": update.completed_unix_nano,
        }}),
        Some(Payload::Log(log)) => json!({"log": {
            "digest": log.digest, "stream": log.stream, "data": String::from_utf8_lossy(&log.data),
        }}),
        Some(Payload::Progress(progress)) => json!({"progress": {
            "id": progress.id, "status": progress.status, "current": progress.current, "total": progress.total,
            "message": progress.message,
        }}),
        _ => return,
    };
    // Nobody reads: the build goes on.
    drop(writeln!(std::io::stderr(), "{value}"));
}
