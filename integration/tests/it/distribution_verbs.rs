//! `pier-distribution` for people and scripts: what verbs print, how they fail, and verbs that no other test goes through.
use integration::{Bed, Result, isolated};

const PRELUDE: &str = r#"
set -eu
R=127.0.0.1:5000
P=pier-distribution
fails() { if "$@"; then echo "succeeded: $*" >&2; exit 1; fi; }
same() { [ "$1" = "$2" ] || { echo "$3: $1 is not $2" >&2; exit 1; }; }
"#;

/// An image at the registry and in the store.
fn pushed(bed: &Bed) -> Result {
    bed.registry()?;
    let tar = bed.fixture().busybox_tar()?;
    bed.sh(&format!(
        "{PRELUDE} $P import -q --change 'CMD [\"sh\"]' --change 'LABEL k=v' {} $R/a/bb:1 && $P push -q $R/a/bb:1",
        tar.display()
    ))?
    .ok()?;
    Ok(())
}

#[test]
fn every_verb_prints_one_json_document() -> Result {
    isolated!(|bed| {
        pushed(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            one() {{ "$@" >out 2>err || {{ echo "$*:" >&2; cat err >&2; exit 1; }}
              same "$(jq -s length out)" 1 "$*"; jq -e '. != null' out >/dev/null; }}
            J='--format json'; echo text >f.txt
            one $P pull $R/a/bb:1 $J;               one $P push $R/a/bb:1 $R/a/bb:2 $J
            one $P copy docker://$R/a/bb:1 oci:l:1 --json
            one $P save -o s.tar $R/a/bb:1 --json;  one $P load s.tar $J;  one $P export $R/a/bb:1 -o e.tar $J
            one $P import e.tar im:1 $J;            one $P tag im:1 im:2 $J
            one $P ls $J;                           one $P inspect $R/a/bb:1 $J;  one $P inspect oci:l:1 $J
            one $P tags $R/a/bb $J;                 one $P catalog $R $J;  one $P digest $R/a/bb:1 $J
            one $P history im:1 $J;                 one $P history docker://$R/a/bb:1 $J
            one $P diff im:1 $R/a/bb:1 $J
            one $P manifest create $R/a/m:1 $R/a/bb:1 $J; one $P manifest add $R/a/m:1 oci:l:1 $J
            one $P manifest annotate $R/a/m:1 oci:l:1 --os-version 1 $J
            one $P manifest ls $J;                  one $P manifest inspect $R/a/m:1; one $P manifest push $R/a/m:1 --json
            one $P manifest remove $R/a/m:1 oci:l:1 $J; one $P manifest rm $R/a/m:1 $J
            one $P flatten im:1 im:3 $J;            one $P mutate im:1 im:4 --change 'ENV A=b' $J
            one $P rebase im:4 im:5 --old-base im:1 --new-base im:3 $J
            one $P artifact push $R/a/art:1 f.txt $J; one $P artifact attach $R/a/bb:1 f.txt $J
            one $P artifact ls $R/a/art:1 $J;       one $P artifact pull $R/a/art:1 -o o $J
            one $P artifact discover $R/a/bb:1 $J;  one $P delete $R/a/bb:2 $J
            one $P snapshot prepare s im:1 $J;      one $P snapshot mounts s $J;  one $P snapshot ls $J;  one $P snapshot diff s $J
            one $P snapshot commit s --image im:6 $J; one $P snapshot rm s $J
            one $P gc --dry-run $J;                 one $P df $J
            one $P rm im:2 im:3 $J;                 one $P prune $J;  one $P logout $R $J
            $P events --since 100 --no-follow | jq -e .action >/dev/null; $P check --format json | jq -e .object >/dev/null
            $P events --since 100 --no-follow --format table | grep -q 'image pull'"#
        ))?
        .ok()?;
        Ok(())
    })
}

