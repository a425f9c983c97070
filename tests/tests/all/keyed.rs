//! A request with an `Idempotency-Key` is charged once, whatever happens to its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use farebox_middleware::{Payer, Price, usd};
use farebox_protocol::{ErrorCode, Payment, Units};
use http::Request;
use http::request::Parts;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::support::{
    Answer, Bank, Books, Provider, by_card, by_credential, card, eventually, serve,
};

/// What the handler does, and how often it began and ended.
struct Work {
    began: AtomicUsize,
    ended: AtomicUsize,
    fails: AtomicBool,
    panics: AtomicBool,
    /// A permit for each request that may end.
    gate: Semaphore,
}

impl Work {
    fn counts(&self) -> (usize, usize) {
        (self.began.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
    }

    async fn has_begun(&self, times: usize) {
        let begun = async || self.counts().0;
        eventually(Duration::from_secs(5), begun, |begun| *begun == times).await;
    }
}

async fn work(State(work): State<Arc<Work>>, _: Payer) -> Result<&'static str, StatusCode> {
    work.began.fetch_add(1, Ordering::SeqCst);
    work.gate.acquire().await.unwrap().forget();
    assert!(!work.panics.load(Ordering::SeqCst), "a handler's panic, on purpose");
    work.ended.fetch_add(1, Ordering::SeqCst);
    match work.fails.load(Ordering::SeqCst) {
        true => Err(StatusCode::BAD_GATEWAY),
        false => Ok("Done."),
    }
}

/// A provider whose handler waits, and a payer with 50,000 units.
struct Scene {
    bank: Bank,
    provider: Provider,
    work: Arc<Work>,
    url: String,
    method: String,
    credential: String,
}

impl Scene {
    async fn set(books: Books, permits: usize) -> Scene {
        let bank = Bank::open().await;
        let provider = Provider::open(&bank, books).await;
        let work = Arc::new(Work {
            began: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            gate: Semaphore::new(permits),
        });
        let app = Router::new()
            .route("/work", post(self::work).route_layer(provider.payments.price(usd!("0.01"))))
            .route("/more", post(self::work).route_layer(provider.payments.price(usd!("0.02"))))
            .route("/gift", post(self::work).route_layer(provider.payments.priced_by(gift)))
            .with_state(work.clone());
        let url = serve(app).await;
        let method = bank.method(&card(1)).await;
        let first = provider.get("/api/fail", &by_card(&method)).await;
        assert_eq!(first.remaining(), 50_000);
        let credential = first.credential();
        Scene { bank, provider, work, url, method, credential }
    }

    fn payment(&self) -> Payment {
        by_credential(&self.credential)
    }

    async fn post(
        &self,
        path: &str,
        keys: &[&str],
        body: &'static str,
        payment: &Payment,
    ) -> Answer {
        let mut request = self.provider.http.post(format!("{}{path}", self.url)).body(body);
        for key in keys {
            request = request.header("idempotency-key", *key);
        }
        let request = request.timeout(Duration::from_secs(10));
        let response = request.header("payment", payment.encode()).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    async fn work(&self, key: &str) -> Answer {
        self.post("/work", &[key], "", &self.payment()).await
    }

    async fn balance(&self) -> i64 {
        self.provider.balance(&self.credential).await
    }
}

/// Free for its payer.
fn gift(_: &Parts) -> Price {
    usd!("0").into()
}

fn refused(answer: &Answer) -> (u16, ErrorCode) {
    assert!(answer.header("payment-response").is_none() && answer.offer().is_none(), "{answer:?}");
    (answer.status, answer.code().unwrap())
}

const IN_FLIGHT: (u16, ErrorCode) = (409, ErrorCode::RequestInFlight);
const CONFLICT: (u16, ErrorCode) = (422, ErrorCode::IdempotencyConflict);
const ALREADY: (u16, ErrorCode) = (409, ErrorCode::AlreadyCharged);
const NO_KEY: (u16, ErrorCode) = (400, ErrorCode::InvalidIdempotencyKey);

async fn one_run_and_one_charge(books: Books) {
    let scene = Scene::set(books, 0).await;
    let (first, ()) = tokio::join!(scene.work("k1"), async {
        scene.work.has_begun(1).await;
        let second = scene.work("k1").await;
        assert_eq!(refused(&second), IN_FLIGHT);
        assert!(second.header("retry-after").is_some());
        scene.work.gate.add_permits(1);
    });
    assert_eq!((first.status, first.charged(), first.body.as_str()), (200, 100, "Done."));
    let third = scene.work("k1").await;
    assert_eq!(refused(&third), ALREADY);
    let told = third.refusal();
    assert_eq!(told.charged, Units::new(100));
    assert_eq!(told.currency.map(|currency| currency.code()), Some("usd"));
    assert_eq!((scene.work.counts(), scene.balance().await), ((1, 1), 49_900));
    // The key of one payer is not another's.
    scene.work.gate.add_permits(1);
    let other = by_card(&scene.bank.method(&card(2)).await);
    assert!(scene.post("/work", &["k1"], "", &other).await.is_served());
}

#[tokio::test]
async fn a_key_used_twice_runs_the_handler_once_and_charges_once_in_memory() {
    one_run_and_one_charge(Books::Memory).await;
}

#[tokio::test]
async fn a_key_used_twice_runs_the_handler_once_and_charges_once_on_disk() {
    one_run_and_one_charge(Books::Embedded).await;
}

#[tokio::test]
async fn a_request_that_was_not_charged_runs_again_under_its_key() {
    let scene = Scene::set(Books::Embedded, 10).await;
    scene.work.fails.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let failed = scene.work("k1").await;
        assert_eq!((failed.status, failed.charged()), (502, 0));
    }
    scene.work.fails.store(false, Ordering::SeqCst);
    assert_eq!(scene.work("k1").await.charged(), 100);
    assert_eq!(refused(&scene.work("k1").await), ALREADY);
    assert_eq!((scene.work.counts(), scene.balance().await), ((3, 3), 49_900));
    // What is free for its payer is never charged, so it is never done.
    for _ in 0..2 {
        let free = scene.post("/gift", &["k2"], "", &scene.payment()).await;
        assert_eq!((free.status, free.charged()), (200, 0));
    }
}

