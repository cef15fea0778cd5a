//! `pier-volume`: each verb on the local driver, seen from outside.
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// A volume `data` with everything that a tar and a copy have to keep, and a script `look` that shows all of it.
fn furnished(bed: &Bed) -> Result {
    std::fs::write(
        bed.dir().join("look"),
        "cd $1 && find . -printf '%p %y %m %U:%G %n %s %T@ %l\\n' | sed 's/^\\(\\S* d \\S* \\S*\\) \\S* \\S*/\\1/' | sort\n\
         find . -type f -print0 | sort -z | xargs -0 sha256sum\n\
         getfattr -dRhm - . 2>/dev/null\n",
    )?;
    bed.sh(
        r#"set -e; pier-volume create --uid 5 --gid 6 --mode 1770 data
        cd $(pier-volume inspect data | jq -r .[0].mountpoint)
        mkdir -p deep/er; echo hello >deep/er/a; ln deep/er/a twin; ln -s /etc/passwd out; ln -s deep in
        chown 12:34 deep/er/a; chmod 4751 deep/er/a; setfattr -n user.colour -v blue deep/er/a
        chown -h 7:8 out; mkfifo pipe; mknod null c 1 3; mknod whiteout c 0 0; chown 2222222:3333333 pipe
        setfattr -n trusted.overlay.opaque -v y deep; setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= twin
        truncate -s 64M sparse; for i in $(seq 40); do printf x$i | dd of=sparse bs=1 seek=$((i * 1500000)) conv=notrunc status=none; done
        truncate -s 1M hole; : >empty; long=$(printf 'n%.0s' $(seq 200)); echo long >$long; ln -s $long$long tolong
        echo old >old; touch -d '1969-12-31 23:00:00.25' old; touch -d '2001-02-03 04:05:06.789012345' deep/er/a deep
        printf 'new\nline' >"$(printf 'a b\nc')""#,
    )?
    .ok()
    .map(drop)
}

const DATA: &str = "$(pier-volume inspect data | jq -r .[0].mountpoint)";

#[test]
fn an_export_comes_back_identical() -> Result {
    isolated!(|bed| {
        furnished(bed)?;
        bed.sh(&format!("sh look {DATA} >before && pier-volume export data -o data.tar && pier-volume rm data"))?
            .ok()?;
        // tar(1) reads it too, and sees the same.
        bed.sh("mkdir t && tar x -C t -f data.tar --xattrs --xattrs-include='*' --same-owner --numeric-owner && sh look t >by-tar && diff before by-tar")?.ok()?;
        bed.sh(&format!("pier-volume import data data.tar && sh look {DATA} >after && diff before after"))?.ok()?;
        let blocks = bed.sh(&format!("du -k {DATA}/sparse | cut -f1"))?.ok()?;
        ensure!(blocks.out().parse::<u32>()? < 2000, "the holes are filled: {blocks}");
        // The same bytes again, also through a pipe; and what tar(1) writes is read.
        bed.sh("pier-volume export data | cmp - data.tar")?.ok()?;
        bed.sh("tar c -C t --xattrs --xattrs-include='*' --sparse --format=pax . >by-tar.tar; tar c -C t . | pier-volume import plain")?.ok()?;
        bed.sh("pier-volume import data data.tar")?.exits(1)?.has("it has content")?;
        bed.sh(&format!(
            "touch {DATA}/more; pier-volume import --replace data - <data.tar && sh look {DATA} | diff before -"
        ))?
        .ok()?;
        bed.sh("pier-volume acquire data c /x; pier-volume import --replace data data.tar")?
            .exits(1)?
            .has("in use by c")?;
        Ok(())
    })
}

