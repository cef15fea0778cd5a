//! Capability sets as bits: always explicit, never more than this process may give.

use libcontainer::capabilities::CapabilityExt;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::CapabilitySet;

/// The five sets of a process, bit N for capability N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// Highest capability number asked about; newer kernels answer `EINVAL` beyond what they know.
const LAST: u32 = 63;

/// This process's bounding set.
pub(crate) fn bounding() -> u64 {
    let mut bits = 0;
    for n in 0..=LAST {
        let one = CapabilitySet::from_bits_retain(1 << n);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => bits |= 1 << n,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    bits
}

fn bits(set: &Option<Capabilities>) -> u64 {
    set.iter().flatten().map(|c| 1_u64 << c.to_cap().index()).fold(0, |all, bit| all | bit)
}

/// What to set for a configuration, given what can be granted; and a warning for each that cannot.
///
/// No `capabilities` object means none at all. Sets are made consistent, as the kernel demands: effective within
/// permitted, ambient within permitted and inheritable.
pub(crate) fn plan(wanted: Option<&LinuxCapabilities>, grantable: u64) -> (Sets, Vec<String>) {
    let Some(wanted) = wanted else { return (Sets::default(), vec![]) };
    let permitted = bits(wanted.permitted()) & grantable;
    let inheritable = bits(wanted.inheritable()) & grantable;
    let sets = Sets {
        bounding: bits(wanted.bounding()) & grantable,
        effective: bits(wanted.effective()) & permitted,
        inheritable,
        permitted,
        ambient: bits(wanted.ambient()) & permitted & inheritable,
    };
    let mut lost: Vec<String> = [wanted.bounding(), wanted.effective(), wanted.permitted()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|c| grantable & (1 << c.to_cap().index()) == 0)
        .map(|c| c.to_cap().to_string())
        .collect();
    lost.sort();
    lost.dedup();
    let lost = lost.iter().map(|name| format!("{name} is not in the runtime's bounding set: left out"));
    let unraised = wanted.ambient().iter().flatten().filter(|c| sets.ambient & (1 << c.to_cap().index()) == 0);
    let unraised = unraised.map(|c| format!("can't raise ambient capability {}: operation not permitted", c.to_cap()));
    (sets, lost.chain(unraised).collect())
}

/// Drops everything outside the bounding set. Needs `CAP_SETPCAP`, so it comes before the change of user.
pub(crate) fn drop_bounding(sets: &Sets) -> rustix::io::Result<()> {
    for n in (0..=LAST).filter(|n| sets.bounding & (1 << n) == 0) {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << n)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Sets the other four, after the change of user.
pub(crate) fn set(sets: &Sets) -> rustix::io::Result<()> {
    let bits = CapabilitySet::from_bits_retain;
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: bits(sets.effective),
            permitted: bits(sets.permitted),
            inheritable: bits(sets.inheritable),
        },
    )?;
    let _ = rustix::thread::clear_ambient_capability_set();
    for n in (0..=LAST).filter(|n| sets.ambient & (1 << n) != 0) {
        // As runc: a kernel or securebit that forbids an ambient capability does not fail the container.
        let _ = rustix::thread::configure_capability_in_ambient_set(bits(1 << n), true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn caps(json: serde_json::Value) -> LinuxCapabilities {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn absent_means_none() {
        assert_eq!(plan(None, u64::MAX).0, Sets::default());
    }

    #[test]
    fn never_more_than_grantable() {
        let wanted = caps(serde_json::json!({
            "bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": ["CAP_KILL", "CAP_SYS_RESOURCE"],
            "permitted": ["CAP_KILL", "CAP_SYS_RESOURCE"], "inheritable": [], "ambient": ["CAP_KILL"]
        }));
        let (sets, lost) = plan(Some(&wanted), !(1 << 24));
        assert_eq!(sets.bounding, 1 << 5);
        assert_eq!(sets.permitted, 1 << 5);
        assert_eq!(sets.ambient, 0, "ambient needs inheritable");
        assert_eq!(lost.len(), 2);
        assert!(lost[0].contains("CAP_SYS_RESOURCE"));
        assert!(lost[1].contains("can't raise ambient capability CAP_KILL: "));
    }
}
