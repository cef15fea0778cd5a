//! `pier.supervisor.v1`: converts, calls the library, maps the error. Nothing else.

use std::pin::Pin;

use api::supervisor::v1 as pb;
use api::supervisor::v1::supervisor_service_server::SupervisorService;
use oci::shim::Exit;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::attach::{AttachOptions, Attached, Input, InputSender, Output, Streams};
use crate::convert::{self, size_from};
use crate::copy::CopyToOptions;
use crate::exec::ExecOptions;
use crate::kill::StopOptions;
use crate::logs::LogOptions;
use crate::remove::UpdateOptions;
use crate::start::StartOptions;
use crate::{Error, Supervisor, blocking, filter};

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The gRPC face of a supervisor.
pub struct Service {
    supervisor: Supervisor,
}

impl Service {
    /// Of this supervisor.
    pub fn new(supervisor: Supervisor) -> Self {
        Self { supervisor }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Supervisor) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let supervisor = self.supervisor.clone();
        blocking(move || work(&supervisor)).await.map_err(status)
    }
}

fn status(error: Error) -> Status {
    rpc::status(&error)
}

fn missing(what: &str) -> Status {
    status(Error::invalid(what, "it is required"))
}

#[tonic::async_trait]
impl SupervisorService for Service {
    async fn create_container(
        &self,
        request: Request<pb::CreateContainerRequest>,
    ) -> Result<Response<pb::CreateContainerResponse>, Status> {
        let spec = request.into_inner().spec.ok_or_else(|| missing("spec"))?;
        let (definition, oci, files) = convert::definition_from(spec).map_err(status)?;
        let container = self.call(move |s| s.create(definition, &oci, &files)).await?;
        Ok(Response::new(pb::CreateContainerResponse { container: Some(convert::to_container(container)) }))
    }

    async fn start_container(
        &self,
        request: Request<pb::StartContainerRequest>,
    ) -> Result<Response<pb::StartContainerResponse>, Status> {
        let request = request.into_inner();
        let size = pb::TerminalSize { width: request.terminal_width, height: request.terminal_height };
        let options = StartOptions { files: convert::files_from(request.files), size: size_from(Some(size)) };
        let pid = self.call(move |s| s.start(&request.id, &options)).await?;
        Ok(Response::new(pb::StartContainerResponse { pid }))
    }

    async fn stop_container(
        &self,
        request: Request<pb::StopContainerRequest>,
    ) -> Result<Response<pb::StopContainerResponse>, Status> {
        let request = request.into_inner();
        let options = StopOptions { signal: request.signal, timeout_seconds: request.timeout_seconds };
        let seen = self.call(move |s| s.stop(&request.id, &options)).await?;
        Ok(Response::new(pb::StopContainerResponse { state: Some(convert::to_state(seen)) }))
    }

    async fn kill_container(
        &self,
        request: Request<pb::KillContainerRequest>,
    ) -> Result<Response<pb::KillContainerResponse>, Status> {
        let request = request.into_inner();
        self.call(move |s| s.kill(&request.id, &request.signal)).await?;
        Ok(Response::new(pb::KillContainerResponse {}))
    }

    async fn pause_container(
        &self,
        request: Request<pb::PauseContainerRequest>,
    ) -> Result<Response<pb::PauseContainerResponse>, Status> {
        let id = request.into_inner().id;
        self.call(move |s| s.pause(&id)).await?;
        Ok(Response::new(pb::PauseContainerResponse {}))
    }

