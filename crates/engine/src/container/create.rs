//! Create: everything of a container but its process, all or nothing.
use super::{LABEL, image, modes, userns, volumes};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::Plan;
use crate::record::Record;
use crate::spec::devices::{self, DeviceNode};
use crate::spec::merge::{self, Merged};
use crate::spec::namespaces::Namespaces;
use crate::spec::{self, Inputs, Machine};
use crate::{files, host, ports};
use api::distribution::v1::{Image, PrepareSnapshotRequest, RemoveSnapshotRequest};
use api::engine::v1::{ContainerConfig, CreateContainerResult};
use api::supervisor::v1::{
    ContainerSpec, CreateContainerRequest, GetContainerRequest, RemoveContainerRequest, RestartMode,
};
use api::types::v1::{Mount, Progress};
use oci::ImageConfig;

/// Makes a container; `progress` hears of the pull. When `gone` is done (the caller has left) before the record is
/// made, the container is not: it would be nobody's.
///
/// # Errors
/// [`Error::Step`] names the step that failed; nothing is left then.
pub async fn create(
    engine: &Engine,
    mut config: ContainerConfig,
    progress: &(dyn Fn(Progress) + Send + Sync),
    gone: impl Future<Output = ()>,
) -> Result<CreateContainerResult, Error> {
    let id = oci::name::id_from_random(rand::random());
    if config.name.is_empty() {
        config.name = oci::name::from_random(rand::random());
    }
    // docker's rule: who shares the host's network answers to the host's name.
    if config.hostname.is_empty() && config.network.as_ref().is_some_and(|n| n.mode == "host") {
        config.hostname = host::identity().1;
    }
    let _making = engine.making(&id);
    let mut plan = Plan::new(format!("create container {}", config.name));
    let result = tokio::select! {
        result = steps(engine, &mut plan, &id, config, progress) => result,
        () = gone => Err(Error::Canceled),
    };
    plan.finish(result).await
}

async fn steps(
    engine: &Engine,
    plan: &mut Plan,
    id: &str,
    config: ContainerConfig,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<CreateContainerResult, Error> {
    let machine = host::machine();
    let prepared = plan.step("check options", async { check(&config, &machine, id) }).await?;
    plan.step("check name", name_is_free(engine, &config.name)).await?;
    let (namespaces, joined) =
        plan.step("resolve namespaces", modes::namespaces(engine, id, &config, &machine)).await?;
    plan.step("resolve network", super::network::check(engine, &config)).await?;
    let (image, image_config) = plan.step("resolve image", image::resolve(engine, &config, progress)).await?;
    let mut merged = plan.step("merge image configuration", async { merge::merge(&config, &image_config) }).await?;
    merged.user = userns::user(&config).unwrap_or(merged.user);
    let images = plan.step("resolve images of mounts", image::of_mounts(engine, &config, progress)).await?;

    let idmap = namespaces.user.as_ref().map(ToString::to_string).unwrap_or_default();
    let rootfs = snapshot(engine, plan, id, &config, &image, &idmap).await?;
    let wanted = volumes::Wanted { id, config: &config, merged: &merged, rootfs: &rootfs, images, idmap: &idmap };
    let taken = acquire(engine, plan, &wanted).await?;

    let parts = Parts { id, config: &config, merged: &merged, machine: &machine, prepared: &prepared };
    let oci_spec = plan.step("compose specification", async { parts.spec(&taken.mounts, &namespaces) }).await?;
    let record = Record {
        config: Some(config.clone()),
        image_id: image.id.clone(),
        exposed_ports: merged.exposed_ports.iter().cloned().collect(),
        joined,
        anonymous_volumes: taken.anonymous,
        idmap,
        mounts: taken.points,
    };
    let spec = container_spec(engine, id, &config, &merged, rootfs, oci_spec, &record);
    let undone = (engine.clone(), id.to_string());
    let undo = move || async move {
        let request = RemoveContainerRequest { id: undone.1, force: true };
        undone.0.clients().supervisor_remove(request).await.map(drop)
    };
    let work = engine.clients().supervisor_create(CreateContainerRequest { spec: Some(spec) });
    plan.undoable("record container", undo, work).await?;
    Ok(CreateContainerResult { id: id.to_string(), name: config.name.clone(), warnings: warnings(&config, &machine) })
}

/// What of the options could be decided without asking anybody.
struct Prepared {
    devices: Vec<DeviceNode>,
    init: Option<String>,
}

struct Parts<'a> {
    id: &'a str,
    config: &'a ContainerConfig,
    merged: &'a Merged,
    machine: &'a Machine,
    prepared: &'a Prepared,
}

