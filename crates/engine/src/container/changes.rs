//! The Dockerfile instructions that `commit --change` takes, applied to an image's configuration.
use crate::error::Error;
use oci::image::{Empty, RunConfig};

/// Applies one instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
pub fn apply(config: &mut RunConfig, text: &str) -> Result<(), Error> {
    let bad = |why: &str| Error::invalid("change", text, why);
    let (instruction, rest) =
        text.trim().split_once(char::is_whitespace).ok_or_else(|| bad("expected INSTRUCTION arguments"))?;
    let rest = rest.trim();
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => {
            config.entrypoint = command(rest);
            config.cmd.clear();
        }
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| bad("expected KEY=VALUE"))? {
                config.env.retain(|e| e.split_once('=').is_none_or(|(k, _)| k != key));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| bad("expected KEY=VALUE"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                config.exposed_ports.insert(crate::ports::normal_exposed(port)?, Empty {});
            }
        }
        "VOLUME" => {
            let paths = list(rest).unwrap_or_else(|| rest.split_whitespace().map(String::from).collect());
            config.volumes.extend(paths.into_iter().map(|p| (p, Empty {})));
        }
        "ONBUILD" => config.on_build.push(rest.to_string()),
        "STOPSIGNAL" => config.stop_signal = rest.to_string(),
        "USER" => config.user = rest.to_string(),
        "WORKDIR" if rest.starts_with('/') => config.working_dir = rest.to_string(),
        "WORKDIR" => config.working_dir = format!("{}/{rest}", config.working_dir.trim_end_matches('/')),
        _ => return Err(bad("this instruction cannot be applied to an image that exists")),
    }
    Ok(())
}

// The exec form is a JSON list, everything else goes to a shell.
fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.into()])
}

fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

// "A=b C="d e"", or the old form "A b c".
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if !text.split_whitespace().next()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_string(), value.trim().to_string())]);
    }
    words(text)?.into_iter().map(|w| w.split_once('=').map(|(k, v)| (k.to_string(), v.to_string()))).collect()
}

// Words with quotes taken off; a backslash takes the next character as it is.
fn words(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(chars.next()?),
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    quote.is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn instructions() {
        let mut config = RunConfig { env: vec!["A=1".into()], cmd: vec!["x".into()], ..Default::default() };
        for change in [
            "ENV A=2 B=\"c d\"",
            "LABEL k v w",
            "EXPOSE 80 53/udp",
            "ENTRYPOINT [\"/app\"]",
            "cmd run it",
            "WORKDIR /srv",
            "WORKDIR sub",
            "USER web",
            "VOLUME [\"/data\"]",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.env, ["A=2", "B=c d"]);
        assert_eq!(config.labels["k"], "v w");
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec!["/app".to_string()], vec!["/bin/sh".into(), "-c".into(), "run it".into()])
        );
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/sub", "web"));
        assert!(config.volumes.contains_key("/data"));
        let mut other = RunConfig::default();
        assert!(apply(&mut other, "RUN x").is_err() && apply(&mut other, "CMD").is_err());
        assert!(apply(&mut other, "ENV A=\"b").is_err());
    }
}
