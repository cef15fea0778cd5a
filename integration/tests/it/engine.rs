//! pierd: composed verbs, what they leave when a step fails, and what a dead daemon costs.
use crate::faults::{FaultyTool, Moment};
use anyhow::{Context, bail, ensure};
use api::distribution::v1 as dist;
use api::engine::v1::engine_service_client::EngineServiceClient;
use api::engine::v1::{
    ContainerConfig, CreateContainerRequest, InspectContainerRequest, ListContainersRequest, MountKind, NetworkConfig,
    RemoveContainerRequest, StartContainerRequest, StopContainerRequest, VolumeMount, create_container_response,
};
use api::network::v1 as net;
use api::supervisor::v1 as sup;
use api::volume::v1 as vol;
use integration::{Bed, Result, eventually, isolated};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const TOOLS: [&str; 4] = ["supervisor", "distribution", "network", "volume"];

/// A client of the engine's socket, engine's and tools' services alike.
struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

macro_rules! verbs {
    ($($name:ident = $($client:ident)::+ . $rpc:ident ($request:path) -> $response:path;)*) => {
        $(fn $name(&self, request: $request) -> Result<$response> {
            let mut client = $($client)::+::new(self.channel.clone());
            Ok(self.runtime.block_on(client.$rpc(request)).map_err(rpc::Failure::from)?.into_inner())
        })*
    };
}

