//! Static routes, and how they are written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What becomes of a packet that takes a route (ip-route(8)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// It goes on: to the gateway, or onto the link.
    #[default]
    Unicast,
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped, and its sender told that the destination is unreachable.
    Unreachable,
    /// It is dropped, and its sender told that it is forbidden.
    Prohibit,
}

impl RouteKind {
    /// Whether packets go on.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        *self == Self::Unicast
    }

    /// As it is written; unicast is not.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unicast => "",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }

    fn read(word: &str) -> Option<Self> {
        [Self::Blackhole, Self::Unreachable, Self::Prohibit].into_iter().find(|kind| kind.word() == word)
    }
}

/// A route to somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// The next hop; absent: on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Absent: the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// One that is not unicast has no gateway.
    #[serde(default, rename = "type", skip_serializing_if = "RouteKind::is_unicast")]
    pub kind: RouteKind,
}

impl Route {
    /// By a gateway, or on the link.
    #[must_use]
    pub fn new(destination: IpNet, gateway: Option<IpAddr>) -> Self {
        Self { destination, gateway, metric: None, kind: RouteKind::Unicast }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match (self.gateway, self.kind.word(), self.metric) {
            (Some(gateway), ..) => write!(f, ",{gateway}")?,
            (None, "", None) => {}
            (None, word, _) => write!(f, ",{word}")?,
        }
        self.metric.map_or(Ok(()), |metric| write!(f, ",{metric}"))
    }
}

/// `DESTINATION[,GATEWAY|TYPE[,METRIC]]`; the type is blackhole, unreachable or prohibit.
impl FromStr for Route {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Invalid { what: format!("route {text:?}"), why: why.into() };
        let mut parts = text.split(',');
        let destination: IpNet = parts
            .next()
            .and_then(|part| part.parse().ok())
            .ok_or_else(|| bad("the destination is not a CIDR like 10.1.0.0/16"))?;
        let (gateway, kind): (Option<IpAddr>, RouteKind) = match parts.next() {
            None | Some("") => (None, RouteKind::Unicast),
            Some(part) => match RouteKind::read(part) {
                Some(kind) => (None, kind),
                None => {
                    let why = "the gateway is not an IP address, nor blackhole, unreachable or prohibit";
                    (Some(part.parse().map_err(|_| bad(why))?), RouteKind::Unicast)
                }
            },
        };
        let metric = parts.next().map(str::parse).transpose().map_err(|_| bad("the metric is not a number"))?;
        if parts.next().is_some() {
            return Err(bad("DESTINATION[,GATEWAY|TYPE[,METRIC]] is needed"));
        }
        if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.addr().is_ipv4()) {
            return Err(bad("destination and gateway are of two families"));
        }
        Ok(Self { destination: destination.trunc(), gateway, metric, kind })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn routes_are_read_as_they_are_written() {
        for text in [
            "10.1.0.0/16",
            "10.1.0.0/16,10.0.0.1",
            "10.1.0.0/16,10.0.0.1,7",
            "10.1.0.0/16,,7",
            "10.1.0.0/16,blackhole",
            "fd00::/8,unreachable,9",
            "fd00::/8,prohibit",
        ] {
            let route: Route = text.parse().unwrap();
            assert_eq!(route.to_string(), text);
            assert_eq!(serde_json::from_value::<Route>(serde_json::to_value(&route).unwrap()).unwrap(), route);
        }
        assert_eq!("10.1.2.3/16".parse::<Route>().unwrap().to_string(), "10.1.0.0/16");
    }

    #[test]
    fn bad_routes_are_named() {
        for (text, why) in [
            ("10.1.0.0", "not a CIDR"),
            ("10.1.0.0/16,there", "not an IP address"),
            ("10.1.0.0/16,fd00::1", "two families"),
            ("10.1.0.0/16,blackhole,10.0.0.1", "not a number"),
            ("10.1.0.0/16,10.0.0.1,7,8", "is needed"),
        ] {
            assert!(text.parse::<Route>().unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
