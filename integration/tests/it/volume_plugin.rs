//! Volume drivers outside: docker's protocol by a 50-line Python program, the same in gRPC, and drivers that hang.
use anyhow::{Context, ensure};
use api::volume_driver::v1::volume_driver_service_server::{VolumeDriverService, VolumeDriverServiceServer};
use api::volume_driver::v1::*;
use integration::{Bed, Daemon, Result, eventually, isolated};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Debian's python3 as a driver; it listens when this returns.
pub(crate) fn driver(bed: &Bed, name: &str, directory: &str) -> Result<Daemon> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/volume-driver.py");
    let (socket, root) =
        (bed.dir().join(directory).join(format!("{name}.sock")), bed.dir().join(format!("{name}-data")));
    std::fs::create_dir_all(socket.parent().context("a directory")?)?;
    let daemon = bed.spawn(name, bed.command("python3").arg(program).arg(&socket).arg(root))?;
    eventually(Duration::from_secs(10), || {
        std::os::unix::net::UnixStream::connect(&socket).with_context(|| bed.log(name))?;
        Ok(())
    })?;
    Ok(daemon)
}

#[test]
fn a_driver_in_python() -> Result {
    isolated!(|bed| {
        let daemon = driver(bed, "toy", "run/plugins")?;
        bed.sh("set -e; pier-volume drivers; pier-volume create -d toy -o a=b v; pier-volume acquire v c /x | jq -r .source; mkdir m; pier-volume mount v m; echo x >m/f; cat toy-data/v/f
                pier-volume inspect v | jq -c .[0].status; pier-volume rename v w; pier-volume umount m; pier-volume release c; pier-volume inspect w | jq -c .[0].status.users
                ! pier-volume rm v; pier-volume check; pier-volume export w | tar t; pier-volume clone w copy; cat $(pier-volume inspect copy | jq -r .[0].mountpoint)/f; pier-volume rm w; ls toy-data | wc -l")?
            .ok()?
            .with("toy      docker")?
            .with("toy-data/v\n")?
            .with("\"users\":\"2\"")?
            .with("\"0\"\n")?
            .has("\n0\n")
            .map_err(|e| e.context(bed.log("toy")))?;
        bed.sh("pier-volume --error-format json create -d toy -o fail=1 v")?
            .exits(1)?
            .with("VOLUME_DRIVER")?
            .has("asked to fail")?;
        bed.sh("pier-volume create -d nowhere v")?.exits(1)?.with("unknown volume driver")?.has("nowhere.sock")?;
        bed.sh("pier-volume ls -q; pier-volume create -d toy v; rm -r toy-data/v; pier-volume check")?
            .exits(1)?
            .has("lost-volume v")?;
        // By a description that leads to the socket, and by one that is none.
        bed.sh("set -e; mkdir -p /run/docker/plugins; printf unix://$DIR/run/plugins/toy.sock >/run/docker/plugins/spec.spec
                printf '{\"Name\": \"desc\", \"Addr\": \"unix://%s\"}' $DIR/run/plugins/toy.sock >/run/docker/plugins/desc.json; echo ftp:// >/run/docker/plugins/bad.spec
                pier-volume create -d spec s; pier-volume create -d desc d; ls toy-data | paste -sd,; ! pier-volume create -d bad b; rm -r /run/docker")?
            .ok()?
            .with("d,s")?
            .has("is no address")?;
        // An unmount that the driver did not hear of is owed until it does.
        bed.sh("printf unix://$DIR/run/plugins/toy.sock >run/plugins/spec.spec; pier-volume acquire s c /x")?.ok()?;
        daemon.kill()?;
        bed.sh("pier-volume release c")?.exits(1)?.has("Unmount")?;
        bed.sh("pier-volume inspect s | jq -c .[0].consumers; pier-volume check")?
            .exits(1)?
            .with("[]")?
            .has("owed-unmount s")?;
        std::fs::remove_file(bed.dir().join("run/plugins/toy.sock"))?;
        driver(bed, "toy", "run/plugins")?;
        bed.sh("pier-volume check --repair; pier-volume check | grep owed")?
            .exits(1)?
            .without("owed-unmount s: driver spec was not told that s is not used any more\n")?;
        Ok(())
    })
}

#[test]
fn over_tls() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE 2>log; mkdir -p run/plugins
                printf '{\"Addr\": \"https://localhost:7443\", \"TLSConfig\": {\"CAFile\": \"%s\"}}' $DIR/ca.pem >run/plugins/tls.json
                printf '{\"Addr\": \"https://localhost:7443\", \"TLSConfig\": {\"InsecureSkipVerify\": true}}' >run/plugins/lax.json
                openssl req -x509 -newkey rsa:2048 -nodes -keyout k2.pem -out other.pem -days 2 -subj /CN=x 2>log
                printf '{\"Addr\": \"https://localhost:7443\", \"TLSConfig\": {\"CAFile\": \"%s\"}}' $DIR/other.pem >run/plugins/wrong.json")?
            .ok()?;
        driver(bed, "toy", "sockets")?;
        bed.spawn(
            "tls",
            bed.command("socat").args([
                "OPENSSL-LISTEN:7443,fork,reuseaddr,cert=ca.pem,key=key.pem,verify=0",
                "UNIX-CONNECT:sockets/toy.sock",
            ]),
        )?;
        eventually(Duration::from_secs(5), || bed.sh("pier-volume create -d tls v")?.ok())?;
        bed.sh("ls toy-data; ! pier-volume create -d wrong w; ! pier-volume create -d lax l")?
            .ok()?
            .with("v\n")?
            .with("TLS:")?
            .has("name the CAFile")
    })
}

