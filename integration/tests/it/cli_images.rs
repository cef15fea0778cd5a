//! `pier`'s verbs on images, as docker's users know them.
use crate::cli::engine;
use crate::distribution_server::{USERS, serve};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// Beside `bb`: `old:1`, made in 2020 and labelled, and `new:1` with one label more.
fn images(bed: &Bed) -> Result {
    engine(bed)?;
    bed.sh("set -e; pier-distribution mutate bb old:1 --created 2020-01-01T00:00:00Z -c 'LABEL tier=front' >/dev/null
         pier-distribution mutate bb new:1 -c 'LABEL tier=front' -c 'LABEL keep=yes' >/dev/null")?
        .ok()
        .map(drop)
}

#[test]
fn filters_of_listings_and_prunes() -> Result {
    isolated!(|bed| {
        images(bed)?;
        let names = |filters: &str| -> Result<String> {
            let list = bed.sh(&format!("pier images --format '{{{{.Repository}}}}' {filters} | sort | xargs"))?;
            Ok(list.ok()?.out().to_owned())
        };
        for (filters, expected) in [
            ("-f until=24h", "old"),
            ("-f until=2020-06-01", "old"),
            ("-f until=1000000000", ""),
            ("-f label=tier", "new old"),
            ("-f label=tier=front -f label=keep=yes", "new"),
            ("-f label!=keep", "bb old"),
            ("-f since=old:1", "bb new"),
            ("-f before=new:1 -f label=tier", "old"),
            ("-f dangling=false -f reference=*ew", "new"),
            ("-f reference=old:1 -f reference=bb", "bb old"),
        ] {
            ensure!(names(filters)? == expected, "{filters}: {} instead of {expected}", names(filters)?);
        }
        bed.sh("pier images -f until=yesterday")?.fails()?.has("an age such as 24h")?;
        bed.sh("pier images -f dangling=maybe")?.fails()?.has("true or false")?;
        bed.sh("pier images -f colour=red")?.fails()?.has("label!")?;
        // The other doors.
        bed.sh("pier-distribution ls -q --filter until=24h | wc -l")?.ok()?.has("1")?;
        bed.sh("pier image prune -af --filter until=24h --filter label!=keep")?
            .ok()?
            .has("untagged: docker.io/library/old:1")?;
        ensure!(names("")? == "bb new");
        bed.sh("pier-distribution prune -a --filter label=keep=no; pier-distribution prune -a --filter label!=none")?
            .ok()?
            .has("new:1")?;
        ensure!(names("")?.is_empty());
        Ok(())
    })
}

#[test]
fn listings_history_and_documents() -> Result {
    isolated!(|bed| {
        images(bed)?;
        bed.sh("pier images --format json old | jq -r '.CreatedAt, .Containers, .SharedSize, .UniqueSize, .VirtualSize == .Size'")?
            .ok()?
            .has("2020-01-01 00:00:00 +0000 UTC\nN/A\nN/A\nN/A\ntrue")?;
        let id = bed.sh("pier images -q --no-trunc new")?.ok()?.out().to_owned();
        bed.sh("pier history -q --no-trunc new:1")?.ok()?.with(&id)?.has("<missing>")?;
        bed.sh("pier history --human=false --format '{{.Size}} {{.CreatedSince}}' old:1 | tail -1 | grep -E '^[0-9]{5,} 20[0-9-]+T'")?.ok()?;
        bed.sh("pier inspect -f '{{.Id}} {{.Parent}}{{.OsVersion}}{{.VirtualSize}}' new:1")?.ok()?.has(&id)?;
        // One image by two names is one entry of an archive, as docker writes it.
        bed.sh(
            "set -e; pier tag new:1 also:2; pier save -o a.tar new:1 also:2 old:1; tar xOf a.tar manifest.json | jq -c '.[] | [.RepoTags, (.Layers | length)]'
             pier rmi -f new:1 also:2 old:1 >/dev/null; pier load -i a.tar; pier images -q also; pier images -q new",
        )?
        .ok()?
        .with("[[\"new:1\",\"also:2\"],1]\n[[\"old:1\"],1]")?
        .with("Loaded image: also:2")?
        .with("Loaded image: new:1")?
        .has("Loaded image: old:1")
    })
}

/// What several images share is not freed by removing one of them.
#[test]
fn space_image_by_image() -> Result {
    isolated!(|bed| {
        images(bed)?;
        bed.sh("pier run -d --name c --network none -v data:/d new:1 sh -c 'head -c 2000000 /dev/zero >/d/f; sync; sleep 1000' >/dev/null")?.ok()?;
        bed.sh("pier system df -v")?
            .ok()?
            .with("Images space usage:")?
            .with("UNIQUE SIZE")?
            .with("Local Volumes")?
            .has("data")?;
        let of = |text: &str| bed.sh(&format!("pier system df -v --format '{text}'"));
        of("{{range .Images}}{{.Repository}} {{.Containers}} {{end}}")?.ok()?.with("new 1")?.has("old 0")?;
        of("json")?.ok().and_then(|out| {
            let shared = out.json()?["Images"][0]["SharedSize"].as_str().unwrap_or_default().to_owned();
            ensure!(shared.ends_with("MB"), "{shared}");
            Ok(())
        })?;
        of("{{range .Volumes}}{{.Name}} {{.Links}}{{end}}{{range .Containers}} {{.Names}}{{end}}")?
            .ok()?
            .has("data 1 c")?;
        bed.sh("pier rm -f c >/dev/null; pier volume rm data")?.ok().map(drop)
    })
}

#[test]
fn whole_repositories_and_a_login_that_asks() -> Result {
    isolated!(|bed| {
        images(bed)?;
        std::fs::write(bed.dir().join("users"), USERS)?;
        serve(bed, "registry", "127.0.0.1:5050", &["--registry-dir", "reg", "--registry-htpasswd", "users"])?;
        bed.sh("for t in 1 2 latest; do pier tag new:1 127.0.0.1:5050/x/app:$t; done; pier tag new:1 127.0.0.1:5050/x/apple:1")?.ok()?;
        let all = "pier push -q -a 127.0.0.1:5050/x/app";
        bed.sh(all)?.fails()?;
        // The terminal shows the name and not the password.
        let ask = |program: &str, word: &str| {
            bed.sh(&format!(
                "(sleep 1; printf 'ada\\n'; sleep 1; printf '{word}\\n'; sleep 1) | script -qec '{program} login 127.0.0.1:5050; echo code=$?; stty -a | grep -o \" echo \"' /dev/null"
            ))
        };
        ask("pier", "wrong")?.with("Username: ")?.with("code=1")?.with(" echo ")?.without("wrong\r")?;
        ask("pier", "secret")?.with("Password: ")?.with("Login Succeeded")?.with("code=0")?.without("secret")?;
        bed.sh(&format!("{all} && pier-distribution tags 127.0.0.1:5050/x/app | xargs"))?.ok()?.has("1 2 latest")?;
        bed.sh("pier-distribution tags 127.0.0.1:5050/x/apple")?.fails()?;
        bed.sh(&format!("{all}:1"))?.fails()?.has("without a tag")?;
        bed.sh("pier push -a 127.0.0.1:5050/x/none")?.fails()?.has("no image is here under the name")?;
        bed.sh("pier rmi -f $(pier images -q new) >/dev/null; pier pull -q -a 127.0.0.1:5050/x/app; pier images --format '{{.Tag}}' 127.0.0.1:5050/x/app | sort | xargs")?
            .ok()?
            .with("127.0.0.1:5050/x/app")?
            .has("1 2 latest")?;
        bed.sh("pier logout 127.0.0.1:5050")?.ok()?;
        ask("pier-distribution", "secret")?.with("logged in to")?.without("secret")?;
        bed.sh("pier login 127.0.0.1:5050 </dev/null")?.fails()?.has("-u NAME")
    })
}
