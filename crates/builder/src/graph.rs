//! Reads BuildKit's LLB: a definition becomes vertices. Knows how they hang together, not what they do.

use bollard_buildkit_proto::pb;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::llb::{self, Edge};

/// One operation.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// Digest of the bytes as received.
    pub digest: String,
    /// The operation, decoded.
    pub op: pb::Op,
    /// What it needs.
    pub inputs: Vec<Edge>,
    /// For people.
    pub name: String,
    /// Never taken from the cache.
    pub ignore_cache: bool,
    /// File, line and text of the line it comes from.
    pub location: Option<Location>,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// As the frontend called it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
}

/// Vertices in an order in which inputs come first; only those the target needs.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Inputs before their users.
    pub vertices: Vec<Vertex>,
    /// What is asked for; none: an empty filesystem.
    pub target: Option<Edge>,
}

impl Graph {
    /// Decodes and checks a definition. Its last operation has no action, and its one input is the target.
    pub fn load(definition: &pb::Definition) -> Result<Self, Error> {
        let mut ops: BTreeMap<String, pb::Op> = BTreeMap::new();
        let mut last = None;
        for bytes in &definition.def {
            let digest = oci::Digest::of(bytes).to_string();
            let op = pb::Op::decode(bytes.as_slice())
                .map_err(|error| Error::Definition(format!("operation {digest} cannot be decoded: {error}")))?;
            last = Some(op.clone());
            ops.insert(digest, op);
        }
        let Some(last) = last else { return Ok(Self { vertices: Vec::new(), target: None }) };
        if last.op.is_some() {
            return Err(Error::Definition("the last operation must only name the target".into()));
        }
        let target = last.inputs.first().map(edge);
        let mut order =
            Order { ops: &ops, definition, done: BTreeSet::new(), open: BTreeSet::new(), vertices: Vec::new() };
        if let Some(target) = &target {
            order.visit(&target.digest)?;
        }
        Ok(Self { vertices: order.vertices, target })
    }
}

fn edge(input: &pb::Input) -> Edge {
    Edge { digest: input.digest.clone(), index: input.index }
}

struct Order<'a> {
    ops: &'a BTreeMap<String, pb::Op>,
    definition: &'a pb::Definition,
    done: BTreeSet<String>,
    open: BTreeSet<String>,
    vertices: Vec<Vertex>,
}

impl Order<'_> {
    fn visit(&mut self, digest: &str) -> Result<(), Error> {
        if self.done.contains(digest) {
            return Ok(());
        }
        let op = self.ops.get(digest).ok_or_else(|| Error::Definition(format!("operation {digest} is missing")))?;
        if !self.open.insert(digest.to_owned()) {
            return Err(Error::Definition(format!("operation {digest} needs itself")));
        }
        for input in &op.inputs {
            self.visit(&input.digest)?;
        }
        self.done.insert(digest.to_owned());
        let vertex = self.vertex(digest, op);
        self.vertices.push(vertex);
        Ok(())
    }

    fn vertex(&self, digest: &str, op: &pb::Op) -> Vertex {
        let metadata = self.definition.metadata.get(digest);
        let name = metadata.and_then(|data| data.description.get(llb::NAME)).cloned();
        Vertex {
            digest: digest.to_owned(),
            inputs: op.inputs.iter().map(edge).collect(),
            name: name.unwrap_or_else(|| digest.to_owned()),
            ignore_cache: metadata.is_some_and(|data| data.ignore_cache),
            location: self.location(digest),
            op: op.clone(),
        }
    }

    fn location(&self, digest: &str) -> Option<Location> {
        let source = self.definition.source.as_ref()?;
        let location = source.locations.get(digest)?.locations.first()?;
        let info = source.infos.get(usize::try_from(location.source_index).ok()?)?;
        let line = usize::try_from(location.ranges.first()?.start?.line).ok()?;
        let data = String::from_utf8_lossy(&info.data);
        let text = data.lines().nth(line.checked_sub(1)?).unwrap_or_default().trim_end().to_owned();
        Some(Location { file: info.filename.clone(), line, text })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::llb::{About, Writer};

    fn source(name: &str) -> pb::op::Op {
        pb::op::Op::Source(pb::SourceOp { identifier: name.into(), attrs: BTreeMap::new() })
    }

    fn about(name: &str, line: usize) -> About {
        About { name: name.into(), lines: Some((line, line)), no_cache: false }
    }

    #[test]
    fn keeps_what_the_target_needs() {
        let mut writer = Writer::default();
        let a = writer.add(&[], None, source("a"), about("A", 1));
        let _unused = writer.add(&[], None, source("b"), about("B", 2));
        let c = writer.add(std::slice::from_ref(&a), None, source("c"), about("C", 2));
        let graph = Graph::load(&writer.finish(&c, "Dockerfile", "one\ntwo\n")).unwrap();
        let names: Vec<_> = graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
        assert_eq!(names, ["A", "C"]);
        assert_eq!(graph.vertices[1].inputs, [a]);
        assert_eq!(graph.vertices[1].location.as_ref().unwrap().text, "two");
        assert_eq!(graph.target, Some(c));
    }

    #[test]
    fn digest_is_of_the_bytes() {
        let mut writer = Writer::default();
        let a = writer.add(&[], None, source("a"), About::default());
        let again = writer.add(&[], None, source("a"), About::default());
        assert_eq!(a, again);
        let definition = writer.finish(&a, "", "");
        assert_eq!(definition.def.len(), 2);
        assert_eq!(oci::Digest::of(&definition.def[0]).to_string(), a.digest);
    }

    #[test]
    fn refuses_broken_definitions() {
        let lone = pb::Op { op: Some(source("a")), ..Default::default() }.encode_to_vec();
        let dangling =
            pb::Op { inputs: vec![pb::Input { digest: "sha256:00".into(), index: 0 }], ..Default::default() };
        for def in [vec![lone], vec![vec![0xff, 0xff]], vec![dangling.encode_to_vec()]] {
            assert!(Graph::load(&pb::Definition { def, ..Default::default() }).is_err());
        }
        assert!(Graph::load(&pb::Definition::default()).unwrap().target.is_none());
    }
}