    async fn unpause_container(
        &self,
        request: Request<pb::UnpauseContainerRequest>,
    ) -> Result<Response<pb::UnpauseContainerResponse>, Status> {
        let id = request.into_inner().id;
        self.call(move |s| s.unpause(&id)).await?;
        Ok(Response::new(pb::UnpauseContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<pb::RemoveContainerRequest>,
    ) -> Result<Response<pb::RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        let container = self.call(move |s| s.remove(&request.id, request.force)).await?;
        Ok(Response::new(pb::RemoveContainerResponse { container: Some(convert::to_container(container)) }))
    }

    async fn update_container(
        &self,
        request: Request<pb::UpdateContainerRequest>,
    ) -> Result<Response<pb::UpdateContainerResponse>, Status> {
        let request = request.into_inner();
        let options = UpdateOptions {
            name: request.name,
            restart: request.restart.map(convert::restart_from).transpose().map_err(status)?,
            extension: request.extension.map(convert::extension_from),
            expected_extension: request.expected_extension_value.map(Into::into),
        };
        let container = self.call(move |s| s.update(&request.id, options)).await?;
        Ok(Response::new(pb::UpdateContainerResponse { container: Some(convert::to_container(container)) }))
    }

    async fn get_container(
        &self,
        request: Request<pb::GetContainerRequest>,
    ) -> Result<Response<pb::GetContainerResponse>, Status> {
        let id = request.into_inner().id;
        let container = self.call(move |s| s.get(&id)).await?;
        Ok(Response::new(pb::GetContainerResponse { container: Some(convert::to_container(container)) }))
    }

    async fn list_containers(
        &self,
        request: Request<pb::ListContainersRequest>,
    ) -> Result<Response<pb::ListContainersResponse>, Status> {
        let request = request.into_inner();
        let filters = convert::filters_from(request.filters);
        filter::check_container_keys(&filters).map_err(status)?;
        let all = self.call(Supervisor::list).await?;
        let dead = all.iter().filter(|c| c.observed.status == crate::Status::Dead);
        let warnings = dead.map(|c| format!("container {}: {}", c.id, c.observed.error)).collect();
        let explicit = filters.contains_key("status") || filters.contains_key("exited");
        let wanted = all.into_iter().filter(|c| request.all || explicit || c.observed.status.is_live());
        let containers = wanted.filter(|c| filter::matches(&filters, c)).map(convert::to_container).collect();
        Ok(Response::new(pb::ListContainersResponse { containers, warnings }))
    }

    async fn wait_container(
        &self,
        request: Request<pb::WaitContainerRequest>,
    ) -> Result<Response<pb::WaitContainerResponse>, Status> {
        let request = request.into_inner();
        let condition = convert::condition_from(request.condition).map_err(status)?;
        let seen = self.supervisor.wait(&request.id, condition).await.map_err(status)?;
        Ok(Response::new(pb::WaitContainerResponse {
            exit_code: seen.exit_code,
            exit_signal: seen.exit_signal,
            oom_killed: seen.oom_killed,
            error: seen.error,
        }))
    }

    type AttachStream = Out<pb::AttachResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.payload);
        let Some(pb::attach_request::Payload::Open(open)) = first else { return Err(missing("open")) };
        let options = AttachOptions {
            stdin: open.stdin,
            stdout: open.stdout,
            stderr: open.stderr,
            logs: open.logs,
            size: size_from(open.terminal),
        };
        let attached = self.supervisor.attach(&open.id, options).await.map_err(status)?;
        let (sender, receiver) = mpsc::channel(16);
        let inputs = requests.filter_map(|request| attach_input(request.ok()?));
        tokio::spawn(async move {
            let hello = pb::attach_response::Payload::Attached(true);
            if sender.send(Ok(pb::AttachResponse { payload: Some(hello) })).await.is_err() {
                return;
            }
            let streams = match attached {
                Attached::Now(streams) => Ok(Some(streams)),
                Attached::Waiting(pending) => tokio::select! {
                    started = pending.started() => started,
                    () = sender.closed() => return,
                },
            };
            match streams {
                Ok(Some(streams)) => relay(streams, inputs, &sender, attach_output).await,
                Ok(None) => {}
                Err(error) => {
                    let _ = sender.send(Err(status(error))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ExecStream = Out<pb::ExecResponse>;

    async fn exec(&self, request: Request<Streaming<pb::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.payload);
        let Some(pb::exec_request::Payload::Open(open)) = first else { return Err(missing("open")) };
        let options = ExecOptions {
            args: open.args,
            env: open.env,
            cwd: open.cwd,
            user: open.user,
            terminal: open.terminal,
            stdin: open.stdin,
            detach: open.detach,
            privileged: open.privileged,
            size: size_from(open.size),
        };
        let executed = self.supervisor.exec(&open.id, options).await.map_err(status)?;
        let (sender, receiver) = mpsc::channel(16);
        let inputs = requests.filter_map(|request| exec_input(request.ok()?));
        tokio::spawn(async move {
            let started = pb::ExecStarted { exec_id: executed.id, pid: executed.pid };
            let hello = pb::exec_response::Payload::Started(started);
            if sender.send(Ok(pb::ExecResponse { payload: Some(hello) })).await.is_ok() && !open.detach {
                relay(executed.streams, inputs, &sender, exec_output).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resize_terminal(
        &self,
        request: Request<pb::ResizeTerminalRequest>,
    ) -> Result<Response<pb::ResizeTerminalResponse>, Status> {
        let request = request.into_inner();
        let size = size_from(request.size).ok_or_else(|| missing("size"))?;
        let exec = (!request.exec_id.is_empty()).then_some(request.exec_id);
        self.call(move |s| s.resize(&request.id, exec, size)).await?;
        Ok(Response::new(pb::ResizeTerminalResponse {}))
    }

    type StreamLogsStream = Out<pb::StreamLogsResponse>;

    async fn stream_logs(
        &self,
        request: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let options = LogOptions {
            follow: request.follow,
            tail: request.tail.and_then(|lines| u64::try_from(lines).ok()),
            since: request.since_unix_nano,
            until: request.until_unix_nano,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let mut entries = self.supervisor.logs(&request.id, options).map_err(status)?;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while entries.recv_many(&mut batch, 64).await > 0 {
                let mut ready = Vec::with_capacity(batch.len());
                let mut failed = None;
                for entry in batch.drain(..) {
                    match entry {
                        Ok(entry) => ready.push(convert::to_log_entry(entry)),
                        Err(error) => failed = Some(error),
                    }
                }
                let sent = sender.send(Ok(pb::StreamLogsResponse { entries: ready })).await;
                if let Some(error) = failed {
                    let _ = sender.send(Err(status(error))).await;
                    return;
                }
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_processes(
        &self,
        request: Request<pb::ListProcessesRequest>,
    ) -> Result<Response<pb::ListProcessesResponse>, Status> {
        let request = request.into_inner();
        let table = self.call(move |s| s.processes(&request.id, &request.ps_args)).await?;
        let processes = table.rows.into_iter().map(|values| pb::ProcessRow { values }).collect();
        Ok(Response::new(pb::ListProcessesResponse { titles: table.titles, processes }))
    }

    type StreamStatsStream = Out<pb::StreamStatsResponse>;

    async fn stream_stats(
        &self,
        request: Request<pb::StreamStatsRequest>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        let request = request.into_inner();
        let interval = std::time::Duration::from_millis(u64::from(request.interval_ms));
        let samples = self.supervisor.stats(request.ids, request.once, interval).await.map_err(status)?;
        let stats = ReceiverStream::new(samples).map(|samples| match samples {
            Ok(samples) => Ok(pb::StreamStatsResponse { stats: samples.into_iter().map(convert::to_stats).collect() }),
            Err(error) => Err(status(error)),
        });
        Ok(Response::new(Box::pin(stats)))
    }

    type CopyFromStream = Out<pb::CopyFromResponse>;

    async fn copy_from(&self, request: Request<pb::CopyFromRequest>) -> Result<Response<Self::CopyFromStream>, Status> {
        use pb::copy_from_response::Payload;
        let request = request.into_inner();
        let copied = self.supervisor.copy_from(&request.id, &request.path, request.follow_links).await;
        let (stat, pieces) = copied.map_err(status)?;
        let first = pb::CopyFromResponse { payload: Some(Payload::Stat(convert::to_path_stat(stat))) };
        let pieces = ReceiverStream::new(pieces).map(|piece| match piece {
            Ok(bytes) => Ok(pb::CopyFromResponse { payload: Some(Payload::Tar(bytes.into())) }),
            Err(error) => Err(status(error)),
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(pieces))))
    }

    async fn copy_to(
        &self,
        request: Request<Streaming<pb::CopyToRequest>>,
    ) -> Result<Response<pb::CopyToResponse>, Status> {
        use pb::copy_to_request::Payload;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.payload);
        let Some(Payload::Open(open)) = first else { return Err(missing("open")) };
        let options = CopyToOptions {
            path: open.path,
            no_overwrite_dir_non_dir: open.no_overwrite_dir_non_dir,
            keep_owner: open.keep_owner,
        };
        let (sender, pieces) = mpsc::channel(8);
        let feed = async {
            let sender = sender;
            while let Some(message) = requests.message().await? {
                if let Some(Payload::Tar(bytes)) = message.payload
                    && sender.send(bytes.into()).await.is_err()
                {
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        let (fed, copied) = tokio::join!(feed, self.supervisor.copy_to(&open.id, options, pieces));
        copied.map_err(status)?;
        fed?;
        Ok(Response::new(pb::CopyToResponse {}))
    }

    type StreamEventsStream = Out<pb::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<pb::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let wanted = request.into_inner().filter.unwrap_or_default();
        let filters = convert::filters_from(wanted.filters);
        filter::check_event_keys(&filters).map_err(status)?;
        let entries = self.supervisor.events(wanted.since_unix_nano, wanted.until_unix_nano).map_err(status)?;
        let events = ReceiverStream::new(entries)
            .filter(move |entry| filter::matches_event(&filters, entry))
            .map(|entry| Ok(pb::StreamEventsResponse { event: Some(convert::to_event(entry)) }));
        Ok(Response::new(Box::pin(events)))
    }

    async fn info(&self, _request: Request<pb::InfoRequest>) -> Result<Response<pb::InfoResponse>, Status> {
        let all = self.call(Supervisor::list).await?;
        let count = |wanted: &dyn Fn(crate::Status) -> bool| {
            u32::try_from(all.iter().filter(|c| wanted(c.observed.status)).count()).unwrap_or(u32::MAX)
        };
        let cgroup = match sys::cgroup::version() {
            Ok(sys::cgroup::Version::V1) => "v1",
            Ok(sys::cgroup::Version::V2) => "v2",
            Ok(sys::cgroup::Version::Hybrid) => "hybrid",
            Err(_) => "",
        };
        let config = self.supervisor.config();
        Ok(Response::new(pb::InfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            default_runtime: config.runtime.clone(),
            containers: count(&|_| true),
            running: count(&|status| status == crate::Status::Running),
            paused: count(&|status| status == crate::Status::Paused),
            stopped: count(&|status| !status.is_live()),
            cgroup_version: cgroup.into(),
            root: config.root.to_string_lossy().into_owned(),
        }))
    }
}

fn attach_input(request: pb::AttachRequest) -> Option<Input> {
    use pb::attach_request::Payload;
    match request.payload? {
        Payload::Open(_) => None,
        Payload::Stdin(bytes) => Some(Input::Stdin(bytes.into())),
        Payload::CloseStdin(_) => Some(Input::CloseStdin),
        Payload::Resize(size) => size_from(Some(size)).map(Input::Resize),
    }
}

fn exec_input(request: pb::ExecRequest) -> Option<Input> {
    use pb::exec_request::Payload;
    match request.payload? {
        Payload::Open(_) => None,
        Payload::Stdin(bytes) => Some(Input::Stdin(bytes.into())),
        Payload::CloseStdin(_) => Some(Input::CloseStdin),
        Payload::Resize(size) => size_from(Some(size)).map(Input::Resize),
    }
}

fn chunk(stream: pb::StdioStream, data: Vec<u8>) -> pb::StdioChunk {
    pb::StdioChunk { stream: stream.into(), data: data.into() }
}

fn exit_status(exit: &Exit) -> pb::ExitStatus {
    pb::ExitStatus { exit_code: exit.code, exit_signal: exit.signal }
}

fn attach_output(output: Output) -> pb::AttachResponse {
    use pb::attach_response::Payload;
    let payload = match output {
        Output::Stdout(data) => Payload::Output(chunk(pb::StdioStream::Stdout, data)),
        Output::Stderr(data) => Payload::Output(chunk(pb::StdioStream::Stderr, data)),
        Output::Exit(exit) => Payload::Exit(exit_status(&exit)),
    };
    pb::AttachResponse { payload: Some(payload) }
}

fn exec_output(output: Output) -> pb::ExecResponse {
    use pb::exec_response::Payload;
    let payload = match output {
        Output::Stdout(data) => Payload::Output(chunk(pb::StdioStream::Stdout, data)),
        Output::Stderr(data) => Payload::Output(chunk(pb::StdioStream::Stderr, data)),
        Output::Exit(exit) => Payload::Exit(exit_status(&exit)),
    };
    pb::ExecResponse { payload: Some(payload) }
}

/// Both directions until the process's end, or until the client has gone.
async fn relay<T: Send + 'static>(
    mut streams: Streams,
    inputs: impl Stream<Item = Input> + Send + 'static,
    sender: &mpsc::Sender<Result<T, Status>>,
    convert: impl Fn(Output) -> T,
) {
    let input = streams.input();
    let pump = tokio::spawn(send_inputs(input, Box::pin(inputs)));
    loop {
        let next = tokio::select! {
            next = streams.next() => next,
            () = sender.closed() => break,
        };
        let message = match next {
            Ok(Some(output)) => Ok(convert(output)),
            Ok(None) => break,
            Err(error) => Err(status(error)),
        };
        let last = message.is_err();
        if sender.send(message).await.is_err() || last {
            break;
        }
    }
    pump.abort();
}

/// Passes stdin on; the connection stays open for output when the client says no more.
async fn send_inputs(input: Option<InputSender>, mut inputs: Pin<Box<impl Stream<Item = Input> + Send>>) {
    let Some(mut input) = input else { return };
    while let Some(message) = inputs.next().await {
        if input.send(&message).await.is_err() {
            return;
        }
    }
    // Kept: dropping it would close the writing half, and the shim would take the client for gone.
    std::future::pending::<()>().await;
}
