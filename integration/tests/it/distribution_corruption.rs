//! `pier-distribution`: damage made by hand is found, named and repaired, and never keeps the tool from starting.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};

/// One kind of damage.
struct Damage {
    name: &'static str,
    /// Makes it; $D is the store, $FS the directory of the top layer, $LAYER, $CONFIG, $MANIFEST blobs' files.
    make: &'static str,
    /// What `check` says of it.
    named: &'static str,
    /// After `check --repair`, a pull must still bring something back.
    needs_pull: bool,
}

const DAMAGES: &[Damage] = &[
    Damage { name: "missing file in a layer", make: "rm $FS/bin/ls", named: "missing: /bin/ls", needs_pull: false },
    Damage {
        name: "altered file in a layer, its size and time as before",
        make: "touch -r $FS/etc/passwd t; sed -i s/root/toor/ $FS/etc/passwd; touch -r t $FS/etc/passwd",
        named: "altered: /etc/passwd",
        needs_pull: false,
    },
    Damage {
        name: "extra file in a layer",
        make: "echo x >$FS/etc/evil",
        named: "extra: /etc/evil",
        needs_pull: false,
    },
    Damage { name: "lost layer", make: "rm -r $FS", named: "its directory is missing", needs_pull: false },
    Damage { name: "missing blob", make: "rm $LAYER", named: "blobs are missing: sha256:", needs_pull: true },
    Damage {
        name: "truncated blob",
        make: "truncate -s 1000 $LAYER",
        named: "its 1000 bytes have digest",
        needs_pull: true,
    },
    Damage {
        name: "altered blob",
        make: "printf X | dd of=$LAYER bs=1 seek=500 conv=notrunc status=none",
        named: "bytes have digest sha256:",
        needs_pull: true,
    },
    Damage {
        name: "damaged manifest",
        make: "sed -i s/schemaVersion/schemaVersiom/ $MANIFEST",
        named: "bytes have digest",
        needs_pull: true,
    },
    Damage { name: "damaged config", make: "echo '{' >$CONFIG", named: "its 2 bytes have digest", needs_pull: true },
    Damage {
        name: "damaged row of an image",
        make: "sql \"update images set record = 'rubbish'\"",
        named: "its row does not read",
        needs_pull: false,
    },
    Damage {
        name: "damaged row of an image, its file lost, too",
        make: "sql \"update images set record = '{}'\"; rm $D/images/*",
        named: "its row does not read",
        needs_pull: false,
    },
    Damage {
        name: "damaged row of a layer",
        make: "sql \"update layers set unresolved = '['\"",
        named: "its row does not read",
        needs_pull: false,
    },
    Damage {
        name: "damaged digest of a layer",
        make: "sql \"update layers set diff_id = 'sha256:1'\"",
        named: "its row does not read",
        needs_pull: false,
    },
    Damage {
        name: "damaged row of a snapshot",
        make: "sql \"update snapshots set prepared = '['\"",
        named: "snapshot keep: its row does not read",
        needs_pull: false,
    },
    Damage { name: "wrong permissions of a blob", make: "chmod 0 $LAYER", named: "its mode is 0", needs_pull: false },
    Damage {
        name: "wrong permissions of a directory",
        make: "chmod 777 $D/layers",
        named: "its mode is 777",
        needs_pull: false,
    },
    Damage { name: "wrong owner of a blob", make: "chown 7 $CONFIG", named: "belongs to user 7", needs_pull: false },
    Damage {
        name: "wrong mode in a layer",
        make: "chmod 4777 $FS/bin/busybox",
        named: "mode 4777 instead of 755",
        needs_pull: false,
    },
    Damage {
        name: "wrong owner in a layer",
        make: "chown 5:6 $FS/etc/passwd",
        named: "owner 5:6 instead of 0:0",
        needs_pull: false,
    },
    Damage {
        name: "attribute in a layer",
        make: "setfattr -n user.a -v b $FS/etc/passwd",
        named: "other attributes: /etc/passwd",
        needs_pull: false,
    },
];

