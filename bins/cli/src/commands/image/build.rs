//! `pier build`

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::builder::v1::{BuildRequest, BuildResult, build_response};

use super::build_output::output;
use super::build_progress::{Mode, Steps};
use crate::client::{Answer, Client, filled, next};
use crate::commands::say;
use crate::flags::config::platform;
use crate::flags::{environment, quantity};
use crate::show::image::familiar_reference;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context: a directory, or "-" for a Dockerfile on stdin without a context
    context: String,
    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// The Dockerfile, "-" for stdin; default: Dockerfile in the context
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Stage to build
    #[arg(long, default_value = "", value_name = "STAGE")]
    target: String,
    /// NAME=VALUE, or NAME for this environment's value
    #[arg(long, value_name = "VAR")]
    build_arg: Vec<String>,
    /// Label, KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Another context: NAME=DIRECTORY or NAME=docker-image://REFERENCE
    #[arg(long, value_name = "NAME=PATH")]
    build_context: Vec<String>,
    /// Use nothing from the cache
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// type=image|oci-archive|docker-archive|oci-dir|local|tar,dest=PATH
    #[arg(short, long)]
    output: Vec<String>,
    /// Push the image
    #[arg(long)]
    push: bool,
    /// How steps are shown
    #[arg(long, value_enum, default_value_t)]
    progress: Mode,
    /// Network of RUN: default, host, none
    #[arg(long, default_value = "")]
    network: String,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Line of /etc/hosts for RUN
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Memory of RUN
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Only print the id
    #[arg(short, long)]
    quiet: bool,
    /// Write the id to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = self.request()?;
        let mut steps = Steps::new(if self.quiet { Mode::None } else { self.progress });
        let mut stream = client.builder().await?.build(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await.inspect_err(|_| steps.failed())? {
            match message.payload {
                Some(build_response::Payload::Result(done)) => result = Some(done),
                Some(payload) => steps.show(&payload)?,
                None => {}
            }
        }
        drop(steps);
        self.told(&filled(result, "result")?)
    }

    fn told(&self, result: &BuildResult) -> anyhow::Result<u8> {
        for warning in &result.warnings {
            eprintln!("WARNING: {warning}");
        }
        if let Some(file) = &self.iidfile {
            std::fs::write(file, &result.image_id).with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.quiet {
            say(&result.image_id)?;
        } else if !result.image_id.is_empty() {
            say(format_args!("Successfully built {}", result.image_id))?;
            for name in &result.names {
                say(format_args!("Successfully tagged {}", familiar_reference(name)))?;
            }
        }
        Ok(0)
    }

    fn request(&self) -> anyhow::Result<BuildRequest> {
        let cwd = std::env::current_dir().context("cannot tell the current directory")?;
        let (context, dockerfile, dockerfile_inline) = self.sources(&cwd)?;
        for tag in &self.tag {
            tag.parse::<oci::Reference>()?;
        }
        let mut outputs = self.output.iter().map(|text| output(text, &cwd)).collect::<anyhow::Result<Vec<_>>>()?;
        if self.push {
            match outputs.iter_mut().find(|output| output.r#type == "image") {
                Some(image) => image.push = true,
                None => outputs.push(output("type=image,push=true", &cwd)?),
            }
        }
        Ok(BuildRequest {
            context,
            dockerfile,
            dockerfile_inline,
            target: self.target.clone(),
            build_args: build_args(&self.build_arg)?,
            labels: environment::labels(&[], &self.label)?,
            tags: self.tag.clone(),
            outputs,
            no_cache: self.no_cache,
            pull: self.pull,
            platform: self.platform.as_deref().map(platform).transpose()?,
            network: self.network.clone(),
            named_contexts: named_contexts(&self.build_context, &cwd)?,
            memory_limit_bytes: self.memory.as_deref().map_or(Ok(0), quantity::bytes)?,
            extra_hosts: self.add_host.clone(),
            ..Default::default()
        })
    }

    /// Context directory, path of the Dockerfile, or the Dockerfile itself.
    fn sources(&self, cwd: &Path) -> anyhow::Result<(String, String, Vec<u8>)> {
        let file = self.file.as_deref();
        if self.context == "-" {
            if file.is_some() {
                bail!("-f needs a context directory");
            }
            return Ok((String::new(), String::new(), stdin()?));
        }
        let directory = cwd.join(&self.context);
        let directory =
            directory.canonicalize().with_context(|| format!("cannot read the context {}", self.context))?;
        if !directory.is_dir() {
            bail!("the context {} is no directory", self.context);
        }
        let inline = if file == Some("-") { stdin()? } else { Vec::new() };
        let dockerfile = match file {
            None | Some("-") => String::new(),
            Some(file) => {
                let path = cwd.join(file);
                path.canonicalize().with_context(|| format!("cannot read the Dockerfile {file}"))?.display().to_string()
            }
        };
        Ok((directory.display().to_string(), dockerfile, inline))
    }
}

fn stdin() -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("cannot read the Dockerfile from stdin")?;
    // Docker takes a tar of a context here too; this is a path-only door.
    if text.get(257..262) == Some(b"ustar") || text.starts_with(&[0x1f, 0x8b]) {
        bail!("stdin holds an archive: unpack it and give its directory");
    }
    Ok(text)
}

fn build_args(texts: &[String]) -> anyhow::Result<HashMap<String, String>> {
    let mut all = HashMap::new();
    for text in texts {
        if let Some(variable) = environment::variable(text, |name| std::env::var(name).ok())? {
            let (key, value) = variable.split_once('=').unwrap_or((&variable, ""));
            all.insert(key.into(), value.into());
        }
    }
    Ok(all)
}

fn named_contexts(texts: &[String], cwd: &Path) -> anyhow::Result<HashMap<String, String>> {
    let mut all = environment::pairs("--build-context", texts)?;
    for source in all.values_mut() {
        if !source.contains("://") {
            *source = cwd.join(&*source).display().to_string();
        }
    }
    Ok(all)
}
