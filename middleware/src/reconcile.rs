//! Stripe's list of our charges against the ledger.
//!
//! Every charge since some day is compared with the top-up that it names, and every top-up with its
//! charge. What the ledger lacks is booked; money that has no place in it is reported, and its
//! payer frozen. It needs no webhook, and may run beside everything else, as often as one likes.

use std::collections::BTreeSet;
use std::sync::Arc;

use farebox_ledger::book::{Entry, EntryId};
use farebox_ledger::{Store as _, StoreError, TopUp, TopUpState, Totals};
use farebox_processor::{IntentStatus, LookUpError};
use farebox_protocol::{Micros, PayerId, TopUpId};
use serde::{Deserialize, Serialize};

use crate::observe::{self, Verdict};
use crate::payments::{Payments, Shared};

/// What [`Payments::reconcile`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciliation {
    /// How many charges of ours Stripe listed.
    pub charges: usize,
    /// How many top-ups the ledger has since then.
    pub top_ups: usize,
    /// What did not agree.
    pub differences: Vec<Difference>,
    /// Charges that could not be read, or not booked. Run it again.
    pub unread: Vec<String>,
}

/// One thing that Stripe and the ledger did not agree about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The top-up that the charge names.
    pub top_up: TopUpId,
    /// The PaymentIntent.
    pub intent: String,
    /// What does not agree.
    #[serde(flatten)]
    pub what: What,
}

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The ledger had other totals. It has Stripe's now, unless nothing was to be changed.
    Totals {
        /// The ledger's.
        ledger: Totals,
        /// Stripe's.
        stripe: Totals,
    },
    /// A card paid, and the ledger has no top-up that the money belongs to: it knows none of this
    /// number, or one that another charge paid. Give the money back at Stripe, or find out why.
    NotInLedger {
        /// What the charge is still worth, in micros.
        worth: Micros,
    },
    /// The ledger has credit, and Stripe has no such charge, or one that took nothing.
    NotAtStripe {
        /// What the ledger counts for it, in micros.
        worth: Micros,
    },
}

/// Whether differences are only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Book what the ledger lacks, and freeze payers of money that has no place.
    Yes,
    /// Change nothing.
    No,
}

/// The comparison could not be made, or not to its end; what was booked stays booked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// Stripe's list could not be read.
    #[error("Stripe's list could not be read: {0}")]
    Stripe(#[from] LookUpError),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] StoreError),
}

impl Payments {
    /// Compares Stripe's charges since `since` (seconds since 1970, by Stripe's clock) with the
    /// ledger, and, with [`Repair::Yes`], books what it lacks.
    ///
    /// It asks Stripe once for every hundred charges, and two or three times more for each one that
    /// is disputed, refunded or not agreed about.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]; run it again.
    pub async fn reconcile(
        &self,
        since: i64,
        repair: Repair,
    ) -> Result<Reconciliation, ReconcileError> {
        self.shared.reconcile(since, repair).await
    }
}

impl Shared {
    pub(crate) async fn reconcile(
        self: &Arc<Self>,
        since: i64,
        repair: Repair,
    ) -> Result<Reconciliation, ReconcileError> {
        Run { shared: self, since, repair, found: Reconciliation::default() }.whole().await
    }
}

/// One comparison.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    since: i64,
    repair: Repair,
    found: Reconciliation,
}

