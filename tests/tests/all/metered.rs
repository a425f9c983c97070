//! Metered prices: what the handler charged is taken, once, wherever the answer ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use farebox_middleware::{Payer, Price, usd};
use farebox_protocol::{ErrorCode, Payment, Units};
use futures_util::stream;
use http::Method;
use tokio::sync::Semaphore;

use crate::support::{
    Answer, Bank, Books, Provider, by_card, by_credential, card, eventually, send, serve,
};

/// How many chunks were streamed, and how many more may be.
struct Taps {
    streamed: AtomicUsize,
    open: Semaphore,
}

/// Chunks that cost 30 micros each, `count` of them.
fn chunks(taps: Arc<Taps>, payer: Payer, count: usize) -> Body {
    let next = move |(taps, payer, n): (Arc<Taps>, Payer, usize)| async move {
        if n == count {
            return None;
        }
        taps.open.acquire().await.unwrap().forget();
        payer.charge(usd!("0.00003"));
        taps.streamed.fetch_add(1, Ordering::SeqCst);
        assert!(n < 90, "a stream's panic, on purpose");
        Some((Ok::<_, Infallible>(Bytes::from("chunk ")), (taps, payer, n + 1)))
    };
    Body::from_stream(stream::unfold((taps, payer, 0), next))
}

async fn drops(payer: Payer) -> &'static str {
    for _ in 0..5 {
        payer.charge(usd!("0.00003"));
    }
    "Five drops."
}

async fn flood(payer: Payer) -> &'static str {
    for _ in 0..3 {
        payer.charge(usd!("9000000"));
        payer.charge(farebox_protocol::Money::parse("1", "eur".parse().unwrap()).unwrap());
    }
    "A flood."
}

async fn fails(payer: Payer) -> StatusCode {
    payer.charge(usd!("0.01"));
    StatusCode::BAD_GATEWAY
}

/// It streams, and its status is not charged.
async fn fails_slowly(State(taps): State<Arc<Taps>>, payer: Payer) -> (StatusCode, Body) {
    (StatusCode::NOT_FOUND, chunks(taps, payer, 5))
}

async fn stream(State(taps): State<Arc<Taps>>, payer: Payer) -> Body {
    chunks(taps, payer, 10)
}

async fn endless(State(taps): State<Arc<Taps>>, payer: Payer) -> Body {
    chunks(taps, payer, 1_000_000)
}

struct Scene {
    provider: Provider,
    taps: Arc<Taps>,
    url: String,
    credential: String,
}

impl Scene {
    /// A payer with 50,000 units.
    async fn set(bank: &Bank, permits: usize) -> Scene {
        let provider = Provider::open(bank, Books::Embedded).await;
        let taps = Arc::new(Taps { streamed: AtomicUsize::new(0), open: Semaphore::new(permits) });
        let cent = || provider.payments.price(Price::up_to(usd!("0.01")));
        let app = Router::new()
            .route("/drops", get(drops).route_layer(cent()))
            .route("/fixed", get(drops).route_layer(provider.payments.price(usd!("0.01"))))
            .route("/flood", get(flood).route_layer(cent()))
            .route("/nothing", get(|_: Payer| async { "Nothing." }).route_layer(cent()))
            .route("/fails", get(fails).route_layer(cent()))
            .route("/fails-slowly", get(fails_slowly).route_layer(cent()))
            .route("/stream", get(stream).route_layer(cent()))
            .route("/endless", get(endless).route_layer(cent()))
            .with_state(taps.clone());
        let url = serve(app).await;
        let first = provider.get("/api/fail", &by_card(&bank.method(&card(1)).await)).await;
        let credential = first.credential();
        Scene { provider, taps, url, credential }
    }

    async fn get(&self, method: Method, path: &str) -> Answer {
        let payment = by_credential(&self.credential).encode();
        let url = format!("{}{path}", self.url);
        send(&self.provider.http, method, &url, &[&payment]).await.unwrap()
    }

    async fn balance(&self) -> i64 {
        self.provider.balance(&self.credential).await
    }

    async fn open(&self, path: &str) -> reqwest::Response {
        let request = self.provider.http.get(format!("{}{path}", self.url));
        request.header("payment", by_credential(&self.credential).encode()).send().await.unwrap()
    }
}

