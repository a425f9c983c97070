//! What Stripe says about a charge is booked: credit, refunds, disputes, and what they gave back.
//!
//! An event, a list or an answer only names the charge. What is booked is read from Stripe, as
//! absolute totals, and read again until a reading finds nothing new: whoever booked last has seen
//! the newest state, so the order in which news arrives does not matter.

use farebox_ledger::book::FreezeReason;
use farebox_ledger::{Command, Outcome, Store as _, StoreError, TopUp, TopUpState, Totals};
use farebox_processor::{
    CvcCheck, Dispute, DisputeState, IntentStatus, LookUpError, Mode, Standing,
};
use farebox_protocol::{Micros, PayerId, PaymentMethodId, TopUpId};

use crate::payments::Shared;

/// What Stripe and the ledger said about a charge at one time.
pub(crate) struct Reading {
    /// The top-up that the charge names.
    pub(crate) id: TopUpId,
    /// What the ledger said. It was read first: it refuses a reading that is older than its last.
    known: Option<TopUp>,
    standing: Standing,
    pub(crate) verdict: Verdict,
}

/// What a reading comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The charge has not taken money.
    Unpaid,
    /// They agree.
    Agrees,
    /// The ledger says otherwise than Stripe.
    Differs { ledger: Totals, stripe: Totals },
    /// The card paid, and the ledger has no top-up that this money could belong to.
    Unbooked { worth: Micros },
}

