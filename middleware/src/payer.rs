//! Who paid for a request, for its handler.

use std::fmt;
use std::sync::Arc;

use farebox_protocol::{Currency, Money, PayerId};

use crate::meter::Meter;

/// Who pays for this request. It is in the request's extensions, and an axum extractor.
#[derive(Clone, Debug)]
pub struct Payer {
    pub(crate) id: PayerId,
    pub(crate) currency: Currency,
    /// Where a metered request is counted; `None` where the price is fixed.
    pub(crate) meter: Option<Arc<Meter>>,
}

impl Payer {
    /// The payer. The same card is the same payer at this provider, always.
    pub fn id(&self) -> PayerId {
        self.id
    }

    /// The currency the request is paid in.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Adds `money` to what this request costs, on a route with [`Price::up_to`]. The sum is
    /// rounded up to whole units once, and taken when the answer's body ends, or earlier when
    /// nobody can charge any more: when the handler has answered and no `Payer` of the request is
    /// left. A stream that charges as it goes keeps its `Payer`.
    ///
    /// It never fails: the client is not to blame. A sum above the maximum is the maximum; another
    /// currency, an amount below zero, a charge after the end of the body and one on a route with
    /// a fixed price count for nothing. Each of these is logged, once per request where metered.
    ///
    /// [`Price::up_to`]: crate::Price::up_to
    pub fn charge(&self, money: Money) {
        match &self.meter {
            Some(meter) => meter.charge(money),
            None => tracing::warn!(%money, "a charge at a fixed price: use Price::up_to"),
        }
    }
}

impl PartialEq for Payer {
    fn eq(&self, other: &Payer) -> bool {
        (self.id, self.currency) == (other.id, other.currency)
    }
}

impl Eq for Payer {}

/// A handler asked for its [`Payer`] on a route without a price: the provider forgot the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPaid;

impl fmt::Display for NotPaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the route has no price, so the request has no payer")
    }
}

impl std::error::Error for NotPaid {}

#[cfg(feature = "axum")]
impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Payer {
    type Rejection = NotPaid;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or(NotPaid)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for NotPaid {
    fn into_response(self) -> axum::response::Response {
        tracing::error!("{self}");
        http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
