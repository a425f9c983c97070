//! Reading answers: the offers of a 402, and what became of a payment.
//!
//! A payment's outcome is read pessimistically. Money counts as untouched only if the server
//! says so with one code of the wire, in the status that belongs to it; everything that is not
//! clear is unknown.

use std::time::Duration;

use bytes::Bytes;
use farebox_protocol::header::{PAYMENT_REQUIRED, PAYMENT_RESPONSE, single};
use farebox_protocol::{ErrorCode, PaymentRequired, PaymentResponse, TopUpId};
use http::StatusCode;
use reqwest::{Body, Response, ResponseBuilderExt as _};

use crate::body;

/// The most that is read of a body.
const BODY_BYTES_MAX: usize = 64 * 1_024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a payment with a card.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It was accepted; this is what the server says about it.
    Accepted(PaymentResponse),
    /// The server says with this code that it took nothing; perhaps of this top-up, which ended.
    Refused(ErrorCode, Option<TopUpId>),
    /// The server asks to be paid, and does not say that it took nothing.
    AskedAgain,
    /// The request of this key was served and charged before.
    AlreadyCharged,
    /// The charge goes on at the server.
    Pending(Option<TopUpId>),
    /// A success that says nothing about the payment.
    Untold,
    Unknown,
}

/// What a server says about a payment that it accepted, or refused.
pub(crate) fn payment_response(response: &Response) -> Option<PaymentResponse> {
    let value = single(response.headers(), &PAYMENT_RESPONSE).ok()??;
    PaymentResponse::decode(value.as_bytes()).ok()
}

/// The message of a 402 and the 402 itself, whole. `None` if it does not speak stripe402.
pub(crate) async fn payment_required(response: Response) -> (Response, Option<PaymentRequired>) {
    if let Ok(Some(value)) = single(response.headers(), &PAYMENT_REQUIRED)
        && let Ok(required) = PaymentRequired::decode(value.as_bytes())
    {
        return (response, Some(required));
    }
    let (response, start) = peek(response).await;
    (response, PaymentRequired::from_json(&start).ok())
}

/// What became of the payment that `response` answers, and the response itself, whole.
pub(crate) async fn verdict(response: Response) -> (Response, Verdict) {
    let status = response.status();
    let told = payment_response(&response);
    if let Some(told) = told.as_ref().filter(|told| told.success)
        && status != StatusCode::PAYMENT_REQUIRED
    {
        return (response, Verdict::Accepted(told.clone()));
    }
    if told.is_none() && status.is_success() {
        return (response, Verdict::Untold);
    }
    let in_header = header_code(&response);
    let (response, body) = peek(response).await;
    let body_required = PaymentRequired::from_json(&body).ok().and_then(|body| body.error);
    let body_told = PaymentResponse::from_json(&body).ok();
    let tellers = [told.as_ref(), body_told.as_ref()];
    let codes = tellers.iter().flatten().filter_map(|told| told.error_code);
    let codes: Vec<ErrorCode> = codes.chain(in_header).chain(body_required).collect();
    let moved = tellers.iter().flatten().any(|told| told.success || told.charge_id.is_some());
    let top_up_id = tellers.iter().flatten().find_map(|told| told.top_up_id);
    (response, judge(status, &codes, moved, top_up_id))
}

/// `codes` are all that the answer holds; `moved`: something in it says that money moved.
fn judge(
    status: StatusCode,
    codes: &[ErrorCode],
    moved: bool,
    top_up_id: Option<TopUpId>,
) -> Verdict {
    let code = codes.first().copied().filter(|first| codes.iter().all(|code| code == first));
    let asked = status == StatusCode::PAYMENT_REQUIRED;
    match code {
        Some(code) if code.status() != status => Verdict::Unknown,
        Some(ErrorCode::AlreadyCharged) => Verdict::AlreadyCharged,
        Some(ErrorCode::PaymentPending) => Verdict::Pending(top_up_id),
        Some(code) if took_nothing(code) && !moved => Verdict::Refused(code, top_up_id),
        // What a v1 server says to everything, a charge that it lost included.
        Some(ErrorCode::PaymentFailed) => Verdict::Unknown,
        Some(_) | None if asked => Verdict::AskedAgain,
        Some(_) | None => Verdict::Unknown,
    }
}

/// Codes that are sent before a card is touched, or with the card's own refusal.
fn took_nothing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidPayment
            | ErrorCode::PriceAboveMaximum
            | ErrorCode::TopUpBelowMinimum
            | ErrorCode::TopUpAboveMaximum
            | ErrorCode::CardDeclined
            | ErrorCode::AuthenticationRequired
            | ErrorCode::LedgerUnavailable
            | ErrorCode::ProcessorUnavailable
            | ErrorCode::PriceUnavailable
            | ErrorCode::AccountFrozen
            | ErrorCode::IdempotencyConflict
            | ErrorCode::RateLimited
    )
}

fn header_code(response: &Response) -> Option<ErrorCode> {
    let value = single(response.headers(), &PAYMENT_REQUIRED).ok()??;
    PaymentRequired::decode(value.as_bytes()).ok()?.error
}

/// The start of a body, at most 64 KiB and for at most ten seconds.
pub(crate) async fn start_of(mut response: Response) -> Vec<u8> {
    let mut start = Vec::new();
    let _ = tokio::time::timeout(BODY_TIMEOUT, fill(&mut response, &mut start)).await;
    start
}

async fn fill(response: &mut Response, start: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        start.extend_from_slice(&chunk);
        if start.len() > BODY_BYTES_MAX {
            break;
        }
    }
}

/// Reads the start of a body and puts it back.
async fn peek(mut response: Response) -> (Response, Vec<u8>) {
    let mut start = Vec::new();
    let _ = tokio::time::timeout(BODY_TIMEOUT, fill(&mut response, &mut start)).await;
    let url = response.url().clone();
    let (parts, rest) = http::Response::<Body>::from(response).into_parts();
    let body = body::rejoined(Bytes::from(start.clone()), rest);
    let mut whole = http::Response::new(body);
    *whole.status_mut() = parts.status;
    *whole.version_mut() = parts.version;
    *whole.headers_mut() = parts.headers;
    // reqwest keeps the URL in an extension that only its own builder can set.
    if let Ok(built) = http::Response::builder().url(url).body(()) {
        *whole.extensions_mut() = built.into_parts().0.extensions;
    }
    whole.extensions_mut().extend(parts.extensions);
    (Response::from(whole), start)
}
