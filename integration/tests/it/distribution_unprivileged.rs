//! `pier-distribution` as an ordinary user: inside a user namespace of one id, of many, and without any.
use anyhow::ensure;
use integration::{Bed, Outcome, Result, isolated};

const UID: u32 = 54321;

/// A user with subordinate ids, a copy of the program that it may run, and an image in an archive: other owners, a device, a
/// closed directory, and a layer that deletes and replaces.
fn prepare(bed: &Bed) -> Result {
    bed.sh(&format!(
        "set -e; chmod 755 .; cp $(command -v pier-distribution) pd; mkdir home; chown {UID}:{UID} home
         (cat /etc/passwd; echo tester:x:{UID}:{UID}::/:/bin/sh) >passwd; echo tester:200000:65536 >subuid; echo tester:300000:65536 >subgid
         for f in passwd subuid subgid; do touch /etc/$f; mount --bind $f /etc/$f; done
         mkdir -p fs/d fs/e fs/shut; echo a >fs/d/a; echo b >fs/d/b; echo e >fs/e/e; echo s >fs/shut/s; chown 33:44 fs/d/a; chown 33:44 fs/shut
         chmod 555 fs/shut; mknod fs/null c 1 3; tar c --numeric-owner -C fs . >fs.tar
         mkdir up up/e; : >up/.wh.d; : >up/e/.wh..wh..opq; echo f >up/e/f; tar c --owner 0 --group 0 -C up e .wh.d >up.tar
         pier-distribution import -q fs.tar one:1 >/dev/null
         pier-distribution mutate one:1 two:1 --append up.tar >/dev/null; pier-distribution save two:1 -o two.oci; chmod 644 two.oci"
    ))?
    .ok()
    .map(drop)
}

/// A script as the user, in a namespace or not; `D` is the program.
fn user(bed: &Bed, inside: &str, script: &str) -> Result<Outcome> {
    let text = format!("set -eo pipefail; D() {{ $DIR/pd \"$@\"; }}; cd $DIR/home\n{script}");
    std::fs::write(bed.dir().join("script.sh"), text)?;
    bed.sh(&format!(
        "setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin DIR=$DIR \
         HOME=$DIR/home PIER_ROOT=$DIR/home/root PIER_RUN=$DIR/home/run {inside} bash $DIR/script.sh 2>&1"
    ))
}

/// Load, mount, write, diff, commit; what is there at the end. `$OWNER` is what the owner 33:44 became.
const ROUND: &str = "D load -q $DIR/two.oci; D info
    D snapshot prepare s two:1 >/dev/null; mkdir -p m; eval $(D snapshot mounts s | sed s,ROOTFS,m,)
    echo list: $(ls m m/e); stat -c 'owner %u:%g %a' m/shut; test -e m/null || echo no device
    rm -r m/e; mkdir m/e; echo g >m/e/g; umount m; D snapshot diff s
    D snapshot commit s --image new:1 --consume >/dev/null; D export new:1 | tar tv --numeric-owner; D check";

const CLEAN: &str = "D rm -f new:1 two:1 >/dev/null; D gc >/dev/null
    find root/distribution/layers root/distribution/snapshots root/distribution/trash -mindepth 1 | grep . || echo all gone";

fn done(bed: &Bed, result: Result) -> Result {
    bed.sh("umount /etc/passwd /etc/subuid /etc/subgid")?.ok()?;
    result
}

fn round(bed: &Bed, inside: &str, owner: &str) -> Result {
    user(bed, inside, ROUND)?
        .ok()?
        .with("snapshotter: overlay\n")?
        .with("note: overlay marks are user attributes")?
        .with("list: m: e shut m/e: f\n")?
        .with(&format!("owner {owner} 555"))?
        .with("no device")?
        .with("A /e/g")?
        .with("D /e/f")?
        .with("e/g")?
        .without(" e/f\n")?
        .has(", 0 damaged")?;
    user(bed, inside, CLEAN)?.ok()?.has("all gone")
}

/// Owners that the namespace does not have become its root's.
#[test]
fn in_a_namespace_of_one_id() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        done(bed, round(bed, "unshare --user --map-root-user --mount", "0:0"))
    })
}

#[test]
fn in_a_namespace_of_subordinate_ids() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let inside = "unshare --user --map-root-user --map-auto --mount";
        let all = || -> Result {
            round(bed, inside, "33:44")?;
            user(bed, inside, "D load -q $DIR/two.oci")?.ok()?;
            bed.sh("stat -c %u:%g home/root/distribution/layers/*/fs/shut")?.ok()?.has("200032:300043")?;
            // Other hands than those that made it: a clear word, and nothing lost.
            user(bed, "unshare --user --map-root-user --mount", "D rm -f two:1; D gc; D check || true")?;
            user(bed, inside, "D load -q $DIR/two.oci; D check")?.ok()?.has(", 0 damaged")
        };
        let result = all();
        bed.sh("rm -rf home")?.ok()?;
        done(bed, result)
    })
}

/// No namespace, no mounts: copies, every file the user's own, read as root's.
#[test]
fn without_a_namespace() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let script = "D load -q $DIR/two.oci; D info; D snapshot prepare s two:1 >/dev/null
            cd root/distribution/snapshots/*/fs; echo list: $(ls . e); echo n >n; rm e/f; cd - >/dev/null; D snapshot diff s
            D snapshot commit s --image new:1 --consume >/dev/null; D export new:1 | tar tv --numeric-owner; D check";
        let all = || -> Result {
            let seen = user(bed, "", script)?.ok()?;
            ensure!(!seen.out().contains("54321"), "{seen}");
            seen.with("snapshotter: copy")?
                .with("note: overlay: ")?
                .with("list: .: e shut e: f")?
                .with("A /n")?
                .with("D /e/f")?
                .has(", 0 damaged")?;
            user(bed, "", CLEAN)?.ok()?.has("all gone")
        };
        done(bed, all())
    })
}

/// Root's store says by trusted attributes what is hidden; who cannot see them is told so, instead of shown too much.
#[test]
fn roots_store_in_a_namespace() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let tried = bed.sh("unshare --user --map-root-user --mount pier-distribution snapshot prepare s two:1")?;
        let result = tried.fails().and_then(|t| t.has("only root of the machine can see"));
        done(bed, result)
    })
}
