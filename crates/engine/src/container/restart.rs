//! Restart: stop and start in one, on the same network endpoints.
use super::{get, is_up, start, stop};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::id_of;

/// Stops the container if it runs, and starts it. Its addresses and ports stay its own meanwhile.
pub async fn restart(engine: &Engine, id: &str, signal: &str, timeout: Option<i32>) -> Result<(), Error> {
    let id = id_of(&get(engine, id).await?).to_string();
    let _hold = engine.hold(&id).await;
    let container = get(engine, &id).await?;
    if is_up(&container) {
        stop::ask(engine, &container, signal, timeout).await?;
    }
    start::held(engine, &id, (0, 0)).await.map(drop)
}
