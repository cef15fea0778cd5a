//! Pass-through in one process: a toy tool behind the engine's socket.
#![allow(clippy::unwrap_used, missing_docs)]
use api::network::v1 as net;
use api::supervisor::v1 as sup;
use engine::clients::{Clients, ToolConfig};
use engine::proxy::Proxy;
use futures::Stream;
use http::{Request, Response};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};

/// Answers as `pier.network.v1.NetworkService/GetNetwork` and nothing else.
#[derive(Clone, Default)]
struct ToyNetwork {
    calls: Arc<AtomicU32>,
}

impl NamedService for ToyNetwork {
    const NAME: &'static str = "pier.network.v1.NetworkService";
}

struct GetNetwork(Arc<AtomicU32>);

impl UnaryService<net::GetNetworkRequest> for GetNetwork {
    type Response = net::GetNetworkResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<net::GetNetworkResponse>, Status>> + Send>>;
    fn call(&mut self, request: tonic::Request<net::GetNetworkRequest>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let said = request.metadata().get("x-said").cloned();
            let name = request.into_inner().name;
            if name == "missing" {
                let failure = rpc::Failure::new(rpc::Code::NotFound, "NETWORK_NOT_FOUND", "no such network");
                return Err(failure.into());
            }
            if name == "slow" {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let network = net::Network { name, ..Default::default() };
            let mut answer =
                tonic::Response::new(net::GetNetworkResponse { network: Some(network), ..Default::default() });
            if let Some(said) = said {
                answer.metadata_mut().insert("x-echo", said);
            }
            Ok(answer)
        })
    }
}

impl tower::Service<Request<Body>> for ToyNetwork {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.calls.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(GetNetwork(calls), request).await)
        })
    }
}

/// Echoes what it reads on `pier.supervisor.v1.SupervisorService/Attach`.
#[derive(Clone)]
struct ToySupervisor;

impl NamedService for ToySupervisor {
    const NAME: &'static str = "pier.supervisor.v1.SupervisorService";
}

struct Attach;
type Answers = Pin<Box<dyn Stream<Item = Result<sup::AttachResponse, Status>> + Send>>;

impl tonic::server::StreamingService<sup::AttachRequest> for Attach {
    type Response = sup::AttachResponse;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;
    fn call(&mut self, request: tonic::Request<tonic::Streaming<sup::AttachRequest>>) -> Self::Future {
        Box::pin(async move {
            let echo = request.into_inner().map(|message| {
                let data = match message?.payload {
                    Some(sup::attach_request::Payload::Stdin(data)) => data,
                    _ => Default::default(),
                };
                let chunk = sup::StdioChunk { stream: 1, data };
                Ok(sup::AttachResponse { payload: Some(sup::attach_response::Payload::Output(chunk)) })
            });
            Ok(tonic::Response::new(Box::pin(echo) as Answers))
        })
    }
}

impl tower::Service<Request<Body>> for ToySupervisor {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(tonic_prost::ProstCodec::default()).streaming(Attach, request).await) })
    }
}

