//! Makes the kernel's IPsec of a network what it is to be.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::steps::{Picture, steps};
use super::{Association, Ipsec, Keys, Step, keys};
use crate::error::{Error, Result};
use crate::netlink::Xfrm;

/// Protects the packets between this host and these peers, and lets none pass to or from others; `None`: leaves nothing
/// of the network. Returns what was done. When a step fails, those before it are taken back.
///
/// # Errors
/// [`Error::KeyFile`]; [`Error::Kernel`] names the step, and what the kernel lacks.
pub(crate) fn settle(ipsec: &Ipsec, peers: Option<&[IpAddr]>) -> Result<Vec<Step>> {
    let (mut kernel, steps) = match look(ipsec, peers) {
        // There is nothing to remove.
        Err(Error::Kernel { source, .. }) if peers.is_none() && source.kind() == io::ErrorKind::Unsupported => {
            return Ok(Vec::new());
        }
        found => found?,
    };
    for (done, step) in steps.iter().enumerate() {
        if let Err(source) = kernel.apply(ipsec, step) {
            if !step.removes() {
                take_back(&mut kernel, ipsec, &steps[..done]);
            }
            return Err(Error::Kernel { step: step.to_string(), source });
        }
    }
    Ok(steps)
}

/// What [`settle`] would do.
///
/// # Errors
/// As [`settle`].
pub(crate) fn differences(ipsec: &Ipsec, peers: &[IpAddr]) -> Result<Vec<Step>> {
    Ok(look(ipsec, Some(peers))?.1)
}

fn look(ipsec: &Ipsec, peers: Option<&[IpAddr]>) -> Result<(Xfrm, Vec<Step>)> {
    let wanted = match peers {
        Some(peers) => wanted(ipsec, peers)?,
        None => Picture::default(),
    };
    let step = || Error::kernel("look at the kernel's IPsec");
    let mut kernel = Xfrm::open().map_err(step())?;
    let (associations, policies) = kernel.found(ipsec).map_err(step())?;
    Ok((kernel, steps(&wanted, &Picture { associations, policies })))
}

fn wanted(ipsec: &Ipsec, peers: &[IpAddr]) -> Result<Picture<(Association, Keys)>> {
    let (peers, secrets): (BTreeSet<IpAddr>, _) = (peers.iter().copied().collect(), keys::read(&ipsec.key_file)?);
    let policies = secrets.first().map(|first| ipsec.policies(&peers, first)).unwrap_or_default();
    Ok(Picture { associations: ipsec.associations(&peers, &secrets), policies })
}

fn take_back(kernel: &mut Xfrm, ipsec: &Ipsec, done: &[Step]) {
    for step in done.iter().rev().filter_map(Step::back) {
        if let Err(error) = kernel.apply(ipsec, &step) {
            tracing::error!(%step, %error, "the way back of a failed change");
        }
    }
}
