//! A tool behind a gate that fails one method on demand: the real tool listens elsewhere, the gate on its socket.
use anyhow::Context;
use axum::extract::Request;
use integration::{Bed, Daemon, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// When the call fails: not sent on, or done by the tool and told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

type Fault = Arc<Mutex<Option<(String, Moment)>>>;

/// See the module.
pub struct FaultyTool {
    name: &'static str,
    fault: Fault,
    _runtime: tokio::runtime::Runtime,
    _real: Daemon,
}

impl FaultyTool {
    /// Starts `pier-<name>` and the gate before it.
    pub fn serve(bed: &Bed, name: &'static str) -> Result<Self> {
        std::fs::create_dir_all(bed.run())?;
        let socket = rpc::socket_path(&bed.run(), &format!("real-{name}"));
        let program = format!("pier-{name}");
        let address = format!("unix://{}", socket.display());
        let mut command = bed.command(bed.program(&program));
        let real = bed.spawn(&program, command.arg("--run").arg(bed.run()).args(["serve", "--listen", &address]))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let channel = runtime
            .block_on(rpc::wait_serving(&socket, Duration::from_secs(10)))
            .with_context(|| format!("{program}: {}", bed.log(&program)))?;
        let fault = Fault::default();
        let gate = fault.clone();
        let router = axum::Router::new().fallback(move |request: Request| {
            let (mut channel, gate) = (channel.clone(), gate.clone());
            async move {
                let armed = gate.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let hit = armed.filter(|(method, _)| request.uri().path().ends_with(&format!("/{method}")));
                if hit.as_ref().is_some_and(|(_, moment)| *moment == Moment::Before) {
                    return injected();
                }
                let answer = match channel.ready().await {
                    Ok(ready) => ready.call(request.map(Body::new)).await,
                    Err(error) => Err(error),
                };
                match (answer, hit) {
                    (Ok(answer), None) => answer,
                    (Ok(_), Some(_)) => injected(),
                    (Err(error), _) => tonic::Status::unavailable(error.to_string()).into_http(),
                }
            }
        });
        let listener = {
            let _inside = runtime.enter();
            rpc::bind(&rpc::Listen::Unix(rpc::socket_path(&bed.run(), name)), None)?
        };
        runtime.spawn(rpc::Server::new(router.into()).quiet().serve(listener, std::future::pending()));
        Ok(Self { name, fault, _runtime: runtime, _real: real })
    }

    /// "network".
    pub fn name(&self) -> &str {
        self.name
    }

    /// From now on, calls of this method fail.
    pub fn fail(&self, method: &str, moment: Moment) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((method.into(), moment));
    }

    /// All is well again.
    pub fn heal(&self) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn injected() -> axum::http::Response<Body> {
    let failure = rpc::Failure::new(rpc::Code::Internal, "INJECTED", "an injected failure");
    tonic::Status::from(failure).into_http()
}