#[tokio::test]
async fn a_keyed_handler_that_panics_costs_nothing_and_runs_again() {
    let scene = Scene::set(Books::Memory, 10).await;
    scene.work.panics.store(true, Ordering::SeqCst);
    let request = scene.provider.http.post(format!("{}/work", scene.url));
    let request = request.header("idempotency-key", "k1");
    let panicked = request.header("payment", scene.payment().encode()).send().await;
    assert!(panicked.is_err(), "the connection closes: {panicked:?}");
    scene.provider.settles_at(&scene.credential, 50_000).await;
    scene.work.panics.store(false, Ordering::SeqCst);
    assert_eq!(scene.work("k1").await.charged(), 100);
}

#[tokio::test]
async fn a_key_of_another_request_is_a_conflict() {
    let scene = Scene::set(Books::Embedded, 10).await;
    let payment = scene.payment();
    assert!(scene.post("/work?a=1", &["k1"], "one", &payment).await.is_served());
    for (path, body) in [("/more?a=1", "one"), ("/work?a=2", "one"), ("/work", "one")] {
        assert_eq!(refused(&scene.post(path, &["k1"], body, &payment).await), CONFLICT, "{path}");
    }
    assert_eq!(refused(&scene.post("/work?a=1", &["k1"], "other", &payment).await), CONFLICT);
    // Another way to pay is not another request.
    let richer = Payment { max_amount: Units::new(5_000), ..payment };
    assert_eq!(refused(&scene.post("/work?a=1", &["k1"], "one", &richer).await), ALREADY);
    assert_eq!((scene.work.counts(), scene.balance().await), ((1, 1), 49_900));
}

/// A payment with a card that would top up at every request touches it only where the key is new.
#[tokio::test]
async fn a_card_is_not_charged_for_a_key_in_flight_or_done() {
    let scene = Scene::set(Books::Embedded, 0).await;
    let payment_method_id = Some(scene.method.parse().unwrap());
    let greedy = Payment { payment_method_id, min_credit: Units::new(900_000), ..scene.payment() };
    let (first, ()) = tokio::join!(scene.work("k1"), async {
        scene.work.has_begun(1).await;
        assert_eq!(refused(&scene.post("/work", &["k1"], "", &greedy).await), IN_FLIGHT);
        scene.work.gate.add_permits(1);
    });
    assert!(first.is_served());
    assert_eq!(refused(&scene.post("/work", &["k1"], "", &greedy).await), ALREADY);
    assert_eq!(refused(&scene.post("/more", &["k1"], "", &greedy).await), CONFLICT);
    assert_eq!(refused(&scene.post("/work", &["k 2"], "", &greedy).await), NO_KEY);
    assert_eq!((scene.bank.charges().len(), scene.balance().await), (1, 49_900));
    // With a new key, the wish counts.
    scene.work.gate.add_permits(1);
    let topped_up = scene.post("/work", &["k2"], "", &greedy).await;
    assert!(topped_up.is_served() && topped_up.receipt().top_up_id.is_some(), "{topped_up:?}");
    assert_eq!(scene.bank.charges().len(), 2);
    assert_eq!(scene.balance().await, 49_900 - 100 + 900_000 - 49_800);
}

