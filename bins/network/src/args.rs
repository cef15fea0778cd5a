//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use console::{Format, Generate, Globals};

/// Networks and endpoints on any network namespace: links, addresses, firewall rules, names
#[derive(Debug, Parser)]
#[command(name = "pier-network", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a network and print its id
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show networks with their endpoints as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true)]
        networks: Vec<String>,
        /// Detach what is attached; fine with a missing network
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the networks that nobody is attached to
    Prune {
        /// name=, id=, driver= or label=; may be repeated
        #[arg(long = "filter", value_name = "KEY=VALUE")]
        filters: Vec<String>,
    },
    /// Wire a network namespace to a network
    Attach(Attach),
    /// Undo attaches: an endpoint's id, or an owner
    Detach(Detach),
    /// Publish more ports of an endpoint
    Publish(Ports),
    /// Withdraw published ports of an endpoint
    Unpublish(Ports),
    /// Network namespaces by key
    #[command(subcommand)]
    Ns(Ns),
    /// List endpoints
    Endpoints(Endpoints),
    /// Make the kernel agree with the records; print what was mended
    Reconcile,
    /// Print events as JSON lines until interrupted
    Events {
        /// Begin this many seconds ago
        #[arg(long, value_name = "SECONDS")]
        since: Option<u64>,
        /// Print what there is and end
        #[arg(long)]
        no_follow: bool,
    },
    /// Serve gRPC and names in the foreground
    Serve(Serve),
    #[command(flatten)]
    Generate(Generate),
}

#[derive(Debug, Args)]
pub struct Create {
    /// The network's name
    pub name: String,
    /// bridge is the one that can be made
    #[arg(short, long, default_value = "bridge")]
    pub driver: String,
    /// Subnet as CIDR, one of each family; a free one when absent
    #[arg(long = "subnet", value_name = "CIDR")]
    pub subnets: Vec<String>,
    /// The bridge's own address; of the subnet it lies in
    #[arg(long = "gateway", value_name = "IP")]
    pub gateways: Vec<String>,
    /// Take addresses from this part only; of the subnet it lies in
    #[arg(long = "ip-range", value_name = "CIDR")]
    pub ranges: Vec<String>,
    /// No way out, no way in from outside
    #[arg(long)]
    pub internal: bool,
    /// IPv6 as well; a unique local subnet when none is named
    #[arg(long)]
    pub ipv6: bool,
    /// mtu=, isolate=true|false|strict, com.docker.network.bridge.name=, ...
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// A label
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<String>,
    /// Serve no names
    #[arg(long)]
    pub disable_dns: bool,
    /// Fine with a network of that name
    #[arg(long)]
    pub exist_ok: bool,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// name=, id=, driver= or label=; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// What is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// Name or id of the network
    pub network: String,
    /// Path of the network namespace: /run/netns/x, /proc/<pid>/ns/net, ...; not for host and none
    pub netns: Option<PathBuf>,
    /// Who it is for
    #[arg(long, value_name = "NAME")]
    pub owner: String,
    /// A name to be found by; may be repeated. The owner when absent
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Wanted address, one of each family
    #[arg(long = "ip", value_name = "IP")]
    pub addresses: Vec<std::net::IpAddr>,
    /// Wanted MAC address
    #[arg(long, default_value = "", value_name = "MAC", hide_default_value = true)]
    pub mac_address: String,
    /// Name of the link inside; the next free eth<N> when absent
    #[arg(long, default_value = "", value_name = "LINK", hide_default_value = true)]
    pub interface: String,
    /// [IP:][HOST[-LAST]:]PORT[-LAST][/tcp|udp|sctp]; may be repeated
    #[arg(short, long = "publish", value_name = "PORT")]
    pub ports: Vec<String>,
    /// Leave the default route alone
    #[arg(long)]
    pub no_default_route: bool,
}

#[derive(Debug, Args)]
pub struct Detach {
    /// Id of an endpoint
    #[arg(required_unless_present = "owner", conflicts_with = "owner")]
    pub endpoint: Option<String>,
    /// All endpoints of this owner
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Of the owner's, only the one on this network
    #[arg(long, requires = "owner", value_name = "NETWORK")]
    pub network: Option<String>,
}

#[derive(Debug, Args)]
pub struct Ports {
    /// Id of the endpoint
    pub endpoint: String,
    /// [IP:][HOST[-LAST]:]PORT[-LAST][/tcp|udp|sctp]
    #[arg(required = true)]
    pub ports: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Ns {
    /// Make a namespace with its loopback up and print its path
    Create {
        /// Its key
        key: String,
        /// A setting below net. in it; may be repeated
        #[arg(long = "sysctl", value_name = "KEY=VALUE")]
        sysctls: Vec<String>,
    },
    /// Detach every endpoint in namespaces and remove them
    Rm {
        /// Their keys
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// List keys
    Ls,
}

#[derive(Debug, Args)]
pub struct Endpoints {
    /// On this network
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Of this owner
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// What is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// unix:///path, fd:// or tcp://address:port; <run>/network.sock when absent
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<rpc::Listen>,
    /// Processes of this group id may call too
    #[arg(long, value_name = "GID")]
    pub group: Option<u32>,
    /// Certificate of the server, for TCP
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_client_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authority of the clients' certificates
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// The host's resolver configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
}
