//! A wire to the bank with faults on demand.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use tokio::sync::watch;

use super::{Bank, serve};

/// What the wire does to a call that asks for a charge. Everything else passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It passes.
    None,
    /// The bank charges, and its answer waits until the fault ends.
    HoldAnswer,
    /// The bank charges, and its answer is lost: a proxy's 502.
    LoseAnswer,
    /// The bank does not hear of it; the card is declined.
    Decline,
}

/// A wire. It is up as long as the test.
pub(crate) struct Gate {
    pub(crate) url: String,
    fault: watch::Sender<Fault>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    pub(crate) async fn open(bank: &Bank) -> Gate {
        let (fault, current) = watch::channel(Fault::None);
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let wire = Wire {
            bank: bank.url().to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            current,
            calls: calls.clone(),
        };
        let pass = move |request: Request| {
            let wire = wire.clone();
            async move { wire.pass(request).await }
        };
        Gate { url: serve(Router::new().fallback(pass)).await, fault, calls }
    }

    /// From now on; `None` also answers whoever waits.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The idempotency keys of all calls that asked for a charge.
    pub(crate) fn charge_keys(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Wire {
    bank: String,
    http: reqwest::Client,
    current: watch::Receiver<Fault>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Wire {
    async fn pass(mut self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let is_charge = parts.method == "POST" && parts.uri.path() == "/v1/payment_intents";
        let fault = if is_charge { *self.current.borrow() } else { Fault::None };
        if is_charge {
            let key = parts.headers["idempotency-key"].to_str().unwrap().to_owned();
            self.calls.lock().unwrap().push(key);
        }
        if fault == Fault::Decline {
            let decline = r#"{"error":{"type":"card_error","code":"card_declined"}}"#;
            return answer(StatusCode::PAYMENT_REQUIRED, decline);
        }
        let mut headers = parts.headers;
        headers.remove("host");
        let url = format!("{}{}", self.bank, parts.uri);
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let passed = self.http.request(parts.method, url).headers(headers).body(body).send();
        let passed = passed.await.unwrap();
        let (status, headers) = (passed.status(), passed.headers().clone());
        let body = passed.bytes().await.unwrap();
        match fault {
            Fault::HoldAnswer => {
                let _ = self.current.wait_for(|fault| *fault == Fault::None).await;
            }
            Fault::LoseAnswer => return answer(StatusCode::BAD_GATEWAY, "the answer was lost"),
            _ => {}
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn answer(status: StatusCode, body: &'static str) -> Response {
    Response::builder().status(status).body(Body::from(body)).unwrap()
}
