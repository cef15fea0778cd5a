//! `pier.runtime.v1`. A thin layer: each call that makes or changes a process runs the program itself as a child, since
//! nothing of the runtime may run in a process with threads.

mod child;
mod events;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use api::runtime::v1::runtime_service_server::RuntimeService;
use api::runtime::v1::{
    CheckpointRequest, CheckpointResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, EventsRequest,
    EventsResponse, ExecRequest, ExecResponse, FeaturesRequest, FeaturesResponse, KillRequest, KillResponse,
    ListRequest, ListResponse, PauseRequest, PauseResponse, PsRequest, PsResponse, RestoreRequest, RestoreResponse,
    ResumeRequest, ResumeResponse, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateRequest, UpdateResponse,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::state::{Container, Store};
use crate::{Error, convert, id};

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug)]
pub struct Service {
    program: PathBuf,
    store: Store,
}

impl Service {
    /// Serves the containers under `root` by running `program`.
    #[must_use]
    pub fn new(program: PathBuf, root: PathBuf) -> Self {
        Self { program, store: Store::new(root) }
    }

    /// Runs a verb that takes an id and nothing else.
    async fn change(&self, verb: &str, id: &str) -> Result<(), Status> {
        self.load(id)?;
        let mut command = self.command(verb);
        command.arg(id);
        self.run(command, id).await.map(|_| ())
    }

    fn load(&self, id: &str) -> Result<Container, Status> {
        self.store.load(id).map_err(failed)
    }
}

