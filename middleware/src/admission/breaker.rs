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
    /// Admits the look-up of a PaymentMethod: as whom the asker goes on. What came of it must be
    /// reported.
    pub(crate) async fn look_up(&self, asker: Asker) -> Result<Asker, Refusal> {
        self.attempt(asker)?;
        let asker = self.suspect(asker).await?;
        let admitted = self.look_up_turn(asker).await;
        if admitted.is_err() {
            self.cleared(asker);
        }
        admitted.map(|()| asker)
    }

    async fn look_up_turn(&self, asker: Asker) -> Result<(), Refusal> {
        let is_newcomer = matches!(asker, Asker::Newcomer(_));
        if is_newcomer {
            self.newcomers.take()?;
        }
        let turn = self.turn(Endpoint::PaymentMethods, asker).await;
        if is_newcomer && turn.is_err() {
            self.newcomers.give_back();
        }
        turn
    }

    /// Reports what came of a look-up. To try ids that do not exist is like being declined.
    pub(crate) fn looked_up<T>(&self, asker: Asker, found: &Result<T, LookUpError>) {
        match (found, asker) {
            (Err(LookUpError::NotFound | LookUpError::Refused), _) => {}
            // Its charge decides: a look-up without one would cost nothing but others' turns.
            (Ok(_), Asker::Newcomer(_)) => {}
            _ => self.cleared(asker),
        }
    }

    /// Admits whoever wants to use a card. A newcomer was admitted at its look-up.
    pub(super) async fn holder(&self, asker: Asker) -> Result<(), Refusal> {
        if let Asker::Newcomer(_) = asker {
            return Ok(());
        }
        self.attempt(asker)?;
        self.suspect(asker).await.map(drop)
    }

    /// Counts what a stranger is about to try as declined, until it is [`cleared`](Self::cleared).
    /// It is a newcomer while the breaker is open; whoever was declined too often waits.
    async fn suspect(&self, asker: Asker) -> Result<Asker, Refusal> {
        let Asker::Stranger(address) = asker else { return Ok(asker) };
        let is_open = match self.is_open().await {
            Ok(is_open) => is_open,
            Err(error) => return self.answered(asker, Err(error)).map(|()| asker),
        };
        let trusted = if is_open { Trusted::Unsuspected } else { Trusted::Most };
        if !self.strangers.suspect(address, trusted, Instant::now()) {
            return Err(Refusal::later(STRANGER_LATER));
        }
        Ok(if is_open { Asker::Newcomer(address) } else { asker })
    }

    /// What was tried was not declined.
    pub(crate) fn cleared(&self, asker: Asker) {
        if let Asker::Stranger(address) | Asker::Newcomer(address) = asker {
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
