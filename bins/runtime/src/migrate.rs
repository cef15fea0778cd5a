//! `checkpoint` and `restore`: flags to the library's options. runc's, flag for flag.

use std::path::PathBuf;

use runtime::checkpoint::{self, parse_page_server};
use runtime::criu::{CgroupsMode, Policy, check_empty_ns};
use runtime::{Error, create, restore};

use crate::args::{Flag, Values};
use crate::verbs::{BUNDLE, CONSOLE, DETACH, NO_PIVOT, NO_SUBREAPER, PID_FILE, PRESERVE, switch, value};

const IMAGE: Flag = value("image-path", "DIR", "the directory of the image (default: ./checkpoint)");
const WORK: Flag = value("work-path", "DIR", "the directory for the log and working files (default: the image's)");
const TCP: Flag = switch("tcp-established", "keep established TCP connections");
const UNIX: Flag = switch("ext-unix-sk", "allow unix sockets that lead outside");
const SHELL: Flag = switch("shell-job", "allow a container that shares the caller's terminal");
const LAZY: Flag = switch("lazy-pages", "move memory when it is touched (userfaultfd)");
const LOCKS: Flag = switch("file-locks", "keep file locks");
const CGROUPS: Flag = value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore (default: soft)");
const EMPTY: Flag = value("empty-ns", "NAMESPACE", "make it, but empty: network (which always is); repeatable");
const DEDUP: Flag = switch("auto-dedup", "deduplicate memory images");

/// Flags of `checkpoint`.
pub const CHECKPOINT: &[Flag] = &[
    IMAGE,
    WORK,
    value("parent-path", "DIR", "an earlier pre-dump, relative to the image"),
    switch("leave-running", "the container goes on afterwards"),
    TCP,
    switch("tcp-skip-in-flight", "leave out connections that are being made"),
    switch("link-remap", "give deleted files that are open a name again"),
    UNIX,
    SHELL,
    LAZY,
    value("status-fd", "FD", "descriptor that gets a zero byte when lazy pages can be fetched"),
    value("page-server", "ADDRESS:PORT", "where memory pages are sent to"),
    LOCKS,
    switch("pre-dump", "only the memory; the container goes on"),
    CGROUPS,
    EMPTY,
    DEDUP,
];

/// Flags of `restore`.
pub const RESTORE: &[Flag] = &[
    BUNDLE,
    CONSOLE,
    PID_FILE,
    NO_PIVOT,
    PRESERVE,
    DETACH,
    NO_SUBREAPER,
    IMAGE,
    WORK,
    TCP,
    UNIX,
    SHELL,
    LAZY,
    LOCKS,
    CGROUPS,
    EMPTY,
    DEDUP,
    value("lsm-profile", "TYPE:NAME", "an LSM profile instead of the one of the image"),
    value("lsm-mount-context", "CONTEXT", "an LSM mount context instead of the one of the image"),
];

/// Options of `checkpoint`.
pub fn checkpoint(flags: &Values, globals: &Values) -> Result<checkpoint::Options, Error> {
    let status_fd = flags
        .last("status-fd")
        .filter(|n| *n != "-1")
        .map(|text| text.parse().map_err(|_| Error::Argument(format!("--status-fd: {text:?} is not a number"))));
    Ok(checkpoint::Options {
        image_path: image_path(flags)?,
        work_path: flags.path("work-path"),
        parent_path: flags.path("parent-path"),
        policy: policy(flags)?,
        leave_running: flags.on("leave-running"),
        pre_dump: flags.on("pre-dump"),
        tcp_skip_in_flight: flags.on("tcp-skip-in-flight"),
        link_remap: flags.on("link-remap"),
        status_fd: status_fd.transpose()?,
        page_server: flags.last("page-server").filter(|t| !t.is_empty()).map(parse_page_server).transpose()?,
        criu: globals.path("criu"),
    })
}

/// Options of `restore`.
pub fn restore(flags: &Values, globals: &Values, setup: create::Options) -> Result<restore::Options, Error> {
    let text = |name: &str| flags.last(name).filter(|v| !v.is_empty()).map(str::to_owned);
    Ok(restore::Options {
        preserve_fds: setup.preserve_fds,
        setup,
        detach: flags.on("detach"),
        no_subreaper: flags.on("no-subreaper"),
        image_path: image_path(flags)?,
        work_path: flags.path("work-path"),
        policy: policy(flags)?,
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
        criu: globals.path("criu"),
    })
}

fn policy(flags: &Values) -> Result<Policy, Error> {
    check_empty_ns(&flags.all("empty-ns"))?;
    Ok(Policy {
        tcp_established: flags.on("tcp-established"),
        ext_unix_sk: flags.on("ext-unix-sk"),
        shell_job: flags.on("shell-job"),
        file_locks: flags.on("file-locks"),
        lazy_pages: flags.on("lazy-pages"),
        auto_dedup: flags.on("auto-dedup"),
        cgroups: CgroupsMode::parse(flags.last("manage-cgroups-mode").unwrap_or_default())?,
    })
}

fn image_path(flags: &Values) -> Result<PathBuf, Error> {
    let path = flags.path("image-path").unwrap_or_else(|| PathBuf::from("checkpoint"));
    std::path::absolute(&path).map_err(|e| Error::Argument(format!("--image-path {}: {e}", path.display())))
}
