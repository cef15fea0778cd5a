//! pierd, the engine: composes the tools into what people ask for, and passes their own services through untouched.
//!
//! It is not a mechanism: it makes no mount, link, process or file of a container. It asks the tools over gRPC, step by
//! step, and undoes the steps in reverse when one fails.
//!
//! ```text
//!   EngineService ── container/* (plans of steps) ──▶ clients ──▶ supervisor, distribution, network, volume, builder
//!   everything else ── proxy ─────────────────────────────────▶ the tool's own socket
//! ```
//!
//! On disk: nothing. A container's definition is the supervisor's record, with [`record::Record`] as its opaque
//! extension; whatever else there is to know is read from the tools. What a crash left half made is found by the
//! [`sweep`]: a snapshot labelled [`container::LABEL`] without a record is a container that never was or is no more.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let tools = engine::clients::ToolConfig { root: "/var/lib/pier".into(), run: "/run/pier".into(), ..Default::default() };
//! let engine = engine::Engine::new(tools, engine::Settings::default());
//! engine.keep_up();
//! let listener = rpc::bind(&rpc::Listen::Unix("/run/pier/pier.sock".into()), None)?;
//! rpc::Server::new(engine.routes()).health_of(engine::SERVICES).serve(listener, rpc::shutdown_signal()).await?;
//! # Ok(()) }
//! ```
pub mod clients;
pub mod config;
pub mod container;
mod engine;
pub mod error;
mod events;
pub mod files;
pub mod host;
mod locks;
pub mod plan;
pub mod ports;
pub mod proxy;
pub mod record;
mod service;
pub mod spec;
mod sweep;
mod system;
pub mod tools;

pub use config::Settings;
pub use engine::{Engine, SERVICES};
pub use error::Error;
