//! Scripted providers and a tokenizer that counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use farebox_client::{Agent, Card, Money, PaymentError, PaymentErrorExt as _, Policy, usd};
use farebox_protocol::{
    ClientId, Currency, ErrorCode, Offer, Payment, PaymentRequired, PaymentResponse, Units,
};
use http::{HeaderMap, Method, StatusCode};

pub(crate) const CARD: &str = "4242424242424242:11:47:987";
pub(crate) const PK: &str = "pk_test_farebox";
pub(crate) const CREDENTIAL: &str = "payer.1.secret";
/// 2023-11-14 22:13:20 UTC.
pub(crate) const NOW: i64 = 1_700_000_000;

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payment: Option<Payment>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn key(&self) -> Option<&str> {
        self.headers.get("idempotency-key").and_then(|value| value.to_str().ok())
    }

    pub(crate) fn card(&self) -> Option<&str> {
        Some(self.payment.as_ref()?.payment_method_id.as_ref()?.as_str())
    }
}

pub(crate) enum Reply {
    Answer(Response),
    /// Takes the request and never answers.
    Silence,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Reply {
        Reply::Answer(response)
    }
}

/// A server that answers as its script says, and remembers what it was asked.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start<R: Into<Reply>>(
        script: impl Fn(&Seen) -> R + Send + Sync + 'static,
    ) -> Server {
        farebox_canary::watch();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, script) = (Arc::clone(&seen), Arc::new(script));
        let handler = move |request: Request| {
            let (log, script) = (Arc::clone(&log), Arc::clone(&script));
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let payment = parts.headers.get("payment");
                let payment = payment.map(|value| Payment::decode(value.as_bytes()).unwrap());
                let one = Seen {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    payment,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                log.lock().unwrap().push(one.clone());
                // Lets the other requests of a parallel test arrive first.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                let reply: Reply = script(&one).into();
                match reply {
                    Reply::Answer(response) => response,
                    Reply::Silence => std::future::pending().await,
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { address, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The PaymentMethods that were offered, in their order.
    pub(crate) fn cards(&self) -> Vec<String> {
        self.seen().iter().filter_map(|seen| seen.card().map(str::to_owned)).collect()
    }
}

/// A tokenizer that makes `pm_1`, `pm_2`, ...
pub(crate) async fn tokenizer() -> Server {
    let made = AtomicUsize::new(0);
    Server::start(move |seen: &Seen| {
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/payment_methods"));
        let id = made.fetch_add(1, Ordering::SeqCst) + 1;
        answer(StatusCode::OK, &format!(r#"{{"id":"pm_{id}","object":"payment_method"}}"#))
    })
    .await
}

pub(crate) fn answer(status: StatusCode, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}

/// A 402 with one offer: `price` units, top-ups of at least 5 usd.
pub(crate) fn offer(price: i64, error: Option<ErrorCode>) -> Response {
    let mut required = required(price);
    required.error = error;
    asking(&required)
}

pub(crate) fn required(price: i64) -> PaymentRequired {
    let mut required = PaymentRequired::stripe("/", usd!("1"), usd!("5"), PK);
    required.accepts[0].amount = Units::new(price).unwrap();
    required
}

pub(crate) fn asking(required: &PaymentRequired) -> Response {
    Response::builder()
        .status(402)
        .header("payment-required", required.encode())
        .body(Body::from(required.to_json()))
        .unwrap()
}

/// A refused payment: our code in header and body, as servers of this protocol send it.
pub(crate) fn refused(code: ErrorCode) -> Response {
    let builder = Response::builder().status(code.status());
    let builder = match code.status() {
        StatusCode::PAYMENT_REQUIRED => {
            let mut required = required(100);
            required.error = Some(code);
            builder.header("payment-required", required.encode())
        }
        _ => builder,
    };
    builder.body(Body::from(PaymentResponse::refused(code).to_json())).unwrap()
}

pub(crate) fn told(charge: Option<&str>, charged: Option<i64>, remaining: i64) -> PaymentResponse {
    PaymentResponse {
        success: true,
        charge_id: charge.map(str::to_owned),
        credits_remaining: Units::new(remaining).unwrap(),
        client_id: CREDENTIAL.to_owned(),
        charged: charged.and_then(Units::new),
        currency: charged.map(|_| Currency::USD),
        top_up_id: None,
        error: None,
        error_code: None,
    }
}

pub(crate) fn served(status: StatusCode, told: &PaymentResponse) -> Response {
    let builder = Response::builder().status(status).header("payment-response", told.encode());
    builder.body(Body::from("served")).unwrap()
}

/// A provider that keeps its books right.
#[derive(Default)]
pub(crate) struct Honest {
    /// What every request costs, in units.
    pub(crate) price: AtomicI64,
    pub(crate) balance: AtomicI64,
    pub(crate) charges: AtomicUsize,
}

impl Honest {
    pub(crate) fn new(price: i64) -> Arc<Honest> {
        Arc::new(Honest { price: AtomicI64::new(price), ..Honest::default() })
    }

    pub(crate) fn charges(&self) -> usize {
        self.charges.load(Ordering::SeqCst)
    }

    pub(crate) fn answer(&self, seen: &Seen) -> Response {
        let price = self.price.load(Ordering::SeqCst);
        let mut required = required(price);
        required.accepts[0].max_top_up = Units::new(10_000_000);
        let Some(payment) = &seen.payment else { return asking(&required) };
        if payment.max_amount.is_some_and(|max| max.get() < price) {
            required.error = Some(ErrorCode::PriceAboveMaximum);
            return asking(&required);
        }
        let known = payment.client_id.as_ref().map(ClientId::as_str) == Some(CREDENTIAL);
        let mut charge = None;
        if (known || payment.payment_method_id.is_some()) && self.spend(price) {
            return served(StatusCode::OK, &told(None, Some(price), self.left()));
        }
        if payment.payment_method_id.is_some() {
            let amount = payment.top_up_amount.map_or(50_000, Units::get);
            self.balance.fetch_add(amount, Ordering::SeqCst);
            self.charges.fetch_add(1, Ordering::SeqCst);
            charge = Some("ch_1");
        }
        if charge.is_some() && self.spend(price) {
            return served(StatusCode::OK, &told(charge, Some(price), self.left()));
        }
        required.error = Some(ErrorCode::InsufficientCredits);
        asking(&required)
    }

    fn left(&self) -> i64 {
        self.balance.load(Ordering::SeqCst)
    }

    fn spend(&self, price: i64) -> bool {
        let take = |balance: i64| (balance >= price).then(|| balance - price);
        self.balance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

pub(crate) async fn honest(price: i64) -> (Arc<Honest>, Server) {
    let provider = Honest::new(price);
    let script = Arc::clone(&provider);
    (provider, Server::start(move |seen: &Seen| script.answer(seen)).await)
}

/// A provider that offers at 100 units, and answers payments by card as `paid` says.
pub(crate) async fn answering<R: Into<Reply>>(
    paid: impl Fn(&Seen) -> R + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen: &Seen| match seen.card() {
        Some(_) => paid(seen).into(),
        None => offer(100, None).into(),
    })
    .await
}

pub(crate) fn policy() -> Policy {
    let policy = Policy::new().allow("127.0.0.1").trust("127.0.0.1").per_request(usd!("0.05"));
    policy.per_top_up(usd!("5")).per_day(usd!("10"))
}

pub(crate) fn agent(policy: Policy, tokenizer: &Server) -> Agent {
    let card: Card = CARD.parse().unwrap();
    Agent::new(policy).card(card).clock(|| NOW).tokenizer(&tokenizer.url("")).unwrap()
}

pub(crate) type Http = reqwest_middleware::ClientWithMiddleware;

pub(crate) fn client(agent: &Agent) -> Http {
    agent.client(reqwest::Client::builder().no_proxy()).unwrap().build()
}

pub(crate) async fn held(agent: &Agent) -> Money {
    agent.usage().await.unwrap().held(Currency::USD, NOW)
}

/// The payment's error of a call that must not succeed.
pub(crate) fn failure(
    result: &Result<reqwest::Response, reqwest_middleware::Error>,
) -> &PaymentError {
    let error = result.as_ref().expect_err("an error");
    error.payment().unwrap_or_else(|| panic!("not a payment's error: {error:?}"))
}

/// The offer that a payment answers, to be changed by hostile servers.
pub(crate) fn offer_of(required: &mut PaymentRequired) -> &mut Offer {
    &mut required.accepts[0]
}