impl Parts<'_> {
    fn spec(&self, mounts: &[Mount], namespaces: &Namespaces) -> Result<Vec<u8>, Error> {
        spec::compose(&Inputs {
            id: self.id,
            config: self.config,
            merged: self.merged,
            machine: self.machine,
            mounts,
            devices: &self.prepared.devices,
            namespaces,
            init: self.prepared.init.as_deref(),
        })
    }
}

// Everything that can be found wrong before anything is asked, pulled or made.
fn check(config: &ContainerConfig, machine: &Machine, id: &str) -> Result<Prepared, Error> {
    if !oci::name::is_valid(&config.name) {
        return Err(Error::invalid("container name", &config.name, "expected [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
    }
    if config.image.is_empty() {
        return Err(Error::invalid("image", "", "give a reference or an id"));
    }
    check_hostname(&config.hostname)?;
    let restarts = config.restart.as_ref().map_or(RestartMode::No, |r| r.mode());
    if config.auto_remove && !matches!(restarts, RestartMode::Unspecified | RestartMode::No) {
        return Err(Error::invalid(
            "restart policy",
            format!("{restarts:?}"),
            "it cannot go together with auto-remove",
        ));
    }
    image::Policy::parse(&config.pull)?;
    spec::mounts::check_targets(config)?;
    check_mounts(config)?;
    let network = config.network.clone().unwrap_or_default();
    modes::NetworkMode::of(&network)?;
    userns::check(config)?;
    ports::check(&network.ports)?;
    for extra in &network.extra_hosts {
        files::extra_host(extra)?;
    }
    let privileged = config.security.as_ref().is_some_and(|s| s.privileged);
    let mut nodes = if privileged { host::all_devices()? } else { Vec::new() };
    for text in &config.devices {
        for node in host::devices(&devices::parse(text)?)? {
            nodes.retain(|n| n.path != node.path);
            nodes.push(node);
        }
    }
    let init = if config.init { Some(host::init_program()?) } else { None };
    let prepared = Prepared { devices: nodes, init };
    // With a stand-in for the image: limits, sysctls, capabilities, ulimits, the seccomp profile.
    let stand_in = ContainerConfig { cmd: vec!["-".into()], entrypoint: None, ..config.clone() };
    let merged = merge::merge(&stand_in, &ImageConfig::default())?;
    let host_network = network.mode == "host";
    let own = |host: bool| if host { spec::namespaces::Namespace::Host } else { Default::default() };
    let namespaces =
        Namespaces { network: own(host_network), ipc: own(config.ipc_mode == "host"), ..Default::default() };
    Parts { id, config, merged: &merged, machine, prepared: &prepared }.spec(&[], &namespaces)?;
    Ok(prepared)
}

fn check_hostname(name: &str) -> Result<(), Error> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.is_empty() || (name.len() <= 63 && name.split('.').all(label)) {
        return Ok(());
    }
    Err(Error::invalid("hostname", name, "letters, digits, - and . only, at most 63"))
}

fn check_mounts(config: &ContainerConfig) -> Result<(), Error> {
    use api::engine::v1::MountKind;
    for mount in &config.mounts {
        let wrong = |field, why| Err(Error::invalid(field, &mount.target, why));
        let other_owners = mount.chown || !mount.idmap.is_empty();
        if (mount.overlay || other_owners) && volumes::kind(mount) == MountKind::Tmpfs {
            return wrong("mount", "memory has neither overlay nor other owners");
        }
        if mount.overlay && (mount.read_only || mount.chown) {
            return wrong("overlay", "it goes neither with read-only nor with U");
        }
        if mount.chown && !mount.idmap.is_empty() {
            return wrong("idmap", "it does not go with U");
        }
        image::Policy::parse(&mount.pull)?;
        if !mount.pull.is_empty() && volumes::kind(mount) != MountKind::Image {
            return wrong("pull", "only images are pulled");
        }
        spec::mounts::check_options(mount)?;
        match volumes::kind(mount) {
            MountKind::Image if mount.source.is_empty() => return wrong("image", "a mount of an image needs one"),
            MountKind::Bind => {
                if !mount.source.starts_with('/') {
                    return Err(Error::invalid("bind source", &mount.source, "it must be an absolute path"));
                }
                if !mount.create_host_path {
                    host::bind_source(&mount.source, false)?;
                }
            }
            MountKind::Volume if !mount.source.is_empty() && !oci::name::is_valid(&mount.source) => {
                let why = "expected [a-zA-Z0-9][a-zA-Z0-9_.-]*, or an absolute path for a bind";
                return Err(Error::invalid("volume name", &mount.source, why));
            }
            _ => {}
        }
    }
    Ok(())
}

// The record itself reserves the name; asking first saves a pull that would be in vain.
async fn name_is_free(engine: &Engine, name: &str) -> Result<(), Error> {
    match engine.clients().supervisor_get(GetContainerRequest { id: name.to_string() }).await {
        Ok(answer) => {
            let spec = answer.container.and_then(|c| c.spec).unwrap_or_default();
            // A prefix of some id is no obstacle.
            if spec.name != name { Ok(()) } else { Err(Error::Exists { name: name.into(), id: spec.id }) }
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn snapshot(
    engine: &Engine,
    plan: &mut Plan,
    id: &str,
    config: &ContainerConfig,
    image: &Image,
    idmap: &str,
) -> Result<Vec<Mount>, Error> {
    let request = PrepareSnapshotRequest {
        idmap: idmap.to_owned(),
        key: id.to_string(),
        image: image.id.clone(),
        labels: [(LABEL.to_string(), config.name.clone())].into(),
        ..Default::default()
    };
    let undone = (engine.clone(), id.to_string());
    let undo = move || async move {
        undone.0.clients().snapshot_remove(RemoveSnapshotRequest { key: undone.1 }).await.map(drop)
    };
    let answer = plan.undoable("prepare snapshot", undo, engine.clients().snapshot_prepare(request)).await?;
    Ok(answer.mounts)
}

async fn acquire(engine: &Engine, plan: &mut Plan, wanted: &volumes::Wanted<'_>) -> Result<volumes::Taken, Error> {
    let made = volumes::Made::default();
    let work = volumes::acquire(engine, wanted, &made);
    let uses_volumes =
        !wanted.merged.anonymous_volumes.is_empty() || wanted.config.mounts.iter().any(volumes::is_volume);
    if !uses_volumes {
        return plan.step("check mounts", work).await;
    }
    let undone = (engine.clone(), wanted.id.to_string(), made.clone());
    plan.undoable("acquire volumes", move || volumes::undo(undone.0, undone.1, undone.2), work).await
}

fn container_spec(
    engine: &Engine,
    id: &str,
    config: &ContainerConfig,
    merged: &Merged,
    rootfs: Vec<Mount>,
    oci_spec: Vec<u8>,
    record: &Record,
) -> ContainerSpec {
    ContainerSpec {
        id: id.to_string(),
        name: config.name.clone(),
        oci_spec: oci_spec.into(),
        rootfs,
        user: merged.user.clone(),
        additional_groups: config.additional_groups.clone(),
        labels: merged.labels.clone().into_iter().collect(),
        image: config.image.clone(),
        restart: config.restart,
        log: config.log.clone(),
        stop_signal: merged.stop_signal.clone(),
        stop_timeout_seconds: config.stop_timeout_seconds.unwrap_or(0),
        runtime: engine.settings().runtime(&config.runtime),
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        healthcheck: merged.healthcheck.clone(),
        extension: Some(record.extension()),
        // The engine removes it itself: there is more to remove than the record.
        auto_remove: false,
        ..Default::default()
    }
}

fn warnings(config: &ContainerConfig, machine: &Machine) -> Vec<String> {
    let mut list = Vec::new();
    let resources = config.resources.clone().unwrap_or_default();
    if resources.memory_bytes > 0 && !machine.swap_limit {
        list.push("this kernel cannot limit swap: the memory limit is without it".to_string());
    }
    if resources.oom_kill_disable && resources.memory_bytes == 0 {
        list.push("the OOM killer is disabled without a memory limit: the host can run out of memory".to_string());
    }
    list
}
