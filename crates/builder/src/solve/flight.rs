//! One run per key at a time in this process: who comes second waits, then finds the result in the cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

use super::Key;

type Gate = tokio::sync::Mutex<()>;

/// Keys that are being made now.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Key, Weak<Gate>>>);

impl Flights {
    /// Waits until nobody makes `key`, then holds it until the guard is dropped.
    pub async fn enter(&self, key: &Key) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|_, gate| gate.strong_count() > 0);
            let known = gates.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let gate = Arc::new(Gate::default());
                gates.insert(key.clone(), Arc::downgrade(&gate));
                gate
            })
        };
        gate.lock_owned().await
    }
}
