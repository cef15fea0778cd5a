//! From the configuration as given to the one the runtime reads: pure.

use oci::shim::{FileMount, Launch};
use oci::user::User;
use serde_json::{Map, Value, json};

use crate::error::Error;

/// Completes `spec`: rootfs, user, HOME, injected files, cgroup path, console size.
pub(crate) fn complete(mut spec: Value, launch: &Launch, user: Option<&User>) -> Result<Value, Error> {
    let object = spec.as_object_mut().ok_or_else(|| Error::Config("it is not a JSON object".into()))?;
    set_rootfs(object, launch)?;
    let process = child(object, "process")?;
    if let Some(user) = user {
        set_user(process, user)?;
    }
    if let Some(size) = launch.size
        && process.get("terminal") == Some(&Value::Bool(true))
    {
        process.insert("consoleSize".into(), json!({"width": size.width, "height": size.height}));
    }
    let user_namespace = has_namespace(object, "user");
    for file in &launch.files {
        inject(object, file, user_namespace)?;
    }
    let linux = child(object, "linux")?;
    if linux.get("cgroupsPath").and_then(Value::as_str).is_none_or(str::is_empty) {
        linux.insert("cgroupsPath".into(), json!(format!("/pier/{}", launch.id)));
    }
    Ok(spec)
}

/// Whether the first process has a terminal.
pub(crate) fn has_terminal(spec: &Value) -> bool {
    spec.pointer("/process/terminal").and_then(Value::as_bool).unwrap_or(false)
}

/// What the shim has to know of a configuration as long as the container lives.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    /// The kernel ends the others with the first process.
    pub(crate) own_pid_namespace: bool,
    /// User and group that are root inside a user namespace.
    pub(crate) root: Option<(u32, u32)>,
}

impl Facts {
    pub(crate) fn of(spec: &Value) -> Self {
        let root = mapped_root(spec, "uidMappings").zip(mapped_root(spec, "gidMappings"));
        Self { own_pid_namespace: has_own_pid_namespace(spec), root }
    }
}

fn mapped_root(spec: &Value, key: &str) -> Option<u32> {
    let lines = spec.get("linux")?.get(key)?.as_array()?;
    let root = lines.iter().find(|line| line.get("containerID").and_then(Value::as_u64) == Some(0))?;
    root.get("hostID")?.as_u64()?.try_into().ok()
}

fn has_own_pid_namespace(spec: &Value) -> bool {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    namespaces.is_some_and(|list| {
        list.iter().any(|n| n.get("type").and_then(Value::as_str) == Some("pid") && n.get("path").is_none())
    })
}

fn has_namespace(spec: &Map<String, Value>, kind: &str) -> bool {
    let namespaces = spec.get("linux").and_then(|linux| linux.get("namespaces")).and_then(Value::as_array);
    namespaces.is_some_and(|list| list.iter().any(|n| n.get("type").and_then(Value::as_str) == Some(kind)))
}

/// `root.path` when it is absolute.
pub(crate) fn absolute_root(spec: &Value) -> Option<&str> {
    spec.pointer("/root/path").and_then(Value::as_str).filter(|path| path.starts_with('/'))
}

fn child<'a>(object: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>, Error> {
    object
        .entry(key)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Error::Config(format!("{key} is not an object")))
}

fn set_rootfs(object: &mut Map<String, Value>, launch: &Launch) -> Result<(), Error> {
    let root = child(object, "root")?;
    let absolute = root.get("path").and_then(Value::as_str).is_some_and(|path| path.starts_with('/'));
    if !launch.rootfs.is_empty() || !absolute {
        root.insert("path".into(), json!("rootfs"));
    }
    Ok(())
}

fn set_user(process: &mut Map<String, Value>, user: &User) -> Result<(), Error> {
    let target = child(process, "user")?;
    target.insert("uid".into(), json!(user.uid));
    target.insert("gid".into(), json!(user.gid));
    target.remove("username");
    if user.additional_gids.is_empty() {
        target.remove("additionalGids");
    } else {
        target.insert("additionalGids".into(), json!(user.additional_gids));
    }
    let env = process.entry("env").or_insert_with(|| json!([]));
    let env = env.as_array_mut().ok_or_else(|| Error::Config("process.env is not a list".into()))?;
    if !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("HOME="))) {
        env.push(json!(format!("HOME={}", user.home)));
    }
    Ok(())
}

fn inject(object: &mut Map<String, Value>, file: &FileMount, user_namespace: bool) -> Result<(), Error> {
    let mounts = object.entry("mounts").or_insert_with(|| json!([]));
    let mounts = mounts.as_array_mut().ok_or_else(|| Error::Config("mounts is not a list".into()))?;
    let mut options = vec!["bind", "rprivate"];
    if user_namespace {
        // Root's file is the container's root's.
        options.push("idmap");
    }
    mounts.push(json!({"destination": file.target, "type": "bind", "source": file.source, "options": options}));
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn launch() -> Launch {
        Launch {
            id: "abc".into(),
            run: 1,
            container_dir: "/c".into(),
            run_dir: "/r".into(),
            presence: "/p".into(),
            journal: "/j".into(),
            attributes: Default::default(),
            runtime: "/usr/sbin/runc".into(),
            runtime_args: vec![],
            runtime_root: "/rr".into(),
            rootfs: vec![],
            files: vec![FileMount { source: "/f/0".into(), target: "/etc/hosts".into() }],
            user: "web".into(),
            additional_groups: vec![],
            log: None,
            size: None,
            open_stdin: false,
            stdin_once: false,
        }
    }

    #[test]
    fn the_configuration_is_completed() {
        let user = User { uid: 33, gid: 34, additional_gids: vec![29], home: "/srv".into() };
        let spec = json!({"process": {"args": ["sh"], "user": {"uid": 0, "gid": 0}}, "root": {"path": "/images/x"}});
        let spec = complete(spec, &launch(), Some(&user)).unwrap();
        assert_eq!(spec["process"]["user"], json!({"uid": 33, "gid": 34, "additionalGids": [29]}));
        assert_eq!(spec["process"]["env"], json!(["HOME=/srv"]));
        assert_eq!(spec["root"]["path"], "/images/x");
        assert_eq!(spec["mounts"][0]["destination"], "/etc/hosts");
        assert_eq!(spec["linux"]["cgroupsPath"], "/pier/abc");
    }

    #[test]
    fn root_of_a_user_namespace() {
        let map = json!([{"containerID": 1, "hostID": 5, "size": 9}, {"containerID": 0, "hostID": 100_000, "size": 1}]);
        let linux = json!({"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map});
        let spec = complete(json!({"linux": linux}), &launch(), None).unwrap();
        assert_eq!(Facts::of(&spec).root, Some((100_000, 100_000)));
        assert_eq!(spec["mounts"][0]["options"], json!(["bind", "rprivate", "idmap"]));
        assert_eq!(Facts::of(&json!({"linux": {}})).root, None);
    }

    #[test]
    fn nonsense_is_an_error_not_a_panic() {
        for spec in [json!([]), json!({"process": 3}), json!({"mounts": {}}), json!({"linux": null})] {
            assert!(complete(spec, &launch(), None).is_err());
        }
    }
}
