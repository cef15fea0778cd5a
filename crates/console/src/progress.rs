//! Progress of long verbs on stderr: bars on a terminal, plain lines otherwise, JSON lines when asked.
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// Bars.
    Tty,
    /// A line for each change of status.
    Plain,
    /// A JSON object a line.
    Json,
    /// Nothing.
    None,
}

/// One update; the fields of `pier.types.v1.Progress`.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Update<'a> {
    /// What the line is about.
    pub id: &'a str,
    /// What is being done.
    pub status: &'a str,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, 0 when unknown.
    pub total: u64,
    /// Free text.
    pub message: &'a str,
}

/// Shows updates until dropped.
pub struct Renderer {
    mode: Mode,
    bars: MultiProgress,
    lines: HashMap<String, (ProgressBar, String)>,
    last: HashMap<String, String>,
}

impl Renderer {
    /// `Auto` looks at stderr once, now.
    pub fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if std::io::stderr().is_terminal() => Mode::Tty,
            Mode::Auto => Mode::Plain,
            other => other,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { mode, bars, lines: HashMap::new(), last: HashMap::new() }
    }

    /// Shows one update.
    pub fn update(&mut self, update: &Update<'_>) {
        match self.mode {
            Mode::Tty => self.bar(update),
            Mode::Plain => self.plain(update),
            Mode::Json => {
                if let Ok(line) = serde_json::to_string(update) {
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
            Mode::Auto | Mode::None => {}
        }
    }

    /// A line of text above the bars.
    pub fn line(&self, text: &str) {
        match self.mode {
            Mode::Tty => self.bars.suspend(|| eprintln!("{text}")),
            Mode::Plain => eprintln!("{text}"),
            _ => {}
        }
    }

    fn plain(&mut self, update: &Update<'_>) {
        let status = format!("{} {}", update.status, update.message);
        if self.last.get(update.id) != Some(&status) {
            let text = [update.id, update.status, update.message];
            let words: Vec<&str> = text.into_iter().filter(|w| !w.is_empty()).collect();
            let _ = writeln!(std::io::stderr(), "{}", words.join(" "));
            self.last.insert(update.id.into(), status);
        }
    }

    fn bar(&mut self, update: &Update<'_>) {
        let bars = &self.bars;
        let (bar, status) = self.lines.entry(update.id.into()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(update.total));
            bar.set_style(style("{prefix:12} {msg}"));
            bar.set_prefix(update.id.to_string());
            (bar, String::new())
        });
        if status != update.status {
            let counted = update.total > 0;
            bar.set_style(style(if counted {
                "{prefix:12} {msg:12} {bar:30} {bytes}/{total_bytes}"
            } else {
                "{prefix:12} {msg}"
            }));
            *status = update.status.to_string();
        }
        bar.set_message(format!("{} {}", update.status, update.message).trim().to_string());
        bar.set_length(update.total);
        bar.set_position(update.current);
        if matches!(update.status, "done" | "exists" | "mounted") {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
