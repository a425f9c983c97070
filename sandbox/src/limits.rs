//! Rate limits.
//!
//! Source: Stripe's page "Rate limits".

use std::collections::HashMap;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Requests that are let in within one second of the sandbox's clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    pub(crate) per_endpoint_per_second: u32,
    pub(crate) per_account_per_second: u32,
}

/// The limit that a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Account,
    Endpoint,
}

impl Limit {
    /// What `Stripe-Rate-Limited-Reason` calls it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Account => "global-rate",
            Self::Endpoint => "endpoint-rate",
        }
    }
}

/// Counts requests. It knows as many endpoints as there are requests in a second.
#[derive(Default)]
pub(crate) struct Limiter {
    rates: Option<Rates>,
    second: i64,
    account: u32,
    endpoints: HashMap<String, u32>,
}

impl Limiter {
    /// `None`: no limits.
    pub(crate) fn set(&mut self, rates: Option<Rates>) {
        *self = Self { rates, ..Self::default() };
    }

    /// Counts a request, unless it is one too many.
    pub(crate) fn admit(&mut self, method: &str, path: &str, now: i64) -> Result<(), Limit> {
        let Some(rates) = self.rates else { return Ok(()) };
        if self.second != now {
            *self = Self { rates: self.rates, second: now, ..Self::default() };
        }
        if self.account >= rates.per_account_per_second {
            return Err(Limit::Account);
        }
        let count = self.endpoints.entry(endpoint(method, path)).or_default();
        if *count >= rates.per_endpoint_per_second {
            return Err(Limit::Endpoint);
        }
        *count += 1;
        self.account += 1;
        Ok(())
    }
}

/// `POST /v1/payment_intents/*/confirm`: whatever follows the kind of an object is an id, except
/// `search`.
fn endpoint(method: &str, path: &str) -> String {
    let segments = path.split('/').enumerate();
    let names = segments.map(|(at, name)| if at == 3 && name != "search" { "*" } else { name });
    format!("{method} {}", names.collect::<Vec<_>>().join("/"))
}

/// What a client hears that met a limit.
pub(crate) fn refusal() -> ApiError {
    ApiError::invalid(
        "Request rate limit exceeded. You can learn more about rate limits here \
         https://stripe.com/docs/rate-limits.",
    )
    .code("rate_limit")
    .status(StatusCode::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests {
    use super::{Limit, Limiter, Rates, endpoint};

    #[test]
    fn an_endpoint_is_a_path_without_its_id() {
        for (path, name) in [
            ("/v1/payment_intents", "GET /v1/payment_intents"),
            ("/v1/payment_intents/pi_1", "GET /v1/payment_intents/*"),
            ("/v1/payment_intents/pi_1/confirm", "GET /v1/payment_intents/*/confirm"),
            ("/v1/customers/search", "GET /v1/customers/search"),
        ] {
            assert_eq!(endpoint("GET", path), name);
        }
    }

    #[test]
    fn a_refused_request_does_not_count() {
        let mut limiter = Limiter::default();
        limiter.set(Some(Rates { per_endpoint_per_second: 1, per_account_per_second: 2 }));
        assert_eq!(limiter.admit("GET", "/v1/a", 1), Ok(()));
        assert_eq!(limiter.admit("GET", "/v1/a", 1), Err(Limit::Endpoint));
        assert_eq!(limiter.admit("GET", "/v1/b", 1), Ok(()));
        assert_eq!(limiter.admit("GET", "/v1/c", 1), Err(Limit::Account));
        assert_eq!(limiter.admit("GET", "/v1/c", 2), Ok(()));
    }
}
