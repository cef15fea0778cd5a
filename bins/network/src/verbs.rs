//! The verbs that need no daemon: arguments in, the library's functions, output.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use console::{Format, print_json, print_json_line};
use network::{
    EndpointFilter, Filters, Ipam, NetworkUpdate, Networks, NewEndpoint, NewNetwork, NewSubnet, PortMapping, Question,
    Verdict, Watch,
};

use crate::args::{Attach, Create, Detach, Endpoints, Health, Ls, Ns, Ports, State, Update, Verb};
use crate::show::{self, Inspected};

/// The exit code.
pub fn run(networks: &Networks, verb: Verb) -> anyhow::Result<u8> {
    let done: anyhow::Result<()> = match verb {
        Verb::Create(args) => create(networks, args),
        Verb::Ls(args) => list(networks, &args),
        Verb::Inspect { networks: names } => inspect(networks, &names),
        Verb::Rm { networks: names, force } => each(&names, |name| {
            networks.remove(name, force)?;
            println!("{name}");
            Ok(())
        }),
        Verb::Prune { filters } => {
            networks.prune(&parse_filters(&filters)?)?.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        Verb::Attach(args) => attach(networks, args),
        Verb::Detach(args) => detach(networks, args),
        Verb::Publish(args) => change_ports(networks, &args, true),
        Verb::Unpublish(args) => change_ports(networks, &args, false),
        Verb::Peers { network, peers } => {
            let network = networks.set_peers(&network, &peers)?;
            network.peers.iter().for_each(|peer| println!("{peer}"));
            Ok(())
        }
        Verb::Update(args) => update(networks, args),
        Verb::Health(args) => health(networks, args),
        Verb::Policy(args) => policy(networks, args),
        Verb::Ns(args) => namespaces(networks, args),
        Verb::Endpoints(args) => endpoints(networks, args),
        Verb::Reconcile => {
            networks.reconcile()?.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        Verb::Check { repair, format } => return check(networks, repair, format),
        Verb::Info { format } => info(networks, format),
        Verb::Stats { owner, format } => stats(networks, owner, format),
        Verb::Diagnose { target, name, format } => return diagnose(networks, target, name, format),
        Verb::Events { since, no_follow } => events(networks, since, no_follow),
        Verb::Serve(_) | Verb::Keep | Verb::Generate(_) => bail!("not a verb of its own"),
    };
    done.map(|()| 0)
}

fn check(networks: &Networks, repair: bool, format: Format) -> anyhow::Result<u8> {
    let differences = if repair { networks.reconcile()? } else { networks.check()? };
    match format {
        Format::Json => print_json(&differences)?,
        Format::Table => differences.iter().for_each(|line| println!("{line}")),
    }
    Ok(u8::from(!repair && !differences.is_empty()))
}

fn info(networks: &Networks, format: Format) -> anyhow::Result<()> {
    let info = networks.info();
    match format {
        Format::Json => print_json(&info)?,
        Format::Table => {
            println!("firewall: {}, table {}", info.firewall, info.firewall_table);
            info.firewall_lacks.iter().for_each(|line| println!("firewall lacks {line}"));
        }
    }
    Ok(())
}

fn stats(networks: &Networks, owner: Option<String>, format: Format) -> anyhow::Result<()> {
    let statistics = networks.statistics(&EndpointFilter { owner, ..EndpointFilter::default() })?;
    match format {
        Format::Json => print_json(&statistics),
        Format::Table => show::statistics(&statistics),
    }
}

fn diagnose(networks: &Networks, target: String, name: String, format: Format) -> anyhow::Result<u8> {
    let findings = networks.diagnose(&Question { target, name })?;
    match format {
        Format::Json => print_json(&findings)?,
        Format::Table => show::findings(&findings)?,
    }
    Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Failed)))
}

fn create(networks: &Networks, args: Create) -> anyhow::Result<()> {
    let mut subnets: Vec<NewSubnet> =
        args.subnets.iter().map(|subnet| NewSubnet { subnet: subnet.clone(), ..NewSubnet::default() }).collect();
    for gateway in &args.gateways {
        home(&mut subnets, gateway, "--gateway")?.gateway.clone_from(gateway);
    }
    for range in &args.ranges {
        home(&mut subnets, range, "--ip-range")?.range.clone_from(range);
    }
    let auxiliary = args.auxiliary.iter().map(|text| auxiliary(text)).collect::<anyhow::Result<_>>()?;
    let network = networks.create(NewNetwork {
        name: args.name,
        driver: args.driver,
        subnets,
        internal: args.internal,
        ipv6: args.ipv6,
        options: pairs(&args.options),
        labels: pairs(&args.labels),
        disable_dns: args.disable_dns,
        exist_ok: args.exist_ok,
        disable_ipv4: args.disable_ipv4,
        ipam: Ipam { driver: args.ipam_driver, options: pairs(&args.ipam_options), auxiliary, ..Ipam::default() },
        routes: args.routes,
        peers: args.peers,
        config_only: args.config_only,
        config_from: args.config_from,
        dns: dns(args.dns),
    })?;
    println!("{}", network.id);
    Ok(())
}

