//! What state a container is in: computed from what is on disk and what the kernel says, never remembered. Pure.

use oci::shim::{ExitRecord, RunRecord};
use serde::{Deserialize, Serialize};

/// Exit code of a container whose shim was killed: its processes were ended with SIGKILL.
pub(crate) const LOST_EXIT_CODE: i32 = 137;
/// Why.
pub(crate) const LOST_MESSAGE: &str = "the shim was lost";

/// Docker's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// It runs.
    Running,
    /// Frozen.
    Paused,
    /// Waits for the next try.
    Restarting,
    /// It ran.
    Exited,
    /// Its removal has begun.
    Removing,
    /// Its record is damaged.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether it has live processes.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// state.json: counters and wishes. Whether it runs is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of the last run that was begun; 0: never.
    pub run: u64,
    /// A start that failed.
    pub failed: Option<FailedStart>,
    /// The run whose end was answered (restart decided).
    pub settled: u64,
    /// A user stopped it.
    pub stopped_by_user: bool,
    /// Restarts by policy since the last start by a user.
    pub restart_count: u32,
    /// Delay of the last restart.
    pub backoff_ms: u64,
    /// When the policy tries again, milliseconds since the epoch.
    pub next_restart_ms: Option<i64>,
    /// Its removal has begun.
    pub removing: bool,
}

/// A start that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStart {
    /// Which run it would have been.
    pub run: u64,
    /// 126, 127 or 128.
    pub code: i32,
    /// Why.
    pub message: String,
}

/// A live shim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Its word.
    pub record: RunRecord,
    /// The kernel says that the container is frozen.
    pub frozen: bool,
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// State.
    pub status: Status,
    /// Host pid of the first process, 0: none.
    pub pid: i32,
    /// Of the last run.
    pub exit_code: i32,
    /// 0: none.
    pub exit_signal: i32,
    /// The kernel's OOM killer acted.
    pub oom_killed: bool,
    /// RFC 3339 or empty.
    pub started_at: String,
    /// RFC 3339 or empty.
    pub finished_at: String,
    /// Why the last start failed, or what is wrong.
    pub error: String,
    /// By policy.
    pub restart_count: u32,
    /// "none", "starting", "healthy", "unhealthy".
    pub health: String,
    /// By a user.
    pub stopped_by_user: bool,
}

impl Observed {
    /// A container whose record cannot be read.
    pub(crate) fn dead(error: String) -> Self {
        Self { status: Status::Dead, error, ..observe(&State::default(), None, None) }
    }
}

/// Puts the pieces together. `live`: the shim holds its lock.
pub fn observe(state: &State, live: Option<&Live>, exit: Option<&ExitRecord>) -> Observed {
    let mut seen = Observed {
        status: Status::Created,
        pid: 0,
        exit_code: 0,
        exit_signal: 0,
        oom_killed: false,
        started_at: String::new(),
        finished_at: String::new(),
        error: String::new(),
        restart_count: state.restart_count,
        health: "none".into(),
        stopped_by_user: state.stopped_by_user,
    };
    if let Some(exit) = exit.filter(|exit| exit.run <= state.run) {
        seen.exit_code = exit.exit.code;
        seen.exit_signal = exit.exit.signal;
        seen.oom_killed = exit.exit.oom_killed;
        seen.started_at.clone_from(&exit.started_at);
        seen.finished_at.clone_from(&exit.finished_at);
        seen.error.clone_from(&exit.error);
    }
    let failed = state.failed.as_ref().filter(|failed| failed.run == state.run);
    let ended = exit.is_some_and(|exit| exit.run == state.run);
    if let Some(failed) = failed {
        seen.status = if seen.started_at.is_empty() { Status::Created } else { Status::Exited };
        seen.exit_code = failed.code;
        seen.error.clone_from(&failed.message);
    } else if state.run == 0 {
        seen.status = Status::Created;
    } else if ended {
        seen.status = Status::Exited;
    } else if let Some(live) = live.filter(|live| live.record.run == state.run) {
        running(&mut seen, live);
    } else {
        seen.status = Status::Exited;
        seen.exit_code = LOST_EXIT_CODE;
        seen.exit_signal = 9;
        seen.error = LOST_MESSAGE.into();
    }
    if seen.status == Status::Exited && state.next_restart_ms.is_some() {
        seen.status = Status::Restarting;
    }
    if state.removing {
        seen.status = Status::Removing;
    }
    seen
}

fn running(seen: &mut Observed, live: &Live) {
    if live.record.started_at.is_empty() {
        return;
    }
    seen.status = if live.frozen { Status::Paused } else { Status::Running };
    seen.pid = live.record.pid;
    seen.exit_code = 0;
    seen.exit_signal = 0;
    seen.oom_killed = false;
    seen.started_at.clone_from(&live.record.started_at);
    seen.error = String::new();
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::shim::Exit;

    fn exit(run: u64, code: i32) -> ExitRecord {
        let exit = Exit { code, ..Exit::default() };
        ExitRecord { run, exit, started_at: "a".into(), finished_at: "b".into(), error: String::new() }
    }

    fn live(run: u64) -> Live {
        Live { record: RunRecord { run, pid: 7, started_at: "c".into() }, frozen: false }
    }

    #[test]
    fn the_table() {
        let state = |run| State { run, ..State::default() };
        let status = |state: &State, live: Option<&Live>, exit: Option<&ExitRecord>| observe(state, live, exit).status;
        assert_eq!(status(&state(0), None, None), Status::Created);
        assert_eq!(status(&state(1), Some(&live(1)), None), Status::Running);
        assert_eq!(status(&state(2), Some(&live(2)), Some(&exit(1, 3))), Status::Running);
        assert_eq!(status(&state(1), Some(&Live { frozen: true, ..live(1) }), None), Status::Paused);
        // The shim still cleans up, but the exit counts.
        assert_eq!(status(&state(1), Some(&live(1)), Some(&exit(1, 3))), Status::Exited);
        assert_eq!(observe(&state(1), None, Some(&exit(1, 3))).exit_code, 3);
        // A new shim that is not yet allowed to start changes nothing.
        assert_eq!(status(&state(1), Some(&live(2)), Some(&exit(1, 3))), Status::Exited);
        assert_eq!(status(&state(0), Some(&live(1)), None), Status::Created);
        let waiting = State { next_restart_ms: Some(5), ..state(1) };
        assert_eq!(status(&waiting, None, Some(&exit(1, 1))), Status::Restarting);
        let removing = State { removing: true, ..state(1) };
        assert_eq!(status(&removing, Some(&live(1)), None), Status::Removing);
    }

    #[test]
    fn a_lost_shim_and_a_failed_start_are_told() {
        let lost = observe(&State { run: 2, ..State::default() }, None, Some(&exit(1, 0)));
        assert_eq!((lost.status, lost.exit_code, lost.error.as_str()), (Status::Exited, 137, LOST_MESSAGE));
        let failed = FailedStart { run: 1, code: 127, message: "no".into() };
        let seen = observe(&State { run: 1, failed: Some(failed), ..State::default() }, None, None);
        assert_eq!((seen.status, seen.exit_code, seen.error.as_str()), (Status::Created, 127, "no"));
    }
}
