//! The table of commands and flags: runc's, as far as they exist here.

use crate::args::{Flag, Verb};
use crate::migrate;

pub const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, value: None, help }
}
pub const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, value: Some(value), help }
}
const fn short(c: char, mut flag: Flag) -> Flag {
    flag.short = Some(c);
    flag
}
const fn verb(name: &'static str, operands: &'static str, help: &'static str, flags: &'static [Flag]) -> Verb {
    Verb { name, operands, help, flags, stops_at_id: false, hidden: false }
}
const fn stopping(mut verb: Verb) -> Verb {
    verb.stops_at_id = true;
    verb
}
const fn hidden(mut verb: Verb) -> Verb {
    verb.hidden = true;
    verb
}

pub const BUNDLE: Flag = short('b', value("bundle", "DIR", "the bundle directory (default: the current one)"));
pub const CONSOLE: Flag = value("console-socket", "PATH", "unix socket that receives the master of the pseudoterminal");
const PIDFD: Flag = value("pidfd-socket", "PATH", "unix socket that receives a pidfd of the process");
pub const PID_FILE: Flag = value("pid-file", "FILE", "file to write the process id to");
pub const NO_PIVOT: Flag = switch("no-pivot", "do not use pivot_root (for a root on a ramdisk)");
const NO_KEYRING: Flag = switch("no-new-keyring", "keep the caller's session keyring");
pub const PRESERVE: Flag = value("preserve-fds", "N", "pass N more descriptors, from 3 on");
pub const DETACH: Flag = short('d', switch("detach", "return once the process runs"));
pub const NO_SUBREAPER: Flag = switch("no-subreaper", "do not adopt orphans of the container");
const FORCE: Flag = short('f', switch("force", "kill it first, and ignore an unknown id"));

/// Flags before the command.
pub const GLOBALS: &[Flag] = &[
    value("root", "DIR", "where the state of containers is kept"),
    value("run", "DIR", "Pier's run directory; the state is in DIR/runtime, the socket DIR/runtime.sock"),
    value("log", "FILE", "file to append errors to, besides stderr"),
    value("log-format", "FORMAT", "text or json"),
    value("log-level", "LEVEL", "accepted for the sake of its siblings"),
    value("error-format", "FORMAT", "accepted for the sake of its siblings"),
    switch("debug", "log more"),
    switch("systemd-cgroup", "let systemd make the cgroups; cgroupsPath is slice:prefix:name"),
    value("rootless", "BOOL", "true, false or auto (accepted: it is found out)"),
    value("cgroup-manager", "NAME", "cgroupfs, systemd or disabled"),
    value("criu", "PATH", "the CRIU to run (default: the one in PATH)"),
    short('v', switch("version", "print the version")),
];

const UPDATE: &[Flag] = &[
    short(
        'r',
        value("resources", "FILE", "LinuxResources in JSON, or - for standard input; then no other flag counts"),
    ),
    value("blkio-weight", "N", "weight of block I/O, 10 to 1000"),
    value("cpu-period", "USEC", "period of the CPU limit"),
    value("cpu-quota", "USEC", "CPU time in a period; -1 for no limit"),
    value("cpu-burst", "USEC", "unused CPU time that may be saved up"),
    value("cpu-share", "N", "CPU weight against others, 2 to 262144"),
    value("cpu-rt-period", "USEC", "period of the real-time limit"),
    value("cpu-rt-runtime", "USEC", "real-time CPU time in a period"),
    value("cpuset-cpus", "LIST", "CPUs to run on"),
    value("cpuset-mems", "LIST", "memory nodes to use"),
    value("cpu-idle", "N", "1: run only when nothing else does"),
    value("memory", "BYTES", "memory limit; -1 for none"),
    value("memory-reservation", "BYTES", "soft memory limit"),
    value("memory-swap", "BYTES", "limit of memory and swap together; -1 for none"),
    value("kernel-memory", "BYTES", "ignored"),
    value("kernel-memory-tcp", "BYTES", "ignored"),
    value("pids-limit", "N", "most processes; -1 for no limit"),
    value("l3-cache-schema", "SCHEMA", "Intel RDT: L3 cache"),
    value("mem-bw-schema", "SCHEMA", "Intel RDT: memory bandwidth"),
];

