//! What the keeper does.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use statedir::Lock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::guard::Guard;
use super::handover::{Inherited, Program};
use crate::dns::{self, Servers};
use crate::error::{Error, Result};
use crate::firewall::{Backend, Elements};
use crate::model::{Endpoint, EndpointState};
use crate::netlink::Netlink;
use crate::networks::{Filters, Networks};
use crate::serve;
use crate::store::{EndpointFilter, StoredEndpoint};

/// An address that could not be bound is tried again after this.
const BIND_AGAIN: Duration = Duration::from_secs(3);
/// Of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;
/// With nobody attached the keeper waits this long for the next.
const LINGER: Duration = Duration::from_millis(500);

/// Keeps a stack until nobody is attached and nobody is connected. Ends at once if there is a keeper. Prints `ok` when
/// it serves.
///
/// # Errors
/// The records cannot be read or watched, the socket not bound.
pub async fn keep(networks: Arc<Networks>) -> Result<()> {
    // Not of the terminal or the job of whoever happened to attach first.
    let _ = rustix::process::setsid();
    let mut inherited = Inherited::take();
    let changes = [serve::watch_records(&networks)?, watch_links()?];
    serve::watch_table(networks.clone());
    loop {
        let path = networks.config().keeper_lock();
        let lock = match inherited.lock.take() {
            Some(lock) => lock,
            None => match Lock::try_acquire(&path).map_err(|source| Error::Lock { source })? {
                Some(lock) => lock.into(),
                None => return Ok(()),
            },
        };
        // Released when the keeper is gone.
        Keeper::new(networks.clone(), changes.clone(), lock, std::mem::take(&mut inherited))?.run().await?;
        // Who attached while the lock was held, started nobody.
        if attached(&networks)?.is_empty() {
            return Ok(());
        }
    }
}

/// What is served: read from the records.
struct Wanted {
    index: dns::Index,
    guard: Elements,
    empty: bool,
}

/// What clients do.
enum Event {
    Setting(PathBuf),
    Gone(u64),
}

struct Keeper {
    networks: Arc<Networks>,
    /// Of the records, of the host's links.
    changes: [watch::Receiver<()>; 2],
    listener: UnixListener,
    servers: Servers,
    guard: Guard,
    /// Each with a number and whether it has heard `ok`.
    clients: Vec<(u64, OwnedWriteHalf, bool)>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    numbers: u64,
    announced: bool,
    program: Program,
    /// Held while this is the keeper. Dropped last.
    lock: OwnedFd,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The lock is still held: nobody else's socket is there.
        let _ = std::fs::remove_file(self.networks.config().keeper_socket());
    }
}

impl Keeper {
    fn new(
        networks: Arc<Networks>,
        changes: [watch::Receiver<()>; 2],
        lock: OwnedFd,
        inherited: Inherited,
    ) -> Result<Self> {
        let config = networks.config();
        let path = config.keeper_socket();
        let listener = match inherited.listener {
            Some(listener) => UnixListener::from_std(listener.into()).map_err(Error::io(&path))?,
            None => listen(&path).map_err(Error::io(&path))?,
        };
        Ok(Self {
            servers: Servers::new(config.resolv_conf.clone(), inherited.names, config.port_owner()),
            guard: Guard::new(&config.table),
            changes,
            listener,
            clients: Vec::new(),
            events: mpsc::channel(16),
            numbers: 0,
            announced: false,
            program: Program::own().map_err(Error::kernel("look at the program"))?,
            lock,
            networks,
        })
    }

    async fn run(mut self) -> Result<()> {
        loop {
            let again = self.serve_wanted().await?;
            if self.program.is_replaced().await {
                return Err(self.hand_over().await);
            }
            let empty = self.clients.is_empty() && again.empty;
            let nap = if empty { LINGER } else { BIND_AGAIN };
            let [records, links] = &mut self.changes;
            tokio::select! {
                changed = records.changed() => if changed.is_err() { return Ok(()) },
                Ok(()) = links.changed() => {}
                accepted = self.listener.accept() => if let Ok((stream, _)) = accepted { self.greet(stream) },
                event = self.events.1.recv() => self.heed(event),
                () = self.guard.gone() => tracing::warn!("the firewall's guard ended; started again"),
                () = sleep(nap), if empty || again.failed => if empty && self.nobody_came()? { return Ok(()) },
            }
        }
    }

