//! pier-runtime against crun and runc: one whole life of a container, and the single verbs together.
use super::arena::{Arena, Side};
use anyhow::Result;

/// Minimal spec (what `runc spec` writes, without a terminal).
pub fn run(arena: &Arena) -> Result<()> {
    arena.sh(
        "mkdir -p b && cp -a $(dirname $BUSYBOX_TAR)/busybox b/rootfs && cd b && runc spec && \
         jq '.process.terminal=false | .process.args=[\"/bin/true\"]' config.json >c && mv c config.json && \
         mkdir ../s && cp -a rootfs ../s/ && jq '.process.args=[\"/bin/sleep\",\"1000\"]' config.json >../s/config.json",
    )?;
    let runtimes = ["pier-runtime", "crun", "runc"];
    let sides = |script: &str| -> Vec<Side> {
        runtimes.iter().map(|r| Side::new(r, &script.replace("RT", &format!("{r} --root $DIR/rt-{r}")))).collect()
    };
    arena.race("run of /bin/true", 30, &sides("RT run --bundle b x$N"))?;
    let verbs = "RT create --bundle s x$N >/dev/null 2>&1 && RT start x$N && RT delete --force x$N";
    arena.race("create + start + delete --force of a sleeping container", 20, &sides(verbs))
}
