//! Removal and change of records.

use crate::Supervisor;
use crate::definition::{Extension, RestartPolicy};
use crate::error::Error;
use crate::kill::StopOptions;
use crate::observe::Container;
use crate::status::Status;

/// How long an ended container's shim may take to go with its mounts.
const SHIM_END_SECONDS: u64 = 30;

/// What may change after creation.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// Empty: unchanged.
    pub name: String,
    /// `None`: unchanged.
    pub restart: Option<RestartPolicy>,
    /// `None`: unchanged.
    pub extension: Option<Extension>,
    /// Refused when the stored extension's value differs from this.
    pub expected_extension: Option<Vec<u8>>,
}

impl Supervisor {
    /// Removes a container; `force` kills it first. The record as it was.
    pub fn remove(&self, reference: &str, force: bool) -> Result<Container, Error> {
        let container = self.get(reference)?;
        let id = &container.id;
        if container.observed.status.is_live() {
            if !force {
                let status = container.observed.status;
                return Err(Error::State { id: id.clone(), status, action: "remove" });
            }
            let now = StopOptions { timeout_seconds: Some(0), ..StopOptions::default() };
            self.stop(id, &now)?;
        }
        let _writer = self.store().lock(id)?;
        // Somebody may have started it since.
        if self.observe(id).is_ok_and(|seen| seen.status.is_live()) {
            return Err(Error::State { id: id.clone(), status: Status::Running, action: "remove" });
        }
        if let Ok(mut state) = self.store().state(id) {
            state.removing = true;
            state.next_restart_ms = None;
            self.store().write_state(id, &state)?;
        }
        self.finish_removal(&container)?;
        Ok(container)
    }

    /// The caller holds the lock, and the record says that it goes.
    pub(crate) fn finish_removal(&self, container: &Container) -> Result<(), Error> {
        let id = &container.id;
        if !self.wait_shim_gone(id, SHIM_END_SECONDS)? {
            return Err(Error::Shim { id: id.clone(), message: "it does not end".into() });
        }
        if let Some(definition) = &container.definition {
            self.runtime_delete(definition);
            self.journal(definition, "destroy", &[]);
        }
        self.store().remove(id)
    }

    /// Changes name, restart policy or extension.
    pub fn update(&self, reference: &str, options: UpdateOptions) -> Result<Container, Error> {
        let id = self.store().resolve(reference)?;
        if !options.name.is_empty() && !oci::name::is_valid(&options.name) {
            return Err(Error::invalid(format!("name {:?}", options.name), "allowed is [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
        }
        let _writer = self.store().lock(&id)?;
        let mut definition = self.store().definition(&id)?;
        if let Some(expected) = &options.expected_extension {
            let stored = definition.extension.as_ref().map_or(&[][..], |extension| &extension.value);
            if stored != expected {
                return Err(Error::Changed(id));
            }
        }
        let old = definition.name.clone();
        let renamed = !options.name.is_empty() && options.name != old;
        if renamed {
            self.store().reserve(&options.name, &id)?;
            definition.name.clone_from(&options.name);
        }
        definition.restart = options.restart.unwrap_or(definition.restart);
        definition.extension = options.extension.or(definition.extension);
        let written = self.store().write_definition(&definition);
        if renamed {
            self.store().release(if written.is_ok() { &old } else { &options.name }, &id);
        }
        written?;
        if renamed {
            self.journal(&definition, "rename", &[("oldName", old)]);
        }
        self.get(&id)
    }
}