impl Run<'_> {
    async fn whole(mut self) -> Result<Reconciliation, ReconcileError> {
        let seen = self.charges().await?;
        self.moved().await?;
        for payer in self.shared.ledger.payers().await? {
            self.payer(payer, &seen).await?;
        }
        self.found.differences.sort_by(|a, b| (a.top_up, &a.intent).cmp(&(b.top_up, &b.intent)));
        self.found.differences.dedup();
        Ok(self.found)
    }

    /// Every charge that Stripe lists. The ones that agree, as far as a list tells.
    async fn charges(&mut self) -> Result<BTreeSet<String>, ReconcileError> {
        let mut seen = BTreeSet::new();
        for intent in self.shared.stripe.intents_since(None, self.since).await? {
            let Some(id) = intent.top_up else { continue };
            self.found.charges += 1;
            if intent.status != IntentStatus::Succeeded {
                continue;
            }
            let known = self.shared.ledger.top_up(&id).await?;
            // Refunds and disputes have lists of their own.
            let agrees = known.is_some_and(|known| {
                let TopUp { state, totals, .. } = known;
                let same = matches!(state, TopUpState::Succeeded { intent: i } if i == intent.id);
                same && totals.received == intent.received
            });
            if !agrees {
                self.look_at(&intent.id, Some(id)).await;
            }
            seen.insert(intent.id);
        }
        Ok(seen)
    }

    /// Charges, of any age, of which money went back since then.
    async fn moved(&mut self) -> Result<(), ReconcileError> {
        let stripe = &self.shared.stripe;
        let refunded = stripe.refunded_since(self.since).await?.into_iter();
        let disputed = stripe.disputes_since(self.since).await?.into_iter();
        let disputed = disputed.filter_map(|dispute| dispute.intent);
        for intent in refunded.chain(disputed).collect::<BTreeSet<_>>() {
            self.look_at(&intent, None).await;
        }
        Ok(())
    }

    /// A payer's top-ups of that time: those that Stripe did not list, and those that do not
    /// agree with what was refunded or disputed.
    async fn payer(
        &mut self,
        payer: PayerId,
        seen: &BTreeSet<String>,
    ) -> Result<(), ReconcileError> {
        let book = self.shared.ledger.book(&payer).await?;
        for (id, entry) in &book.entries {
            let (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) = (*id, entry) else {
                continue;
            };
            if top_up.opened.seconds() < self.since {
                continue;
            }
            self.found.top_ups += 1;
            let id = TopUpId { payer, currency, number };
            match &top_up.state {
                TopUpState::Open { .. } if self.repair == Repair::Yes => {
                    self.shared.go_on(id).await;
                }
                TopUpState::Succeeded { intent } => {
                    let moved = top_up.totals
                        != Totals { received: top_up.totals.received, ..Totals::default() };
                    if !seen.contains(intent) || moved {
                        self.look_for(id, top_up, intent).await;
                    }
                }
                TopUpState::Open { .. } | TopUpState::Failed { .. } => {}
            }
        }
        Ok(())
    }

    /// Compares one charge with its top-up.
    async fn look_at(&mut self, intent: &str, id: Option<TopUpId>) {
        let reading = match self.shared.read(intent, id).await {
            Ok(Some(reading)) => reading,
            Ok(None) => return,
            Err(error) => return self.unread(intent, &error),
        };
        let (what, top_up) = (What::of(reading.verdict), reading.id);
        if let Some(what) = what {
            let intent = intent.to_owned();
            self.found.differences.push(Difference { top_up, intent, what });
        }
        // Also where they agree: a dispute that takes nothing freezes all the same.
        if self.repair == Repair::Yes
            && let Err(error) = self.shared.observe(intent, Some(top_up)).await
        {
            self.unread(intent, &error);
        }
    }

    fn unread(&mut self, intent: &str, error: &dyn std::fmt::Display) {
        tracing::error!(intent, %error, "a charge could not be compared");
        self.found.unread.push(intent.to_owned());
    }

    /// Looks for the charge of a top-up that has credit.
    async fn look_for(&mut self, id: TopUpId, top_up: &TopUp, intent: &str) {
        let found = match self.shared.stripe.intent(intent).await {
            Ok(found) => found.status == IntentStatus::Succeeded && found.top_up == Some(id),
            Err(LookUpError::NotFound | LookUpError::Refused) => false,
            Err(error) => return self.unread(intent, &error),
        };
        if found {
            return self.look_at(intent, Some(id)).await;
        }
        let worth = top_up.totals.net().unwrap_or_default();
        tracing::error!(top_up = %id, intent, "the ledger has credit that Stripe has no charge for");
        let what = What::NotAtStripe { worth };
        self.found.differences.push(Difference { top_up: id, intent: intent.to_owned(), what });
        if self.repair == Repair::Yes
            && let Some(reason) = observe::reason(&format!("unpaid_{intent}"))
            && let Err(error) = self.shared.freeze(id.payer, reason).await
        {
            self.unread(intent, &error);
        }
    }
}

impl What {
    fn of(verdict: Verdict) -> Option<What> {
        match verdict {
            Verdict::Differs { ledger, stripe } => Some(What::Totals { ledger, stripe }),
            Verdict::Unbooked { worth } if worth > Micros::ZERO => {
                Some(What::NotInLedger { worth })
            }
            _ => None,
        }
    }
}
