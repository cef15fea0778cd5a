//! What must hold for any input: of the configuration loader and hardener, process.json, state files, seccomp compilation;
//! of layers, manifests, image references and the challenges of registries.
//!
//! Each target takes bytes and panics on a finding. `hack/dev fuzz` feeds them from libFuzzer (`engine/`), the tests here
//! from `seeds/`: what was interesting once stays a plain test.

mod bpf;
mod image;
mod seccomp;

use std::path::{Component, Path};

use oci_spec::runtime::{Process, Spec};

/// A target: panics on a finding.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("spec", spec),
    ("process", process),
    ("state", state),
    ("seccomp", seccomp::target),
    ("layer", image::layer),
    ("manifest", image::manifest),
    ("reference", image::reference),
    ("challenge", image::challenge),
];

/// For error messages.
const NAME: &str = "config.json";

/// A hardened configuration is hard: hardening it again changes nothing, and every mount is at a plain absolute path.
pub fn spec(data: &[u8]) {
    let Ok((mut spec, _)) = runtime::bundle::decode::<Spec>(NAME.as_ref(), data) else { return };
    if runtime::harden::harden(&mut spec).is_err() {
        return;
    }
    for mount in spec.mounts().iter().flatten() {
        let at = mount.destination();
        let plain = at.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        assert!(at.is_absolute() && plain && at != Path::new("/"), "{}", at.display());
    }
    let text = serde_json::to_vec(&spec).expect("a configuration can be written");
    let (mut again, _) = runtime::bundle::decode::<Spec>(NAME.as_ref(), &text).expect("what was written can be read");
    assert_eq!(spec, again, "the saved configuration is another one");
    runtime::harden::harden(&mut again).expect("hardened once, refused now");
    assert_eq!(spec, again, "hardened twice is another one");
}

/// What is read can be written and read again.
pub fn process(data: &[u8]) {
    let Ok((process, _)) = runtime::bundle::decode::<Process>(NAME.as_ref(), data) else { return };
    let text = serde_json::to_vec(&process).expect("a process can be written");
    let (again, _) = runtime::bundle::decode::<Process>(NAME.as_ref(), &text).expect("what was written can be read");
    assert_eq!(process, again);
}

/// A state file of any content is a container of the right name or an error, for `load` and for `list`.
pub fn state(data: &[u8]) {
    let root = std::env::temp_dir().join(format!("pier-fuzz-{}", std::process::id()));
    let dir = root.join("one");
    std::fs::create_dir_all(&dir).expect("temporary directory");
    std::fs::write(dir.join("state.json"), data).expect("temporary file");
    let store = runtime::state::Store::new(root.clone());
    let loaded = store.load("one");
    let (good, bad) = store.list().expect("the directory can be listed");
    assert_eq!((good.len(), bad.len()), if loaded.is_ok() { (1, 0) } else { (0, 1) });
    if let Ok(container) = loaded {
        assert_eq!(container.record.id, "one");
        let text = serde_json::to_vec(&container.record).expect("a record can be written");
        std::fs::write(dir.join("state.json"), text).expect("temporary file");
        store.load("one").expect("what was written can be read");
    }
    std::fs::remove_dir_all(root).expect("temporary directory");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed, each with every prefix and some changed bytes: the cheap part of fuzzing, the same each time.
    #[test]
    fn seeds() {
        for (name, target) in TARGETS {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(dir).expect("seeds") {
                let data = std::fs::read(entry.expect("seed").path()).expect("seed");
                target(&data);
                for at in (0..data.len()).step_by(1 + data.len() / 64) {
                    target(&data[..at]);
                    let mut changed = data.clone();
                    changed[at] = changed[at].wrapping_add(1);
                    target(&changed);
                }
                count += 1;
            }
            assert!(count > 0, "{name} has no seed");
        }
    }
}
