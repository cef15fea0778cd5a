//! CRIU, which does the work of `checkpoint` and `restore`: how it is found, asked and understood.
//!
//! It is run as `criu swrk` (one request, no daemon). What to ask for is decided by pure functions in
//! [`crate::checkpoint`] and [`crate::restore`]; only [`session`] talks to it.

pub(crate) mod log;
pub(crate) mod message;
pub(crate) mod mounts;
pub(crate) mod session;

use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxNamespaceType;

use crate::error::Context;
use crate::{Error, Result};
use message::{Features, Kind, Opts, Request, Response};
use session::Session;

/// File in the image directory that names what the container's first descriptors were: runc's name and form.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";
/// Lowest CRIU that can do what is asked of it here (external pid namespaces): 3.15.
const MIN_VERSION: i32 = 31500;
/// CRIU says what it does: needed for errors that can be read.
const LOG_LEVEL: i32 = 4;

/// What CRIU does about cgroups (`--manage-cgroups-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupsMode {
    /// CRIU's own default, which is soft.
    #[default]
    Default,
    /// Properties of cgroups that CRIU makes are restored.
    Soft,
    /// Properties of all are.
    Full,
    /// As full, and they must not exist.
    Strict,
    /// Processes stay in the cgroup that the runtime chose.
    Ignore,
}

impl CgroupsMode {
    /// The mode of that name; empty is the default.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "" => Self::Default,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            "ignore" => Self::Ignore,
            _ => return Err(Error::Argument(format!("invalid manage-cgroups-mode value {name:?}"))),
        })
    }

    /// CRIU's number (`criu_cg_mode`).
    fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
            Self::Default => 6,
        }
    }
}

/// What checkpoint and restore have to be told alike.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Established TCP connections are kept.
    pub tcp_established: bool,
    /// Unix sockets may lead outside.
    pub ext_unix_sk: bool,
    /// The container may share the caller's terminal and session.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory is moved when it is touched.
    pub lazy_pages: bool,
    /// Memory images are deduplicated.
    pub auto_dedup: bool,
    /// What happens to cgroups.
    pub cgroups: CgroupsMode,
}

impl Policy {
    /// Writes itself into a request. Pure.
    pub(crate) fn fill(&self, opts: &mut Opts) {
        opts.tcp_established = Some(self.tcp_established);
        opts.ext_unix_sk = Some(self.ext_unix_sk);
        opts.shell_job = Some(self.shell_job);
        opts.file_locks = Some(self.file_locks);
        opts.lazy_pages = Some(self.lazy_pages);
        opts.auto_dedup = Some(self.auto_dedup);
        opts.manage_cgroups = Some(true);
        opts.manage_cgroups_mode = Some(self.cgroups.number());
        opts.notify_scripts = Some(true);
        opts.orphan_pts_master = Some(true);
        opts.log_level = Some(LOG_LEVEL);
        // Interfaces and addresses are the business of whoever made the network namespace (as runc).
        opts.empty_ns = Some(libc::CLONE_NEWNET as u32);
    }
}

/// Checks `--empty-ns`: only the network namespace, whose content is never dumped anyway.
///
/// # Errors
/// [`Error::Argument`] naming the namespace.
pub fn check_empty_ns(kinds: &[String]) -> Result<()> {
    match kinds.iter().find(|kind| *kind != "network") {
        Some(other) => Err(Error::Argument(format!("namespace {other:?} is not supported"))),
        None => Ok(()),
    }
}

/// CRIU's name of a kind of namespace.
pub(crate) fn namespace_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    }
}

/// The name under which an external namespace is dumped and given back: runc's.
pub(crate) fn namespace_key(kind: LinuxNamespaceType) -> &'static str {
    if kind == LinuxNamespaceType::Pid { "extRootPidNS" } else { "extRootNetNS" }
}

/// The configuration file CRIU is to read over the request: the annotation `org.criu.config` (empty: none), else runc's.
pub(crate) fn config_file(annotation: Option<&str>) -> Option<String> {
    match annotation {
        Some("") => None,
        Some(path) => Some(path.to_owned()),
        None => Some("/etc/criu/runc.conf".to_owned()),
    }
}

