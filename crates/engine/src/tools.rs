//! The tools' names: program, socket and gRPC package of each.
use std::fmt;

/// A program that the engine composes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// Containers.
    Supervisor,
    /// Images and snapshots.
    Distribution,
    /// Networks and endpoints.
    Network,
    /// Named storage.
    Volume,
    /// Images from sources.
    Builder,
    /// Bundles to processes, when it is served.
    Runtime,
}

impl Tool {
    /// In the order of [`Tool::index`].
    pub const ALL: [Tool; 6] =
        [Self::Supervisor, Self::Distribution, Self::Network, Self::Volume, Self::Builder, Self::Runtime];

    /// Those that have work of their own to do (restarts, firewall, leases): started with the engine.
    pub const ALWAYS: [Tool; 4] = [Self::Supervisor, Self::Distribution, Self::Network, Self::Volume];

    /// "network": the socket is `<run>/network.sock`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Distribution => "distribution",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Builder => "builder",
            Self::Runtime => "runtime",
        }
    }

    /// "pier-network".
    pub fn program(self) -> String {
        format!("pier-{}", self.name())
    }

    /// Its place in [`Tool::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|t| *t == self).unwrap_or(0)
    }

    /// The tool that a gRPC path belongs to: "/pier.network.v1.NetworkService/Attach", whatever the version.
    pub fn of_path(path: &str) -> Option<Self> {
        let service = path.strip_prefix("/pier.")?.split('/').next()?;
        let mut parts = service.split('.');
        let (name, version) = (parts.next()?, parts.next()?);
        parts.next()?;
        let number = version.strip_prefix('v')?;
        number.bytes().next().filter(u8::is_ascii_digit)?;
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(Tool::of_path("/pier.network.v1.NetworkService/Attach"), Some(Tool::Network));
        assert_eq!(Tool::of_path("/pier.builder.v2.Other/X"), Some(Tool::Builder));
        for path in ["/pier.engine.v1.EngineService/Info", "/pier.network/x", "/grpc.health.v1.Health/Check", "/", ""] {
            assert_eq!(Tool::of_path(path), None, "{path}");
        }
    }
}
