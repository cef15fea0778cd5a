//! Who is on the other end of a unix socket (SO_PEERCRED, unix(7)).
use tonic::transport::server::UdsConnectInfo;

/// Credentials of the process that connected, as the kernel recorded them then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; may be another process by now.
    pub pid: Option<i32>,
}

impl Peer {
    /// From a request's extensions; `None` over TCP.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        Self::from_info(request.extensions().get::<UdsConnectInfo>()?)
    }

    pub(crate) fn from_info(info: &UdsConnectInfo) -> Option<Self> {
        let cred = info.peer_cred?;
        Some(Self { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() })
    }

    /// Root, the server's own user, or a process of the socket's group.
    pub(crate) fn allowed(self, group: Option<u32>) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.uid == 0 || self.uid == own || group.is_some_and(|g| self.gid == g || in_group(self.pid, g))
    }
}

/// Supplementary groups are not in SO_PEERCRED; /proc has them (proc_pid_status(5)).
fn in_group(pid: Option<i32>, group: u32) -> bool {
    let Some(pid) = pid else { return false };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("Groups:"))
        .is_some_and(|g| g.split_whitespace().any(|word| word == group.to_string()))
}

/// False when the process that listens on the other end is dead but for its last threads: such a socket still takes
/// connections for a moment, and resets them. A listener that cannot be seen (another pid namespace) counts as alive.
pub(crate) fn listener_lives(socket: &impl std::os::fd::AsFd) -> bool {
    let Ok(cred) = rustix::net::sockopt::socket_peercred(socket) else { return true };
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", cred.pid.as_raw_nonzero())) else { return true };
    // proc_pid_stat(5): the state follows the command in parentheses.
    !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}