/// Damages of the database file: healed by opening it, before any check.
const DATABASES: &[(&str, &str)] = &[
    ("rubbish at its beginning", "dd if=/dev/urandom of=$D/store.db bs=100 count=1 conv=notrunc status=none"),
    ("nothing in it", ": >$D/store.db; rm -f $D/store.db-wal"),
    ("zeroes", "truncate -s 0 $D/store.db; truncate -s 40960 $D/store.db; rm -f $D/store.db-wal"),
    (
        "cut off",
        "python3 -c \"import sqlite3;sqlite3.connect('$D/store.db').execute('pragma wal_checkpoint(truncate)')\"; truncate -s 4096 $D/store.db",
    ),
    ("gone", "rm -f $D/store.db*"),
];

const SETUP: &str = r#"
    set -u
    D=$PIER_ROOT/distribution
    sql() { python3 -c 'import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()' $D/store.db "$1"; }
    blob() { echo $D/blobs/$(echo $1 | tr : /); }
    id=$(jq -r .id image.json); CONFIG=$(blob $id)
    MANIFEST=$(blob $(jq -r .manifest_digest image.json)); LAYER=$(blob $(jq -r '.layers[-1].digest' image.json))
    FS=$(for d in $D/layers/*/fs; do [ -e $d/etc/passwd ] && echo $d; done | tail -1)
"#;

/// An image in the registry and the store, with a snapshot that was written to; a copy of the store to damage each time.
fn start(bed: &Bed) -> Result<String> {
    let registry = bed.registry()?;
    let image = format!("{registry}/bb:1");
    bed.sh(&format!(
        "set -e; mkdir -p fs/bin fs/etc; head -c 300000 /dev/urandom >fs/bin/busybox; chmod 755 fs/bin/busybox
         ln -s busybox fs/bin/ls; ln fs/bin/busybox fs/bin/linked; echo root:x:0:0 >fs/etc/passwd
         tar c --owner=0 --group=0 -C fs . >fs.tar
         pier-distribution import -q fs.tar {image} && pier-distribution push -q {image}; rm -rf $PIER_ROOT
         pier-distribution pull -q {image}; pier-distribution tag {image} also:1
         pier-distribution inspect {image} >image.json
         pier-distribution snapshot prepare keep {image} >mounts
         echo precious >$(echo $PIER_ROOT/distribution/snapshots/*/fs)/file
         pier-distribution export {image} | tar tv >list
         cp -a $PIER_ROOT sound"
    ))?
    .ok()?;
    Ok(image)
}

fn fresh(bed: &Bed) -> Result {
    bed.sh("rm -rf $PIER_ROOT && cp -a sound $PIER_ROOT")?.ok().map(drop)
}

/// Nothing went with the damage that should have stayed, and gc does not take it for rubbish.
fn sound(bed: &Bed, image: &str) -> Result {
    bed.sh(&format!(
        "set -eo pipefail; pier-distribution gc && pier-distribution check | grep ', 0 damaged'
         pier-distribution export {image} | tar tv | diff list - && pier-distribution inspect also:1
         pier-distribution export --snapshot keep | tar xO file | grep precious"
    ))?
    .ok()
    .map(drop)
}

fn one(bed: &Bed, image: &str, damage: &Damage) -> Result {
    fresh(bed)?;
    bed.sh(&format!("{SETUP}{}", damage.make))?.ok()?;
    // It starts, and goes on doing what the damage does not touch.
    bed.sh("pier-distribution ls && pier-distribution df && pier-distribution gc --dry-run")?.ok()?;
    let found = bed.sh("pier-distribution check")?.exits(3)?;
    ensure!(found.stdout.contains(damage.named), "no {:?} in\n{found}", damage.named);
    bed.sh("pier-distribution check --repair")?.exits(3)?;
    if damage.needs_pull {
        bed.sh(&format!("pier-distribution pull -q {image}"))?.ok()?;
    }
    sound(bed, image)
}

