//! Turns at a book that many want to change: whoever of this process came too late once waits for
//! its turn, so that a crowd does not make each other's decisions stale.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use farebox_protocol::PayerId;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::store::StoreError;

#[derive(Default)]
pub(super) struct Turns(DashMap<PayerId, Weak<Mutex<()>>>);

/// The next one's turn begins when this is dropped.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

/// With more books than this waited for, those that nobody waits for any more are forgotten.
const TIDY_AT: usize = 64;

impl Turns {
    pub(super) async fn wait(&self, payer: &PayerId, until: Instant) -> Result<Turn, StoreError> {
        if self.0.len() > TIDY_AT {
            self.0.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = self.queue(payer);
        let guard = timeout_at(until, queue.lock_owned()).await;
        let guard = guard.map_err(|_| StoreError::new("the book keeps changing"))?;
        Ok(Turn { _guard: guard })
    }

    fn queue(&self, payer: &PayerId) -> Arc<Mutex<()>> {
        let mut slot = self.0.entry(*payer).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let queue = Arc::default();
            *slot = Arc::downgrade(&queue);
            queue
        })
    }
}