#[test]
fn a_bad_archive_leaves_nothing() -> Result {
    isolated!(|bed| {
        let bad = |name: &str, script: &str| -> Result {
            bed.sh(&format!("python3 - <<'E'\nimport tarfile, io\nt = tarfile.open('{name}.tar', 'w')\ndef add(name, **k):\n i = tarfile.TarInfo(name)\n for a, b in k.items(): setattr(i, a, b)\n t.addfile(i, io.BytesIO(b'x' * i.size))\n{script}\nt.close()\nE"))?.ok()?;
            bed.sh(&format!("pier-volume --error-format json import v {name}.tar"))?
                .exits(1)?
                .has("VOLUME_ARCHIVE_INVALID")?;
            bed.sh("pier-volume ls -q; ls root/volume/staging; ls /tmp/escaped")?
                .with("No such file")?
                .without("v\n")?;
            Ok(())
        };
        bad("parent", "add('../../../../../../tmp/escaped', size=1)")?;
        bad("link", "add('a', type=tarfile.SYMTYPE, linkname='/tmp'); add('a/escaped', size=1)")?;
        bad("hard", "add('b', type=tarfile.LNKTYPE, linkname='../../volume.db')")?;
        bad(
            "hard-through",
            "add('a', type=tarfile.SYMTYPE, linkname='/'); add('b', type=tarfile.LNKTYPE, linkname='a/etc/passwd')",
        )?;
        bed.sh("head -c 100000 /dev/urandom >noise.tar; pier-volume import v noise.tar")?
            .exits(1)?
            .has("cannot import")?;
        bed.sh("mkdir d; echo x >d/f; tar c d | head -c 700 | pier-volume import v")?.exits(1)?;
        bed.sh("pier-volume ls -q; ls root/volume/volumes | wc -l")?.ok()?.has("0").map(drop)
    })
}

