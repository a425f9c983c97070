//! Settles whose outcome is unknown. A repeat of one is sent under the same operation id, so that it
//! is answered with what the first one came to: without it, a request that was charged would look
//! like one whose time was over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_protocol::PayerId;
use tokio::time::Instant;

use crate::machine::{Command, Then};

/// A little less than for how long the scripts keep answers.
const KEPT: Duration = Duration::from_secs(50);

#[derive(Default)]
pub(super) struct Unknown {
    /// By payer and command: operation ids, and since when.
    settles: Mutex<HashMap<(PayerId, String), (String, Instant)>>,
    /// Whether there are any, which is rare.
    any: AtomicBool,
}

impl Unknown {
    /// The operation id of an earlier attempt.
    pub(super) fn operation(&self, payer: &PayerId, command: &Command) -> Option<String> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let (operation, since) = self.settles().get(&name(payer, command)?)?.clone();
        (since.elapsed() < KEPT).then_some(operation)
    }

    pub(super) fn learn(
        &self,
        payer: &PayerId,
        command: &Command,
        operation: String,
        is_unknown: bool,
    ) {
        if !is_unknown && !self.any.load(Ordering::Acquire) {
            return;
        }
        let Some(name) = name(payer, command) else { return };
        let mut settles = self.settles();
        if is_unknown {
            settles.entry(name).or_insert((operation, Instant::now()));
        } else {
            settles.remove(&name);
        }
        settles.retain(|_, (_, since)| since.elapsed() < KEPT);
        self.any.store(!settles.is_empty(), Ordering::Release);
    }

    fn settles(&self) -> MutexGuard<'_, HashMap<(PayerId, String), (String, Instant)>> {
        self.settles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only of a command that is never meant twice, and whose repeat is not answered alike.
fn name(payer: &PayerId, command: &Command) -> Option<(PayerId, String)> {
    match command {
        Command::Settle { claim: None, then: Then::Close, .. } => {
            Some((*payer, serde_json::to_string(command).ok()?))
        }
        _ => None,
    }
}
