//! What runs beside the gRPC service: reconcile at the start, the name servers, the watch over the firewall's table.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::dns::{self, Servers};
use crate::error::{Error, Result};
use crate::firewall::probe::Removals;
use crate::networks::{Filters, Networks};
use crate::store::EndpointFilter;
use crate::watch::Watch;

/// Name of the gRPC service, for health.
pub const SERVICE: &str = "pier.network.v1.NetworkService";

/// An address that could not be bound is tried again after this.
const BIND_AGAIN: Duration = Duration::from_secs(3);

/// The tasks of a serving program.
pub struct Background {
    networks: Arc<Networks>,
    changes: watch::Receiver<()>,
    dns: JoinHandle<()>,
    leases: JoinHandle<()>,
}

impl Background {
    /// Reconciles, then starts the name servers and the watches.
    ///
    /// # Errors
    /// The records cannot be read or watched.
    pub async fn start(networks: Arc<Networks>) -> Result<Self> {
        let reconciled = networks.clone();
        let mended = spawn_blocking(move || reconciled.reconcile()).await;
        for line in mended.unwrap_or_else(|error| Err(Error::kernel("reconcile")(std::io::Error::other(error))))? {
            tracing::warn!("reconciled: {line}");
        }
        let changes = watch_records(&networks)?;
        if let Err(error) = watch_table(networks.clone()) {
            tracing::warn!(%error, "a flush of the firewall will not be noticed");
        }
        let dns = tokio::spawn(serve_names(networks.clone(), changes.clone()));
        let leases = tokio::spawn(renew_leases(networks.clone(), changes.clone()));
        Ok(Self { networks, changes, dns, leases })
    }

    /// Changes whenever the records do, whoever changed them.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// Stops the name servers; with no endpoint anywhere, takes everything off the host.
    pub async fn stop(self) {
        self.dns.abort();
        self.leases.abort();
        let networks = self.networks;
        match spawn_blocking(move || networks.rest()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "something stays on the host"),
            Err(error) => tracing::warn!(%error, "something stays on the host"),
        }
    }
}

fn watch_records(networks: &Networks) -> Result<watch::Receiver<()>> {
    let root = &networks.config().root;
    let records = Watch::of(root).map_err(Error::io(root))?;
    let (sender, receiver) = watch::channel(());
    let watcher = move || {
        while records.wait().is_ok() {
            if sender.send(()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("records".into()).spawn(watcher).map_err(Error::io(root))?;
    Ok(receiver)
}

fn watch_table(networks: Arc<Networks>) -> Result<()> {
    let step = || Error::kernel("watch nftables");
    let removals = Removals::of(&networks.config().table).map_err(step())?;
    let watcher = move || {
        while removals.wait().is_ok() {
            match networks.reassert_firewall() {
                Ok(true) => tracing::warn!("the firewall table was removed; written again"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the firewall table was removed and cannot be written again"),
            }
        }
    };
    std::thread::Builder::new().name("nftables".into()).spawn(watcher).map(drop).map_err(step())
}

async fn serve_names(networks: Arc<Networks>, mut changes: watch::Receiver<()>) {
    let mut servers = Servers::new(networks.config().resolv_conf.clone());
    loop {
        changes.borrow_and_update();
        let read = networks.clone();
        let index = spawn_blocking(move || -> Result<dns::Index> {
            let (networks, _) = read.list(&Filters::new())?;
            Ok(dns::index(&networks, &read.endpoints(&EndpointFilter::default())?))
        });
        let again = match index.await {
            Ok(Ok(index)) => servers.update(index).await,
            Ok(Err(error)) => {
                tracing::error!(%error, "names cannot be read");
                true
            }
            Err(_) => return,
        };
        let changed = changes.changed();
        if again {
            tokio::select! {
                result = changed => if result.is_err() { return },
                () = sleep(BIND_AGAIN) => {}
            }
        } else if changed.await.is_err() {
            return;
        }
    }
}

/// Renews leases of DHCP when they are due, and looks again whenever the records change.
async fn renew_leases(networks: Arc<Networks>, mut changes: watch::Receiver<()>) {
    loop {
        changes.borrow_and_update();
        let renewing = networks.clone();
        let next = match spawn_blocking(move || renewing.renew_leases()).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::error!(%error, "leases cannot be read");
                BIND_AGAIN
            }
            Err(_) => return,
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(next) => {}
        }
    }
}
