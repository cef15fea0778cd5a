//! An image of every kind of file and attribute goes through everything that moves images, and is the same tree each time.
use integration::{Bed, Result, isolated};

/// What lies below: to be changed, deleted, replaced and hidden.
const BASE: &str = r#"
import os
def put(p, b=b'base', **k):
    os.makedirs(os.path.dirname(p) or '.', exist_ok=True)
    open(p, 'wb').write(b)
for p in 'keep/a keep/b gone/a opaque/x opaque/sub/y todir tofile/x linked meta/x'.split(): put(p)
os.symlink('keep/a', 'tolink')
for root, dirs, files in os.walk('.', topdown=False):
    for n in dirs + files: os.utime(os.path.join(root, n), ns=(10**18, 10**18 + 5), follow_symlinks=False)
"#;

/// Everything that a layer can hold.
const MAKE: &str = r#"
import os, shutil, stat, struct
def put(p, b=b''):
    os.makedirs(os.path.dirname(p) or b'.' if isinstance(p, bytes) else os.path.dirname(p) or '.', exist_ok=True)
    open(p, 'wb').write(b)
os.unlink('keep/b'); shutil.rmtree('gone')                          # whiteouts of a file and a directory
shutil.rmtree('opaque'); put('opaque/new', b'new')                  # an opaque directory
os.unlink('todir'); put('todir/inside', b'1')
shutil.rmtree('tofile'); put('tofile', b'2')
os.unlink('tolink'); os.symlink('/nowhere/' + 'x' * 300, 'tolink')
os.link('linked', 'linked-again')                                   # a hard link to a file of the base
os.chmod('meta/x', 0o4711); os.chown('meta', 12, 34)                # only metadata changes
put('k/file', b'content' * 1000); os.link('k/file', 'k/hard'); os.link('k/file', 'other-hard')
os.mkfifo('k/fifo'); os.chmod('k/fifo', 0o640)
os.mknod('k/char', stat.S_IFCHR | 0o666, os.makedev(1, 3)); os.mknod('k/block', stat.S_IFBLK | 0o600, os.makedev(259, 70000))
os.symlink('file', 'k/soft'); os.lchown('k/soft', 5, 6)
with open('k/sparse', 'wb') as f: f.seek(3 << 20); f.write(b'end'); f.truncate(5 << 20)
put('k/empty'); put('k/' + 'n' * 255, b'long'); put('/'.join(['deep' * 10] * 12) + '/bottom', b'deep')
put(b'k/not\xffutf8\n"quoted" \xc3\xa9', b'odd name'); put('k/ leading and trailing ', b'')
put('k/owner'); os.chown('k/owner', 2147483646, 2147483647 - 1); put('k/owner2'); os.chown('k/owner2', 65537, 3000000)
put('k/set'); os.chmod('k/set', 0o6755); os.makedirs('k/sticky'); os.chmod('k/sticky', 0o1777)
os.makedirs('k/setgid'); os.chmod('k/setgid', 0o2750); put('k/none'); os.chmod('k/none', 0)
os.setxattr('k/file', 'user.text', b'value'); os.setxattr('k/file', 'user.bytes', bytes(range(256))); os.setxattr('k/empty', 'user.empty', b'')
os.setxattr('k/set', 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0)); os.chmod('k/set', 0o6755)
os.setxattr('k/set', 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
os.setxattr('k', 'user.dir', b'on a directory'); os.setxattr('k/sticky', 'user.dir', b'x' * 1000)
times = {'k/file': 1234567890123456789, 'k/empty': -5 * 10**9 + 250, 'k/none': 0, 'k/owner': 2**33 * 10**9 + 1, 'k/soft': 999_999_999_999_999_999}
for root, dirs, files in os.walk(b'.', topdown=False):
    for n in dirs + files:
        p = os.path.join(root, n)
        os.utime(p, ns=(0, times.get(os.fsdecode(p[2:]), 10**18 + 123456789)), follow_symlinks=False)
"#;

/// All that can be seen of a tree, a line for each name. The root's own time changes with every mount point.
const DESCRIBE: &str = r#"
import hashlib, json, os, stat, sys
os.chdir(sys.argv[1]); links = {}; lines = []
def name(p): return os.fsencode(p).decode('latin-1')
paths = [b'.'] + [os.path.join(r, n) for r, ds, fs in os.walk(b'.') for n in ds + fs]
for p in sorted(paths):
    s = os.lstat(p)
    d = dict(path=name(p), mode=oct(s.st_mode), uid=s.st_uid, gid=s.st_gid)
    if p != b'.': d['mtime'] = s.st_mtime_ns
    if not stat.S_ISDIR(s.st_mode): d['same'] = links.setdefault((s.st_dev, s.st_ino), name(p))
    if stat.S_ISREG(s.st_mode): d['sha'] = hashlib.sha256(open(p, 'rb').read()).hexdigest(); d['size'] = s.st_size
    if stat.S_ISLNK(s.st_mode): d['to'] = name(os.readlink(p))
    if stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode): d['dev'] = s.st_rdev
    d['x'] = {k: os.getxattr(p, k, follow_symlinks=False).hex() for k in sorted(os.listxattr(p, follow_symlinks=False)) if k != 'security.selinux'}
    lines.append(json.dumps(d))
