//! Who paid for a request, for its handler.

use std::fmt;

use farebox_protocol::{Currency, PayerId};

/// Who pays for this request. It is in the request's extensions, and an axum extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    pub(crate) id: PayerId,
    pub(crate) currency: Currency,
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
}

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
        parts.extensions.get().copied().ok_or(NotPaid)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for NotPaid {
    fn into_response(self) -> axum::response::Response {
        tracing::error!("{self}");
        http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
