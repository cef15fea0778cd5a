//! Verbs that only look.

use std::io::Write as _;
use std::time::Duration;

use console::{Format, Table, human_ago, human_size};
use serde_json::{Value, json};
use supervisor::{Container, Sample, Status, Supervisor};

use crate::args;

const SHORT_ID: usize = 12;

pub fn list(supervisor: &Supervisor, args: &args::List) -> anyhow::Result<u8> {
    let all = supervisor.list()?;
    let shown: Vec<&Container> = all.iter().filter(|c| args.all || c.observed.status.is_live()).collect();
    for dead in all.iter().filter(|c| c.observed.status == Status::Dead) {
        eprintln!("Warning: container {}: {}", dead.id, dead.observed.error);
    }
    let id = |c: &Container| if args.no_trunc { c.id.clone() } else { c.id[..SHORT_ID].to_owned() };
    if args.quiet {
        for container in shown {
            writeln!(std::io::stdout(), "{}", id(container))?;
        }
        return Ok(0);
    }
    if args.format == Format::Json {
        for container in shown {
            console::print_json_line(&object(container))?;
        }
        return Ok(0);
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"]);
    for container in shown {
        let definition = container.definition.clone().unwrap_or_default();
        let created = human_ago(&definition.created_at);
        table.row([
            id(container),
            definition.image,
            command(container),
            created,
            words(container),
            container.name().to_owned(),
        ]);
    }
    table.print()?;
    Ok(0)
}

fn command(container: &Container) -> String {
    let spec: Value = serde_json::from_slice(&container.oci_spec).unwrap_or_default();
    let args = spec.pointer("/process/args").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = args.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    if text.chars().count() > 20 {
        format!("\"{}…\"", text.chars().take(19).collect::<String>())
    } else {
        format!("\"{text}\"")
    }
}

fn words(container: &Container) -> String {
    let seen = &container.observed;
    match seen.status {
        Status::Running => format!("Up {}", human_ago(&seen.started_at).trim_end_matches(" ago")),
        Status::Paused => format!("Up {} (Paused)", human_ago(&seen.started_at).trim_end_matches(" ago")),
        Status::Exited => format!("Exited ({}) {}", seen.exit_code, human_ago(&seen.finished_at)),
        Status::Restarting => format!("Restarting ({})", seen.exit_code),
        Status::Created => "Created".into(),
        Status::Removing => "Removal in progress".into(),
        Status::Dead => "Dead".into(),
    }
}

/// The protocol's container as JSON, with the OCI configuration readable.
fn object(container: &Container) -> Value {
    let seen = &container.observed;
    let spec: Value = serde_json::from_slice(&container.oci_spec).unwrap_or_default();
    json!({
        "id": container.id,
        "name": container.name(),
        "definition": container.definition,
        "state": {
            "status": seen.status.word(), "pid": seen.pid, "exit_code": seen.exit_code,
            "exit_signal": seen.exit_signal, "oom_killed": seen.oom_killed, "started_at": seen.started_at,
            "finished_at": seen.finished_at, "error": seen.error, "restart_count": seen.restart_count,
            "health": seen.health, "stopped_by_user": seen.stopped_by_user,
        },
        "log_path": container.log_path,
        "bundle": container.bundle,
        "oci_spec": spec,
    })
}

pub fn inspect(supervisor: &Supervisor, args: &args::Ids) -> anyhow::Result<u8> {
    let mut objects = Vec::new();
    for id in &args.ids {
        objects.push(object(&supervisor.get(id)?));
    }
    console::print_json(&objects)?;
    Ok(0)
}

pub fn info(supervisor: &Supervisor) -> anyhow::Result<u8> {
    let all = supervisor.list()?;
    let count = |status: Status| all.iter().filter(|c| c.observed.status == status).count();
    console::print_json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "root": supervisor.config().root,
        "run": supervisor.config().run,
        "default_runtime": supervisor.config().runtime,
        "containers": all.len(),
        "running": count(Status::Running),
        "paused": count(Status::Paused),
        "stopped": all.iter().filter(|c| !c.observed.status.is_live()).count(),
    }))?;
    Ok(0)
}

pub fn top(supervisor: &Supervisor, args: &args::Top) -> anyhow::Result<u8> {
    let processes = supervisor.processes(&args.container, &args.ps_args)?;
    let mut table = Table::with_titles(&processes.titles);
    for row in processes.rows {
        table.row(row);
    }
    table.print()?;
    Ok(0)
}

pub async fn stats(supervisor: &Supervisor, args: args::Stats) -> anyhow::Result<u8> {
    let mut samples = supervisor.stats(args.containers, args.no_stream, Duration::ZERO).await?;
    while let Some(samples) = samples.recv().await {
        show_samples(&samples?, args.format, !args.no_stream)?;
    }
    Ok(0)
}

fn show_samples(samples: &[Sample], format: Format, live: bool) -> anyhow::Result<()> {
    if format == Format::Json {
        for sample in samples {
            console::print_json_line(&sample_object(sample))?;
        }
        return Ok(());
    }
    if live {
        // Home and clear, as docker does.
        write!(std::io::stdout(), "\x1b[H\x1b[J")?;
    }
    let mut table = Table::new(["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "NET I/O", "BLOCK I/O", "PIDS"]);
    for sample in samples {
        let usage = &sample.usage;
        let limit = if usage.memory_limit == 0 { "-".into() } else { human_size(usage.memory_limit) };
        table.row([
            sample.id[..SHORT_ID].to_owned(),
            sample.name.clone(),
            format!("{:.2}%", sample.cpu_percent),
            format!("{} / {limit}", human_size(usage.memory)),
            format!("{} / {}", human_size(sample.network_rx), human_size(sample.network_tx)),
            format!("{} / {}", human_size(usage.block_read), human_size(usage.block_write)),
            usage.pids.to_string(),
        ]);
    }
    table.print()
}

fn sample_object(sample: &Sample) -> Value {
    let usage = &sample.usage;
    json!({
        "id": sample.id, "name": sample.name, "time_unix_nano": sample.time, "cpu_usage_ns": usage.cpu_ns,
        "cpu_percent": sample.cpu_percent, "online_cpus": sample.online_cpus, "memory_usage_bytes": usage.memory,
        "memory_limit_bytes": usage.memory_limit, "pids": usage.pids, "pids_limit": usage.pids_limit,
        "network_rx_bytes": sample.network_rx, "network_tx_bytes": sample.network_tx,
        "block_read_bytes": usage.block_read, "block_write_bytes": usage.block_write,
    })
}