/// A charge was not observed. Nothing is lost: it is observed again.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error(transparent)]
    Stripe(#[from] LookUpError),
    #[error(transparent)]
    Ledger(#[from] StoreError),
    #[error("the charge or its top-up keeps changing")]
    Busy,
}

/// How often a charge is read before somebody else's turn comes.
const ROUNDS_MAX: usize = 8;

impl Shared {
    /// Reads a charge, and what the ledger knows about it. `id` is the top-up that the caller
    /// believes it names, which saves a look-up; `None`: it is no top-up of ours.
    pub(crate) async fn read(
        &self,
        intent: &str,
        id: Option<TopUpId>,
    ) -> Result<Option<Reading>, ObserveError> {
        let Some(mut id) = (match id {
            Some(id) => Some(id),
            None => self.named(intent).await?,
        }) else {
            return Ok(None);
        };
        let mut known = self.ledger.top_up(&id).await?;
        let mut standing = self.stripe.standing(intent).await?;
        if standing.intent.top_up != Some(id) {
            // A refund or a charge may bear a name of somebody else's: the intent decides.
            let Some(named) = standing.intent.top_up else { return Ok(None) };
            id = named;
            known = self.ledger.top_up(&id).await?;
            standing = self.stripe.standing(intent).await?;
        }
        let stripe = totals(&standing);
        let charged = known.as_ref().filter(|known| self.is_charge_of(known, id, &standing));
        let verdict = match charged {
            _ if standing.intent.status != IntentStatus::Succeeded => Verdict::Unpaid,
            None => Verdict::Unbooked { worth: stripe.net().unwrap_or_default() },
            Some(TopUp { state: TopUpState::Succeeded { .. }, totals, .. })
                if *totals == stripe =>
            {
                Verdict::Agrees
            }
            Some(known) => Verdict::Differs { ledger: known.totals, stripe },
        };
        Ok(Some(Reading { id, known, standing, verdict }))
    }

    /// The top-up that a charge names. One in a currency that cannot be read is not of Farebox.
    pub(crate) async fn named(&self, intent: &str) -> Result<Option<TopUpId>, LookUpError> {
        match self.stripe.top_up_of(intent).await {
            Err(LookUpError::NotFound) => Ok(None),
            named => named,
        }
    }

    /// Reads a charge and books what the ledger does not say yet. `None`: it is no top-up of ours;
    /// else what was first found.
    pub(crate) async fn observe(
        &self,
        intent: &str,
        id: Option<TopUpId>,
    ) -> Result<Option<Verdict>, ObserveError> {
        let mut first = None;
        for _ in 0..ROUNDS_MAX {
            let Some(reading) = self.read(intent, id).await? else { return Ok(None) };
            let Reading { id, ref standing, verdict, .. } = reading;
            let first = *first.get_or_insert(verdict);
            match (verdict, &reading.known) {
                (Verdict::Differs { ledger, stripe }, Some(known)) => {
                    let new = ledger.withdrawn != stripe.withdrawn;
                    self.freeze_for(id.payer, &standing.disputes, new).await?;
                    self.book_totals(id, known, intent, stripe).await?;
                    // What was booked is read once more: Stripe may have changed it meanwhile.
                }
                (Verdict::Agrees, _) => {
                    // A freeze too: the dispute may have ended since it was read.
                    if !self.freeze_for(id.payer, &standing.disputes, false).await? {
                        return Ok(Some(first));
                    }
                }
                (Verdict::Unbooked { worth }, _) => {
                    // A payer that has no book here is another ledger's.
                    if self.ledger.load(&id.payer).await?.seq > 0 {
                        self.freeze_for(id.payer, &standing.disputes, false).await?;
                        self.keep_apart(id, intent, worth).await?;
                    }
                    return Ok(Some(first));
                }
                _ => return Ok(Some(first)),
            }
        }
        Err(ObserveError::Busy)
    }

    /// Whether the charge can be the one of its top-up.
    fn is_charge_of(&self, known: &TopUp, id: TopUpId, standing: &Standing) -> bool {
        let charge = &standing.intent;
        let other = match &known.state {
            TopUpState::Succeeded { intent } => *intent != charge.id,
            TopUpState::Open { .. } | TopUpState::Failed { .. } => false,
        };
        let ours = charge.currency == id.currency
            && charge.livemode == (self.stripe.mode() == Mode::Live)
            && charge.received > Micros::ZERO;
        ours && !other
    }

    /// Tells the ledger, unless somebody else did meanwhile.
    async fn book_totals(
        &self,
        id: TopUpId,
        known: &TopUp,
        intent: &str,
        totals: Totals,
    ) -> Result<(), ObserveError> {
        let TopUpId { payer, currency, number } = id;
        if !matches!(known.state, TopUpState::Succeeded { .. }) {
            self.claim(payer, known.card, &known.method).await?;
        }
        let (intent, seen_version) = (intent.to_owned(), known.version);
        let observe = Command::Observe { currency, number, intent, seen_version, totals };
        match self.ledger.apply(&payer, &observe).await?.outcome {
            Outcome::Observed { difference } => {
                tracing::info!(top_up = %id, difference = difference.get(), "a charge was booked");
                Ok(())
            }
            Outcome::Conflict => Ok(()),
            outcome => {
                tracing::error!(top_up = %id, ?outcome, "a charge cannot be booked");
                Err(ObserveError::Busy)
            }
        }
    }

    /// A dispute freezes its payer while it is open, and from then on if it is lost: the provider
    /// decides about whoever took money back. `new`: whether what disputes took is news. Whether
    /// anything changed.
    async fn freeze_for(
        &self,
        payer: PayerId,
        disputes: &[Dispute],
        new: bool,
    ) -> Result<bool, ObserveError> {
        let mut changed = false;
        for dispute in disputes {
            let Some(reason) = reason(&dispute.id) else { continue };
            changed |= match dispute.state {
                DisputeState::Open => self.freeze(payer, reason).await?,
                DisputeState::Lost if new => self.freeze(payer, reason).await?,
                DisputeState::Lost => false, // the provider may have decided meanwhile
                DisputeState::Won => self.unfreeze(payer, reason).await?,
            };
        }
        Ok(changed)
    }

    /// Freezes a payer for one more reason, durably, unless it is frozen for it or for as many as
    /// a book holds. Whether that changed anything.
    pub(crate) async fn freeze(
        &self,
        payer: PayerId,
        reason: FreezeReason,
    ) -> Result<bool, ObserveError> {
        if self.ledger.load(&payer).await?.frozen.contains(&reason) {
            return Ok(false);
        }
        tracing::warn!(%payer, %reason, "a payer is frozen");
        let applied = self.ledger.apply(&payer, &Command::Freeze { reason }).await?;
        Ok(applied.outcome == Outcome::Frozen)
    }

    async fn unfreeze(&self, payer: PayerId, reason: FreezeReason) -> Result<bool, ObserveError> {
        if !self.ledger.load(&payer).await?.frozen.contains(&reason) {
            return Ok(false);
        }
        tracing::info!(%payer, %reason, "a payer is not frozen for this any more");
        self.ledger.apply(&payer, &Command::Unfreeze { reason }).await?;
        Ok(true)
    }

    /// A card paid, and the ledger has no place for the money: the payer is frozen until it was
    /// given back.
    async fn keep_apart(
        &self,
        id: TopUpId,
        intent: &str,
        worth: Micros,
    ) -> Result<(), ObserveError> {
        if worth > Micros::ZERO {
            tracing::error!(top_up = %id, intent, "a card paid what the ledger does not know");
        }
        match reason(&format!("unbooked_{intent}")) {
            Some(reason) if worth > Micros::ZERO => self.freeze(id.payer, reason).await.map(drop),
            Some(reason) => self.unfreeze(id.payer, reason).await.map(drop),
            None => Ok(()),
        }
    }

    /// Makes the payer's a card that it paid with beside its credential, so that the card alone
    /// finds the money. Only if the bank checked the code: whoever knows no more than a number must
    /// not become the payer of its holder. (A card that pays for itself was claimed before.)
    pub(crate) async fn claim(
        &self,
        payer: PayerId,
        card: PayerId,
        method: &PaymentMethodId,
    ) -> Result<(), StoreError> {
        if card == payer {
            return Ok(());
        }
        match self.stripe.payment_method(method).await {
            Ok(found) if found.cvc_check == CvcCheck::Pass => {
                self.ledger.apply(&card, &Command::OwnCard { owner: payer }).await.map(drop)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a card cannot be read again; it stays nobody's");
                Ok(())
            }
        }
    }
}

/// What a charge is worth, as the ledger counts it.
pub(crate) fn totals(standing: &Standing) -> Totals {
    let Standing { ref intent, refunded, withdrawn, .. } = *standing;
    Totals { received: intent.received, refunded, withdrawn }
}

/// A reason named after an object at Stripe.
pub(crate) fn reason(object: &str) -> Option<FreezeReason> {
    let reason = object.parse();
    if reason.is_err() {
        tracing::error!(object, "Stripe's id cannot be a reason to freeze a payer");
    }
    reason.ok()
}
