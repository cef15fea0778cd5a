//! A definition as JSON, for people and tests.

use bollard_buildkit_proto::pb;
use serde_json::{Value, json};

use crate::error::Error;
use crate::graph::{Graph, Vertex};

/// The vertices of a definition, inputs before their users.
pub fn dump(definition: &pb::Definition) -> Result<Value, Error> {
    let graph = Graph::load(definition)?;
    let target = graph.target.map(|edge| json!({"digest": edge.digest, "index": edge.index}));
    Ok(json!({"vertices": graph.vertices.iter().map(vertex).collect::<Vec<_>>(), "target": target}))
}

fn vertex(vertex: &Vertex) -> Value {
    let line = vertex.location.as_ref().map(|at| format!("{}:{}", at.file, at.line));
    let inputs: Vec<Value> =
        vertex.inputs.iter().map(|edge| json!({"digest": edge.digest, "index": edge.index})).collect();
    let op = vertex.op.op.as_ref().map(operation);
    json!({"digest": vertex.digest, "name": vertex.name, "location": line, "inputs": inputs, "op": op})
}

fn operation(op: &pb::op::Op) -> Value {
    match op {
        pb::op::Op::Source(op) => json!({"source": {"identifier": op.identifier, "attrs": op.attrs}}),
        pb::op::Op::Exec(op) => json!({"exec": exec(op)}),
        pb::op::Op::File(op) => json!({"file": op.actions.iter().map(action).collect::<Vec<_>>()}),
        other => json!(format!("{other:?}")),
    }
}

fn exec(op: &pb::ExecOp) -> Value {
    let meta = op.meta.clone().unwrap_or_default();
    let mount = |mount: &pb::Mount| {
        json!({
            "dest": mount.dest, "input": mount.input, "output": mount.output, "selector": mount.selector,
            "readonly": mount.readonly, "type": mount.mount_type().as_str_name(),
        })
    };
    json!({
        "args": meta.args, "env": meta.env, "cwd": meta.cwd, "user": meta.user,
        "network": op.network().as_str_name(), "mounts": op.mounts.iter().map(mount).collect::<Vec<_>>(),
    })
}

fn action(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let what = match &action.action {
        Some(Action::Copy(copy)) => json!({"copy": {
            "src": copy.src, "dest": copy.dest, "mode": copy.mode, "exclude": copy.exclude_patterns,
            "unpack": copy.attempt_unpack_docker_compatibility, "owner": copy.owner.as_ref().map(|owner| format!("{owner:?}")),
        }}),
        Some(Action::Mkdir(mkdir)) => json!({"mkdir": {"path": mkdir.path, "mode": mkdir.mode}}),
        Some(Action::Mkfile(mkfile)) => {
            json!({"mkfile": {"path": mkfile.path, "mode": mkfile.mode, "data": String::from_utf8_lossy(&mkfile.data)}})
        }
        other => json!(format!("{other:?}")),
    };
    json!({"input": action.input, "secondary_input": action.secondary_input, "output": action.output, "action": what})
}
