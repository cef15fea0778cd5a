//! The small files that say who and where a container is: /etc/hosts, /etc/resolv.conf, /etc/hostname.
use crate::error::Error;
use api::engine::v1::{ContainerConfig, NetworkConfig};
use api::network::v1::Endpoint;
use api::supervisor::v1::InjectedFile;
use std::net::IpAddr;

/// What the host itself says, for containers that share its network and for names it can look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFiles {
    /// /etc/hosts.
    pub hosts: String,
    /// /etc/resolv.conf.
    pub resolv_conf: String,
}

/// How the container is connected when it starts.
pub enum Connection<'a> {
    /// The host's network.
    Host,
    /// Own endpoints; empty for mode none.
    Endpoints(&'a [Endpoint]),
}

/// The three files; one that the container mounts something else on is left out.
pub fn injected(
    config: &ContainerConfig,
    hostname: &str,
    connection: &Connection<'_>,
    host: &HostFiles,
) -> Result<Vec<InjectedFile>, Error> {
    let network = config.network.clone().unwrap_or_default();
    let own_name = if config.uts_mode == "host" { "" } else { hostname };
    let files = [
        ("/etc/hosts", hosts(&network, own_name, &config.domainname, connection, host)?),
        ("/etc/resolv.conf", resolv_conf(&network, connection, host)),
        ("/etc/hostname", if own_name.is_empty() { String::new() } else { format!("{own_name}\n") }),
    ];
    let mounted = |path: &str| config.mounts.iter().any(|m| crate::spec::merge::clean(&m.target) == path);
    Ok(files
        .into_iter()
        .filter(|(path, text)| !mounted(path) && (!text.is_empty() || *path != "/etc/hostname"))
        .map(|(path, text)| InjectedFile { target: path.into(), content: text.into_bytes().into(), mode: 0o644 })
        .collect())
}

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The text of /etc/hosts.
pub fn hosts(
    network: &NetworkConfig,
    hostname: &str,
    domainname: &str,
    connection: &Connection<'_>,
    host: &HostFiles,
) -> Result<String, Error> {
    let mut text = match connection {
        Connection::Host => with_newline(&host.hosts),
        Connection::Endpoints(_) => LOCAL.to_string(),
    };
    let gateway = match connection {
        Connection::Host => Some("127.0.0.1".to_string()),
        Connection::Endpoints(endpoints) => {
            endpoints.iter().flat_map(|e| &e.gateways).next().map(|g| without_prefix(g).to_string())
        }
    };
    for extra in &network.extra_hosts {
        let (name, ip) = extra_host(extra)?;
        let address = match (ip, &gateway) {
            ("host-gateway", Some(gateway)) => gateway,
            ("host-gateway", None) => return Err(Error::invalid("extra host", extra, "there is no gateway here")),
            (ip, _) => ip,
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    if let Connection::Endpoints(endpoints) = connection {
        let names = if domainname.is_empty() { hostname.into() } else { format!("{hostname}.{domainname} {hostname}") };
        if !hostname.is_empty() {
            for address in endpoints.iter().flat_map(|e| &e.addresses) {
                text.push_str(&format!("{}\t{names}\n", without_prefix(address)));
            }
        }
        // Reaching the host under one name on every network (Docker Desktop's habit); DNS has no say in it.
        if let Some(gateway) = &gateway
            && !network.extra_hosts.iter().any(|e| e.starts_with("host.docker.internal"))
        {
            text.push_str(&format!("{gateway}\thost.docker.internal host.containers.internal host.pier.internal\n"));
        }
    }
    Ok(text)
}

/// Splits "name:ip" (or "name=ip"); the address may be IPv6, in brackets or not, or "host-gateway".
pub fn extra_host(text: &str) -> Result<(&str, &str), Error> {
    let bad = |why: &str| Error::invalid("extra host", text, why);
    let at = text.find(['=', ':']).ok_or_else(|| bad("expected name:ip"))?;
    let (name, ip) = (&text[..at], &text[at + 1..]);
    let ip = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad("the name is empty or has a space in it"));
    }
    if ip != "host-gateway" && ip.parse::<IpAddr>().is_err() {
        return Err(bad("not an IP address"));
    }
    Ok((name, ip))
}

/// The text of /etc/resolv.conf: the container's own words, else its networks', else the host's without servers that
/// only the host can reach. On networks that serve names their servers stand here whatever the container says: they
/// know its own and ask those.
pub fn resolv_conf(network: &NetworkConfig, connection: &Connection<'_>, host: &HostFiles) -> String {
    let own = !network.dns.is_empty() || !network.dns_search.is_empty() || !network.dns_options.is_empty();
    let base = match connection {
        Connection::Host => Resolver::parse(&host.resolv_conf),
        Connection::Endpoints([]) => Resolver::parse(&host.resolv_conf).without_loopback(),
        Connection::Endpoints(endpoints) => Resolver::of(endpoints, &host.resolv_conf),
    };
    if !own && matches!(connection, Connection::Host) {
        return host.resolv_conf.clone();
    }
    let pick = |own: &Vec<String>, base: Vec<String>| if own.is_empty() { base } else { own.clone() };
    let mut search = pick(&network.dns_search, base.search);
    if search == ["."] {
        search.clear();
    }
    let named = matches!(connection, Connection::Endpoints(list) if list.iter().any(|e| !e.dns_servers.is_empty()));
    let servers = if named { base.servers } else { pick(&network.dns, base.servers) };
    Resolver { servers, search, options: pick(&network.dns_options, base.options) }.text()
}

