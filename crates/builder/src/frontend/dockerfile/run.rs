//! RUN: an operation that executes a command.

use bollard_buildkit_proto::pb;

use super::diagnostic::Problem;
use super::files;
use super::instruction::{Command, Run, RunMount, RunMountKind, RunNetwork};
use super::lower::{Lowering, Site};
use super::metadata::json;
use super::stage::State;
use crate::llb::{About, Edge};

type Result<T> = std::result::Result<T, Problem>;

/// Where scripts of here-documents appear in the container. Below /dev, which is in no layer.
const SCRIPTS: &str = "/dev/pipes";

/// Lowers RUN.
pub(super) fn run(lowering: &mut Lowering<'_>, state: &mut State, run: &Run, site: &Site<'_>) -> Result<()> {
    let mut inputs: Vec<Edge> = state.root.clone().into_iter().collect();
    let root = pb::Mount {
        input: if state.root.is_some() { 0 } else { -1 },
        dest: "/".into(),
        output: 0,
        ..Default::default()
    };
    let mut mounts = vec![root];
    let args = arguments(lowering, state, run, &mut inputs, &mut mounts, site)?;
    let mut secretenv = Vec::new();
    for mount in &run.mounts {
        let lowered = lower_mount(lowering, state, mount, &mut inputs, site)?;
        if let Some(name) = &mount.env {
            secretenv.push(pb::SecretEnv { id: mount.id.clone(), name: name.clone(), optional: !mount.required });
        }
        mounts.extend(lowered);
    }
    let meta = pb::Meta {
        env: state.run_env(&lowering.plan.globals.proxies()),
        cwd: state.workdir().to_owned(),
        user: state.config.config.user.clone(),
        extra_hosts: lowering
            .options
            .extra_hosts
            .iter()
            .map(|(host, ip)| pb::HostIp { host: host.clone(), ip: ip.clone() })
            .collect(),
        args,
        ..Default::default()
    };
    let network = match run.network {
        RunNetwork::None => pb::NetMode::None,
        RunNetwork::Default if lowering.options.no_network => pb::NetMode::None,
        RunNetwork::Default | RunNetwork::Host => pb::NetMode::Host,
    };
    let exec = pb::ExecOp { meta: Some(meta), mounts, network: network.into(), secretenv, ..Default::default() };
    let about = lowering.about(site);
    let edge = lowering.writer.add(&inputs, Some(&state.platform), pb::op::Op::Exec(exec), about);
    state.root = Some(edge.clone());
    state.note(created_by(state, run), Some(&edge));
    Ok(())
}

fn arguments(
    lowering: &mut Lowering<'_>,
    state: &mut State,
    run: &Run,
    inputs: &mut Vec<Edge>,
    mounts: &mut Vec<pb::Mount>,
    site: &Site<'_>,
) -> Result<Vec<String>> {
    let text = match &run.command {
        Command::Exec(args) if args.is_empty() => return Err(Problem::new("RUN: the list of arguments is empty")),
        Command::Exec(args) => return Ok(args.clone()),
        Command::Shell(text) => text,
    };
    let lone = run.heredocs.len() == 1 && text.starts_with("<<") && !text.contains(char::is_whitespace);
    let Some(doc) = run.heredocs.first().filter(|_| lone) else {
        let mut script = text.clone();
        for doc in &run.heredocs {
            script.push_str(&format!("\n{}{}", doc.content, doc.name));
        }
        return Ok(state.shell().into_iter().chain([script]).collect());
    };
    if !doc.content.starts_with("#!") {
        return Ok(state.shell().into_iter().chain([doc.content.clone()]).collect());
    }
    let input = add_input(inputs, files::executable(lowering, &doc.name, doc.content.clone(), site));
    mounts.push(pb::Mount { input, dest: SCRIPTS.into(), output: -1, readonly: true, ..Default::default() });
    Ok(vec![format!("{SCRIPTS}/{}", doc.name)])
}

fn lower_mount(
    lowering: &mut Lowering<'_>,
    state: &mut State,
    mount: &RunMount,
    inputs: &mut Vec<Edge>,
    site: &Site<'_>,
) -> Result<Option<pb::Mount>> {
    let target = state.word(&mount.target)?;
    let mut lowered = pb::Mount { input: -1, output: -1, readonly: mount.readonly, ..Default::default() };
    match mount.kind {
        RunMountKind::Bind => {
            lowered.selector = files::inside(&state.word(&mount.source)?);
            let source = bind_source(lowering, mount, &lowered.selector, site)?;
            lowered.input = source.map_or(-1, |edge| add_input(inputs, edge));
        }
        RunMountKind::Cache => {
            if !mount.from.is_empty() {
                return Err(Problem::new("--mount=type=cache with from= is not supported"));
            }
            let sharing = match mount.sharing.as_str() {
                "private" => pb::CacheSharingOpt::Private,
                "locked" => pb::CacheSharingOpt::Locked,
                _ => pb::CacheSharingOpt::Shared,
            };
            lowered.mount_type = pb::MountType::Cache.into();
            lowered.cache_opt = Some(pb::CacheOpt { id: state.word(&mount.id)?, sharing: sharing.into() });
        }
        RunMountKind::Tmpfs => {
            lowered.mount_type = pb::MountType::Tmpfs.into();
            lowered.tmpfs_opt = Some(pb::TmpfsOpt { size: mount.size });
        }
        RunMountKind::Secret if target.is_empty() => return Ok(None),
        RunMountKind::Secret => {
            lowered.mount_type = pb::MountType::Secret.into();
            let mode = mount.mode.unwrap_or(0o400);
            let id = state.word(&mount.id)?;
            lowered.secret_opt =
                Some(pb::SecretOpt { id, uid: mount.uid, gid: mount.gid, mode, optional: !mount.required });
        }
    }
    lowered.dest = state.absolute(target.trim_end_matches('/'));
    Ok(Some(lowered))
}

/// What a bind mount shows. Directories of the host are copied first: the command sees what the cache key covers.
fn bind_source(lowering: &mut Lowering<'_>, mount: &RunMount, selector: &str, site: &Site<'_>) -> Result<Option<Edge>> {
    let source = match mount.from.as_str() {
        "" => lowering.context(),
        name if lowering.is_directory(name, site) => match lowering.files_of(name, site)? {
            Some(edge) => edge,
            None => return Ok(None),
        },
        name => return lowering.files_of(name, site),
    };
    let about = About { name: format!("[internal] files for {}", site.statement.text), ..lowering.about(site) };
    Ok(Some(files::subtree(lowering, &source, selector, about)))
}

fn add_input(inputs: &mut Vec<Edge>, edge: Edge) -> i64 {
    let known = inputs.iter().position(|input| *input == edge);
    let at = known.unwrap_or_else(|| {
        inputs.push(edge);
        inputs.len() - 1
    });
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn created_by(state: &State, run: &Run) -> String {
    let args: Vec<String> = state.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let args = if args.is_empty() { String::new() } else { format!("|{} {} ", args.len(), args.join(" ")) };
    match &run.command {
        Command::Exec(words) => format!("RUN {args}{}", json(words)),
        Command::Shell(text) => format!("RUN {args}{} {text}", state.shell().join(" ")),
    }
}