#[test]
fn copies_are_what_they_are_copies_of() -> Result {
    isolated!(|bed| {
        furnished(bed)?;
        bed.sh(&format!("sh look {DATA} >before; pier-volume clone data twin -l a=b"))?.ok()?;
        let twin = "$(pier-volume inspect twin | jq -r .[0].mountpoint)";
        bed.sh(&format!("sh look {twin} | diff before -; du -k {twin}/sparse | cut -f1"))?.ok()?;
        bed.sh("pier-volume clone data twin")?.exits(1)?.has("taken")?;
        bed.sh(&format!(
            "set -e; pier-volume snapshot create data one; rm -r {DATA}/deep; echo more >{DATA}/more
             pier-volume snapshot create data two; ! pier-volume snapshot create data one
             pier-volume snapshot ls data --format json | jq -r .name | paste -sd,; pier-volume snapshot restore data one
             sh look {DATA} | diff before -; pier-volume snapshot restore data two; cat {DATA}/more; ! ls {DATA}/deep
             pier-volume snapshot rm data two; ! pier-volume snapshot restore data two
             pier-volume acquire data c /x >/dev/null; ! pier-volume snapshot restore data one; pier-volume release c
             pier-volume rm data; ls root/volume/volumes/*/snapshots root/volume/removing || true"
        ))?
        .ok()?
        .with("one,two")?
        .has("more")
    })
}

/// The acceptance figure is 100 ms for 1 GiB; the file systems here are in files.
#[test]
fn a_clone_shares_blocks() -> Result {
    isolated!(|bed| {
        for (mkfs, size) in [("mkfs.xfs -q -m reflink=1", "1200M"), ("mkfs.btrfs -q", "1200M")] {
            bed.sh(&format!(
                "set -e; truncate -s 2G disk; {mkfs} disk; mkdir -p m; mount -o loop disk m; trap 'umount m; rm disk' EXIT
                 export PIER_ROOT=$DIR/m/root; pier-volume create big; d=$(pier-volume inspect big | jq -r .[0].mountpoint)
                 head -c 1073741824 /dev/zero | tr '\\0' x >$d/file; sync -f m; df -k --output=used m | tail -1 >used
                 s=$(date +%s%N); pier-volume clone big twin; e=$(date +%s%N); echo $(((e - s) / 1000000)) >milliseconds
                 df -k --output=used m | tail -1 >>used; cmp $d/file $(pier-volume inspect twin | jq -r .[0].mountpoint)/file; : {size}"
            ))?
            .ok()?;
            let milliseconds: u64 = std::fs::read_to_string(bed.dir().join("milliseconds"))?.trim().parse()?;
            let used = std::fs::read_to_string(bed.dir().join("used"))?;
            let used: Vec<i64> = used.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
            println!("{mkfs}: 1 GiB cloned in {milliseconds} ms, {} KiB more", used[1] - used[0]);
            ensure!(used[1] - used[0] < 10_000, "the blocks were copied: {used:?} KiB");
            ensure!(milliseconds < 1000, "{mkfs}: {milliseconds} ms");
        }
        Ok(())
    })
}

#[test]
fn a_rename_in_use_keeps_the_data() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; mkdir m; pier-volume create data; pier-volume mount data m; echo one >m/f; pier-volume rename data new
                echo two >>m/f; ! pier-volume inspect data; pier-volume create data; ! pier-volume rename new data
                pier-volume inspect new | jq -r .[0].consumers[]; ! pier-volume rm new; pier-volume umount m
                cat $(pier-volume inspect new | jq -r .[0].mountpoint)/f; pier-volume rm new data")?
            .ok()?
            .with("one\ntwo")?
            .has("mount:")
    })
}

#[test]
fn sizes_owners_and_labels() -> Result {
    isolated!(|bed| {
        // As little privilege as a container has: quotas do not hold for CAP_SYS_RESOURCE.
        let fill = "setpriv --bounding-set -sys_resource --inh-caps -sys_resource dd if=/dev/zero of=m/f bs=1M";
        bed.sh("mkdir m; pier-volume create --size 20m --uid 5 --gid 6 --mode 2770 -l a=b -l c=d data; pier-volume mount data m; stat -c '%u:%g %a' m")?
            .ok()?
            .has("5:6 2770")?;
        bed.sh(fill)?.exits(1)?.has("No space left on device")?;
        let full = bed.sh("stat -c %s m/f")?.ok()?;
        let bytes: u64 = full.out().parse()?;
        ensure!((14 << 20..=20 << 20).contains(&bytes), "{bytes} bytes of 20 MiB");
        bed.sh("pier-volume update data --size 40m")?.exits(1)?.has("in use")?;
        bed.sh("pier-volume umount m && pier-volume update data --size 40m -l a=z --label-rm c && pier-volume mount data m")?.ok()?;
        bed.sh("df -k --output=size m | tail -1 | awk '{exit !($1 > 30000)}'; pier-volume inspect data | jq -c '.[0]|.labels,.size_limit_bytes'")?
            .ok()?
            .with("{\"a\":\"z\"}")?
            .has("41943040")?;
        bed.sh(&format!("{fill} count=25 && pier-volume umount m && pier-volume update data --size 10m"))?
            .exits(1)?
            .has("only grows")?;
        bed.sh("pier-volume create --size 40m data && ! pier-volume create --size 50m data")?
            .ok()?
            .has("different size")?;
        bed.sh("pier-volume du data --format json")?.ok()?.has("\"size_limit_bytes\":41943040")?;
        bed.sh("pier-volume snapshot create data s && pier-volume clone data twin && pier-volume rm data twin; ls root/volume/volumes | wc -l")?
            .ok()?
            .has("0")
    })
}

#[test]
fn artifacts_carry_volumes() -> Result {
    isolated!(|bed| {
        furnished(bed)?;
        bed.sh(&format!("sh look {DATA} >before; pier-volume export data --artifact oci:$DIR/layout:v1"))?.ok()?;
        bed.sh("pier-volume import copy --artifact oci:$DIR/layout:v1")?.ok()?.has("copy")?;
        bed.sh("sh look $(pier-volume inspect copy | jq -r .[0].mountpoint) | diff before -")?.ok()?;
        bed.sh("pier-volume import nothing --artifact oci:$DIR/nowhere:v1")?.exits(1)?;
        bed.sh("pier-volume ls -q; ls run root/volume/staging")?.ok()?.without("nothing")?.without("oneshot").map(drop)
    })
}

/// What a release before ids left on disk.
#[test]
fn old_roots_are_taken_over() -> Result {
    isolated!(|bed| {
        bed.sh(r#"set -e; v=root/volume/volumes; mkdir -p $v/data/_data $v/other/_data; echo kept >$v/data/_data/f
            for n in data other; do echo '{"format":1,"name":"'$n'","driver":"local","options":{},"labels":{"a":"b"},"created_at":"2026-01-01T00:00:00Z","anonymous":false}' >$v/$n/volume.json; done
            python3 -c 'import sqlite3; c=sqlite3.connect("root/volume/volume.db"); c.executescript("CREATE TABLE refs (volume TEXT NOT NULL, consumer TEXT NOT NULL, target TEXT NOT NULL, read_only INTEGER NOT NULL, PRIMARY KEY (volume, consumer, target)) WITHOUT ROWID; CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL, attributes TEXT NOT NULL); PRAGMA user_version = 1; INSERT INTO refs VALUES (\"data\", \"c\", \"/x\", 0);")'
            pier-volume ls -q; ! pier-volume rm data; cat $v/data/_data/f; pier-volume rename data new; pier-volume release c; pier-volume check; pier-volume rm new other; ls $v | wc -l"#)?
            .ok()?
            .with("data\nother")?
            .with("in use by c")?
            .with("kept")?
            .has("\n0")
    })
}
