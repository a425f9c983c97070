//! What an answer to a look-up means. Nothing here moves money, so a retry needs no history.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::answer::{ErrorBody, ErrorObject};
use crate::error::LookUpError;
use crate::retry::{self, Deadline, Next};
use crate::transport::{Answer, Attempt, Ready};

/// How long a look-up may take, its repetitions included.
pub(crate) const LOOK_UP_BUDGET: Duration = Duration::from_secs(10);
/// The same where Stripe asks a bank, or makes something.
pub(crate) const SLOW_BUDGET: Duration = Duration::from_secs(30);

/// The object in a definite answer.
pub(crate) type Found<T> = Result<T, Failure>;

/// Why there is no object, as far as the answer itself says it.
pub(crate) enum Failure {
    /// Stripe refused, with this status and these words.
    Refused(u16, Box<ErrorObject>),
    /// The saved answer to a call that crashed: this key is spent.
    Spent,
    /// No definite answer came in time.
    Unavailable,
}

impl Failure {
    /// Who must act, for requests that name a card or a customer and nothing else of the payer.
    pub(crate) fn into_error(self, what: &'static str) -> LookUpError {
        let Failure::Refused(status, error) = self else { return LookUpError::Unavailable };
        let verdict = if matches!(status, 401 | 403) {
            LookUpError::Operator
        } else if error.is_card() {
            LookUpError::Refused
        } else if error.is_code("resource_missing") || status == 404 {
            LookUpError::NotFound
        } else if error.is_about_card() {
            LookUpError::Refused
        } else {
            LookUpError::Operator
        };
        if verdict == LookUpError::Operator {
            let ErrorObject { kind, code, param, .. } = *error;
            tracing::error!(what, status, kind, code, param, "Stripe refuses our request");
        }
        verdict
    }
}

/// Sends a look-up until its answer is definite, and reads the object in it.
pub(crate) async fn fetch<T: DeserializeOwned>(request: &Ready<'_>, budget: Duration) -> Found<T> {
    let answer = retry::until(request, Deadline::after(budget), judge).await;
    answer.unwrap_or(Err(Failure::Unavailable))
}

pub(crate) fn judge<T: DeserializeOwned>(attempt: &Attempt) -> Next<Found<T>> {
    let Attempt::Answered(answer) = attempt else { return Next::Again(Duration::ZERO) };
    if answer.is_success() {
        return match answer.json() {
            Some(object) => Next::Done(Ok(object)),
            None => again(answer),
        };
    }
    let Some(ErrorBody { error }) = answer.json() else { return again(answer) };
    let transient = matches!(answer.status, 408 | 409 | 424 | 429)
        || !(400..500).contains(&answer.status)
        || error.is_kind("api_error");
    if answer.replayed && transient || error.is_kind("idempotency_error") && !transient {
        return Next::Done(Err(Failure::Spent));
    }
    if transient || answer.should_retry == Some(true) {
        return again(answer);
    }
    let Answer { attempt, status, request_id, .. } = answer;
    let ErrorObject { kind, code, param, .. } = &error;
    tracing::info!(attempt, status, request_id, kind, code, param, "Stripe refused a look-up");
    Next::Done(Err(Failure::Refused(*status, Box::new(error))))
}

/// The same where a stand-in may lack the endpoint and say 404 in words of its own.
pub(crate) fn judge_if_known<T: DeserializeOwned>(attempt: &Attempt) -> Next<Found<T>> {
    match attempt {
        Attempt::Answered(answer) if answer.status == 404 => {
            Next::Done(Err(Failure::Refused(404, Box::default())))
        }
        attempt => judge(attempt),
    }
}

fn again<T>(answer: &Answer) -> Next<T> {
    match answer.should_retry {
        Some(false) => Next::Stop,
        _ => Next::Again(answer.retry_after.unwrap_or_default()),
    }
}
