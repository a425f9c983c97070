//! What an attempt to charge a card means: pure decisions from an answer and what happened before.
//!
//! The one question behind all of them is whether the card may have been charged. Stripe saves
//! the answer of a call that ran and replays it to every repetition of its key, refusals and
//! crashes included. It saves nothing for a call that was turned away before it ran: a wrong key
//! (401, 403), a rate limit (429), no connection (docs.stripe.com/api/idempotent_requests,
//! docs.stripe.com/error-low-level).

use std::time::Duration;

use farebox_protocol::{Currency, Micros};

use crate::answer::{ErrorBody, ErrorObject, IntentObject, IntentStatus};
use crate::retry::Next;
use crate::transport::{Answer, Attempt};

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

/// Whether some attempt under a key may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// No: nothing under this key reached Stripe's idempotency layer.
    Nothing,
    /// Perhaps.
    Perhaps,
}

impl Before {
    /// What is known when no definite answer comes any more.
    pub(crate) fn unfinished(self) -> Charge {
        match self {
            Before::Nothing => Charge::NotSent,
            Before::Perhaps => Charge::Unknown(Unknown::Repeat),
        }
    }

    /// An answer of gates that stand before the idempotency layer: it says nothing about an
    /// earlier attempt.
    pub(crate) fn turned_away(self) -> Charge {
        match self {
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
    let again = Next::Again(Duration::ZERO);
    let answer = match attempt {
        Attempt::NotSent => return again,
        Attempt::Lost => {
            *before = Before::Perhaps;
            return again;
        }
        Attempt::Answered(answer) => answer,
    };
    if answer.is_success() {
        return match answer.json::<IntentObject>() {
            Some(intent) => Next::Done(of_intent(&intent, live)),
            None => maybe_ran(answer, before),
        };
    }
    match answer.json::<ErrorBody>() {
        Some(body) => of_error(answer, &body.error, before, live),
        // Not Stripe's words: a proxy in between, which may have passed the call on.
        None => maybe_ran(answer, before),
    }
}

fn of_error(answer: &Answer, error: &ErrorObject, before: &mut Before, live: bool) -> Next<Step> {
    log(answer, error);
    // A lock that was not free (`lock_timeout`) is met while a call runs, not before.
    let limited = answer.status == 429 && !error.is_code("lock_timeout");
    if limited || matches!(answer.status, 401 | 403) {
        return match answer.should_retry.unwrap_or(limited) {
            true => Next::Again(answer.retry_after.unwrap_or_default()),
            false if limited => Next::Stop,
            false => Next::Done(Step::Ended(before.turned_away())),
        };
    }
    let transient = matches!(answer.status, 408 | 409 | 424 | 429)
        || !(400..500).contains(&answer.status)
        || error.is_kind("api_error")
        || error.is_code("idempotency_key_in_use");
    if transient && answer.replayed || error.is_kind("idempotency_error") && !transient {
        // Saved: it ran and crashed, or this key belongs to another call. Stripe keeps saying so
        // for as long as it knows the key.
        return Next::Done(Step::Ended(Charge::Unknown(Unknown::LookUp)));
    }
    if transient || answer.should_retry == Some(true) {
        return maybe_ran(answer, before);
    }
    Next::Done(of_refusal(error, live))
}

/// For the operator. Stripe's sentences are left out, for they may name a card.
fn log(answer: &Answer, error: &ErrorObject) {
    let Answer { attempt, status, request_id, replayed, should_retry, .. } = answer;
    let ErrorObject { kind, code, decline_code, param, .. } = error;
    let should_retry = *should_retry;
    tracing::info!(
        attempt,
        status,
        request_id,
        replayed,
        should_retry,
        kind,
        code,
        decline_code,
        param,
        "Stripe refused a charge"
    );
}

/// The card may have been charged by this attempt; the next one under the same key will tell.
fn maybe_ran(answer: &Answer, before: &mut Before) -> Next<Step> {
    *before = Before::Perhaps;
    match answer.should_retry {
        Some(false) => Next::Stop,
        _ => Next::Again(answer.retry_after.unwrap_or_default()),
    }
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
