//! Line 9: what is wrong is named, the exit code is right, nothing is left.
use crate::acceptance::engine;
use integration::{Result, isolated};

#[test]
fn of_run() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        let registry = bed.registry()?;
        for (command, code, said) in [
            (format!("pier run --rm {registry}/no/such:1"), 125, "no/such"),
            ("pier run --rm 127.0.0.1:1/x:1".into(), 125, "127.0.0.1:1"),
            ("pier run --rm --network nowhere bb true".into(), 125, "nowhere"),
            ("pier run --rm -p 99999:80 bb true".into(), 125, "99999"),
            ("pier run --rm -m lots bb true".into(), 125, "lots"),
            ("pier run --rm -v relative/../x:y bb true".into(), 125, "y"),
            ("pier run --rm bb no-such-program".into(), 127, "no-such-program"),
            ("pier run --rm bb /etc/passwd".into(), 126, "/etc/passwd"),
            ("pier run --rm --user nobody-here bb true".into(), 125, "nobody-here"),
            ("pier run --rm --cap-add NONSENSE bb true".into(), 125, "NONSENSE"),
            ("pier run --rm --runtime no-runtime bb true".into(), 125, "no-runtime"),
            ("pier exec nobody true".into(), 1, "nobody"),
            ("pier logs nobody".into(), 1, "nobody"),
        ] {
            bed.sh(&command)?.exits(code)?.with("Error: ")?.has(said)?;
            bed.sh("pier ps -aq; pier-distribution snapshot ls --format json")?.ok()?.without("\"key\"")?;
        }
        Ok(())
    })
}

#[test]
fn names_and_ports_in_use() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name one -p 8080:80 bb sleep 1000")?.ok()?;
        bed.sh("pier run -d --name one bb true")?.exits(125)?.with("one")?.has("Hint: ")?;
        bed.sh("pier run --rm -p 8080:80 bb true")?.exits(125)?.has("8080")?;
        let list = bed.sh("pier ps -aq")?.ok()?;
        anyhow::ensure!(list.out().lines().count() == 1, "{list}");
        bed.sh("nc -l -p 9090 >/dev/null 2>&1 & echo $! >pid; sleep 0.2; pier run --rm -p 9090:80 bb true")?
            .exits(125)?
            .has("9090")?;
        bed.sh("kill $(cat pid); pier rm -f one")?.ok()?;
        Ok(())
    })
}

#[test]
fn of_images() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?;
        let push = format!(
            "pier-distribution import {} {registry}/bb:1 && pier-distribution push {registry}/bb:1",
            tar.display()
        );
        bed.sh(&push)?.ok()?;
        bed.sh("rm -rf $PIER_ROOT")?.ok()?;
        // One byte of the layer is changed at the registry.
        bed.sh("f=$(find registry -name data -size +100k | head -1); cp $f keep; printf X | dd of=$f bs=1 seek=5000 conv=notrunc 2>/dev/null; echo $f >which")?
            .ok()?;
        bed.sh(&format!("pier-distribution pull {registry}/bb:1"))?.exits(1)?.has("digest")?;
        bed.sh("pier-distribution ls --format json")?.ok()?.without("bb")?;
        bed.sh("cp keep $(cat which)")?.ok()?;
        bed.sh(&format!("pier-distribution pull {registry}/bb:1"))?.ok()?;
        bed.sh(&format!("pier-distribution pull {registry}/bb:none"))?.exits(1)?.has("none")?;
        bed.stop_registry()?;
        bed.sh(&format!("pier-distribution pull {registry}/bb:2"))?.exits(1)?.with("Error: ")?.has(registry)?;
        bed.sh("echo nonsense >x.tar.gz; pier-distribution load --input x.tar.gz || pier-distribution load x.tar.gz")?
            .fails()?
            .with("x.tar.gz")
            .map(|_| ())
    })
}

#[test]
fn tars_that_climb_out() -> Result {
    isolated!(|bed| {
        bed.sh(r#"python3 - <<'P'
import tarfile, io
def make(name, entries):
    with tarfile.open(name, "w") as t:
        for kind, path, target in entries:
            i = tarfile.TarInfo(path); i.type = kind; i.linkname = target
            data = b"owned\n" if kind == tarfile.REGTYPE else b""
            i.size = len(data); t.addfile(i, io.BytesIO(data))
R, S, L, D = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
make("dotdot.tar", [(R, "../../escaped", "")])
make("absolute.tar", [(R, "/../escaped", "")])
make("hardlink.tar", [(L, "x", "../../../../../../etc/passwd")])
make("symlink.tar", [(S, "up", "/"), (R, "up/escaped-by-symlink", "")])
P"#)?
            .ok()?;
        for name in ["dotdot", "absolute", "hardlink"] {
            bed.sh(&format!("pier-distribution import {name}.tar esc:1"))?.exits(1)?.with("Error: ")?;
        }
        // Through a symlink: refused, or kept inside the layer; never outside.
        bed.sh("pier-distribution import symlink.tar esc:1")?;
        bed.sh("! test -e /escaped-by-symlink && ! find $DIR / -xdev -maxdepth 2 -name escaped | grep .")?.ok()?;
        Ok(())
    })
}

#[test]
fn of_configs_and_dockerfiles() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir b && echo '{\"ociVersion\": ' >b/config.json && pier-runtime run --bundle b x")?
            .exits(1)?
            .has("config.json")?;
        bed.sh("mkdir e && pier-runtime run --bundle e x")?.exits(1)?.has("config.json")?;
        bed.sh("pier-runtime list -q; ls -d /sys/fs/cgroup/*/x /sys/fs/cgroup/*/pier-x 2>/dev/null; true")?
            .ok()?
            .without("x\n")?;
        bed.sh("mkdir c && printf 'FROM scratch\\n\\nRUNN echo\\n' >c/Dockerfile && pier-builder build c")?
            .fails()?
            .with("Dockerfile")?
            .with("3")?
            .has("RUNN")
    })
}

#[test]
fn a_full_disk_during_a_pull() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!(
            "pier-distribution import {} {registry}/bb:1 && pier-distribution push {registry}/bb:1",
            tar.display()
        ))?
        .ok()?;
        bed.sh("mkdir small && mount -t tmpfs -o size=1500k tmpfs small")?.ok()?;
        bed.sh(&format!("pier-distribution --root $DIR/small/r pull {registry}/bb:1"))?
            .exits(1)?
            .with("Error: ")?
            .has("space")?;
        bed.sh("mount -o remount,size=64m small")?.ok()?;
        bed.sh(&format!("pier-distribution --root $DIR/small/r pull {registry}/bb:1"))?.ok()?;
        bed.sh("umount small")?.ok()?;
        Ok(())
    })
}
