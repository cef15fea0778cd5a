//! `pier create`, and what `run` shares with it.

use std::io::Write;

use anyhow::{Context, bail};
use api::engine::v1::{
    CreateContainerRequest, CreateContainerResult, InspectContainerRequest, MountKind, MountPoint, VolumeMount,
    create_container_response,
};

use crate::client::{Answer, Client, filled, next};
use crate::commands::{say, warn};
use crate::flags::config;
use crate::flags::container::ContainerFlags;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG]")]
    args: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        say(create(client, &self.flags, &self.args, true).await?.id)?;
        Ok(0)
    }
}

/// Makes a container; progress of a pull and warnings go to stderr. `attached`: a client's stdin will be the container's.
pub async fn create(
    client: &Client,
    flags: &ContainerFlags,
    args: &[String],
    attached: bool,
) -> anyhow::Result<CreateContainerResult> {
    let cwd = std::env::current_dir().context("cannot tell the current directory")?;
    let mut config = config::config(flags, args, &cwd, |name| std::env::var(name).ok())?;
    config.stdin_once &= attached;
    let cidfile = flags.cidfile.as_deref().map(reserve).transpose()?;
    for source in &flags.storage.volumes_from {
        for mount in mounts_of(client, source).await? {
            if !config.mounts.iter().any(|own| own.target.trim_end_matches('/') == mount.target.trim_end_matches('/')) {
                config.mounts.push(mount);
            }
        }
    }
    let made = send(client, config, flags.image.quiet).await;
    match (&made, cidfile) {
        (Ok(result), Some((mut file, path))) => {
            file.write_all(result.id.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        (Err(_), Some((_, path))) => {
            let _ = std::fs::remove_file(path);
        }
        _ => {}
    }
    made
}

async fn send(
    client: &Client,
    config: api::engine::v1::ContainerConfig,
    quiet: bool,
) -> anyhow::Result<CreateContainerResult> {
    use create_container_response::Payload;
    let mut shown = Shown::new(quiet);
    let request = CreateContainerRequest { config: Some(config) };
    let mut stream = client.engine().await?.create_container(request).await.answer()?;
    let mut result = None;
    while let Some(message) = next(&mut stream).await? {
        match message.payload {
            Some(Payload::Progress(progress)) => shown.update(&progress),
            Some(Payload::Result(made)) => result = Some(made),
            None => {}
        }
    }
    let result = filled(result, "container")?;
    warn(&result.warnings);
    Ok(result)
}

/// The file is made before the container: a bad path must not leave a container behind.
fn reserve(path: &std::path::Path) -> anyhow::Result<(std::fs::File, std::path::PathBuf)> {
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("cannot make the id file {}", path.display()))?;
    Ok((file, path.into()))
}

/// Volumes and binds of another container, as `--volumes-from` takes them: anonymous ones and its image's too.
async fn mounts_of(client: &Client, source: &str) -> anyhow::Result<Vec<VolumeMount>> {
    let (name, access) = source.split_once(':').unwrap_or((source, "rw"));
    if !matches!(access, "rw" | "ro" | "z" | "Z") {
        bail!("invalid volumes-from {source:?}: expected CONTAINER[:ro|rw|z|Z]");
    }
    let request = InspectContainerRequest { id: name.into(), with_size: false };
    let answer = client.engine().await?.inspect_container(request).await.answer()?;
    let container = filled(answer.container, "container")?;
    let asked = container.config.unwrap_or_default().mounts;
    let shared = |point: MountPoint| {
        let asked = asked.iter().find(|mount| mount.target == point.target).cloned().unwrap_or_default();
        // By its id: it may have another name by now.
        let source = if point.volume_id.is_empty() { asked.source } else { point.volume_id };
        let read_only = point.read_only || access == "ro";
        VolumeMount { kind: point.kind, target: point.target, source, read_only, ..asked }
    };
    Ok(container.mounts.into_iter().filter(|point| point.kind() != MountKind::Tmpfs).map(shared).collect())
}
