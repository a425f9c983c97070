//! A reservation's guard: dropping it releases the money.

use std::sync::Arc;

use farebox_ledger::book::{Line, Route};
use farebox_ledger::{Command, Outcome, Proof, ReservationId, Store as _, StoreError, Then};
use farebox_protocol::{Currency, ErrorCode, Micros, PayerId};

use crate::payments::Shared;

/// Money set aside for one request. It exists before the ledger is asked, so whatever happens to
/// the request (an error, a panic, a timeout, a client that hangs up), dropping it releases what
/// was set aside.
pub(crate) struct Reservation {
    shared: Arc<Shared>,
    payer: PayerId,
    id: ReservationId,
    amount: Micros,
    open: bool,
}

/// How long money is set aside without being renewed.
const RESERVED_FOR_MILLIS: u32 = 60_000;

/// Why nothing was reserved.
pub(crate) enum NotReserved {
    /// The credit is too small.
    Insufficient,
    /// The proof does not hold.
    Unauthorized,
    /// It is refused for a reason that no payment changes.
    Refused(ErrorCode),
    /// The ledger did not answer, or not as it must.
    Unavailable,
}

impl Reservation {
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        payer: PayerId,
        currency: Currency,
        amount: Micros,
        proof: Proof,
    ) -> Result<Reservation, NotReserved> {
        let id = shared.new_reservation_id();
        let mut guard = Reservation { shared: shared.clone(), payer, id, amount, open: true };
        let (ttl, claim) = (RESERVED_FOR_MILLIS, None);
        let command = Command::Reserve { id, currency, amount, ttl, proof, claim };
        let applied = match shared.ledger.apply(&payer, &command).await {
            Ok(applied) => applied,
            Err(error) => {
                tracing::error!(%error, "a reservation failed");
                return Err(NotReserved::Unavailable); // perhaps reserved: the guard releases it
            }
        };
        match applied.outcome {
            Outcome::Reserved { .. } => Ok(guard),
            Outcome::Insufficient { .. } => {
                guard.open = false;
                Err(NotReserved::Insufficient)
            }
            Outcome::Unauthorized => {
                guard.open = false;
                Err(NotReserved::Unauthorized)
            }
            Outcome::Frozen => {
                guard.open = false;
                Err(NotReserved::Refused(ErrorCode::AccountFrozen))
            }
            outcome => {
                tracing::error!(?outcome, "the ledger does not answer a reservation as it must");
                Err(NotReserved::Unavailable)
            }
        }
    }

    pub(crate) fn payer(&self) -> PayerId {
        self.payer
    }

    pub(crate) fn amount(&self) -> Micros {
        self.amount
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
        let command = Command::Settle { id: self.id, claim: None, lines, then: Then::Close };
        match self.shared.ledger.apply(&self.payer, &command).await?.outcome {
            Outcome::Settled { available } => {
                self.open = false;
                Ok(available)
            }
            outcome => Err(SettleError::Refused(outcome)),
        }
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
        if self.open {
            let (shared, payer) = (self.shared.clone(), self.payer);
            let (id, claim, lines, then) = (self.id, None, Vec::new(), Then::Close);
            let command = Command::Settle { id, claim, lines, then };
            let release = async move {
                if let Err(error) = shared.ledger.apply(&payer, &command).await {
                    tracing::error!(%error, "a reservation could not be released");
                }
            };
            self.shared.tasks.spawn_on(release, &self.shared.runtime);
        }
    }
}
