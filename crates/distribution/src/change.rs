//! Dockerfile instructions that change an image's config without building: `--change 'CMD ["sh"]'`.

use oci::image::{Empty, RunConfig};

use crate::error::{Error, Result};

/// Applies instructions in order.
///
/// # Errors
/// [`Error::NameInvalid`] that names the instruction.
pub fn apply(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    for change in changes {
        instruction(config, change.trim()).map_err(|problem| Error::NameInvalid {
            what: "change",
            name: change.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn instruction(config: &mut RunConfig, text: &str) -> std::result::Result<(), String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("an instruction and its arguments are expected".into());
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest)?,
        "ENTRYPOINT" => {
            config.entrypoint = command(rest)?;
            // As in a Dockerfile: a new entrypoint does not take the old arguments.
            config.cmd.clear();
        }
        "ENV" => {
            for (key, value) in pairs(rest)? {
                config.env.retain(|have| have.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                config.exposed_ports.insert(exposed(port)?, Empty {});
            }
        }
        "VOLUME" => {
            let paths = if rest.starts_with('[') { json(rest)? } else { words(rest)? };
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => config.working_dir = workdir(&config.working_dir, rest),
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "SHELL" => config.shell = json(rest)?,
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        other => {
            return Err(format!(
                "{other} cannot be applied; there are: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, \
                 VOLUME, WORKDIR"
            ));
        }
    }
    Ok(())
}

/// `["a", "b"]`, or a line for the shell.
fn command(text: &str) -> std::result::Result<Vec<String>, String> {
    if text.starts_with('[') {
        return json(text);
    }
    Ok(vec!["/bin/sh".into(), "-c".into(), text.into()])
}

fn json(text: &str) -> std::result::Result<Vec<String>, String> {
    serde_json::from_str(text).map_err(|e| format!("not a JSON list of strings: {e}"))
}

fn exposed(port: &str) -> std::result::Result<String, String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let valid = |text: &str| text.parse::<u16>().is_ok_and(|number| number > 0);
    let numbers = number.split('-').count() <= 2 && number.split('-').all(valid);
    if !numbers || !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(format!("{port} is no port"));
    }
    Ok(format!("{number}/{protocol}"))
}

fn workdir(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.into();
    }
    format!("{}/{path}", current.trim_end_matches('/'))
}

/// `A=b C="d e"`, or the old form `A b c`.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (key, value) = text.split_once(char::is_whitespace).ok_or("a value is expected")?;
        return Ok(vec![(key.into(), value.trim().into())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{word} is not KEY=VALUE")),
        })
        .collect()
}

/// Splits at white space outside of quotes; a backslash takes the next character as it is.
fn words(text: &str) -> std::result::Result<Vec<String>, String> {
    let (mut words, mut word, mut quote, mut started) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => (quote, started) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if started || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            (c, None) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    if started || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn changed(changes: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        apply(&mut config, &changes).unwrap();
        config
    }

    #[test]
    fn instructions_change_the_config() {
        let config = changed(&[
            "ENTRYPOINT [\"/bin/x\"]",
            "cmd echo hi",
            "ENV A=1 B=\"two words\"",
            "ENV A 3 4",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "WORKDIR /a",
            "WORKDIR b",
            "VOLUME [\"/data\"]",
            "USER nobody",
        ]);
        assert_eq!(config.entrypoint, ["/bin/x"]);
        assert_eq!(config.cmd, ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.env, ["B=two words", "A=3 4"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/a/b", "nobody"));
        assert!(config.volumes.contains_key("/data") && config.labels["k"] == "v");
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        for bad in ["RUN x", "CMD", "EXPOSE x", "ENV A=\"b", "LABEL =x", "CMD [1]"] {
            let error = apply(&mut RunConfig::default(), &[bad.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("change"), "{error}");
        }
    }
}
