//! What to do about a run that has ended: once per run, by whoever comes first (daemon or one-shot verb).

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use oci::shim::{Exit, ExitRecord, RunRecord};

use crate::Supervisor;
use crate::definition::Definition;
use crate::error::Error;
use crate::observe::chain;
use crate::restart::{self, Ended};
use crate::start::{Cause, StartOptions, now};
use crate::status::{LOST_EXIT_CODE, LOST_MESSAGE, State};
use crate::store::Writer;

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It runs, or nothing is to be done.
    Nothing,
    /// The restart policy tries again after this long.
    Restart(Duration),
    /// The record is to be removed (auto_remove).
    Remove,
}

impl Supervisor {
    /// Settles the last run of `id` if it has ended.
    pub(crate) fn settle(&self, id: &str) -> Result<Next, Error> {
        let writer = self.store().lock(id)?;
        self.settle_locked(id, &writer)
    }

    pub(crate) fn settle_locked(&self, id: &str, _writer: &Writer) -> Result<Next, Error> {
        let mut state = self.store().state(id)?;
        let definition = self.store().definition(id)?;
        if state.removing {
            return Ok(Next::Remove);
        }
        if state.settled < state.run {
            let exit = self.store().exit(id)?.filter(|exit| exit.run == state.run);
            let exit = match exit {
                Some(exit) => exit,
                None if self.shim_pid(id).is_some() => return Ok(Next::Nothing),
                None => self.bury(&definition, &state)?,
            };
            self.decide(&definition, &mut state, &exit);
            self.store().write_state(id, &state)?;
        }
        if let Some(due) = state.next_restart_ms {
            let left = due - jiff::Timestamp::now().as_millisecond();
            return Ok(Next::Restart(Duration::from_millis(u64::try_from(left).unwrap_or(0))));
        }
        let over = definition.auto_remove && state.run > 0 && state.settled == state.run;
        Ok(if over { Next::Remove } else { Next::Nothing })
    }

    fn decide(&self, definition: &Definition, state: &mut State, exit: &ExitRecord) {
        let ended = Ended {
            exit_code: exit.exit.code,
            ran_ms: ran_ms(exit),
            stopped_by_user: state.stopped_by_user,
            restarts: state.restart_count,
            last_delay_ms: state.backoff_ms,
        };
        let delay = restart::decide(definition.restart, ended);
        state.settled = state.run;
        state.backoff_ms = delay.unwrap_or(0);
        let now = jiff::Timestamp::now().as_millisecond();
        state.next_restart_ms = delay.map(|delay| now + i64::try_from(delay).unwrap_or(0));
    }

    /// The shim was killed and its container may go on without anybody to read its output or its end: it is ended
    /// and recorded as lost.
    fn bury(&self, definition: &Definition, state: &State) -> Result<ExitRecord, Error> {
        let id = &definition.id;
        tracing::warn!(id, "the shim was lost; its container is ended");
        let run_dir = self.store().run_dir(id);
        let record: Option<RunRecord> =
            fs::read(run_dir.join("run.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
        self.runtime_delete(definition);
        let exit = ExitRecord {
            run: state.run,
            exit: Exit { code: LOST_EXIT_CODE, signal: 9, oom_killed: false },
            started_at: record.map(|record| record.started_at).unwrap_or_default(),
            finished_at: now(),
            error: LOST_MESSAGE.into(),
        };
        self.store().write_exit(id, &exit)?;
        self.journal(definition, "die", &[("exitCode", LOST_EXIT_CODE.to_string())]);
        let _ = fs::remove_file(self.store().presence(id));
        let _ = fs::remove_dir_all(run_dir);
        Ok(exit)
    }

    /// `runtime delete --force`: kills what is left of the container.
    pub(crate) fn runtime_delete(&self, definition: &Definition) {
        let root = self.store().runtime_root();
        if !root.join(&definition.id).exists() {
            return;
        }
        let Ok(runtime) = self.runtime(&definition.runtime) else { return };
        let mut command = Command::new(runtime);
        command.arg("--root").arg(root).args(&definition.runtime_args);
        command.args(["delete", "--force", &definition.id]).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                tracing::warn!(id = definition.id, "runtime delete: {}", text.trim());
            }
            Err(error) => tracing::warn!(id = definition.id, "runtime delete: {error}"),
        }
    }

    /// The policy's time has come: starts again, unless somebody decided otherwise meanwhile.
    pub(crate) fn restart_due(&self, id: &str) -> Result<Next, Error> {
        let writer = self.store().lock(id)?;
        let state = self.store().state(id)?;
        if state.next_restart_ms.is_none() || state.removing {
            return Ok(Next::Nothing);
        }
        let backoff = state.backoff_ms;
        match self.start_locked(id, &writer, &StartOptions::default(), Cause::Policy) {
            Ok(_) => {
                let definition = self.store().definition(id)?;
                self.journal(&definition, "restart", &[]);
                Ok(Next::Nothing)
            }
            Err(error) => {
                tracing::warn!(id, error = %chain(&error), "restart failed");
                self.retry_failed(id, backoff)
            }
        }
    }

    /// A restart that failed counts as a run that ended at once.
    fn retry_failed(&self, id: &str, backoff: u64) -> Result<Next, Error> {
        let mut state = self.store().state(id)?;
        let definition = self.store().definition(id)?;
        state.backoff_ms = backoff;
        let code = state.failed.as_ref().map_or(128, |failed| failed.code);
        let exit = ExitRecord { run: state.run, exit: Exit { code, ..Exit::default() }, ..ExitRecord::default() };
        self.decide(&definition, &mut state, &exit);
        self.store().write_state(id, &state)?;
        Ok(state.next_restart_ms.map_or(Next::Nothing, |_| Next::Restart(Duration::from_millis(state.backoff_ms))))
    }
}

fn ran_ms(exit: &ExitRecord) -> u64 {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    match (parse(&exit.started_at), parse(&exit.finished_at)) {
        (Some(start), Some(end)) => u64::try_from(end - start).unwrap_or(0),
        _ => 0,
    }
}
