//! A provider in this process: priced routes over HTTP, on a ledger of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{MethodRouter, get, post};
use farebox_middleware::{Admission, Builder, Payments, Stripe, usd};
use farebox_protocol::Payment;
use http::Method;
use tempfile::TempDir;
use tower::util::MapRequestLayer;

use super::{Answer, Bank, by_credential, eventually, send};

const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

/// Where a provider keeps its books.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Books {
    Memory,
    Embedded,
}

/// How often what happened at a provider.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicUsize,
    pub(crate) handlers: AtomicUsize,
}

pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) payments: Payments,
    pub(crate) http: reqwest::Client,
    pub(crate) counts: Arc<Counts>,
    _folder: TempDir,
}

impl Provider {
    pub(crate) async fn open(bank: &Bank, books: Books) -> Provider {
        Provider::with(bank.stripe(), books).await
    }

    pub(crate) async fn with(stripe: Stripe, books: Books) -> Provider {
        Provider::with_secret(stripe, books, SECRET).await
    }

    pub(crate) async fn with_secret(stripe: Stripe, books: Books, secret: &[u8]) -> Provider {
        let folder = tempfile::tempdir().unwrap();
        let ledger = match books {
            Books::Memory => "memory:".to_owned(),
            Books::Embedded => format!("embedded:{}", folder.path().join("books.redb").display()),
        };
        let payments = Payments::builder(stripe).ledger(&ledger).secret(secret);
        let payments = payments.admission(Admission::unlimited());
        Provider::of(payments.open().await.unwrap(), folder).await
    }

    /// A provider with what `choose` sets, on a ledger in memory.
    pub(crate) async fn choosing(bank: &Bank, choose: impl FnOnce(Builder) -> Builder) -> Provider {
        let payments = Payments::builder(bank.stripe()).ledger("memory:").secret(SECRET);
        let payments = payments.admission(Admission::unlimited());
        let folder = tempfile::tempdir().unwrap();
        Provider::of(choose(payments).open().await.unwrap(), folder).await
    }

    /// A provider with a ledger in `folder`.
    pub(crate) async fn of(payments: Payments, folder: TempDir) -> Provider {
        let counts = Arc::new(Counts::default());
        let url = serve(app(&payments, &counts)).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Provider { url, payments, http, counts, _folder: folder }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// How often a priced handler ran.
    pub(crate) fn served(&self) -> usize {
        self.counts.handlers.load(Ordering::SeqCst)
    }

    /// How many requests arrived.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) async fn get(&self, path: &str, payment: &Payment) -> Answer {
        self.send(Method::GET, path, &[&payment.encode()]).await
    }

    pub(crate) async fn joke(&self, payment: &Payment) -> Answer {
        self.get("/api/joke", payment).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, payments: &[&str]) -> Answer {
        send(&self.http, method, &self.at(path), payments).await.unwrap()
    }

    /// What the holder of a credential can spend, in units of a dollar.
    pub(crate) async fn balance(&self, credential: &str) -> i64 {
        let answer = self.get("/account/balance", &by_credential(credential)).await;
        balance(&answer)
    }

    /// Waits until a balance is this.
    pub(crate) async fn settles_at(&self, credential: &str, units: i64) {
        let ask = async || self.balance(credential).await;
        eventually(Duration::from_secs(1), ask, |balance| *balance == units).await;
    }
}

/// The balance in an answer of the account endpoint.
pub(crate) fn balance(answer: &Answer) -> i64 {
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    json["accounts"][0]["creditsRemaining"].as_i64().unwrap_or_default()
}

/// Serves on a port of loopback until the test ends.
pub(crate) async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// Routes that succeed, fail, hang, panic, lie, and cost too much or twice.
pub(crate) fn app(payments: &Payments, counts: &Arc<Counts>) -> Router {
    let priced = |route: MethodRouter, money| {
        let counts = counts.clone();
        let count = MapRequestLayer::new(move |request: Request| {
            counts.handlers.fetch_add(1, Ordering::SeqCst);
            request
        });
        route.route_layer(count).route_layer(payments.price(money))
    };
    let cent = |route| priced(route, usd!("0.01"));
    let api = Router::new()
        .route("/joke", cent(get(|| async { "A joke." })))
        .route("/echo", cent(post(|body: String| async { body })))
        .route("/big", priced(get(|| async { "A report." }), usd!("5")))
        .route("/huge", priced(get(|| async { "A book." }), usd!("7.5001")))
        .route("/fail", cent(get(|| async { StatusCode::INTERNAL_SERVER_ERROR })))
        .route("/missing", cent(get(|| async { StatusCode::NOT_FOUND })))
        .route("/panic", cent(get(panics)))
        .route("/wait", cent(get(std::future::pending::<()>)))
        .route("/lie", cent(get(lie)))
        .route("/seen", cent(get(seen)))
        .route("/twice", cent(cent(get(|| async { "Paid twice." }))));
    let counts = counts.clone();
    Router::new()
        .route("/", get(lie))
        .nest("/api", api)
        .nest_service("/account", payments.account_routes())
        .layer(MapRequestLayer::new(move |request: Request| {
            counts.requests.fetch_add(1, Ordering::SeqCst);
            request
        }))
}

async fn panics() -> StatusCode {
    panic!("a handler's panic, on purpose")
}

/// A handler that speaks for the payment layer, and wants to be cached by everybody.
async fn lie() -> (HeaderMap, &'static str) {
    let mut headers = HeaderMap::new();
    headers.insert("payment-response", "forged".parse().unwrap());
    headers.insert("payment-required", "forged".parse().unwrap());
    headers.insert("cache-control", "public, s-maxage=600, max-age=60".parse().unwrap());
    headers.insert("vary", "accept".parse().unwrap());
    (headers, "Trust me.")
}

/// The names of the headers that a handler sees.
async fn seen(headers: HeaderMap) -> String {
    headers.keys().map(|name| format!("{name} ")).collect()
}