impl Client {
    fn of(bed: &Bed) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let path = rpc::socket_path(&bed.run(), "pier");
        let channel = runtime.block_on(rpc::wait_serving(&path, Duration::from_secs(5)))?;
        Ok(Self { runtime, channel })
    }

    verbs! {
        start = EngineServiceClient.start_container(StartContainerRequest)
            -> api::engine::v1::StartContainerResponse;
        stop = EngineServiceClient.stop_container(StopContainerRequest)
            -> api::engine::v1::StopContainerResponse;
        remove = EngineServiceClient.remove_container(RemoveContainerRequest)
            -> api::engine::v1::RemoveContainerResponse;
        inspect = EngineServiceClient.inspect_container(InspectContainerRequest)
            -> api::engine::v1::InspectContainerResponse;
        list = EngineServiceClient.list_containers(ListContainersRequest)
            -> api::engine::v1::ListContainersResponse;
        snapshots = dist::distribution_service_client::DistributionServiceClient
            .list_snapshots(dist::ListSnapshotsRequest) -> dist::ListSnapshotsResponse;
        prepare = dist::distribution_service_client::DistributionServiceClient
            .prepare_snapshot(dist::PrepareSnapshotRequest) -> dist::PrepareSnapshotResponse;
        endpoints = net::network_service_client::NetworkServiceClient.list_endpoints(net::ListEndpointsRequest)
            -> net::ListEndpointsResponse;
        create_network = net::network_service_client::NetworkServiceClient
            .create_network(net::CreateNetworkRequest) -> net::CreateNetworkResponse;
        remove_network = net::network_service_client::NetworkServiceClient
            .remove_network(net::RemoveNetworkRequest) -> net::RemoveNetworkResponse;
        volumes = vol::volume_service_client::VolumeServiceClient.list_volumes(vol::ListVolumesRequest)
            -> vol::ListVolumesResponse;
        remove_volume = vol::volume_service_client::VolumeServiceClient.remove_volume(vol::RemoveVolumeRequest)
            -> vol::RemoveVolumeResponse;
        acquire = vol::volume_service_client::VolumeServiceClient.acquire_volume(vol::AcquireVolumeRequest)
            -> vol::AcquireVolumeResponse;
        create_volume = vol::volume_service_client::VolumeServiceClient.create_volume(vol::CreateVolumeRequest)
            -> vol::CreateVolumeResponse;
        wait = sup::supervisor_service_client::SupervisorServiceClient.wait_container(sup::WaitContainerRequest)
            -> sup::WaitContainerResponse;
        get = sup::supervisor_service_client::SupervisorServiceClient.get_container(sup::GetContainerRequest)
            -> sup::GetContainerResponse;
    }

    fn create(&self, config: ContainerConfig) -> Result<String> {
        let mut client = EngineServiceClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let request = CreateContainerRequest { config: Some(config) };
            let mut stream = client.create_container(request).await.map_err(rpc::Failure::from)?.into_inner();
            while let Some(message) = stream.message().await.map_err(rpc::Failure::from)? {
                if let Some(create_container_response::Payload::Result(result)) = message.payload {
                    return Ok(result.id);
                }
            }
            bail!("the stream ended without a result")
        })
    }

    fn logs(&self, id: &str) -> Result<String> {
        let mut client = sup::supervisor_service_client::SupervisorServiceClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let request = sup::StreamLogsRequest { id: id.into(), ..Default::default() };
            let mut stream = client.stream_logs(request).await.map_err(rpc::Failure::from)?.into_inner();
            let mut text = Vec::new();
            while let Some(message) = stream.message().await.map_err(rpc::Failure::from)? {
                text.extend(message.entries.into_iter().flat_map(|e| e.data.to_vec()));
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
    }

    fn exec(&self, id: &str, args: &[&str]) -> Result<(String, i32)> {
        let mut client = sup::supervisor_service_client::SupervisorServiceClient::new(self.channel.clone());
        let args = args.iter().map(ToString::to_string).collect();
        let open = sup::ExecOpen { id: id.into(), args, ..Default::default() };
        let open = sup::ExecRequest { payload: Some(sup::exec_request::Payload::Open(open)) };
        self.runtime.block_on(async {
            let mut stream = client.exec(tokio_stream::once(open)).await.map_err(rpc::Failure::from)?.into_inner();
            let (mut text, mut code) = (Vec::new(), -1);
            while let Some(message) = stream.message().await.map_err(rpc::Failure::from)? {
                match message.payload {
                    Some(sup::exec_response::Payload::Output(chunk)) => text.extend(chunk.data.to_vec()),
                    Some(sup::exec_response::Payload::Exit(exit)) => code = exit.exit_code,
                    _ => {}
                }
            }
            Ok((String::from_utf8_lossy(&text).into_owned(), code))
        })
    }

    /// Fails unless no tool holds anything for a container.
    fn holds_nothing(&self) -> Result {
        let snapshots = self.snapshots(Default::default())?.snapshots;
        ensure!(snapshots.is_empty(), "snapshots: {snapshots:?}");
        let endpoints = self.endpoints(Default::default())?.endpoints;
        ensure!(endpoints.is_empty(), "endpoints: {endpoints:?}");
        let volumes = self.volumes(Default::default())?.volumes;
        ensure!(volumes.is_empty(), "volumes: {volumes:?}");
        Ok(())
    }

    fn remove_all(&self, id: &str) -> Result {
        let removed = self.remove(RemoveContainerRequest { id: id.into(), force: true, volumes: true })?;
        ensure!(removed.warnings.is_empty(), "{:?}", removed.warnings);
        Ok(())
    }
}

/// The busybox image as `bb`, with a volume in it.
fn image(bed: &Bed) -> Result {
    let tar = bed.fixture().busybox_tar()?;
    let import =
        format!("pier-distribution import --change 'CMD [\"sh\"]' --change 'VOLUME /var/www' {} bb", tar.display());
    bed.sh(&import)?.ok().map(drop)
}