struct Toy {
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Toy {
    fn serve(path: PathBuf, routes: tonic::service::Routes) -> Self {
        let listener = rpc::bind(&rpc::Listen::Unix(path), None).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = rpc::Server::new(routes).quiet();
        let task = tokio::spawn(async move {
            let _ = server
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self { stop: Some(stop), task }
    }

    /// As SIGKILL would: no drain.
    fn kill(mut self) {
        self.stop.take();
        self.task.abort();
    }
}

struct Bed {
    dir: PathBuf,
    engine: tonic::transport::Channel,
    _front: Toy,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn tool(dir: &Path, name: &str) -> PathBuf {
    rpc::socket_path(dir, name)
}

async fn bed(name: &str) -> Bed {
    let dir = std::env::temp_dir().join(format!("pier-proxy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = ToolConfig { root: dir.clone(), run: dir.clone(), no_spawn: true, ..Default::default() };
    let routes = Proxy::new(Clients::new(config)).behind(tonic::service::Routes::default());
    let front = Toy::serve(tool(&dir, "pier"), routes);
    let engine = rpc::wait_serving(&tool(&dir, "pier"), Duration::from_secs(5)).await.unwrap();
    Bed { dir, engine, _front: front }
}

fn networks(bed: &Bed) -> net::network_service_client::NetworkServiceClient<tonic::transport::Channel> {
    net::network_service_client::NetworkServiceClient::new(bed.engine.clone())
}

fn named(name: &str) -> net::GetNetworkRequest {
    net::GetNetworkRequest { name: name.into() }
}

#[tokio::test]
async fn unary_calls_pass_with_metadata_and_errors() {
    let bed = bed("unary").await;
    let toy = ToyNetwork::default();
    let _tool = Toy::serve(tool(&bed.dir, "network"), tonic::service::Routes::new(toy.clone()));
    let mut request = tonic::Request::new(named("blue"));
    request.metadata_mut().insert("x-said", "hello".parse().unwrap());
    let answer = networks(&bed).get_network(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-echo").unwrap(), "hello");
    assert_eq!(answer.into_inner().network.unwrap().name, "blue");
    let failure = rpc::Failure::from(networks(&bed).get_network(named("missing")).await.unwrap_err());
    assert_eq!((failure.code, failure.reason.as_str()), (rpc::Code::NotFound, "NETWORK_NOT_FOUND"));
    assert_eq!(toy.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_tool_that_is_down_is_named_and_comes_back() {
    let bed = bed("down").await;
    let failure = rpc::Failure::from(networks(&bed).get_network(named("x")).await.unwrap_err());
    assert_eq!((failure.code, failure.reason.as_str()), (rpc::Code::Unavailable, "TOOL_DOWN"));
    assert!(failure.message.contains("pier-network"), "{failure}");
    for _ in 0..2 {
        let toy = Toy::serve(tool(&bed.dir, "network"), tonic::service::Routes::new(ToyNetwork::default()));
        rpc::wait_serving(&tool(&bed.dir, "network"), Duration::from_secs(5)).await.unwrap();
        assert!(networks(&bed).get_network(named("x")).await.is_ok());
        toy.kill();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_unknown_service_is_unimplemented() {
    let bed = bed("unknown").await;
    let status = api::engine::v1::engine_service_client::EngineServiceClient::new(bed.engine.clone())
        .version(api::engine::v1::VersionRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn streams_flow_both_ways_at_once() {
    let bed = bed("stream").await;
    let _tool = Toy::serve(tool(&bed.dir, "supervisor"), tonic::service::Routes::new(ToySupervisor));
    rpc::wait_serving(&tool(&bed.dir, "supervisor"), Duration::from_secs(5)).await.unwrap();
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut client = sup::supervisor_service_client::SupervisorServiceClient::new(bed.engine.clone());
    let mut answers = client.attach(ReceiverStream::new(receive)).await.unwrap().into_inner();
    // Each word comes back before the next is sent: nothing is gathered on the way.
    for word in ["one", "two", "three"] {
        let payload = sup::attach_request::Payload::Stdin(word.as_bytes().to_vec().into());
        send.send(sup::AttachRequest { payload: Some(payload) }).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), answers.message()).await.unwrap().unwrap().unwrap();
        let Some(sup::attach_response::Payload::Output(chunk)) = answer.payload else { panic!("no output") };
        assert_eq!(&chunk.data[..], word.as_bytes());
    }
    drop(send);
    assert!(answers.message().await.unwrap().is_none(), "the half-close came through");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_nobody_else() {
    let bed = bed("stalled").await;
    let _tool = Toy::serve(tool(&bed.dir, "supervisor"), tonic::service::Routes::new(ToySupervisor));
    rpc::wait_serving(&tool(&bed.dir, "supervisor"), Duration::from_secs(5)).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let own = rpc::connect(&tool(&bed.dir, "pier"), Duration::from_secs(5)).await.unwrap();
        let mut client = sup::supervisor_service_client::SupervisorServiceClient::new(own);
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let answers = client.attach(ReceiverStream::new(receive)).await.unwrap().into_inner();
        let feeding = tokio::spawn(async move {
            let payload = sup::attach_request::Payload::Stdin(vec![0; 64 << 10].into());
            for _ in 0..200 {
                let wait = send.send(sup::AttachRequest { payload: Some(payload.clone()) });
                if tokio::time::timeout(Duration::from_millis(200), wait).await.is_err() {
                    return;
                }
            }
        });
        stalled.push((answers, feeding));
    }
    for (_, feeding) in &mut stalled {
        feeding.await.unwrap();
    }
    let mut client = sup::supervisor_service_client::SupervisorServiceClient::new(bed.engine.clone());
    let payload = sup::attach_request::Payload::Stdin(b"hi".to_vec().into());
    let one = tokio_stream::once(sup::AttachRequest { payload: Some(payload) });
    let call = async { client.attach(one).await.unwrap().into_inner().message().await.unwrap() };
    assert!(tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().is_some());
}

#[tokio::test]
async fn a_tool_that_dies_in_a_call_is_unavailable() {
    let bed = bed("dies").await;
    // A runtime of its own, so that all of the tool's tasks die with it.
    let path = tool(&bed.dir, "network");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let served = path.clone();
    runtime.spawn(async move {
        let toy = Toy::serve(served, tonic::service::Routes::new(ToyNetwork::default()));
        let _ = toy.task.await;
    });
    rpc::wait_serving(&path, Duration::from_secs(5)).await.unwrap();
    let mut client = networks(&bed);
    let call = tokio::spawn(async move { client.get_network(named("slow")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    runtime.shutdown_background();
    let status = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().unwrap().unwrap_err();
    let failure = rpc::Failure::from(status);
    assert_eq!((failure.code, failure.reason.as_str()), (rpc::Code::Unavailable, "TOOL_LOST"));
}
