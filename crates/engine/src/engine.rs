//! The engine itself: clients, settings, locks; nothing that would be missed after a crash.
use crate::clients::{Clients, ToolConfig};
use crate::config::Settings;
use crate::error::Error;
use crate::locks::Locks;
use crate::proxy::Proxy;
use crate::service::Service;
use crate::{events, sweep};
use api::engine::v1::engine_service_server::EngineServiceServer;
use oci::idmap::IdMap;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tonic::service::Routes;

/// Services whose health is reported: our own, and those that are passed through.
pub const SERVICES: &[&str] = &[
    "pier.engine.v1.EngineService",
    "pier.supervisor.v1.SupervisorService",
    "pier.distribution.v1.DistributionService",
    "pier.network.v1.NetworkService",
    "pier.volume.v1.VolumeService",
    "pier.builder.v1.BuilderService",
];

/// Composes the tools. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    clients: Clients,
    settings: RwLock<Settings>,
    locks: Locks,
    making: Mutex<HashSet<String>>,
    // Ids given to containers that have no record yet: container, first, last.
    allotted: tokio::sync::Mutex<Vec<(String, u32, u32)>>,
    sweep: Notify,
    // False from the moment that a sweep is due until it is done.
    swept: watch::Sender<bool>,
}

impl Engine {
    /// Makes an engine; it talks to nobody yet.
    pub fn new(tools: ToolConfig, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            clients: Clients::new(tools),
            settings: RwLock::new(settings),
            locks: Locks::default(),
            making: Mutex::default(),
            allotted: tokio::sync::Mutex::default(),
            sweep: Notify::new(),
            swept: watch::Sender::new(true),
        }))
    }

    /// Starts what runs in the background: tools that are kept up, the reaction to containers that end, the sweep.
    /// Call inside a tokio runtime.
    pub fn keep_up(&self) {
        self.sweeping(true);
        tokio::spawn(events::react(self.clone()));
        tokio::spawn(sweep::run(self.clone()));
        self.0.clients.keep_up();
    }

    /// The engine's service, and every tool's behind it.
    pub fn routes(&self) -> Routes {
        let own = Routes::new(EngineServiceServer::new(Service::new(self.clone())));
        Proxy::new(self.0.clients.clone()).behind(own)
    }

    /// Takes new settings.
    pub fn reload(&self, settings: Settings) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The tools.
    pub(crate) fn clients(&self) -> &Clients {
        &self.0.clients
    }

    /// As they are now.
    pub(crate) fn settings(&self) -> Settings {
        self.0.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One operation at a time on a container.
    pub(crate) async fn hold(&self, id: &str) -> OwnedMutexGuard<()> {
        self.0.locks.hold(id).await
    }

    /// Says that a container of this id is being made: the sweep leaves its parts alone.
    pub(crate) fn making(&self, id: &str) -> Making {
        self.0.making.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string());
        Making { engine: self.clone(), id: id.to_string() }
    }

    pub(crate) fn is_making(&self, id: &str) -> bool {
        self.0.making.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Gives ids to a container that is being made: `choose` gets the ranges that others in the making have. One at a time.
    pub(crate) async fn allot_ids<F: Future<Output = Result<IdMap, Error>>>(
        &self,
        id: &str,
        choose: impl FnOnce(Vec<(u32, u32)>) -> F,
    ) -> Result<IdMap, Error> {
        let mut allotted = self.0.allotted.lock().await;
        // Whoever is not in the making any more has a record, or is gone.
        allotted.retain(|(other, ..)| self.is_making(other));
        let map = choose(allotted.iter().map(|(_, first, last)| (*first, *last)).collect()).await?;
        allotted.extend(map.outside().map(|(first, last)| (id.to_owned(), first, last)));
        Ok(map)
    }

    /// Asks for a sweep soon.
    pub(crate) fn sweep_soon(&self) {
        self.0.sweep.notify_one();
    }

    pub(crate) async fn sweep_wanted(&self) {
        self.0.sweep.notified().await;
    }

    /// Marks the length of a sweep.
    pub(crate) fn sweeping(&self, begins: bool) {
        self.0.swept.send_replace(!begins);
    }

    /// Waits, at a stop, for a sweep that is under way or due since the start.
    pub async fn settled(&self, limit: Duration) {
        let mut swept = self.0.swept.subscribe();
        let _ = tokio::time::timeout(limit, swept.wait_for(|done| *done)).await;
    }
}

/// Held while a container is being made.
pub(crate) struct Making {
    engine: Engine,
    id: String,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.engine.0.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
