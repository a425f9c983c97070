//! The layer: a price, put in front of a service.

use std::fmt;
use std::sync::{Arc, OnceLock};

use farebox_ledger::book::Route;
use farebox_protocol::Micros;
use http::StatusCode;
use http::request::Parts;
use tower_layer::Layer;

use crate::payments::Payments;
use crate::price::{FixedPrice, Price};
use crate::quote::{Quote, Unpayable};
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
    /// The one quote of a price that is the same for every request, built once.
    pub(crate) quoted: Option<Quoted>,
    pub(crate) charge_if: fn(StatusCode) -> bool,
    /// What the provider calls the route.
    named: Option<Route>,
    /// The name that the framework gave to the first request's route: mostly that of all.
    seen: OnceLock<Route>,
}

/// A quote, and whether it is only the most that a request can cost.
#[derive(Clone)]
pub(crate) struct Quoted {
    pub(crate) quote: Quote,
    pub(crate) metered: bool,
}

impl<P> Terms<P> {
    /// The name of the request's route in statements: the provider's, or the pattern that axum
    /// matched. Never what the client sent: it would be kept, under as many names as it likes.
    pub(crate) fn route(&self, parts: &Parts) -> Route {
        if let Some(named) = &self.named {
            return named.clone();
        }
        let name = matched(parts).unwrap_or(ANY_ROUTE);
        let seen = self.seen.get_or_init(|| Route::new(name));
        if seen.as_str() == name { seen.clone() } else { Route::new(name) }
    }
}

/// What a route is called that nobody gave a name.
const ANY_ROUTE: &str = "*";

#[cfg(feature = "axum")]
fn matched(parts: &Parts) -> Option<&str> {
    parts.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn matched(_: &Parts) -> Option<&str> {
    None
}

/// 2xx, and 101: the upgrade is what was paid for.
fn is_success(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS
}

impl PaymentLayer<FixedPrice> {
    /// A layer with one price; it panics if nothing could ever pay it.
    #[expect(clippy::panic, reason = "a route that cannot work must not be built")]
    pub(crate) fn fixed(payments: &Payments, price: Price) -> Self {
        let (most, metered) = match price {
            Price::Free => return PaymentLayer::new(payments.clone(), FixedPrice(price), None),
            Price::Fixed(money) => (money, false),
            Price::UpTo(money) => (money, true),
        };
        let quote = match most.micros() {
            Micros::ZERO => Err(Unpayable::NotWholeUnits),
            _ => payments.quote(most),
        };
        match quote {
            Ok(quote) => {
                let quoted = Quoted { quote, metered };
                PaymentLayer::new(payments.clone(), FixedPrice(price), Some(quoted))
            }
            Err(error) => panic!("a price of {most} cannot work: {error}"),
        }
    }
}

impl<P> PaymentLayer<P> {
    pub(crate) fn new(payments: Payments, pricer: P, quoted: Option<Quoted>) -> Self {
        let (named, seen) = (None, OnceLock::new());
        let terms = Terms { payments, pricer, quoted, charge_if: is_success, named, seen };
        PaymentLayer { terms: Arc::new(terms) }
    }

    /// Decides by its status which answers are charged for. The default is 2xx and 101.
    #[must_use]
    pub fn charge_if(self, charge_if: fn(StatusCode) -> bool) -> Self
    where
        P: Clone,
    {
        self.with(|terms| terms.charge_if = charge_if)
    }

    /// What payers read in their statements: where they spent. Without it, it is the path as the
    /// axum router has it (`/joke/{id}`), and `*` elsewhere.
    #[must_use]
    pub fn route(self, name: &str) -> Self
    where
        P: Clone,
    {
        self.with(|terms| terms.named = Some(Route::new(name)))
    }

    fn with(self, change: impl FnOnce(&mut Terms<P>)) -> Self
    where
        P: Clone,
    {
        let Terms { payments, pricer, quoted, charge_if, named, .. } = &*self.terms;
        let mut terms = Terms {
            payments: payments.clone(),
            pricer: pricer.clone(),
            quoted: quoted.clone(),
            charge_if: *charge_if,
            named: named.clone(),
            seen: OnceLock::new(),
        };
        change(&mut terms);
        PaymentLayer { terms: Arc::new(terms) }
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