/// The subnet that an address lies in; one of its family when there is none, so that the library can say what is wrong.
fn home<'a>(subnets: &'a mut [NewSubnet], text: &str, flag: &str) -> anyhow::Result<&'a mut NewSubnet> {
    let ipv6 = text.contains(':');
    let address = text.split(['/', '-']).next().and_then(|text| text.parse::<std::net::IpAddr>().ok());
    let holds = |subnet: &NewSubnet| {
        let net = subnet.subnet.parse::<ipnet::IpNet>().ok();
        net.zip(address).is_some_and(|(net, address)| net.contains(&address))
    };
    let position = subnets.iter().position(holds);
    let position = position.or_else(|| subnets.iter().position(|subnet| subnet.subnet.contains(':') == ipv6));
    let found = position.and_then(|position| subnets.get_mut(position));
    found.with_context(|| format!("{flag} {text} needs a --subnet of its family"))
}

fn auxiliary(text: &str) -> anyhow::Result<(String, std::net::IpAddr)> {
    let (name, ip) = text.split_once('=').with_context(|| format!("--aux-address {text:?} is not NAME=IP"))?;
    Ok((name.to_owned(), ip.parse().with_context(|| format!("--aux-address {text:?}: {ip:?} is not an IP address"))?))
}

fn list(networks: &Networks, args: &Ls) -> anyhow::Result<()> {
    let (found, warnings) = networks.list(&parse_filters(&args.filters)?)?;
    warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
    match (args.quiet, args.format) {
        (true, _) => found.iter().for_each(|network| println!("{}", show::short(&network.id))),
        (false, Format::Json) => print_json(&found)?,
        (false, Format::Table) => show::networks(&found)?,
    }
    Ok(())
}

fn inspect(networks: &Networks, names: &[String]) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let result = each(names, |name| {
        let (network, endpoints) = networks.get(name)?;
        found.push(Inspected { network, endpoints });
        Ok(())
    });
    print_json(&found)?;
    result
}

