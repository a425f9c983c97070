//! The breaker: while most charges of strangers are declined, cards are being tested. Then whoever
//! was declined lately waits, and newcomers are tried once each: so many addresses as somebody who
//! tests cards has, so many tries they are, and honest newcomers come between them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use farebox_ledger::StoreError;
use farebox_ledger::counters::Counter;
use farebox_processor::LookUpError;
use tokio::time::Instant;

use super::cards::{charges, declines};
use super::clients::Trusted;
use super::pace::Pace;
use super::{Asker, Endpoint, Gate};
use crate::refusal::Refusal;

/// After which time a stranger may come back.
pub(super) const STRANGER_LATER: Duration = Duration::from_secs(60);

/// How many newcomers are tried while the breaker is open.
#[derive(Debug)]
pub(super) struct Newcomers {
    pace: Pace,
    due: Mutex<Instant>,
}

impl Newcomers {
    pub(super) fn new(pace: Pace, now: Instant) -> Newcomers {
        Newcomers { pace, due: Mutex::new(now) }
    }

    fn take(&self) -> Result<(), Refusal> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.pace.take(&mut due, Instant::now(), Duration::ZERO);
        taken.map(drop).map_err(Refusal::later)
    }

    fn give_back(&self) {
        self.pace.give_back(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Gate {
    /// Admits the look-up of a PaymentMethod. What came of it must be reported.
    pub(crate) async fn look_up(&self, asker: Asker) -> Result<(), Refusal> {
        self.attempt(asker)?;
        let is_open = self.suspect(asker).await?;
        let admitted = self.look_up_turn(asker, is_open).await;
        if admitted.is_err() {
            self.cleared(asker);
        }
        admitted
    }

    async fn look_up_turn(&self, asker: Asker, is_open: bool) -> Result<(), Refusal> {
        if is_open {
            self.newcomers.take()?;
        }
        let turn = self.turn(Endpoint::PaymentMethods, asker).await;
        if is_open && turn.is_err() {
            self.newcomers.give_back();
        }
        turn
    }

    /// Reports what came of a look-up. To try ids that do not exist is like being declined.
    pub(crate) fn looked_up<T>(&self, asker: Asker, found: &Result<T, LookUpError>) {
        if !matches!(found, Err(LookUpError::NotFound | LookUpError::Refused)) {
            self.cleared(asker);
        }
    }

    /// Counts what a stranger is about to try as declined, until it is [`cleared`](Self::cleared):
    /// whether the breaker is open. Whoever was declined too often waits.
    pub(super) async fn suspect(&self, asker: Asker) -> Result<bool, Refusal> {
        let Asker::Stranger(address) = asker else { return Ok(false) };
        let is_open = match self.is_open().await {
            Ok(is_open) => is_open,
            Err(error) => return self.answered(asker, Err(error)).map(|()| false),
        };
        let trusted = if is_open { Trusted::Unsuspected } else { Trusted::Most };
        match self.strangers.suspect(address, trusted, Instant::now()) {
            true => Ok(is_open),
            false => Err(Refusal::later(STRANGER_LATER)),
        }
    }

    /// What was tried was not declined.
    pub(crate) fn cleared(&self, asker: Asker) {
        if let Asker::Stranger(address) = asker {
            self.strangers.cleared(address, Instant::now());
        }
    }

    /// Whether too many charges of strangers are declined.
    async fn is_open(&self) -> Result<bool, StoreError> {
        let window = self.limits.breaker_window_seconds;
        let total = |counter: Counter<'static>| self.counters.total(counter);
        let (charges, declined) =
            tokio::try_join!(total(charges(window)), total(declines(None, window)))?;
        let is_judged = charges >= i64::from(self.limits.breaker_charges_min);
        let most = charges.saturating_mul(self.limits.breaker_declines_percent.into());
        Ok(is_judged && declined.saturating_mul(100) > most)
    }
}
