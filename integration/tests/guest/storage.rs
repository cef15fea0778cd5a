//! File systems with project quotas, file systems of a network, and encrypted ones.
use crate::bed::{Guest, inside};
use anyhow::ensure;
use integration::{Outcome, Result};

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result { inside("storage", stringify!($test), cases::$test) })*
    };
}

tests! {
    limits_on_ext4;
    limits_on_xfs;
    numbers_are_nobody_elses;
    limits_that_are_not_enforced;
    volumes_of_nfs;
    volumes_of_smb;
    encrypted_as_a_whole;
}

/// A file system whose projects have limits, and what it says when one is reached.
struct Quotas {
    mkfs: &'static str,
    full: &'static str,
    /// Lines of projects that have a limit.
    limits: &'static str,
}

const EXT4: Quotas = Quotas {
    mkfs: "mkfs.ext4 -q -F -O quota,project",
    full: "Disk quota exceeded",
    limits: "repquota -Pn $PWD/store | awk '/^#/ && $5 > 0'",
};
const XFS: Quotas = Quotas {
    mkfs: "mkfs.xfs -q -f",
    full: "No space left",
    limits: "xfs_quota -x -c 'report -pnN' $PWD/store | awk '/^#/ && $4 > 0'",
};

/// A script with the programs' root on the file system `store`. `D` is the data of the volume `data`; `fill FILE MIB` writes
/// as somebody whom limits bind.
fn sh(g: &Guest, script: &str) -> Result<Outcome> {
    g.sh(&format!(
        "export PIER_ROOT=$PWD/store/root PIER_RUN=$PWD/run; D=$PIER_ROOT/volume/volumes/data/_data\n\
         fill() {{ setpriv --bounding-set -sys_resource --inh-caps -sys_resource dd if=/dev/zero of=$1 bs=1M count=$2 conv=fsync 2>&1; }}\n{script}"
    ))
}

fn with_store(g: &Guest, mkfs: &str, options: &str, body: impl FnOnce() -> Result) -> Result {
    sh(g, &format!("set -e; truncate -s 400M disk; {mkfs} disk; mkdir -p store; mount -o {options} disk store"))?
        .ok()?;
    let done = body();
    let left = sh(g, "grep $PWD/run /proc/mounts; umount store && rm disk");
    done?;
    left?.ok().map(drop)
}