#[tokio::test]
async fn what_was_charged_is_rounded_up_once_and_told_in_the_head() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 0).await;
    // 5 times 30 micros are 150: 2 units, not 5.
    let paid = scene.get(Method::GET, "/drops").await;
    assert_eq!((paid.charged(), paid.remaining(), paid.body.as_str()), (2, 49_998, "Five drops."));
    assert_eq!(scene.balance().await, 49_998);
    let nothing = scene.get(Method::GET, "/nothing").await;
    assert_eq!((nothing.status, nothing.charged(), nothing.remaining()), (200, 0, 49_998));
    let head = scene.get(Method::HEAD, "/drops").await;
    assert_eq!((head.status, head.charged(), scene.balance().await), (200, 2, 49_996));
    // At a fixed price, a handler decides nothing.
    let fixed = scene.get(Method::GET, "/fixed").await;
    assert_eq!((fixed.charged(), scene.balance().await), (100, 49_896));
}

#[tokio::test]
async fn nothing_is_charged_above_the_maximum_nor_in_another_currency() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 0).await;
    let paid = scene.get(Method::GET, "/flood").await;
    assert_eq!((paid.status, paid.charged(), scene.balance().await), (200, 100, 49_900));
}

#[tokio::test]
async fn a_status_that_is_not_charged_costs_nothing_whatever_was_counted() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 100).await;
    for path in ["/fails", "/fails-slowly"] {
        let answer = scene.get(Method::GET, path).await;
        assert_eq!((answer.charged(), answer.remaining()), (0, 50_000), "{path}");
        assert_eq!(scene.balance().await, 50_000, "{path}");
    }
}

#[tokio::test]
async fn the_offer_is_the_maximum_and_a_lower_limit_refuses_it() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 0).await;
    let url = format!("{}/drops", scene.url);
    let unpaid = send(&scene.provider.http, Method::GET, &url, &[]).await.unwrap();
    assert_eq!(unpaid.offer().unwrap().accepts[0].amount.get(), 100);
    let careful =
        Payment { max_amount: Units::new(99), ..by_credential(&scene.credential) }.encode();
    let refused = send(&scene.provider.http, Method::GET, &url, &[&careful]).await.unwrap();
    assert_eq!(refused.code(), Some(ErrorCode::PriceAboveMaximum));
}

/// Who read the end finds the credit as it is: the end waits for the ledger.
#[tokio::test]
async fn a_stream_that_was_read_to_its_end_is_settled_by_then() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 100).await;
    let mut balance = 50_000;
    for _ in 0..5 {
        let paid = scene.get(Method::GET, "/stream").await;
        // The head tells the most: 300 micros are 3 units.
        assert_eq!((paid.charged(), paid.remaining()), (100, balance - 100));
        assert_eq!(paid.body, "chunk ".repeat(10));
        balance -= 3;
        assert_eq!(scene.balance().await, balance);
    }
}

#[tokio::test]
async fn a_stream_whose_client_leaves_costs_what_was_charged_up_to_then() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 0).await;
    let mut response = scene.open("/endless").await;
    scene.taps.open.add_permits(7);
    let mut read = 0;
    while read < 7 * "chunk ".len() {
        read += response.chunk().await.unwrap().unwrap().len();
    }
    assert_eq!(scene.balance().await, 49_900, "the maximum is set aside");
    drop(response);
    // 7 times 30 micros are 210: 3 units.
    scene.provider.settles_at(&scene.credential, 49_997).await;
    scene.taps.open.add_permits(10);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((scene.taps.streamed.load(Ordering::SeqCst), scene.balance().await), (7, 49_997));
}

#[tokio::test]
async fn a_stream_that_panics_costs_what_was_charged_up_to_then() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 1_000).await;
    let response = scene.open("/endless").await;
    assert!(response.bytes().await.is_err(), "the connection breaks");
    let streamed = async || scene.taps.streamed.load(Ordering::SeqCst);
    eventually(Duration::from_secs(1), streamed, |streamed| *streamed == 91).await;
    // 91 times 30 micros are 2,730: 28 units.
    scene.provider.settles_at(&scene.credential, 49_972).await;
}

/// A HEAD's body is never read: dropping it settles.
#[tokio::test]
async fn the_head_of_a_stream_costs_what_was_charged_before_it() {
    let bank = Bank::open().await;
    let scene = Scene::set(&bank, 100).await;
    let head = scene.get(Method::HEAD, "/stream").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    scene.provider.settles_at(&scene.credential, 50_000).await;
    assert_eq!(scene.taps.streamed.load(Ordering::SeqCst), 0);
}
