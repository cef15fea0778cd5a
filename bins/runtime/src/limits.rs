//! `update` and `events`.

use std::io::Read;

use runtime::state::Store;
use runtime::update::{self, Rdt};
use runtime::{Error, bundle, events};
use serde_json::{Value, json};

use crate::args::{Parsed, Values};
use crate::commands::Failure;
use crate::log::Log;
use crate::output;

/// Changes limits.
pub fn update(parsed: &Parsed, store: &Store, id: &str, log: &Log) -> Result<(), Failure> {
    let flags = &parsed.flags;
    let changes = match flags.last("resources") {
        Some(file) if !file.is_empty() => read(file)?,
        _ => from_flags(flags)?,
    };
    let text = |name: &str| flags.last(name).filter(|v| !v.is_empty()).map(str::to_owned);
    let rdt = Rdt { l3_cache: text("l3-cache-schema"), memory_bandwidth: text("mem-bw-schema") };
    update::update(store, id, changes, &rdt)?.iter().for_each(|w| log.warn(w));
    Ok(())
}

fn read(file: &str) -> Result<Value, Failure> {
    let mut bytes = vec![];
    let open = || -> std::io::Result<Box<dyn Read>> {
        if file == "-" { Ok(Box::new(std::io::stdin())) } else { Ok(Box::new(std::fs::File::open(file)?)) }
    };
    open()
        .and_then(|from| from.take(bundle::MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot read {file}: {e}"))?;
    Ok(serde_json::from_slice(&bytes).map_err(|e| format!("invalid resources in {file}: {e}"))?)
}

/// How the value of a flag is written.
enum Kind {
    Number,
    Bytes,
    Text,
}

/// Flag, the field it sets, its kind.
const FIELDS: [(&str, [&str; 2], Kind); 16] = [
    ("blkio-weight", ["blockIO", "weight"], Kind::Number),
    ("cpu-period", ["cpu", "period"], Kind::Number),
    ("cpu-quota", ["cpu", "quota"], Kind::Number),
    ("cpu-burst", ["cpu", "burst"], Kind::Number),
    ("cpu-share", ["cpu", "shares"], Kind::Number),
    ("cpu-rt-period", ["cpu", "realtimePeriod"], Kind::Number),
    ("cpu-rt-runtime", ["cpu", "realtimeRuntime"], Kind::Number),
    ("cpu-idle", ["cpu", "idle"], Kind::Number),
    ("cpuset-cpus", ["cpu", "cpus"], Kind::Text),
    ("cpuset-mems", ["cpu", "mems"], Kind::Text),
    ("memory", ["memory", "limit"], Kind::Bytes),
    ("memory-reservation", ["memory", "reservation"], Kind::Bytes),
    ("memory-swap", ["memory", "swap"], Kind::Bytes),
    ("kernel-memory", ["memory", "kernel"], Kind::Bytes),
    ("kernel-memory-tcp", ["memory", "kernelTCP"], Kind::Bytes),
    ("pids-limit", ["pids", "limit"], Kind::Number),
];

fn from_flags(flags: &Values) -> Result<Value, Error> {
    let mut changes = json!({});
    for (flag, [group, name], kind) in &FIELDS {
        let Some(text) = flags.last(flag).filter(|t| !t.is_empty()) else { continue };
        let value = match kind {
            Kind::Text => json!(text),
            Kind::Number => {
                json!(text.parse::<i64>().map_err(|_| Error::Argument(format!("invalid value for {flag}: {text:?}")))?)
            }
            Kind::Bytes => {
                json!(update::bytes(text).map_err(|e| Error::Argument(format!("invalid value for {flag}: {e}")))?)
            }
        };
        changes[group][name] = value;
    }
    Ok(changes)
}

/// Prints events, one object a line.
pub fn events(flags: &Values, store: &Store, id: &str) -> Result<(), Failure> {
    if flags.on("stats") {
        return Ok(output::print(&format!("{}\n", events::stats(store, id)?))?);
    }
    let interval = events::duration(flags.last("interval").unwrap_or("5s"))?;
    let mut each = |event: Value| {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{event}").and_then(|()| out.flush()).is_ok()
    };
    Ok(events::follow(store, id, interval, &mut each)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::parse;
    use crate::verbs::{GLOBALS, VERBS};

    fn of(line: &str) -> Result<Value, Error> {
        let parsed = parse(GLOBALS, VERBS, line.split(' ').map(str::to_owned)).unwrap();
        from_flags(&parsed.flags)
    }

    #[test]
    fn flags_become_fields() {
        assert_eq!(
            of("update box --memory 50M --memory-swap -1 --cpu-quota -1 --cpuset-cpus 0-1 --pids-limit 10").unwrap(),
            json!({"memory": {"limit": 52_428_800, "swap": -1}, "cpu": {"quota": -1, "cpus": "0-1"}, "pids": {"limit": 10}})
        );
        assert_eq!(of("update box").unwrap(), json!({}));
        assert!(of("update --cpu-share x box").is_err());
    }
}
