//! Notices that somebody else may have changed the rules.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::backend::installed;
use super::nft::probe::{Change, Changes};
use super::{Backend, Firewall, Variant};

/// How often the kernel's own tables are asked whether they changed: nobody is told.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it is asked whether the host's `iptables` is another one: nobody is told.
const LOOK: Duration = Duration::from_millis(900);
/// Each of them may be exchanged alone.
const PROGRAMS: [&str; 4] = ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"];
/// The tables that iptables' rules lie in.
const TABLES: [&str; 4] = ["raw", "nat", "filter", "security"];

/// See [`Watch::wait`].
pub(crate) struct Watch {
    firewall: Firewall,
    /// Absent in a kernel without nf_tables.
    changes: Option<Changes>,
    /// The backend when it was last looked at, and what its programs were.
    seen: (Option<Backend>, Vec<PathBuf>),
    /// Of that: whether its rules lie in the kernel's own tables.
    legacy: bool,
    sizes: Vec<Option<(u32, u32)>>,
}

impl Watch {
    /// Watches from now on.
    ///
    /// # Errors
    /// The kernel's, when it has nf_tables and does not tell of their changes.
    pub(crate) fn of(firewall: &Firewall) -> io::Result<Self> {
        let changes = match Changes::of(firewall.table()) {
            Err(error) if error.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error()) => None,
            changes => Some(changes?),
        };
        Ok(Self { firewall: firewall.clone(), changes, seen: (None, Vec::new()), legacy: false, sizes: Vec::new() })
    }

    /// Waits until somebody may have changed the rules; whether it is certain that they did. May return without cause.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wait(&mut self) -> io::Result<bool> {
        loop {
            let backend = self.firewall.backend().ok();
            if self.is_another(backend) {
                return Ok(true);
            }
            let legacy = self.legacy;
            let patience = if legacy { Some(AGAIN) } else { (!self.seen.1.is_empty()).then_some(LOOK) };
            match &self.changes {
                Some(changes) => match changes.wait(patience)? {
                    Change::OfTheTable => return Ok(true),
                    Change::OfIptables if matches!(backend, Some(Backend::Iptables(_))) => return Ok(false),
                    Change::OfIptables | Change::None => {}
                },
                None => std::thread::sleep(AGAIN),
            }
            if legacy && self.sizes_changed() {
                return Ok(false);
            }
        }
    }

    /// Whether the same backend is other programs than before: its rules have to move.
    fn is_another(&mut self, backend: Option<Backend>) -> bool {
        let follows = backend == Some(Backend::Iptables(Variant::AsInstalled));
        let programs = PROGRAMS.iter().filter(|_| follows).filter_map(|program| installed(program)).collect();
        let now = (backend, programs);
        if self.seen == now {
            return false;
        }
        let before = std::mem::replace(&mut self.seen, now);
        self.legacy = matches!(backend, Some(Backend::Iptables(variant)) if variant.is_legacy());
        before.0 == backend
    }

    fn sizes_changed(&mut self) -> bool {
        let sizes = [size(false, "ip_tables_names"), size(true, "ip6_tables_names")].concat();
        std::mem::replace(&mut self.sizes, sizes.clone()) != sizes
    }
}

/// Number of rules and bytes of each table. One that nobody uses would be made by asking (proc/net/ip_tables_names has
/// the others).
fn size(ipv6: bool, names: &str) -> [Option<(u32, u32)>; 4] {
    let used = std::fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
    TABLES.map(|table| used.lines().any(|name| name == table).then(|| sys::xtables::size(ipv6, table).ok()).flatten())
}
