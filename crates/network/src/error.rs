//! Everything that can go wrong, with the code and reason that programs see.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rpc::Code;

use crate::model::PortMapping;

/// An operation on networks that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum Error {
    #[error("no network {name:?}")]
    NetworkNotFound { name: String },
    #[error("network {name:?} exists")]
    NetworkExists { name: String },
    #[error("{prefix:?} is the beginning of more than one network's id")]
    Ambiguous { prefix: String },
    #[error("network {name:?} has endpoints: {owners}")]
    NetworkInUse { name: String, owners: String },
    #[error("network {name:?} is predefined")]
    Predefined { name: String },
    #[error("no endpoint {id:?}")]
    EndpointNotFound { id: String },
    #[error("no policy {name:?}")]
    PolicyNotFound { name: String },
    #[error("policy {name:?} exists")]
    PolicyExists { name: String },
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },
    #[error("subnet {subnet} overlaps {with}")]
    SubnetOverlap { subnet: String, with: String },
    #[error("address {address} of network {network:?} is in use by {owner}")]
    AddressInUse { address: IpAddr, network: String, owner: String },
    #[error("no free subnet left in the pools {pools}")]
    PoolExhausted { pools: String },
    #[error("no free address left in {subnet} of network {network:?}")]
    SubnetFull { subnet: String, network: String },
    #[error("port {port} is published by {owner}")]
    PortPublished { port: PortMapping, owner: String },
    #[error("port {port} cannot be published: {} has {address}", if by.is_empty() { "a program of the host" } else { by })]
    PortTaken { port: PortMapping, address: String, by: String },
    #[error("port {port} cannot be published: this user may not bind port {number}")]
    PortPrivileged { port: PortMapping, number: u16 },
    #[error("port {port} cannot be published: {address} is not an address of this host")]
    NoSuchAddress { port: PortMapping, address: IpAddr },
    #[error("{}: {why}", path.display())]
    NetnsInvalid { path: PathBuf, why: String, source: Option<io::Error> },
    #[error("no address by DHCP on {link}: {why}")]
    Dhcp { link: String, why: String },
    #[error("driver {driver}: {step}: {why}")]
    Foreign { driver: String, step: String, why: String },
    #[error("key file {}: {why}", path.display())]
    KeyFile { path: PathBuf, why: String, source: Option<io::Error> },
    #[error("UDP port {port} is network {other:?}'s, and an encrypted network shares its port with no other")]
    OverlayPort { port: u16, other: String },
    #[error("{step}")]
    Kernel { step: String, source: io::Error },
    #[error("neither nft nor iptables is installed")]
    NoFirewall,
    #[error("the program {program} is not installed")]
    FirewallMissing { program: String },
    #[error("the firewall ({backend}) refused a change: {message}")]
    Firewall { backend: String, message: String },
    #[error("the firewall {backend} has no {what}")]
    FirewallLacks { backend: String, what: String },
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("database {}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("database {} was written by a newer version (format {found}, this program knows {known})", path.display())]
    NewerDatabase { path: PathBuf, found: i64, known: i64 },
    #[error("the lock of the stack")]
    Lock { source: statedir::Error },
    #[error("record {id} in the database cannot be read")]
    Damaged { id: String, source: serde_json::Error },
}

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Kernel { step, source }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl rpc::Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::NetworkNotFound { .. } | Self::EndpointNotFound { .. } | Self::PolicyNotFound { .. } => {
                Code::NotFound
            }
            Self::NetworkExists { .. } | Self::PolicyExists { .. } => Code::AlreadyExists,
            Self::Invalid { .. } | Self::Ambiguous { .. } | Self::NetnsInvalid { .. } | Self::NoSuchAddress { .. } => {
                Code::InvalidArgument
            }
            Self::PoolExhausted { .. } | Self::SubnetFull { .. } => Code::ResourceExhausted,
            Self::NetworkInUse { .. }
            | Self::Predefined { .. }
            | Self::SubnetOverlap { .. }
            | Self::AddressInUse { .. }
            | Self::PortPublished { .. }
            | Self::PortTaken { .. }
            | Self::NewerDatabase { .. }
            | Self::KeyFile { .. }
            | Self::OverlayPort { .. }
            | Self::NoFirewall
            | Self::FirewallMissing { .. }
            | Self::FirewallLacks { .. } => Code::FailedPrecondition,
            Self::PortPrivileged { .. } => Code::PermissionDenied,
            Self::Kernel { source, .. } | Self::Io { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::PermissionDenied
            }
            Self::Dhcp { .. } | Self::Foreign { .. } => Code::Unavailable,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Kernel { .. }
            | Self::Io { .. }
            | Self::Firewall { .. }
            | Self::Database { .. }
            | Self::Lock { .. } => Code::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NetworkNotFound { .. } => "NETWORK_NOT_FOUND",
            Self::NetworkExists { .. } => "NETWORK_EXISTS",
            Self::Ambiguous { .. } => "AMBIGUOUS_ID",
            Self::NetworkInUse { .. } => "NETWORK_IN_USE",
            Self::Predefined { .. } => "NETWORK_PREDEFINED",
            Self::EndpointNotFound { .. } => "ENDPOINT_NOT_FOUND",
            Self::PolicyNotFound { .. } => "POLICY_NOT_FOUND",
            Self::PolicyExists { .. } => "POLICY_EXISTS",
            Self::Invalid { .. } => "INVALID_ARGUMENT",
            Self::SubnetOverlap { .. } => "SUBNET_OVERLAP",
            Self::AddressInUse { .. } => "ADDRESS_IN_USE",
            Self::PoolExhausted { .. } => "POOL_EXHAUSTED",
            Self::SubnetFull { .. } => "SUBNET_FULL",
            Self::PortPublished { .. } | Self::PortTaken { .. } => "PORT_IN_USE",
            Self::PortPrivileged { .. } => "PORT_PRIVILEGED",
            Self::NoSuchAddress { .. } => "ADDRESS_NOT_LOCAL",
            Self::NetnsInvalid { .. } => "NETNS_INVALID",
            Self::Dhcp { .. } => "DHCP_FAILED",
            Self::Foreign { .. } => "DRIVER_FAILED",
            Self::KeyFile { .. } => "KEY_FILE",
            Self::OverlayPort { .. } => "OVERLAY_PORT",
            Self::Kernel { .. } => "KERNEL_REFUSED",
            Self::NoFirewall | Self::FirewallMissing { .. } => "FIREWALL_MISSING",
            Self::Firewall { .. } => "FIREWALL_FAILED",
            Self::FirewallLacks { .. } => "FIREWALL_LACKS",
            Self::Io { .. } => "IO",
            Self::Database { .. } => "DATABASE",
            Self::Lock { .. } => "LOCK",
            Self::NewerDatabase { .. } => "DATABASE_NEWER",
            Self::Damaged { .. } => "RECORD_DAMAGED",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::NetworkNotFound { name }
            | Self::NetworkExists { name }
            | Self::NetworkInUse { name, .. }
            | Self::PolicyNotFound { name }
            | Self::PolicyExists { name }
            | Self::Predefined { name } => name.clone(),
            Self::Ambiguous { prefix } => prefix.clone(),
            Self::EndpointNotFound { id } | Self::Damaged { id, .. } => id.clone(),
            Self::Invalid { what, .. } => what.clone(),
            Self::SubnetOverlap { subnet, .. } | Self::SubnetFull { subnet, .. } => subnet.clone(),
            Self::AddressInUse { address, .. } | Self::NoSuchAddress { address, .. } => address.to_string(),
            Self::PoolExhausted { pools } => pools.clone(),
            Self::PortPublished { port, .. } | Self::PortTaken { port, .. } | Self::PortPrivileged { port, .. } => {
                port.to_string()
            }
            Self::NetnsInvalid { path, .. }
            | Self::Io { path, .. }
            | Self::KeyFile { path, .. }
            | Self::Database { path, .. }
            | Self::NewerDatabase { path, .. } => path.display().to_string(),
            Self::Dhcp { link, .. } => link.clone(),
            Self::Foreign { driver, .. } => driver.clone(),
            Self::OverlayPort { port, .. } => port.to_string(),
            Self::Kernel { step, .. } => step.clone(),
            Self::NoFirewall => "firewall".into(),
            Self::FirewallMissing { program } => program.clone(),
            Self::Firewall { backend, .. } | Self::FirewallLacks { backend, .. } => backend.clone(),
            Self::Lock { .. } => "lock".into(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NetworkNotFound { .. } => "`pier-network ls` shows the networks there are.",
            Self::PolicyNotFound { .. } => "`pier-network policy ls` shows the policies there are.",
            Self::EndpointNotFound { .. } => "`pier-network endpoints` shows the endpoints there are.",
            Self::Ambiguous { .. } => "Give more digits of the id, or the name.",
            Self::NetworkInUse { .. } => "Detach them first, or use --force.",
            Self::PoolExhausted { .. } => "Name a subnet with --subnet, or remove networks with `pier-network prune`.",
            Self::SubnetOverlap { .. } => "Name another subnet, or leave it out to get a free one.",
            Self::PortPublished { .. } | Self::PortTaken { .. } => "Publish another port, or port 0 to get a free one.",
            Self::PortPrivileged { .. } => {
                "Publish a port from 1024 on, or let users have lower ones: sysctl net.ipv4.ip_unprivileged_port_start=0."
            }
            Self::NetnsInvalid { .. } => {
                "Name a file like /proc/<pid>/ns/net, or make one with `pier-network ns create`."
            }
            Self::KeyFile { .. } => {
                "Make one secret for all hosts: (umask 077; head -c 32 /dev/urandom | base64 > FILE)."
            }
            Self::OverlayPort { .. } => "Give one of them another port, the same on each host: -o port=NUMBER.",
            Self::NoFirewall => "Install the package nftables, or iptables.",
            Self::FirewallMissing { .. } => "Install it, or choose another firewall with --firewall.",
            Self::FirewallLacks { .. } => "Install the package nftables and use --firewall nft.",
            _ => return None,
        };
        Some(hint.into())
    }
}
