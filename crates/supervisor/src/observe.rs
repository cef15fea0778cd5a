//! Reading containers: never waits for a lock.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use oci::shim::RunRecord;

use crate::Supervisor;
use crate::definition::Definition;
use crate::error::Error;
use crate::status::{Live, Observed, State, observe};

/// One container as it is now.
#[derive(Debug, Clone)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// `None`: the record is damaged.
    pub definition: Option<Definition>,
    /// Its name, also of a damaged one.
    name: String,
    /// What it is doing.
    pub observed: Observed,
    /// OCI configuration as given.
    pub oci_spec: Vec<u8>,
    /// Current log file; `None` for driver none.
    pub log_path: Option<PathBuf>,
    /// The bundle that the runtime reads.
    pub bundle: PathBuf,
}

impl Container {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Supervisor {
    /// One container.
    pub fn get(&self, reference: &str) -> Result<Container, Error> {
        let id = self.store().resolve(reference)?;
        self.read(&id)
    }

    /// All, newest first. Damaged ones are there with state dead.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let mut all = Vec::new();
        for id in self.store().ids()? {
            match self.read(&id) {
                Ok(container) => all.push(container),
                // Removed while it was read.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| created(b).cmp(created(a)));
        Ok(all)
    }

    fn read(&self, id: &str) -> Result<Container, Error> {
        let store = self.store();
        let bundle = store.container(id).join("bundle");
        match store.definition(id).and_then(|definition| Ok((definition, self.observe(id)?))) {
            Ok((definition, observed)) => {
                let oci_spec = fs::read(store.container(id).join("oci.json")).unwrap_or_default();
                let log_path = (definition.log.driver != "none").then(|| store.log_path(id));
                let name = definition.name.clone();
                Ok(Container {
                    id: id.into(),
                    definition: Some(definition),
                    name,
                    observed,
                    oci_spec,
                    log_path,
                    bundle,
                })
            }
            Err(error @ Error::Record { .. }) => {
                let name = store.name_of(id).unwrap_or_default();
                let observed = Observed::dead(chain(&error));
                Ok(Container {
                    id: id.into(),
                    definition: None,
                    name,
                    observed,
                    oci_spec: Vec::new(),
                    log_path: None,
                    bundle,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Status of a full id.
    pub(crate) fn observe(&self, id: &str) -> Result<Observed, Error> {
        // The shim is asked first: one that ends in between has left its exit behind.
        let mut live = self.live(id);
        let state = self.store().state(id)?;
        let exit = self.store().exit(id)?;
        if live.is_none() && needs_shim(&state, exit.as_ref()) {
            // It may have been started between the two looks.
            live = self.live(id);
        }
        let mut seen = observe(&state, live.as_ref(), exit.as_ref());
        if seen.status.is_live()
            && let Some(health) = self.health(id)
        {
            seen.health = health;
        }
        Ok(seen)
    }

    /// Written by the daemon while it checks.
    fn health(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.store().run_dir(id).join("health")).ok()
    }

    /// What the shim of `id` says, if one holds the lock.
    pub(crate) fn live(&self, id: &str) -> Option<Live> {
        self.shim_pid(id)?;
        let text = fs::read(self.store().run_dir(id).join("run.json")).ok()?;
        let record: RunRecord = serde_json::from_slice(&text).ok()?;
        let frozen = sys::cgroup::Paths::of(record.pid).is_ok_and(|paths| paths.frozen());
        Some(Live { record, frozen })
    }

    /// Pid of the live shim: the owner of the lock, by the kernel's word.
    pub(crate) fn shim_pid(&self, id: &str) -> Option<i32> {
        let file = File::open(self.store().presence(id)).ok()?;
        sys::fd::record_lock_owner(&file).ok()?
    }

    /// The live shim as a pidfd. Checked twice, since the pid could be reused in between.
    pub(crate) fn shim_fd(&self, id: &str) -> Option<OwnedFd> {
        let pid = self.shim_pid(id)?;
        let fd = sys::pidfd::open(pid).ok()?;
        (self.shim_pid(id) == Some(pid)).then_some(fd)
    }

    /// Waits until the shim of `id` is gone with its mounts; `false` after `seconds`.
    pub(crate) fn wait_shim_gone(&self, id: &str, seconds: u64) -> Result<bool, Error> {
        let Some(fd) = self.shim_fd(id) else { return Ok(true) };
        let timeout = std::time::Duration::from_secs(seconds);
        let gone = sys::pidfd::wait_dead(fd.as_fd(), Some(timeout)).map_err(Error::system("wait for the shim"))?;
        Ok(gone)
    }
}

fn needs_shim(state: &State, exit: Option<&oci::shim::ExitRecord>) -> bool {
    state.run > 0 && exit.is_none_or(|exit| exit.run < state.run)
}

fn created(container: &Container) -> &str {
    container.definition.as_ref().map_or("", |definition| &definition.created_at)
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
