//! Records of endpoints, and of the addresses and ports they hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Durable, Store, from_json, to_json};
use crate::error::{Error, Result};
use crate::foreign::ipam::Debt;
use crate::ipam;
use crate::model::{Driver, Endpoint, EndpointState, Network, PortMapping, Subnet};

/// An endpoint and how far it has come.
#[derive(Debug, Clone)]
pub struct StoredEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// How far it has come.
    pub state: EndpointState,
}

/// Which endpoints. Absent fields match all.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    /// Id of the endpoint.
    pub id: Option<String>,
    /// Id of the network.
    pub network: Option<String>,
    /// Who it is for.
    pub owner: Option<String>,
    /// Path of the namespace.
    pub netns: Option<String>,
}

impl Store {
    /// Endpoints in the order of their making; unreadable ones are logged and left out.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn endpoints(&self, filter: &EndpointFilter) -> Result<Vec<StoredEndpoint>> {
        self.read(|db| {
            let sql =
                "SELECT id, body, state FROM endpoint WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR network = ?2)
                       AND (?3 IS NULL OR owner = ?3) AND (?4 IS NULL OR netns = ?4) ORDER BY rowid";
            db.prepare_cached(sql)?
                .query_map(params![filter.id, filter.network, filter.owner, filter.netns], raw)?
                .filter_map(|row| row.map(whole).transpose())
                .collect()
        })
    }

    /// The endpoint with this id, whole ones only.
    ///
    /// # Errors
    /// [`Error::EndpointNotFound`].
    pub fn find_endpoint(&self, id: &str) -> Result<Endpoint> {
        let filter = EndpointFilter { id: Some(id.to_owned()), ..EndpointFilter::default() };
        let found = self.endpoints(&filter)?.into_iter().find(|stored| stored.state == EndpointState::Ready);
        found.map(|stored| stored.endpoint).ok_or_else(|| Error::EndpointNotFound { id: id.to_owned() })
    }

    /// Records an endpoint that is about to be made: gives it addresses, holds its ports, and marks the network as
    /// wanted on the host. Unless `keep`, it only tells what the record would be.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::SubnetFull`], [`Error::PortPublished`].
    pub(crate) fn insert_endpoint(
        &self,
        network: &Network,
        mut endpoint: Endpoint,
        wanted: &[IpAddr],
        keep: bool,
    ) -> Result<Endpoint> {
        self.transact(Durable::Process, keep, |db| {
            if let Some(error) = published(db, &endpoint.ports, &endpoint.id)? {
                return Ok(Err(error));
            }
            match give_addresses(db, network, wanted)? {
                Ok(addresses) => endpoint.addresses.extend(addresses),
                Err(error) => return Ok(Err(error)),
            }
            // Who waits for addresses of a plugin knows later which gateways they reach.
            if !network.ipam.is_remote() {
                let reached = network.gateways_of(&endpoint.addresses);
                endpoint.gateways.retain(|gateway| reached.contains(gateway));
            }
            db.execute(
                "INSERT INTO endpoint (id, network, owner, netns, state, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    endpoint.id,
                    network.id,
                    endpoint.owner,
                    endpoint.netns_path.to_string_lossy(),
                    code(EndpointState::Attaching),
                    to_json(&endpoint)
                ],
            )?;
            hold_addresses(db, &endpoint)?;
            hold_ports(db, &endpoint.id, &endpoint.ports)?;
            db.execute("UPDATE network SET up = 1 WHERE id = ?1", [&network.id])?;
            Ok(Ok(endpoint))
        })
    }

    /// Writes down how far an endpoint has come.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn set_endpoint_state(&self, id: &str, state: EndpointState) -> Result<()> {
        self.write(Durable::Process, |db| {
            db.execute("UPDATE endpoint SET state = ?2 WHERE id = ?1", params![id, code(state)])?;
            Ok(Ok(()))
        })
    }

    /// Replaces the record of an endpoint, with its ports.
    ///
    /// # Errors
    /// [`Error::PortPublished`].
    pub(crate) fn update_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        self.write(Durable::Process, |db| {
            if let Some(error) = published(db, &endpoint.ports, &endpoint.id)? {
                return Ok(Err(error));
            }
            db.execute("UPDATE endpoint SET body = ?2 WHERE id = ?1", params![endpoint.id, to_json(endpoint)])?;
            db.execute("DELETE FROM address WHERE endpoint = ?1", [&endpoint.id])?;
            hold_addresses(db, endpoint)?;
            db.execute("DELETE FROM port WHERE endpoint = ?1", [&endpoint.id])?;
            hold_ports(db, &endpoint.id, &endpoint.ports)?;
            Ok(Ok(()))
        })
    }

    /// Forgets an endpoint; its addresses and ports are free. `debts`: what plugins are to get back.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn delete_endpoint(&self, id: &str, debts: &[Debt]) -> Result<()> {
        self.write(Durable::Process, |db| {
            // Another may have been faster, and written them down.
            if db.execute("DELETE FROM endpoint WHERE id = ?1", [id])? > 0 {
                super::debts::insert(db, debts)?;
            }
            Ok(Ok(()))
        })
    }

    /// Whoever has published one of these ports already.
    ///
    /// # Errors
    /// [`Error::PortPublished`].
    pub(crate) fn check_ports(&self, ports: &[PortMapping], except: &str) -> Result<()> {
        self.read(|db| published(db, ports, except))?.map_or(Ok(()), Err)
    }
}