fn config(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: "bb".into(),
        cmd: ["sh", "-c", script].map(String::from).to_vec(),
        network: Some(NetworkConfig { mode: "none".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn connected(name: &str, script: &str) -> ContainerConfig {
    let ports = vec![net::PortMapping { host_port: 8080, container_port: 80, ..Default::default() }];
    let data = VolumeMount {
        kind: MountKind::Volume.into(),
        source: "data".into(),
        target: "/etc".into(),
        ..Default::default()
    };
    ContainerConfig {
        network: Some(NetworkConfig { mode: "blue".into(), ports, ..Default::default() }),
        mounts: vec![data],
        ..config(name, script)
    }
}

fn by_id(id: &str) -> StartContainerRequest {
    StartContainerRequest { id: id.into(), ..Default::default() }
}

fn network(client: &Client, name: &str) -> Result {
    client.create_network(net::CreateNetworkRequest { name: name.into(), ..Default::default() }).map(drop)
}

fn drop_network(client: &Client, name: &str) -> Result {
    client.remove_network(net::RemoveNetworkRequest { name: name.into(), ..Default::default() }).map(drop)
}

fn pid_of(bed: &Bed, tool: &str) -> Result<u32> {
    let run = bed.run().display().to_string();
    // The bracket keeps the pattern from matching the shell that holds it.
    let found = bed.sh(&format!("pgrep -f '[p]ier-{tool}.*{run}.*serve' | head -1"))?;
    found.out().parse().with_context(|| format!("{tool} does not run"))
}

#[test]
fn serves_at_once_and_passes_every_service() -> Result {
    isolated!(|bed| {
        let begun = Instant::now();
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "serving after {:?}", begun.elapsed());
        for service in ["", "pier.engine.v1.EngineService", "pier.network.v1.NetworkService"] {
            ensure!(client.runtime.block_on(rpc::health(client.channel.clone(), service))?, "{service:?}");
        }
        network(&client, "seen")?;
        // On the tool's own socket it is the same.
        let own = rpc::socket_path(&bed.run(), "network");
        let own = client.runtime.block_on(rpc::connect(&own, Duration::from_secs(1)))?;
        let own = Client { channel: own, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? };
        drop_network(&own, "seen")
    })
}

#[test]
fn composes_a_container_and_takes_it_apart() -> Result {
    isolated!(|bed| {
        image(bed)?;
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        network(&client, "blue")?;
        let script = "echo started; echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp";
        let id = client.create(connected("web", script))?;
        ensure!(oci::name::is_id(&id), "{id}");
        let taken = client.create(config("web", "true")).err().context("the name is taken")?;
        ensure!(taken.downcast_ref::<rpc::Failure>().is_some_and(|f| f.reason == "NAME_IN_USE"), "{taken:#}");
        client.start(by_id("web"))?;
        client.start(by_id(&id[..12]))?;
        eventually(Duration::from_secs(5), || {
            bed.sh("curl -s -m 1 http://127.0.0.1:8080/index.html")?.ok()?.has("hello")
        })?;
        eventually(Duration::from_secs(5), || {
            let logs = client.logs("web")?;
            ensure!(logs == "started\n", "{logs:?}");
            Ok(())
        })?;
        // The image's /etc was copied into the volume; hosts and resolv.conf are this container's.
        let (passwd, _) = client.exec("web", &["cat", "/etc/passwd"])?;
        ensure!(passwd.contains("root:"), "{passwd}");
        let (hosts, code) = client.exec("web", &["cat", "/etc/hosts"])?;
        ensure!(hosts.contains(&id[..12]) && code == 0, "{hosts} {code}");
        let view = client
            .inspect(InspectContainerRequest { id: "web".into(), with_size: true })?
            .container
            .unwrap_or_default();
        ensure!(view.endpoints.len() == 1 && view.config.is_some() && view.image_id.starts_with("sha256:"), "{view:?}");
        let listed = client.list(ListContainersRequest::default())?;
        ensure!(listed.containers.len() == 1 && listed.warnings.is_empty(), "{listed:?}");

        let refused = client.remove(RemoveContainerRequest { id: "web".into(), ..Default::default() });
        ensure!(refused.is_err(), "removed while running");
        client.stop(StopContainerRequest { id: "web".into(), timeout_seconds: Some(1), ..Default::default() })?;
        ensure!(client.endpoints(Default::default())?.endpoints.is_empty(), "the network was not given back");
        client.start(by_id("web"))?;
        client.remove_all("web")?;
        client.remove_volume(vol::RemoveVolumeRequest { name: "data".into(), force: false })?;
        client.holds_nothing()?;
        drop_network(&client, "blue")
    })
}

#[test]
fn bad_options_are_refused_before_anything_is_made() -> Result {
    isolated!(|bed| {
        image(bed)?;
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        let bad = |change: fn(&mut ContainerConfig), reason: &str| -> Result {
            let mut wrong = config("x", "true");
            change(&mut wrong);
            let error = client.create(wrong).err().context(reason.to_string())?;
            let failure = error.downcast_ref::<rpc::Failure>().context("no failure")?;
            ensure!(failure.reason == reason, "{reason}: {failure:?}");
            Ok(())
        };
        bad(|c| c.name = "a b".into(), "OPTION_INVALID")?;
        bad(|c| (c.image, c.pull) = ("nowhere".into(), "never".into()), "IMAGE_NOT_FOUND")?;
        bad(|c| c.network = Some(NetworkConfig { mode: "nope".into(), ..Default::default() }), "NETWORK_NOT_FOUND")?;
        bad(|c| c.sysctls = [("vm.swappiness".to_string(), "1".to_string())].into(), "OPTION_INVALID")?;
        bad(|c| c.ulimits = vec!["files=1".into()], "OPTION_INVALID")?;
        bad(|c| c.devices = vec!["/dev/nothing".into()], "HOST_PATH_NOT_FOUND")?;
        bad(|c| c.pid_mode = "container:nobody".into(), "CONTAINER_NOT_FOUND")?;
        bad(
            |c| {
                c.mounts = vec![VolumeMount {
                    kind: MountKind::Bind.into(),
                    source: "/no/such".into(),
                    target: "/x".into(),
                    ..Default::default()
                }]
            },
            "HOST_PATH_NOT_FOUND",
        )?;
        client.holds_nothing()
    })
}

#[test]
fn a_failed_step_leaves_nothing_and_is_named() -> Result {
    isolated!(|bed| {
        image(bed)?;
        let tools = TOOLS.map(|tool| FaultyTool::serve(bed, tool));
        let tools = tools.into_iter().collect::<Result<Vec<_>>>()?;
        let faulty = |name: &str| tools.iter().find(|t| t.name() == name).context("tool");
        bed.serve_with("engine", &["--no-spawn"])?;
        let client = Client::of(bed)?;
        network(&client, "blue")?;
        let steps = [
            ("network", "GetNetwork", "resolve network"),
            ("distribution", "GetImage", "resolve image"),
            ("distribution", "PrepareSnapshot", "prepare snapshot"),
            ("volume", "CreateVolume", "acquire volumes"),
            ("volume", "AcquireVolume", "acquire volumes"),
            ("supervisor", "CreateContainer", "record container"),
        ];
        for moment in [Moment::Before, Moment::After] {
            for (tool, method, step) in steps {
                faulty(tool)?.fail(method, moment);
                let error = client.create(connected("web", "sleep 100")).err().context(step)?;
                faulty(tool)?.heal();
                let text = format!("{error:#}");
                ensure!(text.contains(&format!("create container web: step \"{step}\"")), "{step} {moment:?}: {text}");
                let failure = error.downcast_ref::<rpc::Failure>().context("no failure")?;
                ensure!(failure.reason == "INJECTED", "{failure:?}");
                client.holds_nothing().with_context(|| format!("{step} {moment:?}"))?;
                ensure!(client.get(sup::GetContainerRequest { id: "web".into() }).is_err(), "{step}: recorded");
            }
        }
        let steps = [
            ("network", "CreateNamespace", "make network namespace"),
            ("network", "Attach", "attach to network"),
            ("supervisor", "StartContainer", "start process"),
        ];
        let id = client.create(connected("web", "sleep 100"))?;
        for (tool, method, step) in steps {
            faulty(tool)?.fail(method, Moment::Before);
            let error = client.start(by_id(&id)).err().context(step)?;
            faulty(tool)?.heal();
            ensure!(format!("{error:#}").contains(&format!("start container web: step \"{step}\"")), "{error:#}");
            ensure!(client.endpoints(Default::default())?.endpoints.is_empty(), "{step}: an endpoint is left");
            let namespaces = std::fs::read_dir(bed.run().join("network/ns")).map_or(0, Iterator::count);
            ensure!(namespaces == 0, "{step}: a namespace is left");
        }
        client.start(by_id(&id))?;
        client.remove_all(&id)?;
        client.remove_volume(vol::RemoveVolumeRequest { name: "data".into(), force: false })?;
        client.holds_nothing()?;
        drop_network(&client, "blue")
    })
}

#[test]
fn a_failing_runtime_leaves_nothing() -> Result {
    isolated!(|bed| {
        image(bed)?;
        for verb in ["create", "start"] {
            let real = bed.program("pier-runtime");
            let script = format!(
                "#!/bin/sh\nfor a; do [ \"$a\" = {verb} ] && {{ echo 'injected: no {verb}' >&2; exit 1; }}; done\nexec {} \"$@\"\n",
                real.display()
            );
            std::fs::write(bed.dir().join(format!("no-{verb}")), script)?;
        }
        bed.sh("chmod +x no-create no-start")?.ok()?;
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        network(&client, "blue")?;
        for verb in ["create", "start"] {
            let runtime = bed.dir().join(format!("no-{verb}")).display().to_string();
            let id = client.create(ContainerConfig { runtime, auto_remove: true, ..connected("web", "sleep 100") })?;
            let error = client.start(by_id(&id)).err().context("started")?;
            ensure!(format!("{error:#}").contains("step \"start process\""), "{error:#}");
            ensure!(client.get(sup::GetContainerRequest { id }).is_err(), "auto-remove left it");
            client.remove_volume(vol::RemoveVolumeRequest { name: "data".into(), force: false })?;
            client.holds_nothing().context(verb)?;
        }
        drop_network(&client, "blue")
    })
}

/// A container that is made while a sweep looks around is not what a crash left.
#[test]
fn a_sweep_leaves_alone_what_is_made_meanwhile() -> Result {
    isolated!(|bed| {
        image(bed)?;
        let engine = bed.serve("engine")?;
        bed.sh("pier volume ls")?.ok()?;
        engine.kill()?;
        // The first sweep of the next engine waits for the volumes, between containers and endpoints.
        bed.sh("pkill -STOP -x pier-volume")?.ok()?;
        bed.serve("engine")?;
        std::thread::sleep(Duration::from_millis(500));
        bed.fixture().bundle(&bed.dir().join("bundle"), &["true"])?;
        let made = bed
            .sh("pier-network create n && ip netns add a && id=$(pier-supervisor create --bundle bundle) && \
             pier-network attach n /run/netns/a --owner $id >/dev/null && echo $id")?;
        bed.sh("pkill -CONT -x pier-volume")?.ok()?;
        let id = made.ok()?.out().to_owned();
        let id = id.lines().last().unwrap_or_default();
        std::thread::sleep(Duration::from_secs(2));
        bed.sh("pier-network endpoints --format json")?.ok()?.has(id)?;
        bed.sh(&format!(
            "pier-network detach --owner {id} && pier-network rm n && pier-supervisor rm {id} && ip netns del a"
        ))?
        .ok()
        .map(drop)
    })
}

#[test]
fn what_a_crash_left_is_swept() -> Result {
    isolated!(|bed| {
        image(bed)?;
        let engine = bed.serve("engine")?;
        let client = Client::of(bed)?;
        let ends = client.create(ContainerConfig { auto_remove: true, ..config("ends", "sleep 1") })?;
        client.start(by_id(&ends))?;
        engine.kill()?;
        // As an engine that was killed between two steps of a create would leave it.
        bed.sh("pier-distribution ls >/dev/null")?;
        let own = rpc::socket_path(&bed.run(), "distribution");
        let store =
            Client { channel: client.runtime.block_on(rpc::connect(&own, Duration::from_secs(1)))?, ..Client::lone()? };
        let own = rpc::socket_path(&bed.run(), "volume");
        let volumes =
            Client { channel: client.runtime.block_on(rpc::connect(&own, Duration::from_secs(1)))?, ..Client::lone()? };
        let key = "ab".repeat(32);
        let labels = [("pier.engine.container".to_string(), "gone".to_string())].into();
        store.prepare(dist::PrepareSnapshotRequest {
            key: key.clone(),
            image: "bb".into(),
            labels,
            ..Default::default()
        })?;
        let name = volumes.create_volume(Default::default())?.volume.unwrap_or_default().name;
        volumes.acquire(vol::AcquireVolumeRequest {
            name,
            consumer: key,
            target: "/x".into(),
            ..Default::default()
        })?;
        std::thread::sleep(Duration::from_millis(1200));
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        eventually(Duration::from_secs(10), || {
            ensure!(client.get(sup::GetContainerRequest { id: ends.clone() }).is_err(), "its end was missed");
            client.holds_nothing()
        })
    })
}

#[test]
fn every_daemon_may_die() -> Result {
    isolated!(|bed| {
        image(bed)?;
        let mut engine = bed.serve("engine")?;
        let mut client = Client::of(bed)?;
        network(&client, "blue")?;
        let id = client.create(connected("web", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"))?;
        client.start(by_id(&id))?;
        let pid =
            client.get(sup::GetContainerRequest { id: id.clone() })?.container.and_then(|c| c.state).map(|s| s.pid);
        for tool in TOOLS {
            let old = pid_of(bed, tool)?;
            bed.sh(&format!("kill -KILL {old}"))?.ok()?;
            eventually(Duration::from_secs(10), || {
                let new = pid_of(bed, tool)?;
                ensure!(new != old, "{tool} is not back");
                let (text, code) = client.exec(&id, &["echo", "alive"])?;
                ensure!(text == "alive\n" && code == 0, "{text} {code}");
                Ok(())
            })
            .context(tool)?;
        }
        engine.kill()?;
        let _ = std::fs::remove_dir_all(bed.root().join("engine"));
        engine = bed.serve("engine")?;
        client = Client::of(bed)?;
        let listed = client.list(ListContainersRequest::default())?.containers;
        let state = listed.first().and_then(|v| v.container.as_ref()?.state.clone()).context("not listed")?;
        ensure!(Some(state.pid) == pid, "it is another process");
        let lines: Vec<u32> = client.logs(&id)?.lines().filter_map(|l| l.parse().ok()).collect();
        ensure!(lines.iter().enumerate().all(|(i, n)| usize::try_from(*n).is_ok_and(|n| n == i)), "{lines:?}");
        client.remove_all(&id)?;
        client.remove_volume(vol::RemoveVolumeRequest { name: "data".into(), force: false })?;
        client.holds_nothing()?;
        drop_network(&client, "blue")?;
        engine.stop()
    })
}

#[test]
fn an_exit_gives_the_network_back_and_a_restart_keeps_it() -> Result {
    isolated!(|bed| {
        image(bed)?;
        bed.serve("engine")?;
        let client = Client::of(bed)?;
        network(&client, "blue")?;
        let on = |name: &str, script: &str| ContainerConfig {
            network: Some(NetworkConfig { mode: "blue".into(), ..Default::default() }),
            ..config(name, script)
        };
        let once = client.create(on("once", "exit 3"))?;
        client.start(by_id(&once))?;
        let ended = client.wait(sup::WaitContainerRequest { id: once.clone(), ..Default::default() })?;
        ensure!(ended.exit_code == 3, "{ended:?}");
        eventually(Duration::from_secs(5), || {
            ensure!(client.endpoints(Default::default())?.endpoints.is_empty(), "kept");
            Ok(())
        })?;
        client.remove_all(&once)?;

        let restart = sup::RestartPolicy { mode: sup::RestartMode::Always.into(), max_retries: 0 };
        let again = client.create(ContainerConfig { restart: Some(restart), ..on("again", "sleep 0.3") })?;
        client.start(by_id(&again))?;
        let before = client.endpoints(Default::default())?.endpoints;
        eventually(Duration::from_secs(10), || {
            let state = client.get(sup::GetContainerRequest { id: again.clone() })?.container.and_then(|c| c.state);
            ensure!(state.is_some_and(|s| s.restart_count >= 2), "not restarted yet");
            Ok(())
        })?;
        ensure!(client.endpoints(Default::default())?.endpoints == before, "the endpoint changed");
        client.remove_all(&again)?;
        client.holds_nothing()?;
        drop_network(&client, "blue")
    })
}

impl Client {
    fn lone() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let channel = {
            let _inside = runtime.enter();
            tonic::transport::Endpoint::from_static("http://nobody").connect_lazy()
        };
        Ok(Self { runtime, channel })
    }
}
