//! A reservation's guard: dropping it releases the money.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::book::{ClaimKey, Line, Route};
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::{Command, Outcome, Proof, ReservationId, Store as _, StoreError, Then};
use farebox_protocol::{Currency, ErrorCode, Micros, Money, PayerId};

use crate::meter::Meter;
use crate::payments::Shared;
use crate::refusal::Refusal;

/// Money set aside for one request. It exists before the ledger is asked, so whatever happens to
/// the request (an error, a panic, a timeout, a client that hangs up), dropping it releases what
/// was set aside.
pub(crate) struct Reservation {
    shared: Arc<Shared>,
    payer: PayerId,
    id: ReservationId,
    claim: Option<ClaimKey>,
    currency: Currency,
    amount: Micros,
    /// What could still be spent beside it when it was made.
    available: Micros,
    open: bool,
}

/// What is to be set aside, and for which request.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) currency: Currency,
    pub(crate) amount: Micros,
    pub(crate) proof: Proof,
    pub(crate) claim: Option<ClaimOf>,
}

/// How long money is set aside without being renewed.
pub(crate) const RESERVED_FOR_MILLIS: u32 = 60_000;
/// After which pauses, in milliseconds, a settlement is repeated that the ledger did not answer.
const REPEATS: [u64; 5] = [50, 150, 400, 600, 800];

/// Why nothing was reserved.
pub(crate) enum NotReserved {
    /// The credit is too small.
    Insufficient,
    /// The proof does not hold.
    Unauthorized,
    /// It is refused for a reason that no payment changes.
    Refused(Refusal),
    /// The ledger did not answer, or not as it must.
    Unavailable,
}

impl Reservation {
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        payer: PayerId,
        wanted: Wanted,
    ) -> Result<Reservation, NotReserved> {
        let Wanted { currency, amount, proof, claim } = wanted;
        let (id, ttl, since) =
            (shared.new_reservation_id(), RESERVED_FOR_MILLIS, shared.clock.now());
        let mut guard = Reservation {
            shared: shared.clone(),
            payer,
            id,
            claim: claim.map(|claim| claim.key),
            currency,
            amount,
            available: Micros::ZERO,
            open: true,
        };
        let command = Command::Reserve { id, currency, amount, ttl, proof, claim };
        let applied = match shared.ledger.apply(&payer, &command).await {
            Ok(applied) => applied,
            Err(error) => {
                tracing::error!(%error, "a reservation failed");
                return Err(NotReserved::Unavailable); // perhaps reserved: the guard releases it
            }
        };
        let refused = match applied.outcome {
            Outcome::Reserved { available } => {
                guard.available = available;
                shared.open.enter(id, payer, guard.claim, since);
                return Ok(guard);
            }
            Outcome::Insufficient { .. } => NotReserved::Insufficient,
            Outcome::Unauthorized => NotReserved::Unauthorized,
            Outcome::Frozen => NotReserved::Refused(ErrorCode::AccountFrozen.into()),
            Outcome::LimitReached { .. } => {
                NotReserved::Refused(ErrorCode::CredentialLimitReached.into())
            }
            Outcome::InFlight => NotReserved::Refused(ErrorCode::RequestInFlight.into()),
            Outcome::Conflict if claim.is_some() => {
                NotReserved::Refused(ErrorCode::IdempotencyConflict.into())
            }
            Outcome::Done { charged } => {
                NotReserved::Refused(Refusal::already(Money::new(charged, currency)))
            }
            outcome => {
                tracing::error!(?outcome, "the ledger does not answer a reservation as it must");
                return Err(NotReserved::Unavailable);
            }
        };
        guard.open = false;
        Err(refused)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn payer(&self) -> PayerId {
        self.payer
    }

    pub(crate) fn amount(&self) -> Micros {
        self.amount
    }

    /// Whether the request has a key.
    pub(crate) fn is_keyed(&self) -> bool {
        self.claim.is_some()
    }

    pub(crate) fn available(&self) -> Micros {
        self.available
    }

    /// From now on, what `meter` shows is spent whenever the reservation is renewed.
    pub(crate) fn spends(&self, route: &Route, meter: &Arc<Meter>) {
        self.shared.open.spends(&self.id, route, meter);
    }

    /// Spends `spent` and returns the rest; answers what can still be spent. After an error the
    /// guard releases the money: the work is the provider's loss, never the payer's.
    pub(crate) async fn settle(
        mut self,
        route: &Route,
        spent: Micros,
    ) -> Result<Micros, SettleError> {
        let lines = match spent {
            Micros::ZERO => Vec::new(),
            _ => vec![Line { route: route.clone(), spent }],
        };
        let available = match settle(&self.shared, &self.payer, &self.end(lines)).await? {
            Settled { outcome: Outcome::Settled { available }, .. } => available,
            // It was there, and its time is not over: what ended it was an earlier attempt.
            Settled { outcome: Outcome::Expired, repeated: true } if self.is_fresh() => {
                let head = self.shared.ledger.load(&self.payer).await?;
                head.account(self.currency).available
            }
            Settled { outcome, .. } => return Err(SettleError::Refused(outcome)),
        };
        self.open = false;
        Ok(available)
    }

    fn end(&self, lines: Vec<Line>) -> Command {
        Command::Settle { id: self.id, claim: self.claim, lines, then: Then::Close }
    }

    fn is_fresh(&self) -> bool {
        self.shared.open.is_fresh(&self.id, self.shared.clock.now())
    }
}

/// What the ledger answered to a settlement.
struct Settled {
    outcome: Outcome,
    /// Whether an earlier attempt was not answered, and so may have taken effect.
    repeated: bool,
}

/// Applies a settlement; if the ledger does not answer, a few times. A repeat never debits twice.
async fn settle(
    shared: &Shared,
    payer: &PayerId,
    command: &Command,
) -> Result<Settled, StoreError> {
    let (mut pauses, mut repeated) = (REPEATS.into_iter(), false);
    loop {
        match shared.ledger.apply(payer, command).await {
            Ok(applied) => return Ok(Settled { outcome: applied.outcome, repeated }),
            Err(error) => match pauses.next() {
                Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
                None => return Err(error),
            },
        }
        repeated = true;
    }
}

/// Why a reservation was not settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the ledger answers {0:?}")]
    Refused(Outcome),
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.open.leave(&self.id);
        if self.open {
            let (shared, payer, release) = (self.shared.clone(), self.payer, self.end(Vec::new()));
            let release = async move {
                if let Err(error) = settle(&shared, &payer, &release).await {
                    tracing::error!(%error, "a reservation could not be released");
                }
            };
            self.shared.tasks.spawn_on(release, &self.shared.runtime);
        }
    }
}
