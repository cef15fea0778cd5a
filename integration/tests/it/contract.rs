//! The contract of each service, on the tool's own socket and through the engine's.
use integration::{Bed, Result, isolated};
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;

/// Runs a suite on a channel to `<run>/<socket>.sock`.
fn on<F: Future<Output = Result>>(bed: &Bed, socket: &str, suite: impl FnOnce(Channel) -> F) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let path: PathBuf = rpc::socket_path(&bed.run(), socket);
        suite(rpc::wait_serving(&path, Duration::from_secs(5)).await?).await
    })
}

#[test]
fn volume_keeps_its_contract() -> Result {
    isolated!(|bed| {
        bed.serve("volume")?;
        on(bed, "volume", testkit::contract::volume)?;
        bed.serve("engine")?;
        on(bed, "pier", testkit::contract::volume)
    })
}

#[test]
fn network_keeps_its_contract() -> Result {
    isolated!(|bed| {
        bed.serve("network")?;
        on(bed, "network", testkit::contract::network)?;
        bed.serve("engine")?;
        on(bed, "pier", testkit::contract::network)
    })
}

#[test]
fn distribution_keeps_its_contract() -> Result {
    isolated!(|bed| {
        let tar = bed.fixture().busybox_tar()?;
        bed.serve("distribution")?;
        let (dir, key) = (bed.dir().join("contract"), bed.dir().join("contract-key"));
        bed.sh("pier-distribution key generate --output contract-key")?.ok()?;
        on(bed, "distribution", |c| async { testkit::contract::distribution(c, &tar).await })?;
        on(bed, "distribution", |c| async { testkit::contract::locations(c, &tar, &dir, &key).await })?;
        bed.serve("engine")?;
        on(bed, "pier", |c| async { testkit::contract::distribution(c, &tar).await })?;
        on(bed, "pier", |c| async { testkit::contract::locations(c, &tar, &dir, &key).await })
    })
}

#[test]
fn supervisor_keeps_its_contract_on_every_runtime() -> Result {
    isolated!(|bed| {
        // crun refuses the hybrid layout.
        bed.sh("umount /sys/fs/cgroup/unified 2>/dev/null; true")?;
        let rootfs = bed.dir().join("rootfs");
        bed.sh(&format!("cp -a {} {}", bed.fixture().busybox()?.display(), rootfs.display()))?.ok()?;
        bed.serve("supervisor")?;
        for runtime in ["pier-runtime", "runc", "crun"] {
            on(bed, "supervisor", |c| async { testkit::contract::supervisor(c, &rootfs, runtime).await })
                .map_err(|e| e.context(runtime))?;
        }
        bed.serve("engine")?;
        on(bed, "pier", |c| async { testkit::contract::supervisor(c, &rootfs, "pier-runtime").await })
    })
}

#[test]
fn every_socket_has_health_and_reflection_within_a_second() -> Result {
    isolated!(|bed| {
        for (tool, socket, service) in [
            ("volume", "volume", "pier.volume.v1.VolumeService"),
            ("network", "network", "pier.network.v1.NetworkService"),
            ("distribution", "distribution", "pier.distribution.v1.DistributionService"),
            ("supervisor", "supervisor", "pier.supervisor.v1.SupervisorService"),
            ("builder", "builder", "pier.builder.v1.BuilderService"),
            ("runtime", "runtime", "pier.runtime.v1.RuntimeService"),
            ("engine", "pier", "pier.network.v1.NetworkService"),
        ] {
            let begun = std::time::Instant::now();
            bed.serve(tool)?;
            on(bed, socket, |c| async move { testkit::contract::health_and_reflection(c, service).await })
                .map_err(|e| e.context(tool))?;
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(1), "{tool} took {:?}", begun.elapsed());
        }
        Ok(())
    })
}
