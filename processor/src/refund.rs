//! Giving back what a card was charged.

use std::time::Duration;

use farebox_protocol::{Currency, Micros, TopUpId};
use serde::Deserialize;
use stripe_client_core::StripeRequest as _;
use stripe_core::refund::{CreateRefund, RetrieveRefund};

use crate::answer::lenient;
use crate::call::{Call, IdempotencyKey, metadata};
use crate::charge::Unknown;
use crate::error::LookUpError;
use crate::lookup::LOOK_UP_BUDGET;
use crate::retry::{self, Deadline, Next};
use crate::stripe::{Stripe, check_id, fetch};
use crate::transport::Attempt;
use crate::verdict::{self, Before, Verdict};

/// What is given back of a top-up, to the card that was charged.
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
///
/// use farebox_processor::{GiveBack, Refund, Stripe};
/// use farebox_protocol::{TopUpId, usd};
///
/// # async fn refund(stripe: Stripe, top_up: TopUpId) {
/// let refund = Refund { top_up, number: 1, intent: "pi_1", amount: usd!("2").micros() };
/// let call = stripe.refund(&refund);
/// // ... the ledger sets the amount aside and stores `call` ...
/// match stripe.give_back(&call, &refund.key(), Duration::from_secs(20)).await {
///     GiveBack::Accepted { refund } => println!("{refund}"),
///     GiveBack::Refused { code } => println!("nothing was given back: {code:?}"),
///     GiveBack::NotSent | GiveBack::Unknown(_) => println!("`call` is sent again"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Refund<'a> {
    /// The top-up that was charged; also says in which currency.
    pub top_up: TopUpId,
    /// Counts the refunds of the top-up.
    pub number: u64,
    /// The PaymentIntent that was charged.
    pub intent: &'a str,
    /// How much is given back, rounded down to what a card can be charged in the currency.
    pub amount: Micros,
}

impl Refund<'_> {
    /// The key of the refund: always the same for one number of one top-up.
    pub fn key(&self) -> IdempotencyKey {
        IdempotencyKey::of_refund(self.top_up, self.number)
    }

    /// A refund of a PaymentIntent (docs.stripe.com/api/refunds/create).
    fn encode(&self) -> Call {
        let fields = [("top_up", self.top_up.to_string()), ("refund", self.number.to_string())];
        // Without an amount Stripe would give back everything; 0 it refuses.
        let minor = minor_floor(self.top_up.currency, self.amount).unwrap_or_default();
        let request = CreateRefund::new()
            .payment_intent(self.intent)
            .amount(minor)
            .metadata(metadata(fields));
        Call::encode(request.build())
    }
}

/// The largest number of minor units that Stripe accepts and that `amount` covers.
fn minor_floor(currency: Currency, amount: Micros) -> Option<i64> {
    let micro = Micros::new(1)?;
    let step = currency.chargeable(micro)?;
    currency.minor_ceil(amount.checked_sub(step.checked_sub(micro)?)?)
}

/// What became of a call to give money back. Everything but [`GiveBack::Unknown`] is definite
/// about the attempts of this call to [`Stripe::give_back`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiveBack {
    /// Stripe gives the money back. That can still fail later, as
    /// [`EventKind::RefundFailed`](crate::EventKind::RefundFailed) says;
    /// [`Stripe::standing`] has what was given back in the end.
    Accepted {
        /// The refund at Stripe, `re_...`.
        refund: String,
    },
    /// Stripe refused this refund: nothing was given back, and repeating does not help.
    Refused {
        /// Stripe's reason (docs.stripe.com/error-codes), such as `charge_already_refunded`,
        /// `charge_disputed` or `balance_insufficient`: the operator must look.
        code: Option<String>,
    },
    /// Stripe was not reached, or turned every attempt away before it ran. Nothing was given back
    /// by this call to [`Stripe::give_back`]. It tells nothing about an earlier one: whoever may
    /// have sent the call before takes it for [`Unknown::Repeat`].
    NotSent,
    /// The money may have been given back: never give it back under another key.
    /// [`Unknown::Repeat`]: send the same call again. [`Unknown::LookUp`]: the absolute total in
    /// [`Stripe::standing`] decides.
    Unknown(Unknown),
}

impl GiveBack {
    fn unfinished(before: Before) -> GiveBack {
        match before {
            Before::Nothing => GiveBack::NotSent,
            Before::Perhaps => GiveBack::Unknown(Unknown::Repeat),
        }
    }
}

#[derive(Deserialize)]
struct RefundObject {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    failure_reason: Option<String>,
}

impl Stripe {
    /// The call that gives back. It is encoded and not sent: store it first.
    pub fn refund(&self, refund: &Refund<'_>) -> Call {
        refund.encode()
    }

    /// Sends a call to give back under `key`, which is [`Refund::key`], and again under the same
    /// key, until its outcome is definite or `budget` is spent.
    ///
    /// A stored call may be sent again for at most 23 hours after it was first sent, for Stripe
    /// forgets keys after 24.
    pub async fn give_back(&self, call: &Call, key: &IdempotencyKey, budget: Duration) -> GiveBack {
        let deadline = Deadline::after(budget);
        let mut before = Before::Nothing;
        let Ok(request) = self.post(call, key) else { return GiveBack::NotSent };
        let judge = |attempt: &Attempt| judge(attempt, &mut before);
        let outcome = retry::until(&request, deadline, judge).await;
        let outcome = outcome.unwrap_or_else(|| GiveBack::unfinished(before));
        if let GiveBack::Unknown(_) = outcome {
            tracing::warn!("the outcome of a refund is unknown");
        }
        outcome
    }

    /// Whether a refund that was accepted still stands: it has not failed since, nor was it
    /// cancelled (docs.stripe.com/api/refunds/retrieve).
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn refund_stands(&self, id: &str) -> Result<bool, LookUpError> {
        check_id(id)?;
        let request = self.get(&RetrieveRefund::new(id).build())?;
        let refund: RefundObject = fetch(&request, LOOK_UP_BUDGET, "refund").await?;
        Ok(!matches!(refund.status.as_deref(), Some("failed" | "canceled")))
    }
}

fn judge(attempt: &Attempt, before: &mut Before) -> Next<GiveBack> {
    verdict::judge(attempt, before, "refund").map(|verdict| match verdict {
        Verdict::Done(refund) => of_refund(refund),
        Verdict::Refused(error) => GiveBack::Refused { code: error.code },
        Verdict::TurnedAway => {
            tracing::error!("Stripe refuses to refund with our key: the provider must act");
            GiveBack::unfinished(*before)
        }
        Verdict::Spent => GiveBack::Unknown(Unknown::LookUp),
    })
}

fn of_refund(refund: RefundObject) -> GiveBack {
    match refund.status.as_deref() {
        Some("failed" | "canceled") => {
            GiveBack::Refused { code: refund.failure_reason.or(refund.status) }
        }
        _ => GiveBack::Accepted { refund: refund.id },
    }
}
