//! A paid request, one way through:
//!
//! ```text
//! payment -> credential -> price -> (top-up) -> reserve -> handler -> settle -> response
//! ```
//!
//! Each station consumes what the one before it made, so none can be skipped.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farebox_ledger::book::Route;
use farebox_protocol::{ErrorCode, MessageError, Micros, Payment, PaymentResponse, header};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use tower_service::Service;

use crate::answer;
use crate::keyed::{self, RunsOn};
use crate::layer::{Quoted, Terms};
use crate::meter::{self, Meter, Metered, PaidBody};
use crate::pay::Paid;
use crate::payer::Payer;
use crate::price::{Price, Pricer};
use crate::quote::Quote;
use crate::refusal::{self, Refusal};

/// A service whose requests are paid for. Made by [`PaymentLayer`](crate::PaymentLayer).
///
/// A refused request is an answer, never an error: errors are the inner service's.
pub struct PaymentService<S, P> {
    pub(crate) inner: S,
    pub(crate) terms: Arc<Terms<P>>,
}

impl<S, P, B, R> Service<Request<B>> for PaymentService<S, P>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    P: Pricer,
    B: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Either<Full<Bytes>, PaidBody<R>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one that must be called; its clone stays.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(serve(self.terms.clone(), inner, request))
    }
}

async fn serve<S, P, B, R>(
    terms: Arc<Terms<P>>,
    inner: S,
    request: Request<B>,
) -> Result<Response<Either<Full<Bytes>, PaidBody<R>>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send,
    P: Pricer,
    B: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let payment = take_payment(&mut parts.headers);
    let Quoted { quote, metered } = match price(&terms, &parts, &payment).await {
        Ok(Some(quoted)) => quoted,
        Ok(None) => {
            let mut inner = inner;
            let response = inner.call(Request::from_parts(parts, body)).await?;
            return Ok(response.map(|body| Either::Right(PaidBody::settled(body))));
        }
        Err(refusal) => return Ok(refused(refusal, None, &parts)),
    };
    if parts.extensions.get::<Payer>().is_some() {
        tracing::error!(path = target(&parts).path(), "two prices on one route: remove a layer");
        return Ok(refusal::misconfigured().map(Either::Left));
    }
    let paid = match admit(&terms, &parts, payment, &quote).await {
        Ok(paid) => paid,
        Err(refusal) => return Ok(refused(refusal, Some(&quote), &parts)),
    };
    let meter = metered.then(|| Arc::new(Meter::new(quote.currency, quote.price)));
    let (id, currency) = (paid.reservation.payer(), quote.currency);
    parts.extensions.insert(Payer { id, currency, meter: meter.clone() });
    let (route, path) = (terms.route(&parts), target(&parts).path().to_owned());
    let is_keyed = paid.reservation.is_keyed();
    let shared = terms.payments.shared.clone();
    let charge_if = terms.charge_if;
    let ticket = Ticket { paid, quote, meter, route, path, charge_if };
    let call = ticket.call(inner, Request::from_parts(parts, body));
    // With a key, the work is done once: it goes on when nobody waits for it any more.
    if is_keyed { RunsOn::new(&shared, call).await } else { call.await }
}

/// Reads what the request says about its payment and its key, and sets the price aside.
async fn admit<P>(
    terms: &Terms<P>,
    parts: &Parts,
    payment: Result<Option<Payment>, MessageError>,
    quote: &Quote,
) -> Result<Paid, Refusal> {
    let payment = payment.map_err(|_| ErrorCode::InvalidPayment)?;
    let key = keyed::key(parts)?;
    let payment = payment.ok_or(ErrorCode::PaymentRequired)?;
    let claim = key.map(|key| {
        let target = target(parts);
        let target = target.path_and_query().map_or(target.path(), PathAndQuery::as_str);
        keyed::claim(&terms.payments.shared.identity, key, parts, target)
    });
    terms.payments.pay(quote, payment, claim, parts).await
}

/// A request that is paid for, on its way to the handler.
struct Ticket {
    paid: Paid,
    quote: Quote,
    meter: Option<Arc<Meter>>,
    route: Route,
    path: String,
    charge_if: fn(StatusCode) -> bool,
}