/// All commands.
pub const VERBS: &[Verb] = &[
    verb(
        "create",
        "ID",
        "set a container up and park its process",
        &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
    ),
    verb("start", "ID", "let a created container run", &[]),
    verb(
        "run",
        "ID",
        "create and start in one",
        &[
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
            DETACH,
            switch("keep", "keep the state after the end"),
            NO_SUBREAPER,
        ],
    ),
    stopping(verb(
        "exec",
        "ID COMMAND [ARG...]",
        "run one more process in a container",
        &[
            short('p', value("process", "FILE", "process.json instead of a command")),
            short('t', switch("tty", "give it a terminal")),
            short('u', value("user", "UID[:GID]", "user and group")),
            short('g', value("additional-gids", "GID", "one more group; repeatable")),
            value("cwd", "DIR", "working directory"),
            short('e', value("env", "NAME=VALUE", "one more variable; repeatable")),
            short('c', value("cap", "CAP", "one more capability; repeatable")),
            switch("no-new-privs", "forbid gaining privileges"),
            value("apparmor", "PROFILE", "AppArmor profile"),
            value("process-label", "LABEL", "SELinux label (not enforced)"),
            value("cgroup", "PATH", "sub-cgroup, as [CONTROLLER,..:]PATH; repeatable"),
            switch("ignore-paused", "allow a paused container"),
            DETACH,
            PID_FILE,
            CONSOLE,
            PIDFD,
            PRESERVE,
        ],
    )),
    stopping(verb(
        "kill",
        "ID [SIGNAL]",
        "send a signal (default TERM)",
        &[short('a', switch("all", "to all processes"))],
    )),
    verb("delete", "ID", "remove a stopped container", &[FORCE]),
    verb("state", "ID", "print a container's state", &[]),
    verb(
        "list",
        "",
        "list containers",
        &[short('f', value("format", "FORMAT", "table or json")), short('q', switch("quiet", "ids only"))],
    ),
    stopping(verb(
        "ps",
        "ID [PS OPTION...]",
        "list processes of a container",
        &[short('f', value("format", "FORMAT", "table or json"))],
    )),
    verb("checkpoint", "ID", "write a container's processes to disk (CRIU)", migrate::CHECKPOINT),
    verb("restore", "ID", "make a container from what checkpoint wrote", migrate::RESTORE),
    verb("pause", "ID", "freeze a container", &[]),
    verb("resume", "ID", "thaw a container", &[]),
    verb("update", "ID", "change the limits of a container", UPDATE),
    verb(
        "events",
        "ID",
        "print what a container uses, and when it runs out of memory",
        &[
            switch("stats", "print one reading and exit"),
            value("interval", "DURATION", "between readings (default 5s)"),
        ],
    ),
    verb("spec", "", "write a config.json to begin with", &[BUNDLE, switch("rootless", "for an unprivileged user")]),
    verb("features", "", "print what this runtime can do", &[]),
    verb(
        "serve",
        "",
        "offer pier.runtime.v1 on a socket",
        // Those of `rpc::Door`, which reads them.
        &[
            value("listen", "ADDRESS", "unix://PATH, fd:// or tcp://ADDRESS:PORT"),
            value("group", "GROUP", "group that may call too"),
            value("tls-cert", "FILE", "certificate chain of the server, for TCP"),
            value("tls-key", "FILE", "its private key"),
            value("tls-ca", "FILE", "authority of the callers' certificates"),
        ],
    ),
    hidden(verb("completion", "SHELL", "print a completion script", &[])),
    hidden(verb("man", "DIR", "write manual pages", &[])),
];