fn attach(networks: &Networks, args: Attach) -> anyhow::Result<()> {
    let netns_path = args.netns.map(std::path::absolute).transpose()?.unwrap_or_default();
    let names = if args.names.is_empty() { vec![args.owner.clone()] } else { args.names };
    let new = NewEndpoint {
        network: args.network,
        netns_path,
        owner: args.owner,
        names,
        addresses: args.addresses,
        mac_address: args.mac_address,
        interface: args.interface,
        ports: parse_ports(&args.ports)?,
        no_default_route: args.no_default_route,
        gateway_priority: args.gateway_priority,
        metric: args.metric,
        mtu: args.mtu,
        routes: args.routes,
        host_interface: args.host_interface,
        dns: dns(args.dns),
        labels: pairs(&args.labels),
        services: args.services.iter().map(|text| text.parse()).collect::<network::Result<_>>()?,
    };
    if args.dry_run {
        networks.plan_attach(&new)?.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    show::endpoint(&networks.attach(&new)?)
}

fn dns(args: crate::args::Dns) -> network::Dns {
    network::Dns { servers: args.dns, search: args.dns_search, options: args.dns_options }
}

fn update(networks: &Networks, args: Update) -> anyhow::Result<()> {
    let update = NetworkUpdate { dns_add: args.dns_add, dns_drop: args.dns_drop };
    print_json(&networks.update_network(&args.network, &update)?)
}

fn policy(networks: &Networks, args: crate::args::Policy) -> anyhow::Result<()> {
    match args {
        crate::args::Policy::Create { name, action, from, to, ports } => {
            let ports = ports.iter().map(|text| text.parse()).collect::<network::Result<_>>()?;
            let deny = action == crate::args::Action::Deny;
            let (from, to) = (pairs(&from), pairs(&to));
            println!("{}", networks.create_policy(network::Policy { name, deny, from, to, ports })?.name);
            Ok(())
        }
        crate::args::Policy::Ls => print_json(&networks.policies()?),
        crate::args::Policy::Rm { names, force } => each(&names, |name| {
            networks.remove_policy(name, force)?;
            println!("{name}");
            Ok(())
        }),
    }
}

fn health(networks: &Networks, args: Health) -> anyhow::Result<()> {
    let which = which(networks, args.of)?;
    let changed = networks.set_health(&which, args.state == State::Healthy)?;
    changed.iter().for_each(|endpoint| println!("{}", endpoint.id));
    Ok(())
}

fn which(networks: &Networks, args: Detach) -> anyhow::Result<network::Detach> {
    match (args.endpoint, args.owner) {
        (Some(id), _) => Ok(network::Detach::Id(full_id(networks, &id)?)),
        (None, Some(owner)) => Ok(network::Detach::Owner { owner, network: args.network }),
        (None, None) => bail!("an endpoint or an owner is needed"),
    }
}

fn detach(networks: &Networks, args: Detach) -> anyhow::Result<()> {
    let dry_run = args.dry_run;
    let which = which(networks, args)?;
    if dry_run {
        networks.plan_detach(&which)?.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    let detached = networks.detach(&which)?;
    detached.warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
    detached.ids.iter().for_each(|id| println!("{id}"));
    Ok(())
}

fn change_ports(networks: &Networks, args: &Ports, publish: bool) -> anyhow::Result<()> {
    let id = full_id(networks, &args.endpoint)?;
    let ports = parse_ports(&args.ports)?;
    let (add, remove) = if publish { (ports, Vec::new()) } else { (Vec::new(), ports) };
    show::endpoint(&networks.update_ports(&id, &add, &remove)?)
}

/// An endpoint's id from its unique beginning. One that fits none is left to the library.
fn full_id(networks: &Networks, id: &str) -> anyhow::Result<String> {
    let all = networks.endpoints(&EndpointFilter::default())?;
    let mut fits = all.into_iter().map(|endpoint| endpoint.id).filter(|other| !id.is_empty() && other.starts_with(id));
    match (fits.next(), fits.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => bail!("{id:?} is the beginning of more than one endpoint's id"),
        _ => Ok(id.to_owned()),
    }
}

fn namespaces(networks: &Networks, args: Ns) -> anyhow::Result<()> {
    match args {
        Ns::Create { key, sysctls } => {
            println!("{}", networks.create_namespace(&key, &pairs(&sysctls))?.display());
            Ok(())
        }
        Ns::Rm { keys } => each(&keys, |key| {
            let warnings = networks.remove_namespace(key)?;
            warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
            println!("{key}");
            Ok(())
        }),
        Ns::Ls => {
            networks.namespaces()?.iter().for_each(|key| println!("{key}"));
            Ok(())
        }
    }
}

fn endpoints(networks: &Networks, args: Endpoints) -> anyhow::Result<()> {
    let network = args.network.map(|name| networks.get(&name)).transpose()?.map(|(network, _)| network.id);
    let found = networks.endpoints(&EndpointFilter { network, owner: args.owner, ..EndpointFilter::default() })?;
    match args.format {
        Format::Json => print_json(&found),
        Format::Table => show::endpoints(&found),
    }
}

fn events(networks: &Networks, since: Option<u64>, no_follow: bool) -> anyhow::Result<()> {
    let watch = Watch::of(&networks.config().root)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let since = since.map(|seconds| now.saturating_sub(std::time::Duration::from_secs(seconds)).as_nanos());
    let mut after = if since.is_some() || no_follow { 0 } else { networks.store().last_event()? };
    let since = i64::try_from(since.unwrap_or(0))?;
    loop {
        for event in networks.store().events(after, since)? {
            after = event.sequence;
            print_json_line(&serde_json::json!({
                "time": event.time, "type": "network", "action": event.action, "id": event.id,
                "attributes": event.attributes,
            }))?;
        }
        if no_follow {
            return Ok(());
        }
        watch.wait()?;
    }
}

/// Does all, and reports the first failure after the last.
fn each(names: &[String], mut work: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut first = Ok(());
    for name in names {
        match (work(name), first.is_ok()) {
            (Err(error), true) => first = Err(error),
            (Err(error), false) => eprintln!("Error: {error:#}"),
            (Ok(()), _) => {}
        }
    }
    first
}

fn parse_ports(ports: &[String]) -> anyhow::Result<Vec<PortMapping>> {
    Ok(ports.iter().map(|port| port.parse()).collect::<network::Result<_>>()?)
}

/// KEY=VALUE, or KEY alone with an empty value.
fn pairs(items: &[String]) -> BTreeMap<String, String> {
    items.iter().map(|item| item.split_once('=').unwrap_or((item, ""))).map(|(k, v)| (k.into(), v.into())).collect()
}

fn parse_filters(items: &[String]) -> anyhow::Result<Filters> {
    let mut filters = Filters::new();
    for item in items {
        let (key, value) = item.split_once('=').with_context(|| format!("filter {item:?} is not KEY=VALUE"))?;
        filters.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Ok(filters)
}
