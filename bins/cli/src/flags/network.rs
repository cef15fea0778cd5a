//! `--network` and what goes with it.

use anyhow::{Context, bail};
use api::engine::v1::{NetworkAttachment, NetworkConfig};

use super::container::Network;
use super::port;

/// All network flags as one configuration.
pub fn config(flags: &Network) -> anyhow::Result<NetworkConfig> {
    let mut config = NetworkConfig {
        publish_all: flags.publish_all,
        dns: flags.dns.clone(),
        dns_search: flags.dns_search.clone(),
        dns_options: flags.dns_option.clone(),
        ..Default::default()
    };
    for text in &flags.publish {
        config.ports.extend(port::publish(text)?);
    }
    for text in &flags.expose {
        config.expose.extend(port::expose(text)?);
    }
    for text in &flags.add_host {
        config.extra_hosts.push(extra_host(text)?);
    }
    for address in &flags.dns {
        address.parse::<std::net::IpAddr>().with_context(|| format!("invalid DNS server {address:?}"))?;
    }
    modes(flags, &mut config)?;
    Ok(config)
}

fn modes(flags: &Network, config: &mut NetworkConfig) -> anyhow::Result<()> {
    for text in &flags.network {
        match text.as_str() {
            "" | "default" => {}
            "none" | "host" => config.mode = text.clone(),
            name if name.starts_with("container:") => config.mode = text.clone(),
            _ => config.attachments.push(attachment(text)?),
        }
    }
    if !config.mode.is_empty() && flags.network.len() > 1 {
        bail!("network mode {} cannot be combined with other networks", config.mode);
    }
    let own =
        !flags.network_alias.is_empty() || flags.ip.is_some() || flags.ip6.is_some() || flags.mac_address.is_some();
    if !own {
        return Ok(());
    }
    let Some(first) = config.attachments.first_mut() else {
        bail!("--network-alias, --ip, --ip6 and --mac-address need a user-defined network (--network NAME)");
    };
    first.aliases.extend(flags.network_alias.iter().cloned());
    for address in flags.ip.iter().chain(&flags.ip6) {
        first.addresses.push(self::address(address)?);
    }
    if let Some(mac) = &flags.mac_address {
        first.mac_address = mac.clone();
    }
    Ok(())
}

/// A network's name, or docker's long form "name=blue,alias=web,ip=10.0.0.5".
fn attachment(text: &str) -> anyhow::Result<NetworkAttachment> {
    if !text.contains('=') {
        return Ok(NetworkAttachment { network: text.into(), ..Default::default() });
    }
    let mut attachment = NetworkAttachment::default();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').with_context(|| format!("invalid network {text:?}: {field:?} is no KEY=VALUE"))?;
        match key {
            "name" => attachment.network = value.into(),
            "alias" => attachment.aliases.push(value.into()),
            "ip" | "ip6" => attachment.addresses.push(address(value)?),
            "mac-address" => attachment.mac_address = value.into(),
            "gw-priority" => {
                let number = value.parse();
                attachment.gateway_priority =
                    number.with_context(|| format!("invalid network {text:?}: {value:?} is no priority"))?;
            }
            "driver-opt" => driver_option(&mut attachment, value)?,
            _ => bail!("invalid network {text:?}: unknown field {key:?}"),
        }
    }
    if attachment.network.is_empty() {
        bail!("invalid network {text:?}: name is required");
    }
    Ok(attachment)
}

/// docker's options for one endpoint, KEY=VALUE: there is one, the name of the link inside.
pub fn driver_option(attachment: &mut NetworkAttachment, text: &str) -> anyhow::Result<()> {
    match text.split_once('=') {
        Some(("com.docker.network.endpoint.ifname", name)) => attachment.interface_name = name.into(),
        _ => bail!("unknown driver option {text:?}: known is com.docker.network.endpoint.ifname=NAME"),
    }
    Ok(())
}

/// An address of either family, checked.
pub fn address(text: &str) -> anyhow::Result<String> {
    text.parse::<std::net::IpAddr>().with_context(|| format!("invalid address {text:?}"))?;
    Ok(text.into())
}

/// "host:ip" or "host=ip"; "host-gateway" stands for the gateway.
fn extra_host(text: &str) -> anyhow::Result<String> {
    let wrong = || format!("invalid --add-host {text:?}: expected HOST:IP");
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).with_context(wrong)?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || (ip != "host-gateway" && ip.parse::<std::net::IpAddr>().is_err()) {
        bail!(wrong());
    }
    Ok(format!("{host}:{ip}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(names: &[&str]) -> Network {
        Network { network: names.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn kinds() {
        assert_eq!(config(&networks(&[])).unwrap(), NetworkConfig::default());
        assert_eq!(config(&networks(&["host"])).unwrap().mode, "host");
        assert_eq!(config(&networks(&["container:web"])).unwrap().mode, "container:web");
        let red = "name=red,alias=web,ip=10.0.0.5,gw-priority=-1,driver-opt=com.docker.network.endpoint.ifname=lan0";
        let two = config(&networks(&["blue", red])).unwrap();
        assert_eq!((two.attachments[1].gateway_priority, two.attachments[1].interface_name.as_str()), (-1, "lan0"));
        assert!(config(&networks(&["name=red,driver-opt=speed=9"])).is_err());
        assert_eq!(two.attachments[0].network, "blue");
        assert_eq!(
            (two.attachments[1].aliases[0].as_str(), two.attachments[1].addresses[0].as_str()),
            ("web", "10.0.0.5")
        );
        assert!(config(&networks(&["host", "blue"])).is_err());
    }

    #[test]
    fn belongings() {
        let mut flags = networks(&["blue"]);
        flags.network_alias = vec!["db".into()];
        flags.ip = Some("10.0.0.9".into());
        let attachment = config(&flags).unwrap().attachments.remove(0);
        assert_eq!((attachment.aliases, attachment.addresses), (vec!["db".to_owned()], vec!["10.0.0.9".to_owned()]));
        flags.network.clear();
        assert!(config(&flags).is_err());
        flags = networks(&["blue"]);
        flags.ip = Some("nope".into());
        assert!(config(&flags).is_err());
    }

    #[test]
    fn hosts() {
        for (text, want) in [
            ("a:1.2.3.4", "a:1.2.3.4"),
            ("a=1.2.3.4", "a:1.2.3.4"),
            ("a:::1", "a:::1"),
            ("a:[::1]", "a:::1"),
            ("host.docker.internal:host-gateway", "host.docker.internal:host-gateway"),
        ] {
            assert_eq!(extra_host(text).unwrap(), want, "{text}");
        }
        for bad in ["a", "a:b", ":1.2.3.4"] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
    }
}
