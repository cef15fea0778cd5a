//! From the command line to a build request.

use anyhow::{Context, bail};
use api::builder::v1 as pb;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use crate::args::Build;

/// The request that `serve` would get for these arguments.
pub fn message(args: &Build) -> anyhow::Result<pb::BuildRequest> {
    let mut request = pb::BuildRequest {
        target: args.target.clone(),
        build_args: build_args(&args.build_args),
        labels: pairs("--label", &args.labels)?,
        tags: args.tags.clone(),
        no_cache: args.no_cache,
        pull: args.pull,
        network: args.network.clone(),
        compression: args.compression.clone(),
        named_contexts: pairs("--build-context", &args.build_contexts)?,
        memory_limit_bytes: size("--memory", &args.memory)?,
        extra_hosts: args.add_hosts.clone(),
        outputs: args.outputs.iter().map(|text| output(text)).collect::<Result<_, _>>()?,
        ..Default::default()
    };
    for value in request.named_contexts.values_mut() {
        if Path::new(value).is_dir() {
            *value = absolute(value)?;
        }
    }
    if args.push {
        push(&mut request);
    }
    if let Some(text) = &args.platform {
        let platform: oci::Platform = text.parse().with_context(|| format!("--platform {text}"))?;
        request.platform = Some(api::types::v1::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..Default::default()
        });
    }
    files(args, &mut request)?;
    Ok(request)
}

fn files(args: &Build, request: &mut pb::BuildRequest) -> anyhow::Result<()> {
    if args.context == "-" {
        request.dockerfile_inline = stdin()?;
        return Ok(());
    }
    if !Path::new(&args.context).is_dir() {
        let hint = console::hint("give a directory, or - for a Dockerfile on standard input");
        return Err(anyhow::anyhow!("the build context {:?} is no directory", args.context).context(hint));
    }
    request.context = absolute(&args.context)?;
    match args.file.as_deref() {
        None => {}
        Some("-") => request.dockerfile_inline = stdin()?,
        // As docker: relative to the current directory.
        Some(path) => request.dockerfile = absolute(path)?,
    }
    Ok(())
}

fn stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("read the Dockerfile from standard input")?;
    Ok(bytes)
}

fn absolute(path: &str) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("find {path}"))?;
    // The path with which the Dockerfile's own place is compared.
    let clean: std::path::PathBuf = path.components().collect();
    Ok(clean.to_string_lossy().into_owned())
}

fn push(request: &mut pb::BuildRequest) {
    match request.outputs.iter_mut().find(|output| output.r#type == "image") {
        Some(output) => output.push = true,
        None => request.outputs.push(pb::Output { r#type: "image".into(), path: String::new(), push: true }),
    }
}

fn pairs(flag: &str, texts: &[String]) -> anyhow::Result<HashMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("{flag} {text:?}: write KEY=VALUE"),
    };
    texts.iter().map(pair).collect()
}

/// A name without a value takes that of the environment, and counts for nothing when there is none.
fn build_args(texts: &[String]) -> HashMap<String, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    texts.iter().filter_map(pair).collect()
}

/// Bytes of "512m".
pub fn size(flag: &str, text: &str) -> anyhow::Result<i64> {
    let bytes = console::parse_size(text).with_context(|| format!("{flag} {text:?}: write a size such as 512m"))?;
    i64::try_from(bytes).with_context(|| format!("{flag} {text}: too large"))
}

/// `type=oci-archive,dest=x.tar`, or a directory alone for its files.
fn output(text: &str) -> anyhow::Result<pb::Output> {
    let mut output = pb::Output::default();
    if !text.contains('=') {
        let path = destination(text, "local")?;
        return Ok(pb::Output { r#type: "local".into(), path, push: false });
    }
    let mut path = String::new();
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => output.r#type = value.into(),
            Some(("dest" | "path", value)) => path = value.into(),
            Some(("push", value)) => output.push = value == "true",
            _ => bail!("--output {text:?}: unknown field {field:?}; known are type=, dest= and push="),
        }
    }
    if !path.is_empty() {
        output.path = destination(&path, &output.r#type)?;
    }
    Ok(output)
}

/// "-" is standard output, by a path that the store can open too.
fn destination(path: &str, kind: &str) -> anyhow::Result<String> {
    match path {
        "-" if kind == "local" || kind == "oci-dir" => bail!("--output: {kind} needs a directory"),
        "-" => Ok(format!("/proc/{}/fd/1", std::process::id())),
        _ => absolute(path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_outputs() {
        let read = |text: &str| output(text).unwrap();
        assert_eq!(read("/out"), pb::Output { r#type: "local".into(), path: "/out".into(), push: false });
        assert_eq!(
            read("type=oci-archive,dest=/x.tar"),
            pb::Output { r#type: "oci-archive".into(), path: "/x.tar".into(), push: false }
        );
        assert!(read("type=image,push=true").push);
        assert!(read("type=tar,dest=-").path.starts_with("/proc/"));
        for text in ["type=tar,dst=x", "type=local,dest=-"] {
            assert!(output(text).is_err(), "{text}");
        }
    }
}
