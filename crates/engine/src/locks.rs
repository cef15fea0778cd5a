//! One operation at a time on one container; containers never wait for each other. Only in memory: between processes the
//! supervisor's record decides.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// A lock for each container that somebody is busy with.
#[derive(Default)]
pub struct Locks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits for the others that are busy with this container.
    pub async fn hold(&self, id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, lock| lock.strong_count() > 0);
            let found = all.get(id).and_then(Weak::upgrade);
            found.unwrap_or_else(|| {
                let lock = Arc::default();
                all.insert(id.to_string(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_container_one_at_a_time() {
        let locks = Locks::default();
        let first = locks.hold("a").await;
        let _other = locks.hold("b").await;
        let waits = tokio::time::timeout(Duration::from_millis(20), locks.hold("a")).await;
        assert!(waits.is_err());
        drop(first);
        let _second = locks.hold("a").await;
    }
}
