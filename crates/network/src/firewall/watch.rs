//! Notices that somebody else may have changed the rules.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::nft::probe::{Change, Changes};
use super::{Backend, Firewall};

/// How often the kernel's own tables are asked whether they changed: nobody is told.
const AGAIN: Duration = Duration::from_millis(250);
/// The tables that iptables' rules lie in.
const TABLES: [&str; 3] = ["raw", "nat", "filter"];

/// See [`Watch::wait`].
pub(crate) struct Watch {
    firewall: Firewall,
    /// Absent in a kernel without nf_tables.
    changes: Option<Changes>,
    /// Of the backend when it was last looked at: whether its rules lie in the kernel's own tables.
    legacy: (Option<Backend>, bool),
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
        Ok(Self { firewall: firewall.clone(), changes, legacy: (None, false), sizes: Vec::new() })
    }

    /// Waits until somebody may have changed the rules; whether it is certain that they did. May return without cause.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wait(&mut self) -> io::Result<bool> {
        loop {
            let backend = self.firewall.backend().ok();
            let legacy = self.is_legacy(backend);
            match &self.changes {
                Some(changes) => match changes.wait(legacy.then_some(AGAIN))? {
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

    fn is_legacy(&mut self, backend: Option<Backend>) -> bool {
        if self.legacy.0 != backend {
            let legacy = matches!(backend, Some(Backend::Iptables(variant)) if variant.is_legacy());
            self.legacy = (backend, legacy);
        }
        self.legacy.1
    }

    fn sizes_changed(&mut self) -> bool {
        let size = |ipv6| TABLES.map(|table| sys::xtables::size(ipv6, table).ok());
        let sizes = [size(false), size(true)].concat();
        std::mem::replace(&mut self.sizes, sizes.clone()) != sizes
    }
}