#[tokio::test]
async fn a_key_that_is_none_takes_nothing() {
    let scene = Scene::set(Books::Memory, 10).await;
    let (long, longest) = ("k".repeat(256), "k".repeat(255));
    for keys in [&["a", "b"][..], &["a", "a"], &[""], &["a b"], &["\u{e9}"], &[&long]] {
        let answer = scene.post("/work", keys, "", &scene.payment()).await;
        assert_eq!(refused(&answer), NO_KEY, "{keys:?}");
    }
    assert_eq!((scene.work.counts(), scene.balance().await), ((0, 0), 50_000));
    assert!(scene.work(&longest).await.is_served() && scene.work("\"quoted\"").await.is_served());
}

/// The way of a client that starts with nothing: 402, pay with the same key, be served.
#[tokio::test]
async fn the_way_to_a_paid_request_never_uses_up_its_key() {
    let scene = Scene::set(Books::Embedded, 10).await;
    let stranger = by_card(&scene.bank.method(&card(2)).await);
    let bounds = Payment { top_up_amount: Units::new(1), ..stranger.clone() };
    assert_eq!(scene.post("/work", &["k1"], "x", &Payment::default()).await.status, 402);
    assert_eq!(scene.post("/work", &["k1"], "x", &bounds).await.status, 402);
    let low = Payment { max_amount: Units::new(1), ..stranger.clone() };
    assert_eq!(scene.post("/work", &["k1"], "x", &low).await.status, 402);
    let paid = scene.post("/work", &["k1"], "x", &stranger).await;
    assert_eq!((paid.status, paid.charged()), (200, 100), "{paid:?}");
    assert_eq!(refused(&scene.post("/work", &["k1"], "x", &stranger).await), ALREADY);
    assert_eq!((scene.work.counts(), scene.bank.charges().len()), ((1, 1), 2));
}

#[tokio::test]
async fn ten_first_requests_with_one_key_are_one_charge_and_one_run() {
    let scene = Scene::set(Books::Embedded, 100).await;
    let stranger = by_card(&scene.bank.method(&card(2)).await);
    let calls = (0..10).map(|_| async {
        loop {
            let answer = scene.post("/work", &["k1"], "", &stranger).await;
            // In flight, or credit is there and somebody else was served: a client asks again.
            if !matches!(
                (answer.status, answer.code()),
                (409, Some(ErrorCode::RequestInFlight)) | (503, _)
            ) {
                return answer.status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answers = futures_util::future::join_all(calls).await;
    answers.sort_unstable();
    assert_eq!(answers, [vec![200], vec![409; 9]].concat());
    assert_eq!((scene.work.counts(), scene.bank.charges().len()), ((1, 1), 2));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_charged_once_with_a_key_and_not_without() {
    let scene = Scene::set(Books::Embedded, 0).await;
    let address = scene.url.trim_start_matches("http://");
    for (begun, key) in [(1, "idempotency-key: k1\r\n"), (2, "")] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let payment = scene.payment().encode();
        let head = format!("POST /work HTTP/1.1\r\nhost: api\r\n{key}payment: {payment}\r\n");
        client.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        scene.work.has_begun(begun).await;
        drop(client);
    }
    // Both set 100 aside; the one without a key has given it back.
    scene.provider.settles_at(&scene.credential, 49_900).await;
    assert_eq!(refused(&scene.post("/work", &["k1"], "", &scene.payment()).await), IN_FLIGHT);
    scene.work.gate.add_permits(2);
    let ended = async || scene.work.counts();
    eventually(Duration::from_secs(5), ended, |counts| *counts == (2, 1)).await;
    let again = async || scene.work("k1").await.code();
    eventually(Duration::from_secs(5), again, |code| *code == Some(ErrorCode::AlreadyCharged))
        .await;
    assert_eq!((scene.work.counts(), scene.balance().await), ((2, 1), 49_900));
    println!("hung up with a key: charged once; without: nothing");
}

#[tokio::test]
async fn closing_waits_for_the_keyed_request_of_a_client_that_is_gone() {
    let scene = Scene::set(Books::Embedded, 0).await;
    let app = Router::new()
        .route("/work", post(self::work).route_layer(scene.provider.payments.price(usd!("0.01"))))
        .with_state(scene.work.clone());
    let request = Request::post("/work").header("idempotency-key", "k1");
    let request = request.header("payment", scene.payment().encode()).body(Body::empty()).unwrap();
    let call = tokio::spawn(app.oneshot(request));
    scene.work.has_begun(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let (closed, ()) = tokio::join!(scene.provider.payments.close(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.work.gate.add_permits(1);
    });
    closed.unwrap();
    assert_eq!((scene.work.counts(), scene.balance().await), ((1, 1), 49_900));
}
