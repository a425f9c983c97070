//! The layer: a price, put in front of a service.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use tower_layer::Layer;

use crate::payments::Payments;
use crate::quote::Quote;
use crate::service::PaymentService;

/// Puts a price in front of a service. Made by [`Payments::price`] and [`Payments::priced_by`].
///
/// It fits an axum method router (`route_layer`, the best place), a whole router and any other
/// tower service whose request and answer are HTTP:
///
/// ```
/// use axum::{Router, body::Body, http::{Request, request::Parts}, routing::get};
/// use farebox_middleware::{Payments, Price, usd};
/// use tower::ServiceExt as _;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let payments = Payments::for_tests();
/// let price = |parts: &Parts| match parts.uri.path() {
///     "/health" => Price::Free,
///     _ => usd!("0.002").into(), // what nobody thought of is not free
/// };
/// let app = Router::new()
///     .route("/health", get(|| async { "well" }))
///     .layer(payments.priced_by(price).charge_if(|status| status.is_success()));
///
/// for (path, status) in [("/health", 200), ("/Health", 402), ("/else", 402)] {
///     let answer = app.clone().oneshot(Request::get(path).body(Body::empty())?).await?;
///     assert_eq!(answer.status(), status, "{path}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PaymentLayer<P> {
    pub(crate) terms: Arc<Terms<P>>,
}

/// What a priced service asks of its requests.
pub(crate) struct Terms<P> {
    pub(crate) payments: Payments,
    pub(crate) pricer: P,
    /// The one quote of a fixed price, built once.
    pub(crate) quote: Option<Quote>,
    pub(crate) charge_if: fn(StatusCode) -> bool,
}

/// 2xx, and 101: the upgrade is what was paid for.
fn is_success(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS
}

impl<P> PaymentLayer<P> {
    pub(crate) fn new(payments: Payments, pricer: P, quote: Option<Quote>) -> Self {
        let terms = Terms { payments, pricer, quote, charge_if: is_success };
        PaymentLayer { terms: Arc::new(terms) }
    }

    /// Decides by its status which answers are charged for. The default is 2xx and 101.
    #[must_use]
    pub fn charge_if(self, charge_if: fn(StatusCode) -> bool) -> Self
    where
        P: Clone,
    {
        let Terms { payments, pricer, quote, .. } = &*self.terms;
        let (payments, pricer, quote) = (payments.clone(), pricer.clone(), quote.clone());
        PaymentLayer { terms: Arc::new(Terms { payments, pricer, quote, charge_if }) }
    }
}

impl<S, P> Layer<S> for PaymentLayer<P> {
    type Service = PaymentService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        PaymentService { inner, terms: self.terms.clone() }
    }
}

impl<P> Clone for PaymentLayer<P> {
    fn clone(&self) -> Self {
        PaymentLayer { terms: self.terms.clone() }
    }
}

impl<P> fmt::Debug for PaymentLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentLayer").finish_non_exhaustive()
    }
}
