//! The configuration of a built image: what the frontend says, with layers, history and dates.

use oci::ImageConfig;
use oci::image::History;
use std::collections::HashMap;

use crate::frontend::dockerfile::Lowered;
use crate::layer::Chain;

/// Completes a configuration. `lengths` is the number of layers after each vertex of the history, `created` RFC 3339.
pub fn configure(
    lowered: &Lowered,
    chain: &Chain,
    lengths: &HashMap<String, usize>,
    base: usize,
    created: &str,
) -> ImageConfig {
    let mut config = lowered.config.clone();
    config.created = Some(created.to_owned());
    config.rootfs.diff_ids = chain.0.iter().filter_map(|layer| layer.diff_id.parse().ok()).collect();
    config.history = history(lowered, lengths, base, created);
    config
}

fn history(lowered: &Lowered, lengths: &HashMap<String, usize>, base: usize, created: &str) -> Vec<History> {
    let mut history = lowered.base_history.clone();
    // Tools count: each layer has one entry that is not empty.
    let described = history.iter().filter(|entry| !entry.empty_layer).count();
    for _ in described..base {
        history.push(History { created_by: Some("layer of the base image".into()), ..History::default() });
    }
    let mut length = base;
    for entry in &lowered.history {
        let after = entry.vertex.as_ref().and_then(|vertex| lengths.get(vertex)).copied().unwrap_or(length);
        history.push(History {
            created: Some(created.to_owned()),
            created_by: Some(entry.created_by.clone()),
            comment: Some("pier-builder".into()),
            empty_layer: after == length,
            ..History::default()
        });
        length = after;
    }
    history
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frontend::dockerfile::HistoryEntry;

    #[test]
    fn layers_and_history_agree() {
        let entry =
            |text: &str, vertex: Option<&str>| HistoryEntry { created_by: text.into(), vertex: vertex.map(Into::into) };
        let lowered = Lowered {
            definition: Default::default(),
            config: ImageConfig::default(),
            base_history: vec![History { empty_layer: true, ..History::default() }],
            base_vertex: None,
            history: vec![
                entry("ENV a=b", None),
                entry("COPY", Some("v1")),
                entry("RUN true", Some("v2")),
                entry("RUN x", Some("v3")),
            ],
            warnings: Vec::new(),
        };
        let lengths = HashMap::from([("v1".to_owned(), 2), ("v2".to_owned(), 2), ("v3".to_owned(), 3)]);
        let config = configure(&lowered, &Chain::default(), &lengths, 1, "2026-01-01T00:00:00Z");
        let empty: Vec<bool> = config.history.iter().map(|entry| entry.empty_layer).collect();
        assert_eq!(empty, [true, false, true, false, true, false]);
    }
}