fn hold_addresses(db: &Transaction<'_>, endpoint: &Endpoint) -> rusqlite::Result<()> {
    let sql = "INSERT INTO address (network, address, endpoint) VALUES (?1, ?2, ?3)";
    let mut statement = db.prepare_cached(sql)?;
    for address in &endpoint.addresses {
        statement.execute(params![endpoint.network_id, address.addr().to_string(), endpoint.id])?;
    }
    Ok(())
}

/// The wanted addresses, and a free one of each family that has none yet.
fn give_addresses(db: &Transaction<'_>, network: &Network, wanted: &[IpAddr]) -> rusqlite::Result<Result<Vec<IpNet>>> {
    if !network.ipam.is_own() {
        return Ok(Ok(Vec::new()));
    }
    let mut given = Vec::new();
    for address in wanted {
        if let Some(owner) = owner_of(db, &network.id, *address)? {
            return Ok(Err(Error::AddressInUse { address: *address, network: network.name.clone(), owner }));
        }
        given.extend(network.subnet_of(*address).and_then(|subnet| of_subnet(network, subnet, *address)));
    }
    let mut used = used_addresses(db, &network.id)?;
    used.extend(wanted);
    used.extend(network.ipam.auxiliary.values());
    for ipv6 in [false, true] {
        let family = |address: IpAddr| address.is_ipv6() == ipv6;
        let mut subnets = network.subnets.iter().filter(|subnet| family(subnet.subnet.addr())).peekable();
        if subnets.peek().is_none() || given.iter().any(|address: &IpNet| family(address.addr())) {
            continue;
        }
        match first_free(db, network, subnets, &used)? {
            Ok(address) => given.push(address),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(given))
}

/// A free address of the first subnet that has one.
fn first_free<'a>(
    db: &Transaction<'_>,
    network: &Network,
    subnets: impl Iterator<Item = &'a Subnet>,
    used: &BTreeSet<IpAddr>,
) -> rusqlite::Result<Result<IpNet>> {
    let mut full = Vec::new();
    for subnet in subnets {
        let cidr = subnet.subnet.to_string();
        let sql = "SELECT address FROM cursor WHERE network = ?1 AND subnet = ?2";
        let cursor: Option<String> =
            db.prepare_cached(sql)?.query_row([&network.id, &cidr], |row| row.get(0)).optional()?;
        let cursor = cursor.and_then(|text| text.parse().ok());
        let Some(address) = ipam::next_address(subnet, used, cursor) else {
            full.push(cidr);
            continue;
        };
        let sql = "INSERT INTO cursor (network, subnet, address) VALUES (?1, ?2, ?3)
                   ON CONFLICT (network, subnet) DO UPDATE SET address = ?3";
        db.prepare_cached(sql)?.execute([&network.id, &cidr, &address.to_string()])?;
        if let Some(address) = of_subnet(network, subnet, address) {
            return Ok(Ok(address));
        }
    }
    Ok(Err(Error::SubnetFull { subnet: full.join(", "), network: network.name.clone() }))
}

