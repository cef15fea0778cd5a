//! Between the protocol's messages and this crate's values.

use std::collections::BTreeMap;

use api::supervisor::v1 as pb;
use api::types::v1 as types;
use oci::shim::{JournalEntry, RootfsMount, Size};

use crate::definition::{Definition, Extension, Healthcheck, InjectedFile, LogConfig, RestartMode, RestartPolicy};
use crate::error::Error;
use crate::filter::Filters;
use crate::logs::{LogEntry, LogStream};
use crate::observe::Container;
use crate::status::{Observed, Status};
use crate::wait::Condition;

/// A specification as a record: definition, OCI configuration, injected files.
pub fn definition_from(spec: pb::ContainerSpec) -> Result<(Definition, Vec<u8>, Vec<InjectedFile>), Error> {
    let mounts = spec.rootfs.into_iter().map(|mount| RootfsMount {
        fstype: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    let definition = Definition {
        id: spec.id,
        name: spec.name,
        created_at: String::new(),
        rootfs: mounts.collect(),
        user: spec.user,
        additional_groups: spec.additional_groups,
        labels: spec.labels.into_iter().collect(),
        image: spec.image,
        restart: spec.restart.map(restart_from).transpose()?.unwrap_or_default(),
        log: spec.log.map(log_from).unwrap_or_default(),
        stop_signal: spec.stop_signal,
        stop_timeout_seconds: spec.stop_timeout_seconds,
        runtime: spec.runtime,
        runtime_args: spec.runtime_args,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        files: Vec::new(),
        healthcheck: spec.healthcheck.map(health_from),
        extension: spec.extension.map(extension_from),
        auto_remove: spec.auto_remove,
    };
    Ok((definition, spec.oci_spec.into(), files_from(spec.files)))
}

pub(crate) fn files_from(files: Vec<pb::InjectedFile>) -> Vec<InjectedFile> {
    files
        .into_iter()
        .map(|file| InjectedFile { target: file.target, content: file.content.into(), mode: file.mode })
        .collect()
}

pub(crate) fn extension_from(extension: pb::Extension) -> Extension {
    Extension { kind: extension.r#type, value: extension.value.into() }
}

pub(crate) fn restart_from(policy: pb::RestartPolicy) -> Result<RestartPolicy, Error> {
    let mode = match pb::RestartMode::try_from(policy.mode) {
        Ok(pb::RestartMode::Unspecified | pb::RestartMode::No) => RestartMode::No,
        Ok(pb::RestartMode::Always) => RestartMode::Always,
        Ok(pb::RestartMode::OnFailure) => RestartMode::OnFailure,
        Ok(pb::RestartMode::UnlessStopped) => RestartMode::UnlessStopped,
        Err(_) => return Err(Error::invalid("restart.mode", format!("{} is unknown", policy.mode))),
    };
    Ok(RestartPolicy { mode, max_retries: policy.max_retries })
}

fn log_from(log: pb::LogConfig) -> LogConfig {
    LogConfig { driver: log.driver, options: log.options.into_iter().collect() }
}

fn health_from(check: pb::Healthcheck) -> Healthcheck {
    Healthcheck {
        test: check.test,
        interval_ns: check.interval_ns,
        timeout_ns: check.timeout_ns,
        start_period_ns: check.start_period_ns,
        retries: check.retries,
    }
}

/// A container as the protocol shows it.
pub fn to_container(container: Container) -> pb::Container {
    let name = container.name().to_owned();
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let created_at = container.definition.as_ref().map(|d| d.created_at.clone()).unwrap_or_default();
    let spec = match container.definition {
        Some(definition) => to_spec(definition, container.oci_spec),
        None => pb::ContainerSpec { id: container.id, name, ..pb::ContainerSpec::default() },
    };
    pb::Container {
        spec: Some(spec),
        state: Some(to_state(container.observed)),
        created_at,
        log_path: container.log_path.map(text).unwrap_or_default(),
        bundle: text(container.bundle),
    }
}

fn to_spec(definition: Definition, oci_spec: Vec<u8>) -> pb::ContainerSpec {
    let mounts = definition.rootfs.into_iter().map(|mount| types::Mount {
        r#type: mount.fstype,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    let files = definition.files.into_iter();
    pb::ContainerSpec {
        id: definition.id,
        name: definition.name,
        oci_spec: oci_spec.into(),
        rootfs: mounts.collect(),
        user: definition.user,
        additional_groups: definition.additional_groups,
        labels: definition.labels.into_iter().collect(),
        image: definition.image,
        restart: Some(to_restart(definition.restart)),
        log: Some(pb::LogConfig {
            driver: definition.log.driver,
            options: definition.log.options.into_iter().collect(),
        }),
        stop_signal: definition.stop_signal,
        stop_timeout_seconds: definition.stop_timeout_seconds,
        runtime: definition.runtime,
        runtime_args: definition.runtime_args,
        open_stdin: definition.open_stdin,
        stdin_once: definition.stdin_once,
        files: files.map(|(target, mode)| pb::InjectedFile { target, content: Vec::new().into(), mode }).collect(),
        healthcheck: definition.healthcheck.map(|check| pb::Healthcheck {
            test: check.test,
            interval_ns: check.interval_ns,
            timeout_ns: check.timeout_ns,
            start_period_ns: check.start_period_ns,
            retries: check.retries,
        }),
        extension: definition.extension.map(|e| pb::Extension { r#type: e.kind, value: e.value.into() }),
        auto_remove: definition.auto_remove,
    }
}

fn to_restart(policy: RestartPolicy) -> pb::RestartPolicy {
    let mode = match policy.mode {
        RestartMode::No => pb::RestartMode::No,
        RestartMode::Always => pb::RestartMode::Always,
        RestartMode::OnFailure => pb::RestartMode::OnFailure,
        RestartMode::UnlessStopped => pb::RestartMode::UnlessStopped,
    };
    pb::RestartPolicy { mode: mode.into(), max_retries: policy.max_retries }
}

pub(crate) fn to_state(seen: Observed) -> pb::ContainerState {
    let status = match seen.status {
        Status::Created => pb::ContainerStatus::Created,
        Status::Running => pb::ContainerStatus::Running,
        Status::Paused => pb::ContainerStatus::Paused,
        Status::Restarting => pb::ContainerStatus::Restarting,
        Status::Exited => pb::ContainerStatus::Exited,
        Status::Removing => pb::ContainerStatus::Removing,
        Status::Dead => pb::ContainerStatus::Dead,
    };
    pb::ContainerState {
        status: status.into(),
        pid: seen.pid,
        exit_code: seen.exit_code,
        exit_signal: seen.exit_signal,
        oom_killed: seen.oom_killed,
        started_at: seen.started_at,
        finished_at: seen.finished_at,
        error: seen.error,
        restart_count: seen.restart_count,
        health: seen.health,
        stopped_by_user: seen.stopped_by_user,
    }
}

/// 0x0 is "not known".
pub(crate) fn size_from(size: Option<pb::TerminalSize>) -> Option<Size> {
    let size = size?;
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (size.width > 0 && size.height > 0).then(|| Size { width: clamp(size.width), height: clamp(size.height) })
}

pub(crate) fn condition_from(condition: i32) -> Result<Condition, Error> {
    match pb::WaitCondition::try_from(condition) {
        Ok(pb::WaitCondition::Unspecified | pb::WaitCondition::NotRunning) => Ok(Condition::NotRunning),
        Ok(pb::WaitCondition::NextExit) => Ok(Condition::NextExit),
        Ok(pb::WaitCondition::Removed) => Ok(Condition::Removed),
        Err(_) => Err(Error::invalid("condition", format!("{condition} is unknown"))),
    }
}

pub(crate) fn filters_from(filters: std::collections::HashMap<String, types::StringList>) -> Filters {
    filters.into_iter().map(|(key, list)| (key, list.values)).collect::<BTreeMap<_, _>>()
}

pub(crate) fn to_event(entry: JournalEntry) -> types::Event {
    types::Event {
        time_unix_nano: entry.time,
        r#type: "container".into(),
        action: entry.action,
        id: entry.id,
        attributes: entry.attributes.into_iter().collect(),
    }
}

pub(crate) fn to_log_entry(entry: LogEntry) -> pb::LogEntry {
    let stream = match entry.stream {
        LogStream::Stdout => pb::StdioStream::Stdout,
        LogStream::Stderr => pb::StdioStream::Stderr,
    };
    pb::LogEntry { stream: stream.into(), time_unix_nano: entry.time, data: entry.data.into() }
}

pub(crate) fn to_stats(sample: crate::stats::Sample) -> pb::Stats {
    let usage = sample.usage;
    pb::Stats {
        id: sample.id,
        name: sample.name,
        time_unix_nano: sample.time,
        cpu_usage_ns: usage.cpu_ns,
        cpu_percent: sample.cpu_percent,
        online_cpus: sample.online_cpus,
        memory_usage_bytes: usage.memory,
        memory_limit_bytes: usage.memory_limit,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        network_rx_bytes: sample.network_rx,
        network_tx_bytes: sample.network_tx,
        block_read_bytes: usage.block_read,
        block_write_bytes: usage.block_write,
    }
}

pub(crate) fn to_path_stat(stat: crate::PathStat) -> pb::PathStat {
    pb::PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        mtime_unix_nano: stat.mtime,
        link_target: stat.link_target,
    }
}
