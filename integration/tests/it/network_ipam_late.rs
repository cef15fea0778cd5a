//! A plugin that gives an address when nobody waits for it any more gets it back.
use crate::network_place::{Place, pier};
use anyhow::{Context, bail, ensure};
use api::network::v1 as net;
use integration::{Result, eventually, isolated};
use std::time::Duration;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ipam-driver.py");
const SOCKET: &str = "/run/docker/plugins/latepam.sock";

#[test]
fn what_a_plugin_gives_too_late_goes_back() -> Result {
    isolated!(|bed| {
        let state = bed.dir().join("given.json");
        let driver = bed.spawn("latepam", bed.command("python3").args([SCRIPT, SOCKET]).arg(&state))?;
        eventually(Duration::from_secs(5), || Ok(std::os::unix::net::UnixStream::connect(SOCKET).map(drop)?))?;
        pier(bed, "create slow --ipam-driver latepam -o timeout=1 --ipv6")?.ok()?;
        let a = Place::new(bed, "a")?;
        let _daemon = bed.serve("network")?;
        let given = || -> Result<String> { Ok(std::fs::read_to_string(&state)?) };
        let before = given()?;
        driver.signal("STOP")?;
        let path = rpc::socket_path(&bed.run(), "network");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let refused = runtime.block_on(async {
            let channel = rpc::wait_serving(&path, Duration::from_secs(5)).await?;
            let mut client = net::network_service_client::NetworkServiceClient::new(channel);
            let request = net::AttachRequest {
                network: "slow".into(),
                netns_path: a.path.clone(),
                owner: "a".into(),
                ..Default::default()
            };
            match client.attach(request).await {
                Ok(attached) => bail!("attached: {attached:?}"),
                Err(status) => Ok(status),
            }
        })?;
        ensure!(refused.message().contains("did not answer within 1s"), "{refused}");
        driver.signal("CONT")?;
        // It takes the request in now, and gives what nobody wants.
        eventually(Duration::from_secs(5), || {
            bed.log("pier-network").contains("given back").then_some(()).context("nothing came late")
        })?;
        eventually(Duration::from_secs(5), || {
            let now = given()?;
            ensure!(now == before, "{before} before, {now} now");
            Ok(())
        })?;
        a.attach(bed, "slow", "a", "")?;
        pier(bed, "rm -f slow")?.ok()?;
        ensure!(given()? == "{}", "{}", given()?);
        Ok(())
    })
}
