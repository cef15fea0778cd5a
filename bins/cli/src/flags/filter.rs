//! `-f key=value`, several times.

use std::collections::HashMap;

use anyhow::Context;
use api::types::v1::StringList;

/// Values of one key gathered; what a key means is the server's.
pub fn filters(texts: &[String]) -> anyhow::Result<HashMap<String, StringList>> {
    let mut all: HashMap<String, StringList> = HashMap::new();
    for text in texts {
        // "label!=k" splits at the first "=": the key is then "label!".
        let (key, value) =
            text.split_once('=').with_context(|| format!("invalid filter {text:?}: expected KEY=VALUE"))?;
        all.entry(key.trim().into()).or_default().values.push(value.trim().into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gathers() {
        let all = filters(&["label=a=b".into(), "label=c".into(), "label!=d".into()]).unwrap();
        assert_eq!(all["label"].values, ["a=b", "c"]);
        assert_eq!(all["label!"].values, ["d"]);
        assert!(filters(&["x".into()]).is_err());
    }
}
