//! `-o` of `build`: pure.

use std::path::Path;

use anyhow::{Context, bail};
use api::builder::v1::Output;

const TYPES: [&str; 6] = ["image", "oci-archive", "docker-archive", "oci-dir", "local", "tar"];

/// "type=oci-archive,dest=x.tar", "type=image,push=true"; a bare path is type=local. Docker's names oci and docker are
/// the archives.
pub fn output(text: &str, cwd: &Path) -> anyhow::Result<Output> {
    if !text.contains('=') {
        return match text {
            "" => bail!("an output is required"),
            "-" => bail!("output \"-\" is not supported: use type=tar,dest=FILE"),
            path => Ok(Output { r#type: "local".into(), path: absolute(path, cwd), push: false }),
        };
    }
    let mut output = Output::default();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').with_context(|| format!("invalid output {text:?}: {field:?} is no KEY=VALUE"))?;
        match key {
            "type" => {
                output.r#type = match value {
                    "oci" => "oci-archive".into(),
                    "docker" => "docker-archive".into(),
                    known if TYPES.contains(&known) => known.into(),
                    _ => bail!("invalid output {text:?}: type is one of {}", TYPES.join(", ")),
                }
            }
            "dest" | "path" => output.path = absolute(value, cwd),
            "push" => output.push = value == "true",
            _ => bail!("invalid output {text:?}: unknown field {key:?}"),
        }
    }
    match output.r#type.as_str() {
        "" => bail!("invalid output {text:?}: type is required"),
        "image" if !output.path.is_empty() => bail!("invalid output {text:?}: an image has no dest"),
        "image" => {}
        _ if output.path.is_empty() => bail!("invalid output {text:?}: dest is required"),
        _ => {}
    }
    Ok(output)
}

fn absolute(path: &str, cwd: &Path) -> String {
    cwd.join(path).display().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn outputs() {
        let cwd = Path::new("/home/me");
        for (text, kind, path, push) in [
            ("type=oci,dest=x.tar", "oci-archive", "/home/me/x.tar", false),
            ("type=oci-archive,dest=/x.tar", "oci-archive", "/x.tar", false),
            ("type=image,push=true", "image", "", true),
            ("out", "local", "/home/me/out", false),
        ] {
            let got = output(text, cwd).unwrap();
            assert_eq!((got.r#type.as_str(), got.path.as_str(), got.push), (kind, path, push), "{text}");
        }
        for bad in ["", "-", "type=nope,dest=x", "type=oci", "dest=x", "type=image,dest=x", "type=tar,dest=x,foo=1"] {
            assert!(output(bad, cwd).is_err(), "{bad}");
        }
    }
}
