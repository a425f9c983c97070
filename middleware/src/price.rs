//! What a request costs.

use farebox_protocol::{Money, PayerId};
use http::request::Parts;

/// What a request costs. "Free" is a word: a price that is forgotten cannot become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Price {
    /// Nothing: the request goes to the handler as it is.
    Free,
    /// This much, if it succeeds. Whole units of 1/10,000, and at most the largest top-up. At zero
    /// the request is free for its payer only: it must still say who pays.
    Fixed(Money),
    /// What the handler charges with [`Payer::charge`](crate::Payer::charge), at most this much:
    /// so much is set aside. Whole units, and at most the largest top-up.
    UpTo(Money),
}

impl Price {
    /// A metered price: what the handler charges, and never more than `most`.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use farebox_middleware::{Payer, Payments, Price, usd};
    /// use tower::ServiceExt as _;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// async fn write(payer: Payer) -> &'static str {
    ///     payer.charge(usd!("0.0007"));
    ///     "Seven tokens."
    /// }
    /// let payments = Payments::for_tests();
    /// let write = post(write).route_layer(payments.price(Price::up_to(usd!("0.50"))));
    /// let app: Router = Router::new().route("/write", write);
    ///
    /// let payment = payments.fund(usd!("5")).await;
    /// let request = Request::post("/write").header("payment", payment).body(Body::empty())?;
    /// assert_eq!(app.oneshot(request).await?.status(), 200);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn up_to(most: Money) -> Price {
        Price::UpTo(most)
    }
}

impl From<Money> for Price {
    fn from(money: Money) -> Self {
        Price::Fixed(money)
    }
}

/// Decides what a request costs.
///
/// Closures from `&Parts` to [`Price`] implement it. A `match` on the path that prices its `_`
/// arm fails closed: what nobody thought of is paid for, not free.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not price requests",
    note = "use a closure `|parts: &http::request::Parts| -> Price`, or implement `Pricer`"
)]
pub trait Pricer: Send + Sync + 'static {
    /// The price of the request with this head. `payer` is whose valid credential it carries,
    /// if any; whether it was revoked is not known yet.
    ///
    /// An error is answered 503 `price_unavailable`, and nothing is taken.
    fn price(
        &self,
        parts: &Parts,
        payer: Option<&PayerId>,
    ) -> impl Future<Output = Result<Price, PriceError>> + Send;
}

impl<F> Pricer for F
where
    F: Fn(&Parts) -> Price + Send + Sync + 'static,
{
    async fn price(&self, parts: &Parts, _: Option<&PayerId>) -> Result<Price, PriceError> {
        Ok(self(parts))
    }
}

/// One price for every request.
#[derive(Clone, Copy, Debug)]
pub struct FixedPrice(pub(crate) Price);

impl Pricer for FixedPrice {
    async fn price(&self, _: &Parts, _: Option<&PayerId>) -> Result<Price, PriceError> {
        Ok(self.0)
    }
}

/// A price could not be determined. The reason goes to the server's log, not to the client.
#[derive(Debug, thiserror::Error)]
#[error("the price is unavailable: {0}")]
pub struct PriceError(Box<dyn std::error::Error + Send + Sync>);

impl PriceError {
    /// An error with a reason for the operator.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PriceError {
        PriceError(reason.into())
    }
}
