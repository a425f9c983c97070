//! A refusal: why a request is not served, and the answer that says so.

use std::time::Duration;

use bytes::Bytes;
use farebox_protocol::{ErrorCode, Money, PaymentResponse, TopUpId, header};
use http::{HeaderValue, Response, StatusCode, header as names};
use http_body_util::Full;

use crate::answer;
use crate::quote::Quote;

/// How long a client waits before it repeats a request, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Why a request is not served. Nothing was taken for it, or what was taken is credit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// The top-up that it is about, if the client may know it: it is pending, or the client named it.
    pub(crate) top_up: Option<TopUpId>,
    /// What the request with the same key cost.
    pub(crate) charged: Option<Money>,
    /// How long to wait, in seconds; `None`: as long as always.
    retry_after: Option<u32>,
}

/// The longest that a client is told to wait, in seconds.
const RETRY_AFTER_MAX: u32 = 3_600;

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal { code, top_up: None, charged: None, retry_after: None }
    }
}

impl Refusal {
    pub(crate) fn about(code: ErrorCode, top_up: TopUpId) -> Refusal {
        Refusal { top_up: Some(top_up), ..code.into() }
    }

    /// The request with this key was charged before; nothing more is taken.
    pub(crate) fn already(charged: Money) -> Refusal {
        Refusal { charged: Some(charged), ..ErrorCode::AlreadyCharged.into() }
    }

    /// There were too many attempts; there is room for one after `wait`.
    pub(crate) fn later(wait: Duration) -> Refusal {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let retry_after = Some(seconds.min(RETRY_AFTER_MAX));
        Refusal { retry_after, ..ErrorCode::RateLimited.into() }
    }

    /// The same refusal of a client that did not name the top-up: whoever only shows a card must
    /// not learn whose it is.
    pub(crate) fn to_stranger(self) -> Refusal {
        Refusal { top_up: self.pending(), ..self }
    }

    /// The top-up whose outcome is not known yet.
    pub(crate) fn pending(self) -> Option<TopUpId> {
        self.top_up.filter(|_| self.code == ErrorCode::PaymentPending)
    }

    /// The same refusal after a top-up that succeeded, or may: an answer must not say that nothing
    /// was taken. The client comes back with the top-up's id.
    pub(crate) fn after(self, top_up: Option<TopUpId>) -> Refusal {
        match top_up {
            Some(id) if self.code != ErrorCode::InsufficientCredits => {
                Refusal::about(ErrorCode::PaymentPending, id)
            }
            _ => self,
        }
    }

    /// The answer. A 402 carries the offer; `quote` is `None` where there is no price.
    pub(crate) fn response(self, quote: Option<&Quote>, path: &str) -> Response<Full<Bytes>> {
        let status = self.code.status();
        let offer = quote.filter(|_| status == StatusCode::PAYMENT_REQUIRED);
        let offer = offer.map(|quote| {
            // Without a payment there is no error to name.
            let error = Some(self.code).filter(|code| *code != ErrorCode::PaymentRequired);
            quote.json(path, error)
        });
        let header = offer.as_deref().map(header::encode_json);
        let body = match (self.code, offer) {
            (ErrorCode::PaymentRequired | ErrorCode::InsufficientCredits, Some(json)) => json,
            _ => PaymentResponse {
                top_up_id: self.top_up,
                charged: self.charged.map(|money| money.micros().units_ceil()),
                currency: self.charged.map(Money::currency),
                ..PaymentResponse::refused(self.code)
            }
            .to_json(),
        };
        let mut response = json(status, body);
        let headers = response.headers_mut();
        if let Some(value) = header.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(header::PAYMENT_REQUIRED, value);
        }
        let is_busy =
            matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if is_busy || self.code == ErrorCode::RequestInFlight {
            let wait = self.retry_after.map_or(RETRY_AFTER, HeaderValue::from);
            headers.insert(names::RETRY_AFTER, wait);
        }
        answer::expose_headers(headers);
        response
    }
}

/// The answer of a route that the provider built wrongly. Nothing was taken.
pub(crate) fn misconfigured() -> Response<Full<Bytes>> {
    let body = PaymentResponse {
        error: Some("The server is misconfigured; nothing was taken".to_owned()),
        error_code: None,
        ..PaymentResponse::refused(ErrorCode::PriceUnavailable)
    };
    json(StatusCode::INTERNAL_SERVER_ERROR, body.to_json())
}

/// An answer of ours with a JSON body. It is never cached.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(names::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(names::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