#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(String::from)),
                Some("search" | "domain") => out.search = words.map(String::from).collect(),
                Some("options") => out.options.extend(words.map(String::from)),
                _ => {}
            }
        }
        out
    }

    // What the networks say of DNS; a network without DNS of its own leaves the host's servers.
    fn of(endpoints: &[Endpoint], host: &str) -> Self {
        let host = Self::parse(host).without_loopback();
        let all = |f: fn(&Endpoint) -> &Vec<String>| {
            let mut list: Vec<String> = Vec::new();
            for value in endpoints.iter().flat_map(f) {
                if !list.contains(value) {
                    list.push(value.clone());
                }
            }
            list
        };
        let or = |own: Vec<String>, host: Vec<String>| if own.is_empty() { host } else { own };
        Self {
            servers: or(all(|e| &e.dns_servers), host.servers),
            search: or(all(|e| &e.dns_search), host.search),
            options: or(all(|e| &e.dns_options), host.options),
        }
    }

    fn without_loopback(mut self) -> Self {
        let reachable = |s: &String| !s.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.servers.retain(reachable);
        self
    }

    fn text(&self) -> String {
        let mut text: String = self.servers.iter().map(|s| format!("nameserver {s}\n")).collect();
        for (word, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        text
    }
}

fn without_prefix(address: &str) -> &str {
    address.split_once('/').map_or(address, |(ip, _)| ip)
}

fn with_newline(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_string() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            addresses: vec!["10.89.0.2/24".into(), "fd00::2/64".into()],
            gateways: vec!["10.89.0.1".into()],
            dns_servers: vec!["10.89.0.1".into()],
            ..Default::default()
        }
    }

    #[test]
    fn hosts_of_a_connected_container() {
        let network =
            NetworkConfig { extra_hosts: vec!["db:10.0.0.9".into(), "gw:host-gateway".into()], ..Default::default() };
        let endpoints = [endpoint()];
        let text = hosts(&network, "web", "lan", &Connection::Endpoints(&endpoints), &HostFiles::default()).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        for line in ["10.0.0.9\tdb\n", "10.89.0.1\tgw\n", "10.89.0.2\tweb.lan web\n", "fd00::2\tweb.lan web\n"] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("10.89.0.1\thost.docker.internal host.containers.internal host.pier.internal\n"));
    }

    #[test]
    fn hosts_of_a_container_on_the_hosts_network() {
        let host = HostFiles { hosts: "1.2.3.4 me".into(), ..Default::default() };
        let text = hosts(&NetworkConfig::default(), "me", "", &Connection::Host, &host).unwrap();
        assert_eq!(text, "1.2.3.4 me\n");
    }

    #[test]
    fn extra_hosts() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), ("a", "1.2.3.4"));
        assert_eq!(extra_host("a:::1").unwrap(), ("a", "::1"));
        assert_eq!(extra_host("a=[fd00::1]").unwrap(), ("a", "fd00::1"));
        assert!(extra_host("a").is_err() && extra_host("a:b").is_err() && extra_host(":1.2.3.4").is_err());
    }

    #[test]
    fn resolvers() {
        let host = HostFiles {
            resolv_conf: "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan\n".into(),
            ..Default::default()
        };
        let endpoints = [endpoint()];
        let connected = Connection::Endpoints(&endpoints);
        let default = NetworkConfig::default();
        assert_eq!(resolv_conf(&default, &connected, &host), "nameserver 10.89.0.1\nsearch lan\n");
        assert_eq!(resolv_conf(&default, &Connection::Host, &host), host.resolv_conf);
        assert_eq!(resolv_conf(&default, &Connection::Endpoints(&[]), &host), "nameserver 9.9.9.9\nsearch lan\n");
        let own = NetworkConfig { dns: vec!["1.1.1.1".into()], dns_search: vec![".".into()], ..Default::default() };
        assert_eq!(resolv_conf(&own, &connected, &host), "nameserver 10.89.0.1\n");
        assert_eq!(resolv_conf(&own, &Connection::Endpoints(&[]), &host), "nameserver 1.1.1.1\n");
    }

    #[test]
    fn a_mounted_file_is_left_alone() {
        let mount = api::engine::v1::VolumeMount { target: "/etc/hosts/".into(), ..Default::default() };
        let config = ContainerConfig { mounts: vec![mount], ..Default::default() };
        let files = injected(&config, "h", &Connection::Endpoints(&[]), &HostFiles::default()).unwrap();
        let targets: Vec<_> = files.iter().map(|f| f.target.as_str()).collect();
        assert_eq!(targets, ["/etc/resolv.conf", "/etc/hostname"]);
    }
}
