//! `checkpoint`: a container's processes, written to a directory by CRIU. What to ask for is [`plan`]ned as a pure
//! function; here it is gathered and carried out.

mod plan;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::criu::message::{Features, Kind, Request};
use crate::criu::session::{Notice, Session};
use crate::criu::{self, DESCRIPTORS, Directories, Policy};
use crate::error::Context;
use crate::harden::namespace;
use crate::state::{Container, Status, Store};
use crate::{Error, Result};

/// CRIU's log in the work directory (containerd reads it there).
const LOG: &str = "dump.log";
/// More descriptors than that are not described.
const MAX_DESCRIPTORS: usize = 1024;

/// What `checkpoint` takes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The directory for the image; made if it is not there.
    pub image_path: PathBuf,
    /// The directory for the log and other working files; the image's if absent.
    pub work_path: Option<PathBuf>,
    /// An earlier pre-dump, relative to the image directory.
    pub parent_path: Option<PathBuf>,
    /// What restore has to be told, too.
    pub policy: Policy,
    /// The container goes on afterwards.
    pub leave_running: bool,
    /// Only the memory; the container goes on.
    pub pre_dump: bool,
    /// Connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Deleted files that are open may be given a name again.
    pub link_remap: bool,
    /// Gets a zero byte when pages can be fetched (with lazy pages).
    pub status_fd: Option<i32>,
    /// Where pages are sent to, or with lazy pages fetched from: address and port.
    pub page_server: Option<(String, u16)>,
    /// The CRIU to run; the one in PATH if absent.
    pub criu: Option<PathBuf>,
}

/// Parses `--page-server ADDRESS:PORT`; an IPv6 address is in brackets.
///
/// # Errors
/// [`Error::Argument`].
pub fn parse_page_server(text: &str) -> Result<(String, u16)> {
    let usage = || Error::Argument("use --page-server ADDRESS:PORT to specify page server".into());
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let port = port.parse().map_err(|_| Error::Argument(format!("invalid port number {port:?}")))?;
    Ok((address.to_owned(), port))
}

/// Writes a container to disk. Without `leave_running` or `pre_dump` it is gone afterwards. Returns warnings.
///
/// # Errors
/// [`Error::Criu`] with what CRIU said: the container goes on running then. Others before anything was done.
pub fn checkpoint(store: &Store, id: &str, options: &Options) -> Result<Vec<String>> {
    let container = store.load(id)?;
    match container.status {
        Status::Running | Status::Paused => {}
        other => {
            return Err(Error::Argument(format!("container cannot be checkpointed in {} state", other.as_str())));
        }
    }
    let config = container.config()?;
    let program = criu::program(options.criu.as_deref())?;
    criu::check_version(&program)?;
    let directories = Directories::make(&options.image_path, options.work_path.as_deref(), LOG)?;
    check_parent(options)?;
    let mut status = options.status_fd.map(status_writer).transpose()?;
    if options.pre_dump {
        criu::check_features(&program, Features { mem_track: Some(true), ..Features::default() })?;
    }
    if options.policy.lazy_pages {
        criu::check_features(&program, Features { lazy_pages: Some(true), ..Features::default() })?;
    }
    let facts = gather(&container, &config)?;
    if !options.pre_dump {
        describe_descriptors(facts.pid, &options.image_path)?;
    }
    let mut opts = plan::opts(options, &config, &facts);
    opts.log_file = directories.log_file();
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let session = Session::spawn(&program, &[], Some(&directories), criu::quiet)?;
    session.fill(&mut opts);
    let request = Request { kind: kind as i32, opts: Some(opts), ..Request::default() };
    session.ask(&request, &mut |notice| ready(&notice, &mut status)).map_err(|e| directories.explain(e))?;
    if options.leave_running || options.pre_dump {
        return Ok(vec![]);
    }
    // CRIU has killed it; the force waits for the end of what it killed.
    crate::delete::delete(store, id, true)
}

fn check_parent(options: &Options) -> Result<()> {
    let Some(parent) = &options.parent_path else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::Argument("--parent-path must be relative".into()));
    }
    let real = options.image_path.join(parent);
    if real.is_dir() {
        return Ok(());
    }
    Err(Error::Argument(format!("invalid --parent-path: {} is not a directory", real.display())))
}