fn failed(error: Error) -> Status {
    rpc::status(&error)
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let r = request.into_inner();
        self.make_root(&r.id)?;
        let mut command = self.logged("create", &r.id);
        command.arg("--bundle").arg(&r.bundle);
        convert::option(&mut command, "--pid-file", &r.pid_file);
        convert::option(&mut command, "--console-socket", &r.console_socket);
        convert::switch(&mut command, "--no-pivot", r.no_pivot);
        convert::switch(&mut command, "--no-new-keyring", r.no_new_keyring);
        command.arg(&r.id);
        self.run_with_stdio(command, [&r.stdin, &r.stdout, &r.stderr], &r.id).await?;
        let pid = self.load(&r.id)?.record.init.map_or(0, |i| i.pid);
        Ok(Response::new(CreateResponse { pid }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answer<StartResponse> {
        let r = request.into_inner();
        self.change("start", &r.id).await?;
        Ok(Response::new(StartResponse {}))
    }

    async fn state(&self, request: Request<StateRequest>) -> Answer<StateResponse> {
        let container = self.load(&request.into_inner().id)?;
        Ok(Response::new(StateResponse { state: Some(convert::state(&container)) }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answer<KillResponse> {
        let r = request.into_inner();
        self.load(&r.id)?;
        let mut command = self.command("kill");
        convert::switch(&mut command, "--all", r.all);
        command.arg(&r.id).arg(if r.signal.is_empty() { "TERM" } else { &r.signal });
        self.run(command, &r.id).await?;
        Ok(Response::new(KillResponse {}))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let r = request.into_inner();
        id::check(&r.id).map_err(failed)?;
        let mut command = self.command("delete");
        convert::switch(&mut command, "--force", r.force);
        command.arg(&r.id);
        self.run(command, &r.id).await?;
        Ok(Response::new(DeleteResponse {}))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let r = request.into_inner();
        self.load(&r.id)?;
        let temporary = |e| failed(Error::step("cannot make a temporary file", e));
        let dir =
            self.store.root().join(format!(".exec-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond()));
        std::fs::create_dir_all(&dir).map_err(temporary)?;
        let _clean = RemoveDir(dir.clone());
        let (process, pid_file) = (dir.join("process.json"), dir.join("pid"));
        std::fs::write(&process, &r.process).map_err(temporary)?;
        let mut command = self.logged("exec", &r.id);
        command.arg("--detach").arg("--process").arg(&process).arg("--pid-file").arg(&pid_file);
        convert::option(&mut command, "--console-socket", &r.console_socket);
        command.arg(&r.id);
        self.run_with_stdio(command, [&r.stdin, &r.stdout, &r.stderr], &r.id).await?;
        let text = std::fs::read_to_string(&pid_file).map_err(temporary)?;
        if !r.pid_file.is_empty() {
            std::fs::write(&r.pid_file, &text)
                .map_err(|e| failed(Error::step(format!("cannot write {}", r.pid_file), e)))?;
        }
        Ok(Response::new(ExecResponse { pid: text.trim().parse().unwrap_or(0) }))
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Answer<CheckpointResponse> {
        let r = request.into_inner();
        self.load(&r.id)?;
        let mut command = self.command("checkpoint");
        command.arg("--image-path").arg(&r.image_path);
        convert::option(&mut command, "--work-path", &r.work_path);
        convert::option(&mut command, "--parent-path", &r.parent_path);
        convert::option(&mut command, "--page-server", &r.page_server);
        convert::switch(&mut command, "--leave-running", r.leave_running);
        convert::switch(&mut command, "--pre-dump", r.pre_dump);
        convert::switch(&mut command, "--tcp-skip-in-flight", r.tcp_skip_in_flight);
        convert::switch(&mut command, "--link-remap", r.link_remap);
        convert::policy(&mut command, &r.policy.unwrap_or_default());
        command.arg(&r.id);
        self.run(command, &r.id).await?;
        Ok(Response::new(CheckpointResponse {}))
    }

    async fn restore(&self, request: Request<RestoreRequest>) -> Answer<RestoreResponse> {
        let r = request.into_inner();
        self.make_root(&r.id)?;
        let mut command = self.logged("restore", &r.id);
        command.arg("--detach").arg("--bundle").arg(&r.bundle).arg("--image-path").arg(&r.image_path);
        convert::option(&mut command, "--work-path", &r.work_path);
        convert::option(&mut command, "--pid-file", &r.pid_file);
        convert::option(&mut command, "--console-socket", &r.console_socket);
        convert::option(&mut command, "--lsm-profile", &r.lsm_profile);
        convert::option(&mut command, "--lsm-mount-context", &r.lsm_mount_context);
        convert::policy(&mut command, &r.policy.unwrap_or_default());
        command.arg(&r.id);
        self.run_with_stdio(command, [&r.stdin, &r.stdout, &r.stderr], &r.id).await?;
        let pid = self.load(&r.id)?.record.init.map_or(0, |i| i.pid);
        Ok(Response::new(RestoreResponse { pid }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answer<PauseResponse> {
        self.change("pause", &request.into_inner().id).await?;
        Ok(Response::new(PauseResponse {}))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answer<ResumeResponse> {
        self.change("resume", &request.into_inner().id).await?;
        Ok(Response::new(ResumeResponse {}))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Answer<UpdateResponse> {
        let r = request.into_inner();
        self.load(&r.id)?;
        let mut command = self.command("update");
        convert::option(&mut command, "--l3-cache-schema", &r.l3_cache_schema);
        convert::option(&mut command, "--mem-bw-schema", &r.mem_bw_schema);
        command.args(["--resources", "-"]).arg(&r.id);
        let resources: &[u8] = if r.resources.is_empty() { b"{}" } else { &r.resources };
        let output = self.feed(command, resources, &r.id).await?;
        Ok(Response::new(UpdateResponse { warnings: convert::warnings(&String::from_utf8_lossy(&output.stderr)) }))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Answer<StatsResponse> {
        let event = crate::events::stats(&self.store, &request.into_inner().id).map_err(failed)?;
        Ok(Response::new(StatsResponse { stats: convert::data(&event) }))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<EventsResponse, Status>> + Send>>;

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let r = request.into_inner();
        self.load(&r.id)?.init().map_err(failed)?;
        let interval = Duration::from_millis(if r.interval_ms == 0 { 5000 } else { r.interval_ms.into() });
        Ok(Response::new(Box::pin(self.follow(r.id, interval)?)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        let (containers, _) = self.store.list().map_err(failed)?;
        Ok(Response::new(ListResponse { containers: containers.iter().map(convert::state).collect() }))
    }

    async fn ps(&self, request: Request<PsRequest>) -> Answer<PsResponse> {
        let pids = crate::ps::pids(&self.store, &request.into_inner().id).map_err(failed)?;
        Ok(Response::new(PsResponse { pids }))
    }

    async fn features(&self, _: Request<FeaturesRequest>) -> Answer<FeaturesResponse> {
        Ok(Response::new(FeaturesResponse { features: crate::features::document().to_string().into_bytes() }))
    }
}

struct RemoveDir(PathBuf);

impl Drop for RemoveDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
