//! What an attempt to charge a card means: pure decisions from an answer and what happened before.

use farebox_protocol::{Currency, Micros};

use crate::answer::{ErrorObject, IntentObject, IntentStatus};
use crate::retry::Next;
use crate::transport::Attempt;
use crate::verdict::{self, Before, Verdict};

/// What became of a call to charge a card. Everything but [`Charge::Unknown`] is definite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The card was charged.
    Charged {
        /// The PaymentIntent at Stripe.
        intent: String,
        /// What was taken.
        received: Micros,
        /// The currency of `received`.
        currency: Currency,
    },
    /// The bank refused. Nothing was taken.
    Declined,
    /// The bank wants the card's holder. Nothing was taken.
    AuthenticationRequired,
    /// Stripe refused the call. Nothing was taken.
    Rejected(Rejection),
    /// Stripe was not reached, or turned everything away before it ran. Nothing was taken.
    NotSent,
    /// The card may have been charged: never treat it as a no, and never charge under another key.
    Unknown(Unknown),
}

/// Who must act after a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The payer: the card is unknown, used up, detached or another customer's.
    PaymentMethod,
    /// Stripe does not know the customer: it is made anew with
    /// [`Stripe::customer`](crate::Stripe::customer).
    Customer,
    /// The operator: Stripe refuses our key, the amount, or something else of ours.
    Operator,
}

/// How an unknown outcome becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// Send the same call again later, with [`Stripe::repeat`](crate::Stripe::repeat), for at most
    /// 23 hours: Stripe forgets keys after 24.
    Repeat,
    /// Repeating can no longer tell: the customer's intents decide, see
    /// [`Stripe::intents_since`](crate::Stripe::intents_since).
    LookUp,
}

impl Charge {
    /// What is known when no definite answer comes any more.
    pub(crate) fn unfinished(before: Before) -> Charge {
        match before {
            Before::Nothing => Charge::NotSent,
            Before::Perhaps => Charge::Unknown(Unknown::Repeat),
        }
    }

    /// What is known when the call was turned away before it ran.
    pub(crate) fn turned_away(before: Before) -> Charge {
        match before {
            Before::Nothing => Charge::Rejected(Rejection::Operator),
            Before::Perhaps => Charge::Unknown(Unknown::Repeat),
        }
    }
}

/// A definite step after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The outcome.
    Ended(Charge),
    /// The intent waits for a human. It is cancelled, so that it cannot succeed behind our back.
    Cancel(String),
    /// The intent was not finished when this answer was saved, and a repetition would only replay
    /// it: the intent itself is read.
    Read(String),
}

/// Judges an attempt under a key of which `before` is known, and remembers in it what the attempt
/// may have done. `live`: whether our keys are live keys.
pub(crate) fn judge(attempt: &Attempt, before: &mut Before, live: bool) -> Next<Step> {
    verdict::judge(attempt, before, "charge").map(|verdict| match verdict {
        Verdict::Done(intent) => of_intent(&intent, live),
        Verdict::Refused(error) => of_refusal(&error, live),
        Verdict::TurnedAway => Step::Ended(Charge::turned_away(*before)),
        Verdict::Spent => Step::Ended(Charge::Unknown(Unknown::LookUp)),
    })
}

/// A refusal of the call itself. Stripe saved it with the key, or ran nothing at all.
fn of_refusal(error: &ErrorObject, live: bool) -> Step {
    let may_take = [
        IntentStatus::Succeeded,
        IntentStatus::Processing,
        IntentStatus::RequiresCapture,
        IntentStatus::RequiresAction,
    ];
    if let Some(intent) = &error.payment_intent
        && may_take.contains(&intent.status())
    {
        // An error, and yet an intent that may take money: the intent decides.
        return of_intent(intent, live);
    }
    Step::Ended(if error.is_card() && error.wants_authentication() {
        Charge::AuthenticationRequired
    } else if error.is_card() {
        Charge::Declined
    } else if error.is_about_card() {
        Charge::Rejected(Rejection::PaymentMethod)
    } else if error.is_about_customer() {
        Charge::Rejected(Rejection::Customer)
    } else {
        Charge::Rejected(Rejection::Operator)
    })
}

/// What the answer to create and confirm says.
fn of_intent(intent: &IntentObject, live: bool) -> Step {
    match intent.status() {
        IntentStatus::RequiresAction => Step::Cancel(intent.id.clone()),
        _ => match settled(intent, live) {
            Charge::Unknown(_) => Step::Read(intent.id.clone()),
            charge => Step::Ended(charge),
        },
    }
}

/// What an intent says that was just read.
pub(crate) fn settled(intent: &IntentObject, live: bool) -> Charge {
    match (intent.status(), intent.received()) {
        (IntentStatus::Succeeded, _) if intent.livemode.is_some_and(|mode| mode != live) => {
            tracing::error!(intent = intent.id, "Stripe charged in the other mode than our keys");
            Charge::Rejected(Rejection::Operator)
        }
        (IntentStatus::Succeeded, Some((received, currency))) => {
            Charge::Charged { intent: intent.id.clone(), received, currency }
        }
        (IntentStatus::Succeeded, None) => {
            tracing::error!(intent = intent.id, "Stripe charged an amount that cannot be read");
            Charge::Unknown(Unknown::Repeat)
        }
        (IntentStatus::RequiresPaymentMethod | IntentStatus::Canceled, _) => Charge::Declined,
        _ => Charge::Unknown(Unknown::Repeat),
    }
}

#[cfg(test)]
mod tests;