print('\n'.join(lines))
"#;

/// What every script begins with. `mounted ROOT IMAGE COMMAND...` runs a command in a writable mount of an image.
const PRELUDE: &str = r#"
set -eu
R=127.0.0.1:5000
P() { pier-distribution --root $PWD/"$@"; }
mounted() { root=$1 image=$2; shift 2; m=$(mktemp -d m.XXXXXX)
  eval "$(P $root snapshot prepare $m $image | sed s,ROOTFS,$m,)"; "$@" $m; umount $m; }
make() { (cd $1 && python3 ../make.py); }
describe() { python3 describe.py $1; }
tree() { mounted $1 $2 describe; P $1 snapshot rm $m; }
fails() { if "$@"; then echo "succeeded: $*" >&2; exit 1; fi; }
same() { cmp "$1" "$2" || { diff "$1" "$2" | cut -c1-300 | head -20 >&2; echo "$3" >&2; exit 1; }; }
"#;

/// The base is imported, and everything is made on it: `one` has the image R/all:1, `want` says how it looks.
fn made(bed: &Bed) -> Result {
    bed.registry()?;
    for (file, text) in [("base.py", BASE), ("make.py", MAKE), ("describe.py", DESCRIBE)] {
        std::fs::write(bed.dir().join(file), text)?;
    }
    bed.sh(&format!(
        "{PRELUDE}
        mkdir base && (cd base && python3 ../base.py) && tar cf base.tar -C base .
        P one import -q base.tar $R/base:1
        mounted one $R/base:1 make
        P one snapshot diff $m --format json | jq -e 'map(select(.kind == \"D\").path) | contains([\"/keep/b\", \"/gone\", \"/opaque/x\"])' >/dev/null
        P one snapshot commit $m --image $R/all:1
        eval \"$(P one snapshot mounts $m | sed s,ROOTFS,$m,)\"; describe $m >want; umount $m; P one snapshot rm $m
        tree one $R/all:1 >got; same want got 'the committed image'"
    ))?
    .ok()?;
    Ok(())
}

#[test]
fn pushed_pulled_saved_and_loaded() -> Result {
    isolated!(|bed| {
        made(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            D=$(P one inspect $R/all:1 --format '{{{{.Digest}}}}') I=$(P one inspect $R/all:1 --format '{{{{.Id}}}}')
            is() {{ [ "$(P $1 inspect $2 --format '{{{{.Digest}}}}')" = $D ] || {{ echo "$3: another digest" >&2; exit 1; }}; }}
            P one push -q $R/all:1
            P two pull -q $R/all:1; is two $R/all:1 pulled; tree two $R/all:1 >got; same want got pulled
            P two save -q -o all.tar $R/all:1
            P three load -q all.tar; is three $R/all:1 loaded; tree three $R/all:1 >got; same want got loaded
            P three save -q --format oci-dir -o layout $R/all:1
            pier-distribution copy -q oci:layout dir:d && P four copy -q dir:$PWD/d store:$R/all:1
            is four $R/all:1 copied; tree four $R/all:1 >got; same want got copied
            P four save -q --format docker-archive -o d.tar $R/all:1
            P five load -q d.tar; tree five $R/all:1 >got; same want got 'loaded from a docker archive'
            [ "$(P five inspect $R/all:1 --format '{{{{.Id}}}}')" = $I ]
            pier-distribution copy -q --dest-compress-format zstd docker://$R/all:1 docker://$R/all:zstd
            P five pull -q $R/all:zstd; tree five $R/all:zstd >got; same want got 'compressed with zstd'
            for r in one two three four five; do P $r check >/dev/null; done"#
        ))?
        .ok()?;
        Ok(())
    })
}

#[test]
fn committed_flattened_and_exported_again() -> Result {
    isolated!(|bed| {
        made(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            # The same changes on the same base are the same layer, in another store and with another snapshotter.
            L=$(P one inspect $R/all:1 --format '{{{{range .Layers}}}}{{{{.digest}}}} {{{{end}}}}' | cut -d' ' -f2)
            P two import -q base.tar $R/base:1
            mounted two $R/base:1 make; P two snapshot commit $m --format json | jq -re .layer.digest >layer
            [ "$(cat layer)" = $L ] || {{ echo "layer $(cat layer) is not $L" >&2; exit 1; }}
            # Nothing written is no layer.
            tree one $R/all:1 >got; P one snapshot prepare idle $R/all:1 >/dev/null
            [ "$(P one snapshot commit idle)" = "nothing was written" ]
            # One layer shows the same, and has no whiteouts.
            P one flatten -q $R/all:1 flat:1; tree one flat:1 >got; same want got flattened
            P one diff flat:1 $R/all:1 >changes && fails test -s changes
            P one diff $R/base:1 $R/all:1 | grep -qx 'D /keep/b'
            # The exported tar is unpacked by GNU tar and imported again.
            P one export $R/all:1 -o flat.tar; mkdir x; tar xf flat.tar -C x --xattrs --xattrs-include='*' --numeric-owner
            describe x >got; same want got 'unpacked by GNU tar'
            P one import -q flat.tar again:1; tree one again:1 >got; same want got 'imported again'
            P one check >/dev/null"#
        ))?
        .ok()?;
        Ok(())
    })
}
