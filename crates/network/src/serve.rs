//! What runs beside the gRPC service: reconcile at the start, and an eye on the keeper.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::firewall;
use crate::keeper;
use crate::networks::Networks;
use crate::watch::Watch;

/// Name of the gRPC service, for health.
pub const SERVICE: &str = "pier.network.v1.NetworkService";

/// Leases that cannot be read are looked at again after this.
const READ_AGAIN: Duration = Duration::from_secs(3);
/// Before a keeper that ended is started again; doubled while none lives long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const STEADY: Duration = Duration::from_secs(5);

/// The tasks of a serving program.
pub struct Background {
    networks: Arc<Networks>,
    changes: watch::Receiver<()>,
    keeper: JoinHandle<()>,
    leases: JoinHandle<()>,
}

impl Background {
    /// Reconciles, then starts the keeper and the watch over the records.
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
        let keeper = tokio::spawn(watch_keeper(networks.clone()));
        let leases = tokio::spawn(renew_leases(networks.clone(), changes.clone()));
        Ok(Self { networks, changes, keeper, leases })
    }

    /// Changes whenever the records do, whoever changed them.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// Lets go of the keeper; with no endpoint anywhere, takes everything off the host.
    pub async fn stop(self) {
        self.keeper.abort();
        self.leases.abort();
        let networks = self.networks;
        match spawn_blocking(move || networks.rest()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "something stays on the host"),
            Err(error) => tracing::warn!(%error, "something stays on the host"),
        }
    }
}

pub(crate) fn watch_records(networks: &Networks) -> Result<watch::Receiver<()>> {
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

/// Writes the firewall's rules again whenever somebody else removes some, on a thread of its own.
pub(crate) fn watch_table(networks: Arc<Networks>) {
    let watcher = move || {
        let mut watch = match firewall::Watch::of(&networks.firewall) {
            Ok(watch) => watch,
            Err(error) => return tracing::warn!(%error, "a flush of the firewall will not be noticed"),
        };
        // What was removed while nobody looked.
        reassert(&networks, false);
        while let Ok(damaged) = watch.wait() {
            reassert(&networks, damaged);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("nftables".into()).spawn(watcher) {
        tracing::warn!(%error, "a flush of the firewall will not be noticed");
    }
}

fn reassert(networks: &Networks, damaged: bool) {
    match networks.reassert_firewall(damaged) {
        Ok(true) => tracing::warn!("somebody changed the firewall; written again"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "somebody changed the firewall, and it cannot be written again"),
    }
}

/// Starts the keeper again whenever it ends, for as long as the daemon serves.
async fn watch_keeper(networks: Arc<Networks>) {
    let mut wait = FIRST_WAIT;
    loop {
        let begun = Instant::now();
        if let Err(error) = hold_keeper(&networks).await {
            tracing::error!(%error, "no keeper: names are not served");
        }
        wait = if begun.elapsed() > STEADY { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
        sleep(wait).await;
    }
}

/// Returns when the keeper is gone.
async fn hold_keeper(networks: &Arc<Networks>) -> Result<()> {
    let asking = networks.clone();
    let connected = spawn_blocking(move || keeper::connect(asking.config())).await;
    let failed = Error::kernel("connect to the keeper");
    let Some(stream) = connected.unwrap_or_else(|error| Err(failed(std::io::Error::other(error))))? else {
        return std::future::pending().await;
    };
    let talk = async {
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        let setting = format!("{}\n", networks.config().resolv_conf.display());
        stream.write_all(setting.as_bytes()).await?;
        while stream.read(&mut [0; 16]).await? > 0 {}
        std::io::Result::Ok(())
    };
    talk.await.map_err(Error::io(&networks.config().keeper_socket()))
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
                READ_AGAIN
            }
            Err(_) => return,
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(next) => {}
        }
    }
}
