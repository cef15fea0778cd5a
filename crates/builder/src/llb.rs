//! Writes BuildKit's LLB: operations become bytes, bytes become digests, digests become inputs of further operations.

use bollard_buildkit_proto::pb;
use prost::Message as _;
use std::collections::BTreeMap;

/// An output of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Digest of the operation's bytes.
    pub digest: String,
    /// Which of its outputs.
    pub index: i64,
}

impl Edge {
    fn input(&self) -> pb::Input {
        pb::Input { digest: self.digest.clone(), index: self.index }
    }
}

/// Key of `OpMetadata.description` for what people see.
pub const NAME: &str = "llb.customname";

/// Collects operations into a definition.
#[derive(Debug, Default)]
pub struct Writer {
    definition: pb::Definition,
    locations: BTreeMap<String, pb::Locations>,
}

/// What accompanies an operation without being part of its identity.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// For people.
    pub name: String,
    /// First and last line in the Dockerfile.
    pub lines: Option<(usize, usize)>,
    /// Do not look for it in the cache.
    pub no_cache: bool,
}

impl Writer {
    /// Adds an operation and returns its first output. The same operation twice is one vertex.
    pub fn add(&mut self, inputs: &[Edge], platform: Option<&pb::Platform>, op: pb::op::Op, about: About) -> Edge {
        let op = pb::Op {
            inputs: inputs.iter().map(Edge::input).collect(),
            platform: platform.cloned(),
            constraints: None,
            op: Some(op),
        };
        let bytes = op.encode_to_vec();
        let digest = oci::Digest::of(&bytes).to_string();
        if !self.definition.metadata.contains_key(&digest) {
            self.definition.def.push(bytes);
            let description = BTreeMap::from([(NAME.to_owned(), about.name)]);
            let metadata = pb::OpMetadata { description, ignore_cache: about.no_cache, ..Default::default() };
            self.definition.metadata.insert(digest.clone(), metadata);
            if let Some((start, end)) = about.lines {
                self.locations.insert(digest.clone(), locations(start, end));
            }
        }
        Edge { digest, index: 0 }
    }

    /// The definition whose result is `target`. `file` and `source` are the Dockerfile, for errors.
    pub fn finish(mut self, target: &Edge, file: &str, source: &str) -> pb::Definition {
        let last = pb::Op { inputs: vec![target.input()], ..Default::default() }.encode_to_vec();
        self.definition.metadata.insert(oci::Digest::of(&last).to_string(), pb::OpMetadata::default());
        self.definition.def.push(last);
        self.definition.source = Some(pb::Source {
            locations: self.locations,
            infos: vec![pb::SourceInfo {
                filename: file.to_owned(),
                data: source.as_bytes().to_vec(),
                definition: None,
                language: "Dockerfile".into(),
            }],
        });
        self.definition
    }
}

fn locations(start: usize, end: usize) -> pb::Locations {
    let position = |line: usize| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
    let range = pb::Range { start: position(start), end: position(end) };
    pb::Locations { locations: vec![pb::Location { source_index: 0, ranges: vec![range] }] }
}
