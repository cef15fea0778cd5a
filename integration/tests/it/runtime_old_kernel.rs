//! The smoke tests on kernels that lack newer system calls: a seccomp filter answers ENOSYS to them. Each call alone, what
//! real releases lack, and all together.
use anyhow::ensure;
use integration::{Bed, Result, isolated};
use serde_json::{Value, json};

use crate::runtime::{PIER, bundle, namespaces, sh};
use crate::runtime_seccomp::compile;

const ALL: &str =
    "openat2,clone3,mount_setattr,fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,pidfd_open,close_range";

/// The named tests: which calls are missing.
macro_rules! without {
    ($($test:ident: $calls:expr;)*) => { $(#[test] fn $test() -> Result { isolated!(|bed| smoke(bed, $calls)) })* }
}

without! {
    no_openat2: "openat2";
    no_clone3: "clone3";
    no_mount_setattr: "mount_setattr";
    no_fsopen: "fsopen";
    no_fsconfig: "fsconfig";
    no_fsmount: "fsmount";
    no_fspick: "fspick";
    no_open_tree: "open_tree";
    no_move_mount: "move_mount";
    no_pidfd_open: "pidfd_open";
    no_close_range: "close_range";
    linux_5_4: "openat2,mount_setattr,close_range";
    none_at_all: ALL;
}

/// `pier-runtime` without the calls.
fn runtime(bed: &Bed, calls: &str) -> Result<String> {
    compile(bed, "old-kernel", "old-kernel")?;
    Ok(format!("$DIR/old-kernel {calls} {PIER}"))
}

fn mounts(config: &mut Value, more: Value) {
    if let (Some(mounts), Value::Array(more)) = (config["mounts"].as_array_mut(), more) {
        mounts.extend(more);
    }
}

const LOOK: &str = "
look() { grep \" $1 \" /proc/self/mountinfo | tail -1; }
try() { (: >\"$1/.try\") 2>/dev/null && echo \"$1 writable\" || echo \"$1 read-only\"; }
for dir in /w /ro /tree /tree/sub /all /all/sub /t /t-ro /sys/fs /keys /link; do try $dir; done
echo file: $(cat /file); echo up: $(cat /up/was) $(stat -c %a /up)
ls /masked | wc -l; wc -c </mask-file; (: >/mask-file) && echo x >/mask-file; wc -c </mask-file
stat -c '%F %t:%T %a' /dev/extra; echo null >/dev/null && head -c 3 /dev/zero | wc -c
look /t | grep -o 'nosuid,nodev,noexec.*size=64k'; look /shared | grep -c shared:
look /w | grep -c noatime; head -c 70000 /dev/zero >/t/big 2>/dev/null || echo full; id -u
ls -d /host/etc; ls -d /..; ls / | grep -c . ; ls -a /.. | grep -c directory; true";

fn smoke(bed: &Bed, calls: &str) -> Result {
    let rt = runtime(bed, calls)?;
    bed.sh("mkdir -p src/w src/tree/sub mnt && echo content >src/file && mount -t tmpfs sub src/tree/sub && chmod 777 src/w")?.ok()?;
    bundle(bed, "b", &["sleep", "1000"], |c| full(bed, c))?;
    bed.sh("cd b/rootfs && mkdir -p masked up keys elsewhere && touch masked/secret && echo secret >mask-file && echo below >up/was && chmod 711 up && ln -s /elsewhere link")?
        .ok()?;
    sh(bed, &rt, "R create --bundle b --pid-file pid one </dev/null >out 2>&1; cat out; R state one")?
        .ok()?
        .has("created")?;
    sh(bed, &rt, "R start one && R state one")?.ok()?.has("running")?;
    std::fs::write(bed.dir().join("b/rootfs/look.sh"), LOOK)?;
    let seen = sh(bed, &rt, "R exec one sh /look.sh")?.ok()?;
    let expected = [
        "/w writable",
        "/ro read-only",
        "/tree read-only",
        "/tree/sub writable",
        "/all read-only",
        "/all/sub read-only",
        "/t writable",
        "/t-ro read-only",
        "/sys/fs read-only",
        "/keys read-only",
        "/link writable",
        "file: content",
        "up: below 711",
        "0",
        "0",
        "0",
        "character special file 1:3 640",
        "3",
    ];
    let lines: Vec<_> = seen.out().lines().collect();
    ensure!(lines.get(..expected.len()) == Some(&expected[..]), "{lines:#?}\n{expected:#?}");
    ensure!(
        lines.contains(&"full") && lines.contains(&"nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=64k"),
        "{lines:#?}"
    );
    ensure!(lines.contains(&"/host/etc"), "the stage lies on a bind mount of the host's root: {lines:#?}");
    ensure!(lines.iter().rev().nth(2) == Some(&"/..") && lines.last() == Some(&"0"), "a stage is left: {lines:#?}");
    sh(bed, &rt, "R exec one sh -c 'exit 9'")?.exits(9)?;
    sh(bed, &rt, "R ps one && R pause one && R state one")?.ok()?.with("sleep 1000")?.has("paused")?;
    sh(bed, &rt, "R resume one && R state one")?.ok()?.has("running")?;
    sh(bed, &rt, "R delete one 2>&1")?.fails()?.has("running")?;
    sh(bed, &rt, "R kill one KILL; for i in $(seq 200); do R state one | grep -q stopped && break; sleep 0.02; done; R delete one && R state one")?
        .fails()?
        .has("does not exist")?;
    bundle(bed, "e", &["sh", "-c", "exit 7"], |_| ())?;
    sh(bed, &rt, "R run --bundle e two </dev/null 2>&1")?.exits(7)?;
    sh(bed, &rt, "R list -q | wc -l; grep -c ' $PWD/b' /proc/self/mountinfo")?.has("0\n0")?;
    bed.sh("umount src/tree/sub")?.ok()?;
    in_a_user_namespace(bed, &rt)
}

/// Everything that is mounted in some way of its own.
fn full(bed: &Bed, c: &mut Value) {
    let src = |name: &str| bed.dir().join("src").join(name);
    c["hostname"] = json!("old");
    c["linux"]["maskedPaths"] = json!(["/masked", "/mask-file", "/proc/kcore", "/masked-not-there"]);
    c["linux"]["readonlyPaths"] = json!(["/keys", "/proc/sys", "/proc/sysrq-trigger"]);
    c["linux"]["devices"] =
        json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 0, "gid": 0}]);
    mounts(
        c,
        json!([
            {"destination": "/w", "source": src("w"), "options": ["bind", "rw", "noatime"]},
            {"destination": "/ro", "source": src("w"), "options": ["bind", "ro"]},
            {"destination": "/file", "source": src("file"), "options": ["bind", "ro"]},
            {"destination": "/tree", "source": src("tree"), "options": ["rbind", "ro"]},
            {"destination": "/all", "source": src("tree"), "options": ["rbind", "rro", "rprivate"]},
            {"destination": "/shared", "source": src("w"), "options": ["bind", "shared"]},
            {"destination": "/host", "source": "/", "options": ["rbind", "rslave"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "size=32k"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "nosuid", "nodev", "noexec", "size=64k"]},
            {"destination": "/t-ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
            {"destination": "/up", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
            {"destination": "/link/deep", "type": "tmpfs", "source": "tmpfs"},
        ]),
    );
}

/// Sources that its root may not look at, devices that it may not make.
fn in_a_user_namespace(bed: &Bed, rt: &str) -> Result {
    bed.sh("mkdir -p closed/in && echo reached >closed/in/file && chmod 700 closed")?.ok()?;
    bundle(
        bed,
        "u",
        &["sh", "-c", "cat /in/file; stat -c %t:%T /dev/null; touch /in/x 2>&1; ls /masked | wc -l"],
        |c| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
            c["linux"]["maskedPaths"] = json!(["/masked"]);
            c["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
            if let Ok(list) = namespaces(c) {
                list.push(json!({"type": "user"}));
            }
            let source = bed.dir().join("closed/in");
            mounts(c, json!([{"destination": "/in", "source": source, "options": ["rbind", "ro"]}]));
        },
    )?;
    bed.sh("chmod 755 . && mkdir u/rootfs/masked && touch u/rootfs/masked/x && chown -R 100000:100000 u/rootfs")?
        .ok()?;
    sh(bed, rt, "R run --bundle u three </dev/null 2>&1")?
        .with("reached\n1:3\n")?
        .with("Read-only file system")?
        .ok()?
        .has("\n0")
}

/// What is staged does not reach the host where the container's mounts do. A create that fails half-way shows it: the end of
/// its namespace takes nothing back.
#[test]
fn nothing_is_staged_on_the_host() -> Result {
    isolated!(|bed| {
        let rt = runtime(bed, ALL)?;
        bed.sh("mount --make-rshared /")?.ok()?;
        let shared = |c: &mut Value| {
            c["linux"]["rootfsPropagation"] = json!("shared");
            c["linux"]["readonlyPaths"] = json!(["/tmp"]);
        };
        bundle(bed, "b", &["grep", " / rw", "/proc/self/mountinfo"], shared)?;
        sh(bed, &rt, "R run --bundle b one </dev/null 2>&1")?.ok()?.has("shared:")?;
        // A mount of its own: else its parent, which is made private, is the root.
        bed.sh("mkdir f && mount -t tmpfs f f")?.ok()?;
        bundle(bed, "f", &["true"], |c| {
            shared(c);
            mounts(c, json!([{"destination": "/x", "source": "/no/such", "options": ["bind"]}]));
        })?;
        let table = "grep -c ' / / ' /proc/self/mountinfo";
        let before = bed.sh(table)?.out().to_owned();
        sh(bed, &rt, "R run --bundle f two </dev/null 2>&1")?.fails()?.has("no such file")?;
        let after = bed.sh(table)?.out().to_owned();
        ensure!(before == after, "the stage lies on the host's root: {}", bed.sh("cat /proc/self/mountinfo")?);
        // And not for a moment, made as long as to be seen.
        let slowly = "strace -f -o trace -e trace=mount -e inject=mount:delay_exit=50000";
        let look = format!(
            "p=$!; while kill -0 $p 2>/dev/null; do {table}; done | sort -u; umount -l f; grep -c tmpfs trace >&2"
        );
        let run = format!("{slowly} {rt} --root state run --bundle f two </dev/null >out 2>&1 & {look}");
        let seen = sh(bed, &rt, &run)?.ok()?;
        ensure!(seen.out() == before, "the stage lies on the host's root for a while: {seen}");
        Ok(())
    })
}

/// Without openat2 the way is gone by the runtime itself, and still leads nowhere else.
#[test]
fn swapped_names_lead_nowhere() -> Result {
    isolated!(|bed| crate::runtime_escape::swapped_names(bed, &runtime(bed, ALL)?))
}
