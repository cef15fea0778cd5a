//! The instructions of a Dockerfile as values.

use super::lex::Heredoc;

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(String),
    /// A JSON array: the arguments as they are.
    Exec(Vec<String>),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// The paths to copy, without here-documents.
    pub sources: Vec<String>,
    /// Files written in the Dockerfile itself.
    pub inline: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
    /// Stage name or number, named context or image.
    pub from: Option<String>,
    /// `user[:group]`.
    pub chown: Option<String>,
    /// Octal digits.
    pub chmod: Option<String>,
    /// Patterns of what is not copied.
    pub exclude: Vec<String>,
}

/// `--mount` of RUN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunMount {
    /// What kind.
    pub kind: RunMountKind,
    /// Where in the container.
    pub target: String,
    /// Path within `from`.
    pub source: String,
    /// Stage, named context or image; empty: the build context (bind), nothing (cache).
    pub from: String,
    /// Cache or secret id.
    pub id: String,
    /// Cache: `shared`, `private`, `locked`.
    pub sharing: String,
    /// Cannot be written.
    pub readonly: bool,
    /// Secret: absent is an error.
    pub required: bool,
    /// Secret: also as this environment variable.
    pub env: Option<String>,
    /// Tmpfs: bytes.
    pub size: i64,
    /// Owner of a secret or a new cache.
    pub uid: u32,
    /// Group of a secret or a new cache.
    pub gid: u32,
    /// Permissions of a secret or a new cache.
    pub mode: Option<u32>,
}

/// Kinds of `--mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunMountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that survives builds and is part of no layer.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file or variable that is in no layer.
    Secret,
}

/// `--network` of RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// What the build was asked for.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Loopback only.
    None,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// Here-documents of the shell form.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` in order.
    pub mounts: Vec<RunMount>,
    /// `--network`.
    pub network: RunNetwork,
}

/// `HEALTHCHECK`; durations in nanoseconds, 0 for the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// None: `HEALTHCHECK NONE`.
    pub command: Option<Command>,
    /// Between two checks.
    pub interval: i64,
    /// For one check.
    pub timeout: i64,
    /// In which failures do not count.
    pub start_period: i64,
    /// Between checks in the start period.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i64,
}

/// One instruction, arguments not expanded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Copy),
    /// `ARG name[=default] …`
    Arg(Vec<(String, Option<String>)>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`: key and value words, quotes still in.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: the whole text, split after expansion.
    Expose(String),
    /// `FROM image [AS name]`
    From {
        /// Image, stage or `scratch`.
        image: String,
        /// Name of the stage, lower case.
        name: Option<String>,
        /// `--platform`.
        platform: Option<String>,
    },
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD` with the instruction's text.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// First physical line, from 1.
    pub line: usize,
    /// Last physical line.
    pub end: usize,
    /// As written, joined to one line: what people see in the progress.
    pub text: String,
    /// The instruction.
    pub instruction: Instruction,
}
