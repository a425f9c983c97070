//! What a payer may ask about its account: the balance, by credential, for nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farebox_ledger::Store as _;
use farebox_protocol::{Currency, ErrorCode, Payment, Units, header};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tower_service::Service;

use crate::payments::Shared;
use crate::refusal::{self, Refusal};

/// Answers `GET balance`. Made by [`Payments::account_routes`](crate::Payments::account_routes);
/// on axum, mounted with `nest_service("/account", ..)`.
#[derive(Clone, Debug)]
pub struct AccountService {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Serialize)]
struct Balance {
    accounts: Vec<Account>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    currency: Currency,
    credits_remaining: Units,
}

impl<B> Service<Request<B>> for AccountService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_balance = request.uri().path().rsplit('/').next() == Some("balance");
        match (is_balance, request.method()) {
            (false, _) => {
                let response = refusal::json(StatusCode::NOT_FOUND, Vec::new());
                Box::pin(std::future::ready(Ok(response)))
            }
            (true, &Method::GET | &Method::HEAD) => {
                let (shared, payment) = (self.shared.clone(), payment(request.headers()));
                Box::pin(async move { Ok(balance(&shared, payment).await) })
            }
            (true, _) => {
                let mut response = refusal::json(StatusCode::METHOD_NOT_ALLOWED, Vec::new());
                let allow = HeaderValue::from_static("GET, HEAD");
                response.headers_mut().insert(http::header::ALLOW, allow);
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

fn payment(headers: &HeaderMap) -> Option<Payment> {
    let value = header::single(headers, &header::PAYMENT).ok()??;
    Payment::decode(value.as_bytes()).ok().filter(|payment| payment.client_id.is_some())
}

/// An unknown or revoked credential looks like an empty account.
async fn balance(shared: &Shared, payment: Option<Payment>) -> Response<Full<Bytes>> {
    let Some(client_id) = payment.and_then(|payment| payment.client_id) else {
        let mut response = Refusal::from(ErrorCode::InvalidPayment).response(None, "");
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let mut accounts = Vec::new();
    if let Some(credential) = shared.credentials.check(&client_id) {
        let head = match shared.ledger.load(&credential.payer).await {
            Ok(head) => head,
            Err(error) => {
                tracing::error!(%error, "a balance cannot be read");
                return Refusal::from(ErrorCode::LedgerUnavailable).response(None, "");
            }
        };
        if head.generation == credential.generation {
            accounts.extend(head.accounts.iter().map(|(&currency, account)| Account {
                currency,
                credits_remaining: account.available.units_floor(),
            }));
        }
    }
    // Strings and integers always serialize.
    let body = serde_json::to_vec(&Balance { accounts }).unwrap_or_default();
    refusal::json(StatusCode::OK, body)
}