impl Ticket {
    /// Lets the handler answer, and settles what that costs. An error, a panic or a dropped future
    /// releases the reservation, by its guard.
    async fn call<S, B, R>(
        self,
        mut inner: S,
        request: Request<B>,
    ) -> Result<Response<Either<Full<Bytes>, PaidBody<R>>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        let mut response = inner.call(request).await?;
        let Ticket { paid, quote, meter, route, path, charge_if } = self;
        let Paid { reservation, client_id, top_up_id, charge_id } = paid;
        let receipt = |spent: Micros, left: Micros| PaymentResponse {
            success: true,
            charge_id,
            credits_remaining: left.units_floor(),
            client_id: client_id.as_str().to_owned(),
            charged: Some(spent.units_ceil()),
            currency: Some(quote.currency),
            top_up_id,
            error: None,
            error_code: None,
        };
        let spent = match (charge_if(response.status()), meter) {
            (false, _) => Micros::ZERO,
            (true, None) => reservation.amount(),
            (true, Some(meter)) if meter::is_last(&meter) => meter.end(),
            (true, Some(meter)) => {
                // The total is not known yet: the receipt tells the most that it can be.
                let receipt = receipt(reservation.amount(), reservation.available());
                answer::write_receipt(response.headers_mut(), &receipt);
                let metered = Metered::new(reservation, meter, route);
                return Ok(response.map(|body| Either::Right(PaidBody::metered(body, metered))));
            }
        };
        match reservation.settle(&route, spent).await {
            Ok(left) => {
                answer::write_receipt(response.headers_mut(), &receipt(spent, left));
                Ok(response.map(|body| Either::Right(PaidBody::settled(body))))
            }
            Err(error) => {
                tracing::error!(%error, "a served request could not be charged; it is not answered");
                let refusal = Refusal::from(ErrorCode::LedgerUnavailable).after(top_up_id);
                Ok(refusal.response(Some(&quote), &path).map(Either::Left))
            }
        }
    }
}

/// The request's payment, taken off it: no handler and no proxy behind us must pass it on.
fn take_payment(headers: &mut HeaderMap) -> Result<Option<Payment>, MessageError> {
    let payment = match header::single(headers, &header::PAYMENT) {
        Ok(None) => return Ok(None),
        // A payment that names nobody is none.
        Ok(Some(value)) => Payment::decode(value.as_bytes()).map(|payment| {
            Some(payment).filter(|p| p.client_id.is_some() || p.payment_method_id.is_some())
        }),
        Err(error) => Err(error),
    };
    headers.remove(header::PAYMENT);
    if let Err(error) = &payment {
        tracing::debug!(%error, "a malformed payment");
    }
    payment
}

/// What the request costs, at most; `None` if it is free.
async fn price<P: Pricer>(
    terms: &Terms<P>,
    parts: &Parts,
    payment: &Result<Option<Payment>, MessageError>,
) -> Result<Option<Quoted>, Refusal> {
    if let Some(quoted) = &terms.quoted {
        return Ok(Some(quoted.clone()));
    }
    let client_id = payment.as_ref().ok().and_then(|p| p.as_ref()?.client_id.as_ref());
    let payer = client_id.and_then(|id| terms.payments.shared.credentials.check(id));
    let unavailable = |error: &dyn fmt::Display| {
        tracing::error!(%error, path = parts.uri.path(), "a request has no price");
        Refusal::from(ErrorCode::PriceUnavailable)
    };
    let payer = payer.map(|credential| credential.payer);
    let (money, metered) = match terms.pricer.price(parts, payer.as_ref()).await {
        Ok(Price::Free) => return Ok(None),
        Ok(Price::Fixed(money)) => (money, false),
        Ok(Price::UpTo(most)) => (most, true),
        Err(error) => return Err(unavailable(&error)),
    };
    let quote = terms.payments.quote(money).map_err(|error| unavailable(&error))?;
    Ok(Some(Quoted { quote, metered }))
}

fn refused<R>(
    refusal: Refusal,
    quote: Option<&Quote>,
    parts: &Parts,
) -> Response<Either<Full<Bytes>, R>> {
    refusal.response(quote, target(parts).path()).map(Either::Left)
}

/// What the client asked for, whole also under a nested router.
fn target(parts: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    &parts.uri
}

impl<S: Clone, P> Clone for PaymentService<S, P> {
    fn clone(&self) -> Self {
        PaymentService { inner: self.inner.clone(), terms: self.terms.clone() }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for PaymentService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