/// An address with the length of the prefix that is on its link: routed pairs have nobody beside them.
fn of_subnet(network: &Network, subnet: &Subnet, address: IpAddr) -> Option<IpNet> {
    match network.driver {
        Driver::Veth => Some(IpNet::from(address)),
        _ => IpNet::new(address, subnet.subnet.prefix_len()).ok(),
    }
}

fn owner_of(db: &Transaction<'_>, network: &str, address: IpAddr) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT owner FROM address JOIN endpoint ON endpoint.id = address.endpoint
               WHERE address.network = ?1 AND address.address = ?2";
    db.prepare_cached(sql)?.query_row([network, &address.to_string()], |row| row.get(0)).optional()
}

fn used_addresses(db: &Transaction<'_>, network: &str) -> rusqlite::Result<BTreeSet<IpAddr>> {
    let mut statement = db.prepare_cached("SELECT address FROM address WHERE network = ?1")?;
    let rows = statement.query_map([network], |row| row.get::<_, String>(0))?;
    rows.map(|text| Ok(text?.parse().ok())).filter_map(Result::transpose).collect()
}

fn hold_ports(db: &Transaction<'_>, endpoint: &str, ports: &[PortMapping]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO port (endpoint, protocol, first, last, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = db.prepare_cached(sql)?;
    for port in ports {
        let last = port.last_host_port();
        statement.execute(params![endpoint, port.protocol.to_string(), port.host_port, last, to_json(port)])?;
    }
    Ok(())
}

fn published(db: &rusqlite::Connection, ports: &[PortMapping], except: &str) -> rusqlite::Result<Option<Error>> {
    let sql = "SELECT port.body, endpoint.owner FROM port JOIN endpoint ON endpoint.id = port.endpoint
               WHERE port.protocol = ?1 AND port.first <= ?3 AND port.last >= ?2 AND port.endpoint <> ?4";
    let mut statement = db.prepare_cached(sql)?;
    for port in ports {
        let last = port.last_host_port();
        let rows = statement.query_map(params![port.protocol.to_string(), port.host_port, last, except], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        for row in rows {
            let (body, owner) = row?;
            let theirs: Option<PortMapping> = serde_json::from_str(&body).ok();
            if theirs.is_some_and(|theirs| theirs.conflicts(port)) {
                return Ok(Some(Error::PortPublished { port: port.clone(), owner }));
            }
        }
    }
    Ok(None)
}

fn code(state: EndpointState) -> i64 {
    match state {
        EndpointState::Attaching => 0,
        EndpointState::Ready => 1,
        EndpointState::Detaching => 2,
    }
}

fn raw(row: &Row<'_>) -> rusqlite::Result<(String, String, i64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn whole((id, body, state): (String, String, i64)) -> Option<StoredEndpoint> {
    let state = match state {
        0 => EndpointState::Attaching,
        1 => EndpointState::Ready,
        _ => EndpointState::Detaching,
    };
    match from_json(&id, &body) {
        Ok(endpoint) => Some(StoredEndpoint { endpoint, state }),
        Err(error) => {
            tracing::error!(id, %error, "endpoint record skipped");
            None
        }
    }
}
