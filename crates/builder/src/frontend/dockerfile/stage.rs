//! A stage while it is lowered: its filesystem so far, its environment, its image configuration.

use bollard_buildkit_proto::pb;
use oci::ImageConfig;
use oci::image::History;

use super::diagnostic::Problem;
use super::expand::Expander;
use super::lower::HistoryEntry;
use crate::llb::Edge;

/// State after some instructions.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The filesystem; none: empty.
    pub(super) root: Option<Edge>,
    /// What the image will say.
    pub(super) config: ImageConfig,
    /// Build arguments that are declared, in order.
    pub(super) args: Vec<(String, String)>,
    /// The filesystem that the history of the base image describes.
    pub(super) base: Option<Edge>,
    /// History of the base image.
    pub(super) base_history: Vec<History>,
    /// History of our own instructions.
    pub(super) history: Vec<HistoryEntry>,
    /// CMD was given in this stage, so ENTRYPOINT leaves it alone.
    pub(super) own_cmd: bool,
    /// The base as `pb.Platform`.
    pub(super) platform: pb::Platform,
    /// Escape character of the file.
    pub(super) escape: char,
    /// Names that had no value.
    pub(super) undefined: Vec<String>,
}

impl State {
    /// Value of an environment variable of the image or, failing that, of a build argument.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let env = self.config.config.env.iter().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then(|| value.to_owned())
        });
        env.or_else(|| self.args.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    }

    /// Expands one word.
    pub(super) fn word(&mut self, text: &str) -> Result<String, Problem> {
        self.expanding(|expander| expander.word(text))
    }

    /// Expands to words.
    pub(super) fn words(&mut self, text: &str) -> Result<Vec<String>, Problem> {
        self.expanding(|expander| expander.words(text))
    }

    /// Expands the body of a here-document.
    pub(super) fn document(&mut self, text: &str) -> Result<String, Problem> {
        self.expanding(|expander| expander.document(text))
    }

    fn expanding<T>(&mut self, with: impl FnOnce(&Expander<'_>) -> Result<T, Problem>) -> Result<T, Problem> {
        let lookup = |name: &str| self.variable(name);
        let expander = Expander::new(self.escape, &lookup);
        let result = with(&expander);
        let undefined = expander.undefined();
        self.undefined.extend(undefined);
        result
    }

    /// Sets a variable of the image.
    pub(super) fn set_env(&mut self, key: &str, value: &str) {
        let prefix = format!("{key}=");
        let entry = format!("{prefix}{value}");
        match self.config.config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
            Some(known) => *known = entry,
            None => self.config.config.env.push(entry),
        }
    }

    /// Declares a build argument.
    pub(super) fn set_arg(&mut self, key: &str, value: &str) {
        self.args.retain(|(known, _)| known != key);
        self.args.push((key.to_owned(), value.to_owned()));
    }

    /// The environment of RUN: the image's, build arguments it does not hide, and a PATH.
    pub(super) fn run_env(&self, more: &[(String, String)]) -> Vec<String> {
        let mut env = self.config.config.env.clone();
        for (key, value) in self.args.iter().chain(more) {
            let prefix = format!("{key}=");
            if !env.iter().any(|entry| entry.starts_with(&prefix)) {
                env.push(format!("{prefix}{value}"));
            }
        }
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.insert(0, oci::runtime::DEFAULT_PATH.to_owned());
        }
        env
    }

    /// The shell of shell forms.
    pub(super) fn shell(&self) -> Vec<String> {
        match self.config.config.shell.as_slice() {
            [] => vec!["/bin/sh".into(), "-c".into()],
            shell => shell.to_vec(),
        }
    }

    /// A path made absolute by WORKDIR; a slash at its end stays.
    pub(super) fn absolute(&self, path: &str) -> String {
        let directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.workdir()) };
        let clean = crate::fs::ignore::clean(&joined);
        if directory && clean != "/" { format!("{clean}/") } else { clean }
    }

    /// WORKDIR, "/" when not set.
    pub(super) fn workdir(&self) -> &str {
        if self.config.config.working_dir.is_empty() { "/" } else { &self.config.config.working_dir }
    }

    /// Adds a line of history; `vertex` is what may have made a layer.
    pub(super) fn note(&mut self, created_by: impl Into<String>, vertex: Option<&Edge>) {
        self.history
            .push(HistoryEntry { created_by: created_by.into(), vertex: vertex.map(|edge| edge.digest.clone()) });
    }
}