/// What the plan needs to know of the running container.
fn gather(container: &Container, config: &Spec) -> Result<plan::Facts> {
    let record = &container.record;
    let init = container.init()?;
    // Checked once more: everything below is read from this pid.
    let gone = || Error::NotRunning { id: record.id.clone(), status: "stopped" };
    let _pidfd = init.open().map_err(|_| gone())?;
    let mut external = vec![];
    for kind in [LinuxNamespaceType::Network, LinuxNamespaceType::Pid] {
        if let Some(Some(path)) = namespace(config, kind) {
            use std::os::unix::fs::MetadataExt;
            let inode = fs::metadata(&path).step(|| format!("cannot stat namespace {}", path.display()))?.ino();
            external.push((kind, inode));
        }
    }
    Ok(plan::Facts {
        pid: init.pid,
        rootfs: record.rootfs.clone(),
        freezer: record.cgroup.with("freezer").map(|dir| dir.path.clone()),
        outside: criu::mounts::outside(config, record, &|p| criu::mounts::locate(&record.rootfs, p)),
        masked_files: masked_files(config, init.pid),
        external,
    })
}

/// Masked paths that are files, and therefore covered by the host's `/dev/null`. Directories have a tmpfs of their own.
fn masked_files(config: &Spec, pid: i32) -> Vec<PathBuf> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let paths = config.linux().as_ref().and_then(|l| l.masked_paths().as_deref()).unwrap_or(&[]);
    let Ok(root) = pathrs::Root::open(&root) else { return vec![] };
    let is_file = |path: &&String| {
        let fd = root.resolve(path.as_str()).map(std::os::fd::OwnedFd::from);
        fd.is_ok_and(|fd| File::from(fd).metadata().is_ok_and(|m| !m.is_dir()))
    };
    paths.iter().filter(is_file).map(PathBuf::from).collect()
}

/// Writes what init's first descriptors are, so that restore can put its own pipes in their place.
fn describe_descriptors(pid: i32, images: &Path) -> Result<()> {
    let link = |n: usize| fs::read_link(format!("/proc/{pid}/fd/{n}")).ok();
    let mut names: Vec<String> =
        (0..3).map(|n| link(n).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()).collect();
    names.extend((3..MAX_DESCRIPTORS).map_while(link).map(|p| p.to_string_lossy().into_owned()));
    let path = images.join(DESCRIPTORS);
    let bytes = serde_json::to_vec(&names).map_err(std::io::Error::from);
    bytes.and_then(|bytes| fs::write(&path, bytes)).step(|| format!("cannot write {}", path.display()))
}

/// Takes over the caller's descriptor, which must be writable.
fn status_writer(raw: i32) -> Result<File> {
    let failed = || format!("invalid --status-fd argument {raw}");
    let file = File::from(sys::clone::adopt_fd(raw).step(failed)?);
    let flags = rustix::fs::fcntl_getfl(&file).step(failed)?;
    if !flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR) {
        return Err(Error::Argument(format!("{}: not writable", failed())));
    }
    Ok(file)
}

/// Tells the waiting side that pages can be fetched; it sees the end of file then, too.
fn ready(notice: &Notice, status: &mut Option<File>) -> Result<()> {
    if notice.script == "status-ready"
        && let Some(mut file) = status.take()
    {
        let _ = file.write_all(&[0]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn page_servers() {
        assert_eq!(parse_page_server("127.0.0.1:27").unwrap(), ("127.0.0.1".into(), 27));
        assert_eq!(parse_page_server("[::1]:27").unwrap(), ("::1".into(), 27));
        for bad in ["", "host", ":1", "host:", "host:x", "host:70000"] {
            assert!(parse_page_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parents_are_relative_directories() {
        let with = |parent: &str| {
            check_parent(&Options {
                image_path: std::env::temp_dir(),
                parent_path: Some(parent.into()),
                ..Options::default()
            })
        };
        assert!(with(".").is_ok());
        assert!(with("/tmp").unwrap_err().to_string().contains("must be relative"));
        assert!(with("no-such-parent").unwrap_err().to_string().contains("--parent-path"));
    }
}
