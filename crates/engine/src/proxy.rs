//! Passes every `/pier.<tool>.v<N>.*` call on to the tool's own socket, unchanged: frames both ways as they come,
//! metadata and trailers with them. Nothing is decoded, nothing is gathered.
//!
//! Each call has a connection to the tool to itself: HTTP/2 shares one window among the streams of a connection, so one client
//! that does not read would stop all others. None is kept: a kept one may belong to a tool that has just died.
use crate::clients::Clients;
use crate::error::Error;
use crate::tools::Tool;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rpc::{Code, Failure};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;

/// A tool that dies between connect and request is started again; the request was not sent, and goes to its successor.
const ATTEMPTS: usize = 3;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

type Sender = http2::SendRequest<Body>;

/// The fallback of the engine's routes: a tower service for whatever is not the engine's own.
#[derive(Clone)]
pub struct Proxy {
    clients: Clients,
}

impl Proxy {
    /// Passes calls on to the tools that `clients` knows.
    pub fn new(clients: Clients) -> Self {
        Self { clients }
    }

    /// The engine's own routes, and this for the rest.
    pub fn behind(self, own: tonic::service::Routes) -> tonic::service::Routes {
        own.into_axum_router().fallback_service(self).into()
    }

    async fn forward(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_string();
        let Some(tool) = Tool::of_path(&path) else {
            let failure = Failure::new(Code::Unimplemented, "UNKNOWN_METHOD", format!("no such method: {path}"));
            return tonic::Status::from(failure).into_http();
        };
        match self.pass(tool, request).await {
            Ok(response) => response,
            Err(error) => tonic::Status::from(error).into_http(),
        }
    }

    async fn pass(&self, tool: Tool, request: Request<Body>) -> Result<Response<Body>, Error> {
        let mut request = outgoing(request);
        for _ in 1..ATTEMPTS {
            let mut sender = self.connect(tool).await?;
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(response.map(|body| Body::new(Relay { body, tool, ended: false, _sender: sender })));
                }
                Err(mut refused) => match refused.take_message() {
                    Some(back) => request = back,
                    None => return Err(lost(tool, &refused.into_error())),
                },
            }
        }
        Err(lost(tool, &std::io::Error::other("no connection stayed open")))
    }

    async fn connect(&self, tool: Tool) -> Result<Sender, Error> {
        let stream = self.clients.stream(tool).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| lost(tool, &e))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn lost(tool: Tool, cause: &(dyn std::error::Error + 'static)) -> Error {
    let message = format!("the connection to {} was lost", tool.program());
    Error::Tool { tool, failure: Failure::new(Code::Unavailable, "TOOL_LOST", message).with_cause(cause) }
}

// HTTP/2 to HTTP/2: only the authority is ours to say.
fn outgoing(request: Request<Body>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(http::uri::Authority::from_static("pier.local"));
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    parts.headers.remove(http::header::HOST);
    parts.version = http::Version::HTTP_2;
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

impl<B> tower::Service<Request<B>> for Proxy
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let proxy = self.clone();
        Box::pin(async move { Ok(proxy.forward(request.map(Body::new)).await) })
    }
}

/// The tool's answer on its way to the caller. A connection that breaks becomes a proper gRPC status.
struct Relay {
    body: Incoming,
    tool: Tool,
    ended: bool,
    // The connection lives as long as the answer.
    _sender: Sender,
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Err(error))) => {
                self.ended = true;
                let status = tonic::Status::from(lost(self.tool, &error));
                let mut trailers = HeaderMap::new();
                if status.add_header(&mut trailers).is_err() {
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
