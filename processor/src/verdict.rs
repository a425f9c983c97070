//! What an attempt at a call says that moves money: pure decisions from an answer and what
//! happened before.
//!
//! The one question behind all of them is whether the call may have run. Stripe saves the answer
//! of a call that ran and replays it to every repetition of its key, refusals and crashes
//! included. It saves nothing for a call that was turned away before it ran: a wrong key (401,
//! 403), a rate limit (429), no connection (docs.stripe.com/api/idempotent_requests,
//! docs.stripe.com/error-low-level).

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::answer::{ErrorBody, ErrorObject};
use crate::retry::Next;
use crate::transport::{Answer, Attempt};

/// Whether some attempt under a key may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// No: nothing under this key reached Stripe's idempotency layer.
    Nothing,
    /// Perhaps.
    Perhaps,
}

/// A definite answer to a call.
pub(crate) enum Verdict<T> {
    /// The call ran, and this is what it made.
    Done(T),
    /// A refusal of the call itself. Stripe saved it with the key, or ran nothing at all.
    Refused(Box<ErrorObject>),
    /// An answer of gates that stand before the idempotency layer: it says nothing about an
    /// earlier attempt.
    TurnedAway,
    /// It ran and crashed, or this key belongs to another call. Stripe keeps saying so for as
    /// long as it knows the key.
    Spent,
}

/// Judges an attempt under a key of which `before` is known, and remembers in it what the attempt
/// may have done. `what` is for the log.
pub(crate) fn judge<T: DeserializeOwned>(
    attempt: &Attempt,
    before: &mut Before,
    what: &'static str,
) -> Next<Verdict<T>> {
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
        return match answer.json() {
            Some(object) => Next::Done(Verdict::Done(object)),
            None => maybe_ran(answer, before),
        };
    }
    match answer.json::<ErrorBody>() {
        Some(body) => of_error(answer, body.error, before, what),
        // Not Stripe's words: a proxy in between, which may have passed the call on.
        None => maybe_ran(answer, before),
    }
}

fn of_error<T>(
    answer: &Answer,
    error: ErrorObject,
    before: &mut Before,
    what: &'static str,
) -> Next<Verdict<T>> {
    log(answer, &error, what);
    // A lock that was not free (`lock_timeout`) is met while a call runs, not before.
    let limited = answer.status == 429 && !error.is_code("lock_timeout");
    if limited || matches!(answer.status, 401 | 403) {
        return match answer.should_retry.unwrap_or(limited) {
            true => Next::Again(answer.retry_after.unwrap_or_default()),
            false if limited => Next::Stop,
            false => Next::Done(Verdict::TurnedAway),
        };
    }
    let transient = matches!(answer.status, 408 | 409 | 424 | 429)
        || !(400..500).contains(&answer.status)
        || error.is_kind("api_error")
        || error.is_code("idempotency_key_in_use");
    if transient && answer.replayed || error.is_kind("idempotency_error") && !transient {
        return Next::Done(Verdict::Spent);
    }
    if transient || answer.should_retry == Some(true) {
        return maybe_ran(answer, before);
    }
    Next::Done(Verdict::Refused(Box::new(error)))
}

/// For the operator. Stripe's sentences are left out, for they may name a card.
fn log(answer: &Answer, error: &ErrorObject, what: &'static str) {
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
        "Stripe refused a {what}"
    );
}

/// The call may have run in this attempt; the next one under the same key will tell.
fn maybe_ran<T>(answer: &Answer, before: &mut Before) -> Next<Verdict<T>> {
    *before = Before::Perhaps;
    match answer.should_retry {
        Some(false) => Next::Stop,
        _ => Next::Again(answer.retry_after.unwrap_or_default()),
    }
}
