//! A request may take longer than a reservation lasts: it is renewed while its process lives.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use farebox_middleware::{ManualClock, Payer, Payments, Price, Timestamp, usd};
use futures_util::stream;
use tokio::sync::Semaphore;

use crate::support::{Bank, Books, Provider, by_card, by_credential, card, serve};

/// A ledger's clock that a test turns.
struct Time(Arc<ManualClock>, i64);

impl Time {
    fn now() -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut time = Time(Arc::default(), i64::try_from(now).unwrap());
        time.pass(0);
        time
    }

    fn pass(&mut self, seconds: i64) {
        self.1 += seconds * 1_000;
        self.0.set(Timestamp::from_millis(self.1));
    }
}

async fn work(State(gate): State<Arc<Semaphore>>, _: Payer) -> &'static str {
    gate.acquire().await.unwrap().forget();
    "Done."
}

/// Two chunks, a cent each.
async fn slow(State(gate): State<Arc<Semaphore>>, payer: Payer) -> Body {
    let next = |(gate, payer, n): (Arc<Semaphore>, Payer, usize)| async move {
        gate.acquire().await.unwrap().forget();
        payer.charge(usd!("0.01"));
        let chunk = Ok::<_, Infallible>(Bytes::from("chunk "));
        (n < 2).then_some((chunk, (gate, payer, n + 1)))
    };
    Body::from_stream(stream::unfold((gate, payer, 0), next))
}

struct Scene {
    provider: Provider,
    time: Time,
    gate: Arc<Semaphore>,
    url: String,
    credential: String,
}

impl Scene {
    async fn set(books: Books) -> Scene {
        let (bank, time) = (Bank::open().await, Time::now());
        let folder = tempfile::tempdir().unwrap();
        let ledger = match books {
            Books::Memory => "memory:".to_owned(),
            Books::Embedded => format!("embedded:{}", folder.path().join("books.redb").display()),
        };
        let builder = Payments::builder(bank.stripe()).ledger(&ledger).clock(time.0.clone());
        let provider = Provider::of(builder.open().await.unwrap(), folder).await;
        let gate = Arc::new(Semaphore::new(0));
        let most = Price::up_to(usd!("0.10"));
        let app = Router::new()
            .route("/work", post(work).route_layer(provider.payments.price(usd!("0.01"))))
            .route("/slow", get(slow).route_layer(provider.payments.price(most)))
            .with_state(gate.clone());
        let url = serve(app).await;
        let first = provider.get("/api/fail", &by_card(&bank.method(&card(1)).await)).await;
        let credential = first.credential();
        Scene { provider, time, gate, url, credential }
    }

    /// Lets time pass as it does in a process that sweeps.
    async fn minutes(&mut self, minutes: i64) {
        for _ in 0..2 * minutes {
            self.time.pass(30);
            self.provider.payments.sweep().await;
        }
    }

    async fn reserves(&self, units: i64) {
        self.provider.settles_at(&self.credential, 50_000 - units).await;
    }
}

async fn a_long_request(books: Books, key: Option<&str>) {
    let mut scene = Scene::set(books).await;
    let mut request = scene.provider.http.post(format!("{}/work", scene.url));
    request = request.header("payment", by_credential(&scene.credential).encode());
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let call = tokio::spawn(request.send());
    scene.reserves(100).await;
    scene.minutes(10).await;
    scene.reserves(100).await;
    scene.gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    scene.minutes(10).await;
    scene.reserves(100).await; // spent
}

#[tokio::test]
async fn a_request_longer_than_its_reservation_stays_reserved_and_is_charged() {
    a_long_request(Books::Memory, None).await;
    a_long_request(Books::Embedded, None).await;
}

#[tokio::test]
async fn a_keyed_request_longer_than_its_reservation_is_charged_too() {
    a_long_request(Books::Memory, Some("k1")).await;
    a_long_request(Books::Embedded, Some("k1")).await;
}

#[tokio::test]
async fn a_long_stream_is_renewed_with_what_it_spent_and_settled_at_its_end() {
    let mut scene = Scene::set(Books::Embedded).await;
    let request = scene.provider.http.get(format!("{}/slow", scene.url));
    let request = request.header("payment", by_credential(&scene.credential).encode());
    let mut response = request.send().await.unwrap();
    scene.minutes(3).await;
    scene.gate.add_permits(1);
    assert!(response.chunk().await.unwrap().is_some());
    scene.minutes(3).await;
    scene.reserves(1_000).await; // one cent of ten is spent, nine are set aside
    scene.gate.add_permits(2);
    assert!(tokio::time::timeout(Duration::from_secs(5), response.bytes()).await.unwrap().is_ok());
    // The third chunk was charged and not sent; its handler says what it costs.
    scene.reserves(300).await;
    scene.minutes(3).await;
    scene.reserves(300).await;
}
