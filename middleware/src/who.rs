//! Who pays: which payer a card stands for, and whether whoever shows it holds it.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use farebox_processor::{LookUpError, Verification};
use farebox_protocol::{ErrorCode, PayerId, PaymentMethodId};
use tokio::sync::{AcquireError, OnceCell, Semaphore, SemaphorePermit};

use crate::admission::Asker;
use crate::payments::Shared;
use crate::refusal::Refusal;

/// A card, known by the book that is named after it.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) book: PayerId,
    /// The PaymentMethod as Stripe spells it.
    pub(crate) method: PaymentMethodId,
}

/// The most look-ups at Stripe at one time, for all requests of this process, and for strangers'.
const LOOK_UPS_MAX: usize = 32;
const STRANGERS_MAX: usize = 16;
/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// The card, and whether a newcomer has its one try with it.
type Found = Arc<OnceCell<Result<(Card, bool), Refusal>>>;

/// Look-ups in flight. Requests that bring the same PaymentMethod share one.
#[derive(Debug)]
pub(crate) struct LookUps {
    in_flight: DashMap<PaymentMethodId, Found>,
    turns: Semaphore,
    strangers: Semaphore,
}

/// Held while Stripe is asked. A stranger holds one of theirs, too.
type Turn<'a> = (Option<SemaphorePermit<'a>>, SemaphorePermit<'a>);

impl Default for LookUps {
    fn default() -> Self {
        let (turns, strangers) = (Semaphore::new(LOOK_UPS_MAX), Semaphore::new(STRANGERS_MAX));
        LookUps { in_flight: DashMap::new(), turns, strangers }
    }
}

/// A request that waits for a look-up. The look-up leaves the list when the first of them has its
/// answer, or goes away.
struct Joined<'a> {
    look_ups: &'a LookUps,
    method: &'a PaymentMethodId,
    found: Found,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let is_ours = |_: &PaymentMethodId, found: &Found| Arc::ptr_eq(found, &self.found);
        self.look_ups.in_flight.remove_if(self.method, is_ours);
    }
}

impl LookUps {
    fn join<'a>(&'a self, method: &'a PaymentMethodId) -> Joined<'a> {
        let found = self.in_flight.entry(method.clone()).or_default().clone();
        Joined { look_ups: self, method, found }
    }

    async fn turn(&self, asker: Asker) -> Result<Turn<'_>, ErrorCode> {
        let turn = async {
            let theirs = match asker {
                Asker::Payer(_) => None,
                Asker::Stranger(_) | Asker::Newcomer(_) => Some(self.strangers.acquire().await?),
            };
            Ok::<_, AcquireError>((theirs, self.turns.acquire().await?))
        };
        let turn = tokio::time::timeout(TURN_WITHIN, turn).await;
        turn.ok().and_then(Result::ok).ok_or(ErrorCode::RateLimited)
    }
}

impl Shared {
    /// The card behind a PaymentMethod, and as whom the asker goes on.
    pub(crate) async fn card(
        &self,
        method: &PaymentMethodId,
        asker: Asker,
    ) -> Result<(Card, Asker), Refusal> {
        let joined = self.look_ups.join(method);
        let found = joined.found.get_or_init(|| self.look_up(method, asker)).await;
        let (card, is_newcomer) = found.clone()?;
        let asker = match asker {
            Asker::Stranger(address) if is_newcomer => Asker::Newcomer(address),
            asker => asker,
        };
        Ok((card, asker))
    }

    async fn look_up(
        &self,
        method: &PaymentMethodId,
        asker: Asker,
    ) -> Result<(Card, bool), Refusal> {
        let asker = self.gate.look_up(asker).await?;
        let turn = self.look_ups.turn(asker).await;
        let _turn = turn.inspect_err(|_| self.gate.cleared(asker))?;
        let found = self.stripe.payment_method(method).await;
        self.gate.looked_up(asker, &found);
        let found = found.map_err(refusal_of)?;
        let card = Card { book: self.identity.payer(&found.fingerprint), method: found.id };
        Ok((card, matches!(asker, Asker::Newcomer(_))))
    }

    /// Whether the bank accepts the card and its verification code.
    pub(crate) async fn verify(
        &self,
        payer: PayerId,
        card: &Card,
        asker: Asker,
    ) -> Result<Verification, Refusal> {
        self.gate.admit_verification(asker, card.book, payer).await?;
        let verified = self.verified(payer, card, asker).await;
        // If nothing was proved, the charge that follows decides, and is counted.
        let is_next =
            matches!((asker, &verified), (Asker::Newcomer(_), Ok(Verification::Unproven)));
        if !is_next {
            self.gate.cleared(asker);
        }
        verified
    }

    async fn verified(
        &self,
        payer: PayerId,
        card: &Card,
        asker: Asker,
    ) -> Result<Verification, Refusal> {
        let customer = self.customer(payer, None, asker).await?;
        let _turn = self.look_ups.turn(asker).await?;
        match self.stripe.verify(&card.method, &customer).await {
            Ok(verification) => Ok(verification),
            // The charge itself is the proof, and makes the customer anew if need be.
            Err(LookUpError::Refused | LookUpError::NotFound) => Ok(Verification::Unproven),
            Err(error) => Err(refusal_of(error).into()),
        }
    }
}

/// What a payer is told after a look-up failed.
pub(crate) fn refusal_of(error: LookUpError) -> ErrorCode {
    match error {
        LookUpError::NotFound | LookUpError::Refused => ErrorCode::InvalidPayment,
        LookUpError::Operator | LookUpError::Unavailable => {
            tracing::error!(%error, "a look-up at Stripe failed");
            ErrorCode::ProcessorUnavailable
        }
    }
}
