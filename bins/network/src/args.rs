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
    /// The host's resolver configuration: where names that are not the networks' are looked up
    #[arg(long, value_name = "FILE", env = "PIER_RESOLV_CONF", default_value = "/etc/resolv.conf", global = true, help_heading = console::GLOBAL)]
    pub resolv_conf: PathBuf,
    /// How rules come into the kernel: auto, nft, iptables, iptables-nft, iptables-legacy; auto: as the stack has
    /// them, else nft before iptables
    #[arg(long, value_name = "NAME", env = "PIER_FIREWALL", default_value = "auto", global = true, help_heading = console::GLOBAL)]
    pub firewall: String,
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
    /// Say who the other hosts of an overlay network are, in place of those before
    Peers {
        /// Name or id of the network
        network: String,
        /// Their addresses
        peers: Vec<std::net::IpAddr>,
    },
    /// Change a network's upstream name servers
    Update(Update),
    /// Say whether endpoints are healthy: names lead to healthy ones
    Health(Health),
    /// Say which endpoints may talk to which, by labels
    #[command(subcommand)]
    Policy(Policy),
    /// Network namespaces by key
    #[command(subcommand)]
    Ns(Ns),
    /// List endpoints
    Endpoints(Endpoints),
    /// Make the kernel agree with the records; print what was mended
    Reconcile,
    /// Say how the kernel differs from the records; 1 when it does
    Check {
        /// Make it agree
        #[arg(long)]
        repair: bool,
        /// What is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print by what means the stack works: its firewall
    Info {
        /// What is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print what went over the endpoints' links
    Stats {
        /// Of this owner
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
        /// What is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Explain why a name, a port or a route does not work; 1 when something is wrong
    Diagnose {
        /// An endpoint's id, its owner or name, or the path of its namespace
        target: String,
        /// A name that should be found from inside
        #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
        name: String,
        /// What is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print events as JSON lines until interrupted
    Events {
        /// Begin this many seconds ago
        #[arg(long, value_name = "SECONDS")]
        since: Option<u64>,
        /// Print what there is and end
        #[arg(long)]
        no_follow: bool,
    },
    /// Serve gRPC in the foreground
    Serve(rpc::Door),
    /// Serve names and guard the firewall until nobody is attached; started by the first attach
    Keep,
    #[command(flatten)]
    Generate(Generate),
}

#[derive(Debug, Args)]
pub struct Create {
    /// The network's name
    pub name: String,
    /// bridge, veth, macvlan, ipvlan, vlan, overlay, cni, rootless, or the name of a plugin; bridge when absent
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub driver: String,
    /// Subnet as CIDR, may be repeated; a free one when absent
    #[arg(long = "subnet", value_name = "CIDR")]
    pub subnets: Vec<String>,
    /// The bridge's own address; of the subnet it lies in
    #[arg(long = "gateway", value_name = "IP")]
    pub gateways: Vec<String>,
    /// Take addresses from this part only, CIDR or FIRST-LAST; of the subnet it lies in
    #[arg(long = "ip-range", value_name = "RANGE")]
    pub ranges: Vec<String>,
    /// No way out, no way in from outside
    #[arg(long)]
    pub internal: bool,
    /// IPv6 as well; a unique local subnet when none is named
    #[arg(long)]
    pub ipv6: bool,
    /// No IPv4
    #[arg(long)]
    pub disable_ipv4: bool,
    /// Who gives addresses: default, dhcp, none, or the name of a plugin
    #[arg(long, default_value = "", value_name = "DRIVER", hide_default_value = true)]
    pub ipam_driver: String,
    /// What an IPAM plugin is told; may be repeated
    #[arg(long = "ipam-opt", value_name = "KEY=VALUE")]
    pub ipam_options: Vec<String>,
    /// An address of a subnet that belongs to somebody else; may be repeated
    #[arg(long = "aux-address", value_name = "NAME=IP")]
    pub auxiliary: Vec<String>,
    /// A route that every endpoint gets, DESTINATION[,GATEWAY|TYPE[,METRIC]], TYPE blackhole, unreachable or prohibit; may
    /// be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    pub routes: Vec<network::Route>,
    /// Address of another host of an overlay network; may be repeated
    #[arg(long = "peer", value_name = "IP")]
    pub peers: Vec<std::net::IpAddr>,
    /// Only a model that other networks are made from
    #[arg(long)]
    pub config_only: bool,
    /// Take driver, subnets and options from this model
    #[arg(long, default_value = "", value_name = "NETWORK", hide_default_value = true)]
    pub config_from: String,
    /// mtu=, isolate=true|false|strict, parent=, com.docker.network.bridge.name=, no_default_route=true, metric=,
    /// outbound_addr4=, outbound_addr6=, host_first=true, host_binding=, forward_short_names=true, vrf=, bclim=, vni=,
    /// port=, local=, encrypted with key-file=/PATH, ...
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
    #[command(flatten)]
    pub dns: Dns,
}

#[derive(Debug, Args)]
pub struct Dns {
    /// Upstream name server, for names that are not the networks'; may be repeated
    #[arg(long = "dns", value_name = "IP")]
    pub dns: Vec<std::net::IpAddr>,
    /// Search domain for resolv.conf; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option for resolv.conf; may be repeated
    #[arg(long = "dns-option", value_name = "OPTION")]
    pub dns_options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// Name or id of the network
    pub network: String,
    /// Another upstream name server; may be repeated
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns_add: Vec<std::net::IpAddr>,
    /// No longer this upstream name server; may be repeated
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns_drop: Vec<std::net::IpAddr>,
}

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Make a policy; the first that fits decides, in the order of their making
    Create {
        /// Its name
        name: String,
        /// deny refuses; allow leaves it to the networks, as an exception to later policies
        #[arg(value_enum)]
        action: Action,
        /// A label of who calls; may be repeated. Everybody when absent
        #[arg(long, value_name = "KEY[=VALUE]")]
        from: Vec<String>,
        /// A label of who is called; may be repeated. Everybody when absent
        #[arg(long, value_name = "KEY[=VALUE]")]
        to: Vec<String>,
        /// Only at these ports; may be repeated
        #[arg(long = "port", value_name = "PORT[-LAST][/tcp|udp|sctp]")]
        ports: Vec<String>,
    },
    /// List policies as JSON
    Ls,
    /// Remove policies
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Fine with a missing one
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    Allow,
    Deny,
}

/// Endpoints by id or by owner.
#[derive(Debug, Args)]
pub struct Health {
    /// What is so
    #[arg(value_enum)]
    pub state: State,
    #[command(flatten)]
    pub of: Detach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    Healthy,
    Unhealthy,
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
    /// Wanted address; may be repeated
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
    /// Of several networks the one with the highest is the default route
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_name = "NUMBER")]
    pub gateway_priority: i32,
    /// Metric of the default route, which then stands beside others
    #[arg(long, value_name = "NUMBER")]
    pub metric: Option<u32>,
    /// Bytes; the network's when absent
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// A static route, DESTINATION[,GATEWAY|TYPE[,METRIC]]; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    pub routes: Vec<network::Route>,
    /// Name of the host's end
    #[arg(long, default_value = "", value_name = "LINK", hide_default_value = true)]
    pub host_interface: String,
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub dns: Dns,
    /// A label, for policies; may be repeated
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<String>,
    /// A port to be found as _NAME._PROTOCOL.<endpoint> (SRV); may be repeated
    #[arg(long = "service", value_name = "NAME[/tcp|udp|sctp]=PORT")]
    pub services: Vec<String>,
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
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
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
