//! What a test inside the machine has: a directory, bundles on the shared root file system, and a shell.
use anyhow::ensure;
use integration::{Outcome, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One test's surroundings.
pub struct Guest {
    dir: PathBuf,
}

/// Runs a test if this is the machine it is for, and looks for leftovers.
pub fn inside(machine: &str, test: &str, body: impl FnOnce(&Guest) -> Result) -> Result {
    if std::env::var("PIER_GUEST").as_deref() != Ok(machine) {
        println!("skipped {test}: runs in the virtual machine of hack/dev vm {machine}");
        return Ok(());
    }
    let guest = Guest { dir: PathBuf::from("/tmp").join(test) };
    std::fs::create_dir_all(&guest.dir)?;
    let before = cgroups(machine);
    if let Err(error) = body(&guest) {
        sweep(&guest, machine);
        return Err(error);
    }
    let after = cgroups(machine);
    ensure!(before == after, "left behind: {after}\nbefore: {before}");
    Ok(())
}

/// What a failed test left is not to fail the next ones. Only in the machine that has `ip`, which is thrown away anyway.
fn sweep(guest: &Guest, machine: &str) {
    if machine == "storage" {
        let _ = guest.sh(
            "for n in $(ip netns list | cut -d' ' -f1); do ip netns del $n; done; pkill pier-network; pkill socat; nft flush ruleset
             for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1 | grep -vx lo); do ip link del $link; done",
        );
    }
}

/// Directories that containers of these tests could leave: systemd has others that come and go.
fn cgroups(machine: &str) -> String {
    let name = if machine == "systemd" { "*pier*" } else { "*" };
    let all = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", name]).output();
    all.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

impl Guest {
    /// A bundle `<dir>/<name>` that runs `args`, its configuration changed by `change`.
    pub fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Result {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let mut config = serde_json::to_value(oci::runtime::default_spec(&args)?)?;
        config["process"]["terminal"] = json!(false);
        config["root"] = json!({"path": "/pier/rootfs", "readonly": true});
        change(&mut config);
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(std::fs::write(dir.join("config.json"), serde_json::to_vec(&config)?)?)
    }

    /// A script with `$R` as the runtime, `C` as the root of the cgroups.
    pub fn sh(&self, script: &str) -> Result<Outcome> {
        let prelude = "R=\"/pier/pier-runtime --root $PWD/state\"; C=/sys/fs/cgroup\n";
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{prelude}{script}"))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()?;
        Ok(Outcome::of(script.to_owned(), output))
    }

    /// Starts `name` detached from bundle `name`, with a cgroup of that name.
    pub fn start(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<Outcome> {
        self.bundle(name, &["sleep", "1000"], |c| {
            c["linux"]["cgroupsPath"] = json!(format!("/pier-t/{name}"));
            change(c);
        })?;
        self.sh(&format!("$R run -d --bundle {name} {name} </dev/null >{name}.out 2>&1; e=$?; cat {name}.out; exit $e"))
    }

    /// Ends it.
    pub fn end(&self, name: &str) -> Result {
        self.sh(&format!("$R delete -f {name}; rmdir $C/pier-t 2>/dev/null; true"))?.ok().map(|_| ())
    }
}