/// Finds CRIU: the given path, or `criu` in PATH.
///
/// # Errors
/// [`Error::Argument`] in the words of a shell.
pub(crate) fn program(given: Option<&Path>) -> Result<PathBuf> {
    let name = given.unwrap_or(Path::new("criu"));
    let runs = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.components().count() > 1 {
        return if runs(name) { Ok(name.to_owned()) } else { Err(missing(name)) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| runs(p)).ok_or_else(|| missing(name))
}

fn missing(name: &Path) -> Error {
    Error::Argument(format!("{}: executable file not found in $PATH", name.display()))
}

/// Asks CRIU for its version and refuses one that is too old.
///
/// # Errors
/// [`Error::Argument`].
pub(crate) fn check_version(program: &Path) -> Result<()> {
    let found = ask(program, &Request { kind: Kind::Version as i32, ..Request::default() })?.version;
    let found = found.map_or(0, |v| v.major * 10_000 + v.minor * 100 + v.sublevel.unwrap_or(0));
    if found < MIN_VERSION {
        return Err(Error::Argument(format!("CRIU version {found} must be {MIN_VERSION} or higher")));
    }
    Ok(())
}

/// Asks whether CRIU and the kernel can do all of `wanted`.
///
/// # Errors
/// [`Error::Argument`] naming what is missing.
pub(crate) fn check_features(program: &Path, wanted: Features) -> Result<()> {
    let request = Request { kind: Kind::FeatureCheck as i32, features: Some(wanted), ..Request::default() };
    let has = ask(program, &request)?.features.unwrap_or_default();
    let lacks = |wanted: Option<bool>, has: Option<bool>| wanted == Some(true) && has != Some(true);
    let missing: Vec<&str> =
        [(lacks(wanted.mem_track, has.mem_track), "MemTrack"), (lacks(wanted.lazy_pages, has.lazy_pages), "LazyPages")]
            .iter()
            .filter_map(|(missing, name)| missing.then_some(*name))
            .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Argument(format!("criu is missing features: {missing:?}")))
}

fn ask(program: &Path, request: &Request) -> Result<Response> {
    Session::spawn(program, &[], None, quiet)?.ask(request, &mut |_| Ok(()))
}

/// Gives a CRIU that restores nothing no streams to write to.
pub(crate) fn quiet() -> std::result::Result<(), String> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|e| e.to_string())?;
    for fd in 0..3 {
        nix::unistd::dup2(null.as_raw_fd(), fd).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Where CRIU reads and writes.
#[derive(Debug)]
pub(crate) struct Directories {
    images: PathBuf,
    work: Option<PathBuf>,
    log: &'static str,
}

impl Directories {
    /// Makes those that are not there; the log will be `log` in the work directory, else beside the images.
    ///
    /// # Errors
    /// [`Error::Step`] naming the directory.
    pub(crate) fn make(images: &Path, work: Option<&Path>, log: &'static str) -> Result<Self> {
        for dir in [Some(images), work].into_iter().flatten() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.step(|| format!("cannot make the directory {}", dir.display()))?;
        }
        Ok(Self { images: images.to_owned(), work: work.map(Path::to_owned), log })
    }

    /// The image's and the work directory.
    pub(crate) fn open(&self) -> std::result::Result<Vec<File>, String> {
        let open = |dir: &PathBuf| File::open(dir).map_err(|e| format!("{}: {e}", dir.display()));
        [Some(&self.images), self.work.as_ref()].into_iter().flatten().map(open).collect()
    }

    /// The name of the log, for a request.
    pub(crate) fn log_file(&self) -> Option<String> {
        Some(self.log.to_owned())
    }

    /// An error of a request with the errors of the log behind it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let path = self.work.as_ref().unwrap_or(&self.images).join(self.log);
        let quoted = log::read(&path);
        let colon = if quoted.is_empty() { "" } else { ": " };
        match error {
            Error::Argument(why) => Error::Criu { reason: format!("{why}{colon}{quoted}"), log: path },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn modes_and_namespaces() {
        assert_eq!(CgroupsMode::parse("ignore").unwrap().number(), 0);
        assert_eq!(CgroupsMode::parse("").unwrap().number(), 6);
        assert!(CgroupsMode::parse("loose").is_err());
        assert!(check_empty_ns(&["network".into()]).is_ok());
        assert!(check_empty_ns(&["pid".into()]).is_err());
    }

    #[test]
    fn configuration_files() {
        assert_eq!(config_file(Some("")), None);
        assert_eq!(config_file(Some("/x")).as_deref(), Some("/x"));
        assert_eq!(config_file(None).as_deref(), Some("/etc/criu/runc.conf"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = program(Some(Path::new("/no/such/criu"))).unwrap_err().to_string();
        assert!(error.contains("/no/such/criu: executable file not found"), "{error}");
        assert!(program(Some(Path::new("/bin/sh"))).is_ok());
    }
}