    /// Serves what is recorded now, and says so to all who wait for it.
    async fn serve_wanted(&mut self) -> Result<Served> {
        self.changes.iter_mut().for_each(|changes| drop(changes.borrow_and_update()));
        let networks = self.networks.clone();
        let read = spawn_blocking(move || wanted(&networks)).await;
        let wanted = read.map_err(|error| Error::kernel("read the records")(io::Error::other(error)))??;
        let failed = self.servers.update(wanted.index);
        if let Err(error) = self.guard.set(&wanted.guard).await {
            tracing::warn!(%error, "the firewall is not guarded against a flush");
        }
        for (_, client, told) in &mut self.clients {
            if !std::mem::replace(told, true) {
                let _ = client.write_all(b"ok\n").await;
            }
        }
        if !std::mem::replace(&mut self.announced, true) {
            // Nobody may listen any more.
            let _ = io::stdout().write_all(b"ok\n").and_then(|()| io::stdout().flush());
        }
        Ok(Served { failed, empty: wanted.empty })
    }

    /// Goes on as the program that lies in this one's place. Returns only when that fails.
    async fn hand_over(&mut self) -> Error {
        tracing::info!("another program lies in the keeper's place: it goes on as that");
        self.guard.end().await;
        let error = match self.servers.hand_over().await {
            Ok(names) => self.program.exec(self.lock.as_fd(), self.listener.as_fd(), &names),
            Err(error) => error,
        };
        Error::kernel("go on as another program")(error)
    }

    fn greet(&mut self, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        self.numbers += 1;
        let (number, events) = (self.numbers, self.events.0.clone());
        self.clients.push((number, writer, false));
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = events.send(Event::Setting(line.into())).await;
            }
            let _ = events.send(Event::Gone(number)).await;
        });
    }

    fn heed(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Setting(path)) => self.servers.set_resolv_conf(path),
            Some(Event::Gone(number)) => self.clients.retain(|(other, _, _)| *other != number),
            None => {}
        }
    }

    fn nobody_came(&self) -> Result<bool> {
        Ok(attached(&self.networks)?.is_empty())
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct Served {
    failed: bool,
    empty: bool,
}

fn wanted(networks: &Networks) -> Result<Wanted> {
    let (known, _) = networks.list(&Filters::new())?;
    let attached = attached(networks)?;
    // Of the guard's table only nft knows.
    let guarded = networks.firewall.backend().is_ok_and(|backend| backend == Backend::Nft);
    let guard = if guarded { networks.rules()?.guard() } else { Elements::default() };
    Ok(Wanted { index: dns::index(&known, &attached), guard, empty: attached.is_empty() })
}

/// Endpoints that need a keeper: those whose link is there, and those that are about to get one.
fn attached(networks: &Networks) -> Result<Vec<Endpoint>> {
    let step = || Error::kernel("list the host's links");
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).map_err(step())?;
    let links: BTreeSet<String> = links.into_iter().map(|link| link.name).collect();
    let stored = networks.store().endpoints(&EndpointFilter::default())?;
    let needs = |stored: &StoredEndpoint| match stored.state {
        EndpointState::Attaching => !stored.endpoint.host_interface.is_empty(),
        EndpointState::Ready => links.contains(&stored.endpoint.host_interface),
        EndpointState::Detaching => false,
    };
    Ok(stored.into_iter().filter(needs).map(|stored| stored.endpoint).collect())
}

/// Tells when a link of the host goes: with it an endpoint may have gone, whose namespace ended.
fn watch_links() -> Result<watch::Receiver<()>> {
    let step = || Error::kernel("watch the host's links");
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(step())?;
    socket.bind_auto().map_err(step())?;
    socket.add_membership(RTNLGRP_LINK).map_err(step())?;
    let _ = socket.set_no_enobufs(true);
    let (sender, receiver) = watch::channel(());
    let watcher = move || {
        while let Ok((message, _)) = socket.recv_from_full() {
            let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
            if kind == Some(RTM_DELLINK) && sender.send(()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("links".into()).spawn(watcher).map(drop).map_err(step())?;
    Ok(receiver)
}
