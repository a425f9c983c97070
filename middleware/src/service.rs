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
use http::{HeaderMap, Request, Response};
use http_body_util::{Either, Full};
use tower_service::Service;

use crate::answer;
use crate::layer::Terms;
use crate::pay::Paid;
use crate::payer::Payer;
use crate::price::{Price, Pricer};
use crate::quote::Quote;
use crate::refusal::{self, Refusal};
use crate::reservation::SettleError;

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
    type Response = Response<Either<Full<Bytes>, R>>;
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
    mut inner: S,
    request: Request<B>,
) -> Result<Response<Either<Full<Bytes>, R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    P: Pricer,
    R: http_body::Body<Data = Bytes> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let payment = take_payment(&mut parts.headers);
    let quote = match price(&terms, &parts, &payment).await {
        Ok(Some(quote)) => quote,
        Ok(None) => {
            let response = inner.call(Request::from_parts(parts, body)).await?;
            return Ok(response.map(Either::Right));
        }
        Err(refusal) => return Ok(refused(refusal, None, &parts)),
    };
    if parts.extensions.get::<Payer>().is_some() {
        tracing::error!(path = path(&parts), "two prices on one route: remove a layer");
        return Ok(refusal::misconfigured().map(Either::Left));
    }
    let paid = match payment {
        Ok(Some(payment)) => terms.payments.pay(&quote, payment).await,
        Ok(None) => Err(ErrorCode::PaymentRequired.into()),
        Err(_) => Err(ErrorCode::InvalidPayment.into()),
    };
    let paid = match paid {
        Ok(paid) => paid,
        Err(refusal) => return Ok(refused(refusal, Some(&quote), &parts)),
    };
    let payer = Payer { id: paid.reservation.payer(), currency: quote.currency };
    parts.extensions.insert(payer);
    let path = path(&parts).to_owned();
    // An error, a panic or a dropped future releases the reservation, by its guard.
    let mut response = inner.call(Request::from_parts(parts, body)).await?;
    let charged = (terms.charge_if)(response.status());
    let top_up = paid.top_up_id;
    match settle(paid, charged, &quote).await {
        Ok(receipt) => {
            answer::write_receipt(response.headers_mut(), &receipt);
            Ok(response.map(Either::Right))
        }
        Err(error) => {
            tracing::error!(%error, "a served request could not be charged; it is not answered");
            let refusal = Refusal::from(ErrorCode::LedgerUnavailable).after(top_up);
            Ok(refusal.response(Some(&quote), &path).map(Either::Left))
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

/// What the request costs; `None` if it is free.
async fn price<P: Pricer>(
    terms: &Terms<P>,
    parts: &Parts,
    payment: &Result<Option<Payment>, MessageError>,
) -> Result<Option<Quote>, Refusal> {
    if let Some(quote) = &terms.quote {
        return Ok(Some(quote.clone()));
    }
    let client_id = payment.as_ref().ok().and_then(|p| p.as_ref()?.client_id.as_ref());
    let payer = client_id.and_then(|id| terms.payments.shared.credentials.check(id));
    let unavailable = |error: &dyn fmt::Display| {
        tracing::error!(%error, path = parts.uri.path(), "a request has no price");
        Refusal::from(ErrorCode::PriceUnavailable)
    };
    match terms.pricer.price(parts, payer.map(|credential| credential.payer).as_ref()).await {
        Ok(Price::Free) => Ok(None),
        Ok(Price::Fixed(money)) => {
            terms.payments.quote(money).map(Some).map_err(|error| unavailable(&error))
        }
        Err(error) => Err(unavailable(&error)),
    }
}

/// Ends the reservation and writes the receipt.
async fn settle(paid: Paid, charged: bool, quote: &Quote) -> Result<PaymentResponse, SettleError> {
    let Paid { reservation, client_id, top_up_id, charge_id } = paid;
    let spent = if charged { reservation.amount() } else { Micros::ZERO };
    let available = reservation.settle(&Route::new(""), spent).await?;
    Ok(PaymentResponse {
        success: true,
        charge_id,
        credits_remaining: available.units_floor(),
        client_id: client_id.as_str().to_owned(),
        charged: Some(spent.units_ceil()),
        currency: Some(quote.currency),
        top_up_id,
        error: None,
        error_code: None,
    })
}

fn refused<R>(
    refusal: Refusal,
    quote: Option<&Quote>,
    parts: &Parts,
) -> Response<Either<Full<Bytes>, R>> {
    refusal.response(quote, path(parts)).map(Either::Left)
}

/// The whole path that the client asked for, also under a nested router.
fn path(parts: &Parts) -> &str {
    #[cfg(feature = "axum")]
    if let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>() {
        return original.path();
    }
    parts.uri.path()
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
