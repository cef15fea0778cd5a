//! Options of networks: each checked when the network is made, so that reading one later cannot fail.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{NewNetwork, OPTION_HOST_BINDING, OPTIONS_OUTBOUND4, OPTIONS_OUTBOUND6};

type Check = fn(&str) -> bool;

const BOOLEAN: (Check, &str) = (|text| matches!(text, "true" | "false"), "known are true and false");
const NUMBER: (Check, &str) = (|text| text.parse::<u32>().is_ok(), "a number is needed");

/// Names of an option, and what it has to be. Those of single drivers are checked by [`crate::driver::check`].
const OPTIONS: [(&[&str], (Check, &str)); 8] = [
    (&["isolate"], (|text| matches!(text, "true" | "false" | "strict"), "known are true, false and strict")),
    (&["host_binding", OPTION_HOST_BINDING], (|text| text.parse::<IpAddr>().is_ok(), "an IP address is needed")),
    (&["host_first"], BOOLEAN),
    (&["no_default_route"], BOOLEAN),
    (&["metric"], NUMBER),
    (&["forward_short_names"], BOOLEAN),
    (&OPTIONS_OUTBOUND4, (|text| is_source(text, false), "an IPv4 address is needed")),
    (&OPTIONS_OUTBOUND6, (|text| is_source(text, true), "an IPv6 address is needed")),
];

fn is_source(text: &str, ipv6: bool) -> bool {
    let usable = |ip: &IpAddr| ip.is_ipv6() == ipv6 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    text.parse().is_ok_and(|ip| usable(&ip))
}

/// Checks the options that every driver of ours understands.
///
/// # Errors
/// [`Error::Invalid`] names the option.
pub(crate) fn check(new: &NewNetwork) -> Result<()> {
    for (names, (is_good, why)) in OPTIONS {
        for name in names {
            if let Some(value) = new.options.get(*name).filter(|value| !is_good(value)) {
                return Err(Error::invalid(format!("option {name}={value}"), why));
            }
        }
    }
    Ok(())
}