#[test]
fn progress_is_bars_lines_json_or_nothing() -> Result {
    isolated!(|bed| {
        pushed(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            $P copy docker://$R/a/bb:1 oci:a:1 2>lines >/dev/null && grep -q ' done$' lines && fails grep -q '{{' lines
            $P copy --progress json docker://$R/a/bb:1 oci:b:1 2>json >/dev/null
            jq -se 'length > 1 and all(.[]; has("id") and has("status") and has("total"))' json >/dev/null
            $P copy -q docker://$R/a/bb:1 oci:c:1 2>quiet >/dev/null && fails test -s quiet
            script -qec "$P copy docker://$R/a/bb:1 oci:d:1" /dev/null </dev/null | tr -d '\r' >bars; grep -q '/' bars"#
        ))?
        .ok()?;
        Ok(())
    })
}

#[test]
fn a_sync_goes_on_past_failures_when_told_to() -> Result {
    isolated!(|bed| {
        pushed(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            for t in 1.0 1.5.2 2.0 edge; do $P copy -q docker://$R/a/bb:1 docker://$R/a/bb:$t; done
            printf '%s/a/none:1\n%s/a/bb:1 # this one is there\n' $R $R >list
            fails $P sync -q list:list dir:d >out 2>err; grep -q 'a/none:1 was not found' err
            $P sync -q --keep-going list:list dir:d --format json >out 2>err && exit 1 || same $? 1 "the exit code"
            same "$(jq -r .state out | sort | xargs)" "failed up_to_date" "states"; grep -q '1 of 2 images' err
            $P sync -q docker://$R/a/bb docker://$R/b --tag-semver '>=1.2 <3' >/dev/null
            same "$($P tags $R/b/bb | xargs)" "1.5.2 2.0" "versions"
            $P sync -q docker://$R/a/bb docker://$R/c --tag-regex '^[0-9]' --tag-exclude '^2' --scoped >/dev/null
            same "$($P catalog $R | grep ^c/)" "c/127.0.0.1-5000/a/bb" "the path"
            same "$($P tags $R/c/127.0.0.1-5000/a/bb | xargs)" "1 1.0 1.5.2" "expressions"
            $P sync -q list:- store: <list >/dev/null 2>&1 || true; cat list | tail -1 | $P sync -q list:- oci:lay
            $P sync -q oci:lay docker://$R/e && $P digest $R/e/bb:1"#
        ))?
        .ok()?;
        Ok(())
    })
}

#[test]
fn what_people_look_at() -> Result {
    isolated!(|bed| {
        pushed(bed)?;
        bed.sh(&format!(
            r#"{PRELUDE}
            D=$($P digest $R/a/bb:1)
            same "$($P inspect docker://$R/a/bb:1 --format '{{{{.Digest}}}} {{{{.Os}}}} {{{{index .Labels "k"}}}}')" "$D linux v" "a template"
            same "$($P digest --full-ref $R/a/bb:1)" "$R/a/bb@$D" "the whole name"
            $P ls --digests | grep -q "$D"; $P ls | head -1 | grep -q '^REPOSITORY  *TAG  *ID'
            $P history $R/a/bb:1 | grep -q 'Imported from a tar'
            $P copy -q docker://$R/a/bb:1 oci:l:1 --digestfile df --additional-tag 2 && same "$(cat df)" $D "the digest file"
            same "$($P digest oci:l:2)" $D "the other name"
            same "$($P digest oci:l:@1)" $D "by place"
            fails $P copy oci:l:nope dir:d 2>err; grep -q 'there are: 1, 2' err
            fails $P copy docker-daemon:x oci:l:3 2>err; grep -q 'docker save' err
            fails $P copy -q oci:l:1 oci:l2@$D 2>err; grep -q 'a destination has a name' err && fails test -e l2
            fails $P copy -q --dest-compress-format zstd --dest-compress-level 40 oci:l:1 oci:l2 2>err; grep -q '1 to 22' err
            $P snapshot prepare s $R/a/bb:1 >m && mkdir t && eval "$(sed s,ROOTFS,t, m)" && echo x >t/new && umount t
            same "$($P diff s)" "A /new" "a snapshot and its image"
            same "$($P diff $R/a/bb:1 s)" "A /new" "an image and a snapshot"
            same "$($P diff s $R/a/bb:1)" "D /new" "the other way round"
            $P snapshot rm s; $P --help | grep -q '^Exit codes: 0 done'
            $P man man && grep -rq 'Exit codes' man"#
        ))?
        .ok()?;
        Ok(())
    })
}
