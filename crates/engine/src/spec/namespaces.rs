//! Which namespaces a container has to itself, shares with the host, or joins.
use oci::idmap::{IdMap, Line};
use serde_json::{Value, json};

/// A namespace that is made, left out, or joined.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Namespace {
    /// The container's own.
    #[default]
    Private,
    /// The host's: not listed.
    Host,
    /// The one at this path.
    Path(String),
}

/// The UTS namespace decides whether a hostname may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Uts {
    /// The container's own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// The container's choice for each kind. The mount namespace is always its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// "" or "private", "host", "container:<id>".
    pub pid: Namespace,
    /// "" or "private", "host".
    pub ipc: Namespace,
    /// "" or "private", "host".
    pub uts: Uts,
    /// The one that the network tool made, or the host's.
    pub network: Namespace,
    /// Private by default where cgroup v2 is in charge.
    pub cgroup: Namespace,
    /// Ids of its own; without them, the host's user namespace.
    pub user: Option<IdMap>,
}

/// The `linux.namespaces` list.
pub fn list(namespaces: &Namespaces) -> Value {
    let uts = if namespaces.uts == Uts::Host { Namespace::Host } else { Namespace::Private };
    let all = [
        ("mount", &Namespace::Private),
        ("pid", &namespaces.pid),
        ("ipc", &namespaces.ipc),
        ("uts", &uts),
        ("network", &namespaces.network),
        ("cgroup", &namespaces.cgroup),
    ];
    let user = namespaces.user.as_ref().map(|_| json!({ "type": "user" }));
    json!(all.into_iter().filter_map(|(kind, ns)| entry(kind, ns)).chain(user).collect::<Vec<_>>())
}

/// A mapping as the runtime specification has it.
pub fn mappings(lines: &[Line]) -> Value {
    let one = |l: &Line| json!({"containerID": l.inside, "hostID": l.outside, "size": l.size});
    json!(lines.iter().map(one).collect::<Vec<_>>())
}

fn entry(kind: &str, namespace: &Namespace) -> Option<Value> {
    match namespace {
        Namespace::Private => Some(json!({ "type": kind })),
        Namespace::Path(path) => Some(json!({ "type": kind, "path": path })),
        Namespace::Host => None,
    }
}