/// A driver that hangs costs the calls that need it their limit, and nobody else anything.
#[test]
fn a_hung_driver_costs_only_its_own_call() -> Result {
    isolated!(|bed| {
        let toy = driver(bed, "toy", "run/plugins")?;
        driver(bed, "well", "run/plugins")?;
        bed.serve_with("volume", &["--driver-timeout", "3"])?;
        bed.sh("set -e; pier-volume create -d toy v; pier-volume create -d well w; pier-volume create plain")?.ok()?;
        toy.signal("STOP")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(async {
            use api::volume::v1::{
                AcquireVolumeRequest, ListVolumesRequest, volume_service_client::VolumeServiceClient,
            };
            let channel = rpc::connect(&rpc::socket_path(&bed.run(), "volume"), Duration::from_secs(5)).await?;
            let acquire = |name: &str| AcquireVolumeRequest {
                name: name.into(),
                consumer: "c".into(),
                target: "/x".into(),
                ..Default::default()
            };
            let hung = tokio::spawn({
                let (mut client, request) = (VolumeServiceClient::new(channel.clone()), acquire("v"));
                async move { (Instant::now(), client.acquire_volume(request).await).into_elapsed() }
            });
            let (mut client, mut slowest) = (VolumeServiceClient::new(channel), Duration::ZERO);
            for _ in 0..50 {
                let start = Instant::now();
                client.acquire_volume(acquire("plain")).await?;
                client.acquire_volume(acquire("w")).await?;
                client.list_volumes(ListVolumesRequest::default()).await?;
                slowest = slowest.max(start.elapsed());
            }
            let (elapsed, answer) = hung.await?;
            println!("three calls beside a hung driver: {slowest:?} at most; its own ended after {elapsed:?}");
            ensure!(slowest < Duration::from_millis(1000), "others waited {slowest:?}");
            ensure!((2..5).contains(&elapsed.as_secs()), "its own call took {elapsed:?}");
            let status = answer.err().context("a hung driver answered")?;
            ensure!(status.code() == tonic::Code::DeadlineExceeded && status.message().contains("toy"), "{status:?}");
            anyhow::Ok(())
        });
        toy.signal("CONT")?;
        result?;
        bed.sh("pier-volume inspect v")?.ok()?.has("\"consumers\": []")
    })
}

trait Elapsed<T> {
    fn into_elapsed(self) -> (Duration, T);
}

impl<T> Elapsed<T> for (Instant, T) {
    fn into_elapsed(self) -> (Duration, T) {
        (self.0.elapsed(), self.1)
    }
}

/// A driver of directories.
struct Directories(PathBuf);

type Answer<T> = std::result::Result<tonic::Response<T>, tonic::Status>;

#[tonic::async_trait]
impl VolumeDriverService for Directories {
    async fn capabilities(&self, _: tonic::Request<CapabilitiesRequest>) -> Answer<CapabilitiesResponse> {
        Ok(tonic::Response::new(CapabilitiesResponse { scope: "global".into() }))
    }
    async fn create(&self, request: tonic::Request<CreateRequest>) -> Answer<CreateResponse> {
        std::fs::create_dir_all(self.0.join(&request.get_ref().name))?;
        Ok(tonic::Response::new(CreateResponse {}))
    }
    async fn remove(&self, request: tonic::Request<RemoveRequest>) -> Answer<RemoveResponse> {
        std::fs::remove_dir_all(self.0.join(&request.get_ref().name))?;
        Ok(tonic::Response::new(RemoveResponse {}))
    }
    async fn mount(&self, request: tonic::Request<MountRequest>) -> Answer<MountResponse> {
        let mountpoint = self.0.join(&request.get_ref().name).display().to_string();
        Ok(tonic::Response::new(MountResponse { mountpoint }))
    }
    async fn unmount(&self, _: tonic::Request<UnmountRequest>) -> Answer<UnmountResponse> {
        Ok(tonic::Response::new(UnmountResponse {}))
    }
    async fn get(&self, _: tonic::Request<GetRequest>) -> Answer<GetResponse> {
        Ok(tonic::Response::new(GetResponse {
            mountpoint: String::new(),
            status: [("in".into(), "grpc".into())].into(),
        }))
    }
    async fn list(&self, _: tonic::Request<ListRequest>) -> Answer<ListResponse> {
        let names =
            std::fs::read_dir(&self.0)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        Ok(tonic::Response::new(ListResponse { names }))
    }
}

#[test]
fn a_driver_in_grpc() -> Result {
    isolated!(|bed| {
        let plugins = bed.run().join("plugins");
        std::fs::create_dir_all(&plugins)?;
        std::fs::create_dir(bed.dir().join("kept"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let _inside = runtime.enter();
        let listener = tokio::net::UnixListener::bind(plugins.join("dirs.grpc.sock"))?;
        let service = VolumeDriverServiceServer::new(Directories(bed.dir().join("kept")));
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)),
        );
        bed.sh("set -e; pier-volume drivers; pier-volume create -d dirs v; pier-volume acquire v c /x; mkdir m; pier-volume mount v m; touch m/f; ls kept/v; pier-volume umount m
                pier-volume inspect v | jq -r .[0].status.in; pier-volume release c; pier-volume check; pier-volume rm v; ls kept | wc -l; ! pier-volume create -d dirs ../x")?
            .ok()?
            .with("global")?
            .with("f\ngrpc")?
            .has("\n0\n")
    })
}
