//! What is done from time to time: long requests keep what they reserved, what was abandoned
//! expires, and open top-ups are driven.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use farebox_ledger::book::{ClaimKey, Line, Route};
use farebox_ledger::clock::Timestamp;
use farebox_ledger::{Command, Due, Outcome, ReservationId, Store as _, Then, TopUp, TopUpState};
use farebox_protocol::{Micros, PayerId, TopUpId};

use crate::meter::Meter;
use crate::payments::Shared;
use crate::refund::Opened;
use crate::reservation::RESERVED_FOR_MILLIS;
use crate::top_up::Work;

/// The reservations of this process's requests. A request that takes less than half of a
/// reservation's time only enters and leaves.
#[derive(Default)]
pub(crate) struct OpenReservations(DashMap<ReservationId, Held>);

/// A reservation that a request of this process holds.
struct Held {
    payer: PayerId,
    claim: Option<ClaimKey>,
    /// When it was made, or renewed.
    since: Timestamp,
    /// Where, and on what meter, it is being spent.
    spends: Option<(Route, Arc<Meter>)>,
}

/// How often this process looks at its own reservations: a renewal that fails has a second chance.
const RENEW_EVERY: Duration = Duration::from_millis(RESERVED_FOR_MILLIS as u64 / 6);
/// In every so manieth round, it looks at the whole ledger.
const EXPIRE_EVERY: u32 = 3;
/// In every so manieth round, which is about every ten minutes, it reads Stripe's list of events.
const CATCH_UP_EVERY: u32 = 60;

impl OpenReservations {
    pub(crate) fn enter(
        &self,
        id: ReservationId,
        payer: PayerId,
        claim: Option<ClaimKey>,
        since: Timestamp,
    ) {
        self.0.insert(id, Held { payer, claim, since, spends: None });
    }

    pub(crate) fn leave(&self, id: &ReservationId) {
        self.0.remove(id);
    }

    pub(crate) fn spends(&self, id: &ReservationId, route: &Route, meter: &Arc<Meter>) {
        if let Some(mut held) = self.0.get_mut(id) {
            held.spends = Some((route.clone(), meter.clone()));
        }
    }

    /// Whether its time cannot be over at `now`.
    pub(crate) fn is_fresh(&self, id: &ReservationId, now: Timestamp) -> bool {
        let ttl = i64::from(RESERVED_FOR_MILLIS);
        self.0.get(id).is_some_and(|held| now < held.since.after(ttl))
    }

    /// Those that are to be renewed at `now`, and how.
    fn old(&self, now: Timestamp) -> Vec<(PayerId, ReservationId, Command)> {
        let half = i64::from(RESERVED_FOR_MILLIS / 2);
        let old = self.0.iter().filter(|held| now >= held.since.after(half));
        let renewal = |id: ReservationId, held: &Held| {
            let lines = held
                .spends
                .iter()
                .map(|(route, meter)| Line { route: route.clone(), spent: meter.so_far() });
            let lines = lines.filter(|line| line.spent > Micros::ZERO).collect();
            (held.payer, id, Command::Settle { id, claim: held.claim, lines, then: Then::Keep })
        };
        old.map(|held| renewal(*held.key(), held.value())).collect()
    }

    fn renewed(&self, id: &ReservationId, at: Timestamp) {
        if let Some(mut held) = self.0.get_mut(id) {
            held.since = at;
        }
    }
}

impl Shared {
    /// Renews the reservations of this process's requests that are past half of their time.
    async fn renew(&self) {
        let now = self.clock.now();
        for (payer, id, command) in self.open.old(now) {
            match self.ledger.apply(&payer, &command).await.map(|applied| applied.outcome) {
                Ok(Outcome::Settled { .. }) => self.open.renewed(&id, now),
                // Its request may have ended meanwhile.
                Ok(outcome) => tracing::debug!(?outcome, "a reservation was not renewed"),
                Err(error) => tracing::error!(%error, "a reservation could not be renewed"),
            }
        }
    }

    /// Drives what is open of a top-up: its charge, or a refund of it.
    pub(crate) async fn go_on(self: &Arc<Self>, id: TopUpId) {
        match self.ledger.top_up(&id).await {
            Ok(Some(TopUp { state: TopUpState::Open { .. }, .. })) => {
                drop(self.drive(Work::Resume(id)));
            }
            Ok(Some(TopUp { refund: Some(refund), totals, .. })) => {
                let (number, before) = (refund.number, totals.refunded);
                drop(self.drive_refund(Opened { id, number, before }, false));
            }
            Ok(_) => {} // it ended meanwhile
            Err(error) => tracing::error!(top_up = %id, %error, "a top-up cannot be read"),
        }
    }

    /// Ends what is over in the ledger, whoever made it, and drives top-ups that nobody drives.
    async fn expire(self: &Arc<Self>) {
        let due = match self.ledger.due().await {
            Ok(due) => due,
            Err(error) => return tracing::error!(%error, "the ledger does not say what is due"),
        };
        for due in due {
            match due {
                Due::TopUp(id) => self.go_on(id).await,
                Due::Entry(payer, id) => {
                    if let Err(error) = self.ledger.apply(&payer, &Command::Expire { id }).await {
                        // The next round tries again; the others need not wait for it.
                        tracing::error!(%error, "what is over could not be ended");
                    }
                }
            }
        }
    }
}

/// Starts the sweep of this process. It ends when payments are closed, or no longer used.
pub(crate) fn start(shared: &Arc<Shared>) {
    let (weak, closing) = (Arc::downgrade(shared), shared.closing.clone());
    let sweep = async move {
        for round in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(jittered(RENEW_EVERY)) => {}
                () = closing.cancelled() => return,
            }
            let Some(shared) = weak.upgrade() else { return };
            shared.renew().await;
            if round % EXPIRE_EVERY == 0 {
                shared.expire().await;
            }
            if round % CATCH_UP_EVERY == 1
                && let Err(error) = shared.catch_up().await
            {
                tracing::warn!(%error, "Stripe's events are not all booked");
            }
        }
    };
    shared.tasks.spawn_on(sweep, &shared.runtime);
}

/// Three quarters of `longest` to all of it: processes that started together drift apart.
fn jittered(longest: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or_default() % 256;
    longest - longest * random / 1024
}

#[cfg(feature = "test-util")]
impl crate::Payments {
    /// Does now what is done every few seconds: renews, expires, and drives top-ups.
    pub async fn sweep(&self) {
        self.shared.renew().await;
        self.shared.expire().await;
    }

    /// Reads Stripe's list of events, as is done every ten minutes or so. Whether all of them were
    /// booked.
    pub async fn try_catch_up(&self) -> bool {
        self.shared.catch_up().await.is_ok()
    }

    /// As `try_catch_up`.
    ///
    /// # Panics
    ///
    /// If some event could not be booked.
    pub async fn catch_up(&self) {
        assert!(self.try_catch_up().await, "an event could not be booked");
    }
}