#[test]
fn every_damage_is_named_and_repaired() -> Result {
    isolated!(|bed| {
        let image = start(bed)?;
        for damage in DAMAGES {
            one(bed, &image, damage).with_context(|| damage.name)?;
        }
        Ok(())
    })
}

#[test]
fn a_fresh_pull_repairs_without_a_check() -> Result {
    isolated!(|bed| {
        let image = start(bed)?;
        for make in ["rm $LAYER", "truncate -s 1000 $LAYER", "echo '{' >$CONFIG", "echo >$MANIFEST", "rm -r $FS"] {
            fresh(bed)?;
            bed.sh(&format!("{SETUP}{make}"))?.ok()?;
            bed.sh(&format!("pier-distribution pull -q {image}"))?.ok()?;
            sound(bed, &image).context(make)?;
        }
        Ok(())
    })
}

#[test]
fn a_lost_database_is_made_anew() -> Result {
    isolated!(|bed| {
        let image = start(bed)?;
        for (name, make) in DATABASES {
            fresh(bed)?;
            bed.sh(&format!("{SETUP}{make}"))?.ok()?;
            bed.sh("pier-distribution ls --format json")?.ok()?.has("docker.io/library/also:1").context(*name)?;
            sound(bed, &image).context(*name)?;
        }
        // Damage in the middle shows when it is read, or when it is looked for.
        fresh(bed)?;
        bed.sh(&format!(
            "{SETUP}python3 - $D/store.db <<'END'
import sqlite3, sys
c = sqlite3.connect(sys.argv[1]); c.execute('pragma wal_checkpoint(truncate)')
page = c.execute(\"select rootpage from sqlite_master where name = 'images'\").fetchone()[0]; c.close()
f = open(sys.argv[1], 'r+b'); f.seek((page - 1) * 4096 + 3); f.write(b'\\xff' * 200)
END"
        ))?
        .ok()?;
        bed.sh("pier-distribution check --repair")?.exits(3)?.has("database: ")?;
        sound(bed, &image)
    })
}

/// A daemon that has the old file open goes over to the new one.
#[test]
fn a_daemon_notices_that_the_database_was_made_anew() -> Result {
    isolated!(|bed| {
        let image = start(bed)?;
        bed.serve("distribution")?;
        bed.serve("engine")?;
        bed.sh("pier images")?.ok()?.has("also")?;
        bed.sh(&format!("{SETUP}rm -f $D/store.db*; pier-distribution ls"))?.ok()?.has("also")?;
        bed.sh("pier-distribution tag also:1 later:1 && pier images")?.ok()?.has("later")?;
        sound(bed, &image)
    })
}

#[test]
fn a_full_disk_is_no_end() -> Result {
    isolated!(|bed| {
        let image = start(bed)?;
        bed.sh("mkdir small && mount -t tmpfs -o size=24m none small && rm -rf $PIER_ROOT && cp -a sound small/root")?
            .ok()?;
        let small = |script: &str| bed.sh(&format!("export PIER_ROOT=$DIR/small/root; {script}"));
        small("! dd if=/dev/zero of=small/fill bs=64k status=none; ! dd if=/dev/zero of=small/fill2 bs=1 status=none")?
            .ok()?;
        small("df small; pier-distribution ls && pier-distribution check")?.ok()?.has(", 0 damaged")?;
        small("head -c 3000000 /dev/urandom >big; tar c big | pier-distribution --error-format json import -q - x:1")?
            .exits(1)?
            .has("NO_SPACE")?;
        small("pier-distribution snapshot rm keep")?.ok()?;
        small(&format!("pier-distribution rm {image} also:1 && pier-distribution gc && pier-distribution ls"))?
            .ok()?
            .without("also   ")?;
        small("ls $PIER_ROOT/distribution/layers/*/ $PIER_ROOT/distribution/blobs/sha256")?.without("fs")?;
        small("rm small/fill*; pier-distribution import -q - x:1 <fs.tar && pier-distribution check")?
            .ok()?
            .has(", 0 damaged")?;
        bed.sh("umount small")?.ok().map(drop)
    })
}