fn limits(g: &Guest, fs: &Quotas) -> Result {
    with_store(g, fs.mkfs, "loop,prjquota", || {
        let (full, limits) = (fs.full, fs.limits);
        sh(g, "pier-volume create --size 8m --uid 1000 data; pier-volume inspect data | jq -c '.[0] | [.image, .size_limit_bytes]'; df -B1 --output=size $D | tail -n 1")?
            .ok()?
            .with("[null,8388608]")?
            .has("8388608\n")?;
        // Reached by anybody: a user, and root without the one capability.
        let user = "setpriv --reuid 1000 --regid 1000 --clear-groups";
        sh(g, &format!("{user} dd if=/dev/zero of=$D/f bs=1M count=20; rm $D/f; fill $D/f 20; du -m $D/f"))?
            .ok()?
            .with(full)?
            .without("20+0")?;
        let used = sh(g, "pier-volume du data --format json")?.ok()?.json()?["size_bytes"].as_u64().unwrap_or_default();
        ensure!((7 << 20..=8 << 20).contains(&used), "{used} of 8 MiB are used");
        // Another limit, at once.
        sh(g, "pier-volume update --size 16m data; rm $D/f; fill $D/f 12; fill $D/g 12")?
            .with("12+0 records out")?
            .has(full)?;
        sh(g, "rm $D/g; fill $D/f 6; pier-volume clone data twin; fill $PIER_ROOT/volume/volumes/twin/_data/g 20; pier-volume du --format json | jq -c '[.name, .size_limit_bytes, .size_bytes > 15000000]'")?
            .ok()?
            .with(full)?
            .with("[\"data\",16777216,false]")?
            .has("[\"twin\",16777216,true]")?;
        // What is kept does not count, and comes back although both together are more than the limit.
        sh(g, "set -e; rm $D/f; fill $D/f 12; pier-volume snapshot create data s; pier-volume du data; fill $D/h 3; pier-volume snapshot restore data s; ls $D; ! fill $D/i 8")?
            .ok()?
            .with(full)?
            .without("h\n")?;
        // Bounds what comes from elsewhere, by root too, and leaves nothing half.
        sh(g, "mkdir -p big; head -c 12000000 /dev/zero | tr '\\0' x >big/f; tar cf big.tar -C big .; pier-volume create --size 8m small
               pier-volume --error-format json import small big.tar; pier-volume import --replace data big.tar && ls $D
               pier-volume acquire small c /x --copy-up big; pier-volume release c; ls -A $PIER_ROOT/volume/volumes/small/ $PIER_ROOT/volume/staging | grep -c partial; fill $PIER_ROOT/volume/volumes/small/_data/f 5")?
            .ok()?
            .with("VOLUME_IO")?
            .with(full)?
            .with("5+0 records out")?
            .with("data\nf\n")?
            .with("\n0\n")?;
        sh(g, "mkdir -p tiny/d; echo x >tiny/d/f; pier-volume create --size 8m empty; pier-volume acquire empty c /x --copy-up tiny; cat $PIER_ROOT/volume/volumes/empty/_data/d/f; ! fill $PIER_ROOT/volume/volumes/empty/_data/d/g 20; pier-volume release c")?
            .ok()?
            .with("x\n")?
            .has(full)?;
        sh(
            g,
            &format!(
                "pier-volume check; pier-volume rm data twin small empty; {limits}; ls -A $PIER_ROOT/volume/removing"
            ),
        )?
        .ok()?
        .without("#")
        .map(drop)
    })
}

fn numbers(g: &Guest, fs: &Quotas) -> Result {
    with_store(g, fs.mkfs, "loop,prjquota", || {
        let projects = "lsattr -pd store/root*/volume/volumes/*/_data | awk '{print $1}'";
        // Two roots, many processes.
        sh(g, &format!("for i in 1 2 3 4 5 6; do pier-volume create --size 1m v$i & pier-volume --root $PWD/store/root2 --run $PWD/run2 create --size 1m v$i & done >/dev/null; wait; {projects} | sort -u | wc -l; {projects} | grep -cx 0"))?
            .with("12\n0\n")?;
        // Killed in the middle; a limit is left for each volume, and for nothing else.
        let kills = "killed() { \"$@\" >/dev/null & p=$!; sleep 0.$((i * 5 + 10)); kill -KILL $p; wait $p; }; \
                     for i in 1 2 3 4 5; do killed pier-volume create --size 1m k$i; killed pier-volume clone v6 c$i; killed pier-volume rm v$i; done 2>/dev/null";
        let count = format!(
            "pier-volume ls -q | wc -l; pier-volume --root $PWD/store/root2 --run $PWD/run2 ls -q | wc -l; {} | wc -l",
            fs.limits
        );
        let seen = sh(g, &format!("{kills}; pier-volume ls >/dev/null; pier-volume check; sync; {count}"))?.ok()?;
        let counts: Vec<usize> = seen.out().lines().rev().take(3).filter_map(|line| line.trim().parse().ok()).collect();
        let [limits, other, volumes] = counts[..] else { anyhow::bail!("{seen}") };
        println!("{volumes} volumes are left, {limits} limits");
        ensure!(limits == volumes + other && other == 6, "{seen}");
        sh(g, &format!("pier-volume rm $(pier-volume ls -q); {} | wc -l", fs.limits))?.ok()?.has("\n6\n").map(drop)
    })
}

mod cases {
    use super::*;

    pub fn limits_on_ext4(g: &Guest) -> Result {
        limits(g, &EXT4)
    }

    pub fn limits_on_xfs(g: &Guest) -> Result {
        limits(g, &XFS)
    }

    pub fn numbers_are_nobody_elses(g: &Guest) -> Result {
        numbers(g, &EXT4)
    }

    /// Counted but not enforced, or within a project of somebody else's: then the volume is a file system of its size.
    pub fn limits_that_are_not_enforced(g: &Guest) -> Result {
        with_store(g, EXT4.mkfs, "loop,prjquota", || {
            sh(g, "pier-volume create --size 8m data; umount store; mount -o loop disk store; pier-volume create --size 8m file; pier-volume inspect file | jq -r .[0].image")?
                .ok()?
                .has("ext4")?;
            sh(g, "pier-volume check")?.exits(1)?.with("unlimited data")?.has("prjquota")?;
            sh(g, "pier-volume clone data twin; ls $PIER_ROOT/volume/staging; umount store; mount -o loop,prjquota disk store; pier-volume check; fill $D/f 20")?
                .with("not enforced here")?
                .has(EXT4.full)?;
            sh(g, "mkdir store/theirs; chattr +P -p 77 store/theirs; export PIER_ROOT=$PWD/store/theirs/root; pier-volume create --size 8m other; pier-volume inspect other | jq -r .[0].image")?
                .ok()?
                .has("ext4")
        })
    }

    pub fn volumes_of_nfs(g: &Guest) -> Result {
        let serve = "mkdir -p /srv/nfs; echo '/srv/nfs 127.0.0.1(rw,no_root_squash,insecure,fsid=0,no_subtree_check)' >/etc/exports; modprobe nfsd; \
                     mount -t nfsd nfsd /proc/fs/nfsd; mkdir -p /run/rpcbind /var/lib/nfs/sm; rpcbind -w; echo 1 >/proc/fs/nfsd/nfsv4gracetime; exportfs -a; rpc.nfsd 2; rpc.mountd";
        g.sh(serve)?.ok()?;
        sh(g, "mkdir -p m; pier-volume create -o type=nfs -o device=:/ -o o=addr=localhost,rw,nfsvers=4 n; pier-volume mount n m; echo x >m/f; cat /srv/nfs/f; grep $PWD/m /proc/mounts; pier-volume inspect n | jq -c .[0].consumers")?
            .ok()?
            .with("x\n")?
            .with("nfs4")?
            .has("mount:")?;
        sh(g, "pier-volume acquire n c /x --ro; pier-volume umount m; grep -c run/volume /proc/mounts; pier-volume release c; grep -c run/volume /proc/mounts; ls -A run/volume")?
            .with("1\nn\n0\n")?;
        // A copy of it is a directory here; owners cannot be mapped, and that is told where it is mounted.
        sh(g, "pier-volume clone n here; cat $PIER_ROOT/volume/volumes/here/_data/f; pier-volume export n | tar t; pier-volume mount n m --userns 'u:0:5:10 g:0:5:10'")?
            .exits(1)?
            .with("x\n./\n./f\n")?
            .has("cannot be mapped")?;
        sh(g, "pier-volume create -o type=nfs4 -o device=127.0.0.1:/nope bad; pier-volume mount bad m")?
            .exits(1)?
            .with("mount failed")?;
        sh(g, "pier-volume rm n here bad; grep -c run/volume /proc/mounts; rpc.nfsd 0; exportfs -ua; umount /proc/fs/nfsd")?.has("0\n")
    }

    pub fn volumes_of_smb(g: &Guest) -> Result {
        let serve = "mkdir -p /srv/smb /etc/ksmbd /run/lock; printf '[global]\\nbind interfaces only = yes\\ninterfaces = lo\\n[s]\\npath = /srv/smb\\nread only = no\\nforce user = root\\n' >/etc/ksmbd/ksmbd.conf; \
                     ksmbd.adduser -a -p secret root || ksmbd.adduser -p secret root; modprobe ksmbd; ksmbd.mountd; sleep 1";
        g.sh(serve)?.ok()?;
        sh(g, "mkdir -p m; pier-volume create -o type=cifs -o device=//localhost/s -o o=username=root,password=secret,uid=1000 s; pier-volume mount s m; echo x >m/f; cat /srv/smb/f; stat -c %u m/f; pier-volume umount m; grep -c run/volume /proc/mounts; pier-volume rm s")?
            .with("x\n1000\n0\n")?
            .ok()?;
        g.sh("ksmbd.control -s")?.ok().map(drop)
    }

    pub fn encrypted_as_a_whole(g: &Guest) -> Result {
        let open = "cat /sys/block/dm-*/dm/name 2>/dev/null | grep -c pier; losetup -a | grep -c disk.img";
        for (fstype, size) in [("ext4", "32m"), ("xfs", "320m")] {
            let make = format!(
                "pier-volume create -o type={fstype} -o encryption=luks -o encryption-key=$PWD/key --size {size} v"
            );
            sh(g, &format!("mkdir -p m; head -c 64 /dev/urandom >key; head -c 64 /dev/urandom >other; {make}; {open}; pier-volume mount v m; df --output=fstype m | tail -n 1; echo SECRETWORDS >m/f; {open}; pier-volume umount m; {open}"))?
                .with("0\n0\n")?
                .with(fstype)?
                .with("1\n1\n0\n0\n")?;
            sh(g, "pier-volume clone v w >/dev/null; grep -c SECRETWORDS $PIER_ROOT/volume/volumes/v/disk.img; pier-volume mount w m; cat m/f; pier-volume umount m; pier-volume update --size 640m v")?
                .exits(1)?
                .with("0\nSECRETWORDS")?
                .has("encrypted as a whole")?;
            // Another key opens nothing. What a killed process left opened is no obstacle.
            sh(g, "cp key right; cp other key; pier-volume mount v m; cp right key")?.with("cryptsetup failed")?;
            sh(g, &format!("i=$(readlink $PIER_ROOT/volume/volumes/v); cryptsetup open --key-file key $PIER_ROOT/volume/volumes/v/disk.img pier-$i; pier-volume mount v m; cat m/f; pier-volume umount m; {open}; pier-volume rm v w; {open}"))?
                .with("SECRETWORDS\n0\n0\n")?
                .with("v\nw\n0\n0\n")?;
        }
        sh(g, "echo short >key; pier-volume create -o type=ext4 -o encryption=luks -o encryption-key=$PWD/key --size 32m v; ls -A $PIER_ROOT/volume/staging")?
            .has("at least 32")
    }
}
