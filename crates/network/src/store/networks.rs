//! Records of networks.

use rusqlite::{OptionalExtension, Row, params};

use super::{Durable, Store, from_json, to_json};
use crate::error::{Error, Result};
use crate::foreign::ipam::Debt;
use crate::ipam;
use crate::model::Network;

/// A network with what only this tool knows of it.
#[derive(Debug, Clone)]
pub struct StoredNetwork {
    /// The network.
    pub network: Network,
    /// Its bridge is, or should be, on the host.
    pub up: bool,
    /// Its removal has begun.
    pub removing: bool,
}

impl Store {
    /// All networks by name; and the ids of records that cannot be read.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn networks(&self) -> Result<(Vec<StoredNetwork>, Vec<String>)> {
        let rows = self.read(|db| {
            let mut statement = db.prepare_cached("SELECT id, body, up, removing FROM network ORDER BY name")?;
            statement.query_map([], raw)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let (mut networks, mut damaged) = (Vec::new(), Vec::new());
        for row in rows {
            let id = row.0.clone();
            match whole(row) {
                Ok(network) => networks.push(network),
                Err(error) => {
                    tracing::error!(id, %error, "network record skipped");
                    damaged.push(id);
                }
            }
        }
        Ok((networks, damaged))
    }

    /// A network by name, by id, or by the unique beginning of an id.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Ambiguous`].
    pub fn find_network(&self, name: &str) -> Result<StoredNetwork> {
        let not_found = || Error::NetworkNotFound { name: name.to_owned() };
        let sql = "SELECT id, body, up, removing FROM network WHERE name = ?1 OR id = ?1";
        if let Some(row) = self.read(|db| db.prepare_cached(sql)?.query_row([name], raw).optional())? {
            return whole(row);
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut rows = self.read(|db| {
            let sql = "SELECT id, body, up, removing FROM network WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2";
            db.prepare_cached(sql)?.query_map([name], raw)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if rows.len() > 1 {
            return Err(Error::Ambiguous { prefix: name.to_owned() });
        }
        whole(rows.pop().ok_or_else(not_found)?)
    }

    /// Records a network whose name and subnets nobody has. `choose` fills in what depends on the others, inside
    /// the transaction.
    ///
    /// # Errors
    /// [`Error::NetworkExists`], [`Error::SubnetOverlap`], or `choose`'s.
    pub(crate) fn insert_network(&self, choose: impl FnOnce(&[Network]) -> Result<Network>) -> Result<Network> {
        self.write(Durable::Disk, |db| {
            let rows = db
                .prepare("SELECT id, body, up, removing FROM network")?
                .query_map([], raw)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let others: Vec<Network> = rows.into_iter().filter_map(|row| whole(row).ok()).map(|n| n.network).collect();
            let network = match choose(&others).and_then(|network| free_of_conflicts(network, &others)) {
                Ok(network) => network,
                Err(error) => return Ok(Err(error)),
            };
            db.execute(
                "INSERT INTO network (id, name, body) VALUES (?1, ?2, ?3)",
                params![network.id, network.name, to_json(&network)],
            )?;
            Ok(Ok(network))
        })
    }

    /// Replaces the record of a network.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn update_network(&self, network: &Network) -> Result<()> {
        self.write(Durable::Disk, |db| {
            db.execute("UPDATE network SET body = ?2 WHERE id = ?1", params![network.id, to_json(network)])?;
            Ok(Ok(()))
        })
    }

    /// Marks that the bridge is, or is no longer, wanted on the host.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn set_up(&self, id: &str, up: bool) -> Result<()> {
        self.write(Durable::Process, |db| {
            db.execute("UPDATE network SET up = ?2 WHERE id = ?1", params![id, up])?;
            Ok(Ok(()))
        })
    }

    /// Marks that the removal has begun.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn set_removing(&self, id: &str) -> Result<()> {
        self.write(Durable::Process, |db| {
            db.execute("UPDATE network SET removing = 1 WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
    }

    /// Forgets a network that has no endpoints.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn delete_network(&self, id: &str, debts: &[Debt]) -> Result<()> {
        self.write(Durable::Disk, |db| {
            if db.execute("DELETE FROM network WHERE id = ?1", [id])? > 0 {
                super::debts::insert(db, debts)?;
            }
            Ok(Ok(()))
        })
    }
}

fn free_of_conflicts(network: Network, others: &[Network]) -> Result<Network> {
    if others.iter().any(|other| other.name == network.name) {
        return Err(Error::NetworkExists { name: network.name });
    }
    for other in others.iter().filter(|other| meet(&network, other)) {
        for subnet in &network.subnets {
            if let Some(hit) = other.subnets.iter().find(|theirs| ipam::overlaps(&theirs.subnet, &subnet.subnet)) {
                let with = format!("{} of network {:?}", hit.subnet, other.name);
                return Err(Error::SubnetOverlap { subnet: subnet.subnet.to_string(), with });
            }
        }
    }
    Ok(network)
}

/// Whether two networks may not have an address in common: both are the host's to route, or both are on one parent.
fn meet(a: &Network, b: &Network) -> bool {
    match (a.config_only || b.config_only, a.shares_subnets(), b.shares_subnets()) {
        (false, false, false) => true,
        (false, true, true) => {
            !a.driver.is_foreign() && !b.driver.is_foreign() && a.parent() == b.parent() && a.bridge == b.bridge
        }
        _ => false,
    }
}

type Raw = (String, String, bool, bool);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn whole((id, body, up, removing): Raw) -> Result<StoredNetwork> {
    Ok(StoredNetwork { network: from_json(&id, &body)?, up, removing })
}
