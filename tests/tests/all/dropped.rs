//! A request's future is dropped at every point where it waits. Nothing stays reserved, a card is
//! charged at most once, and so is a key.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use farebox_middleware::{Payer, Payments, Price, usd};
use farebox_protocol::Payment;
use tokio::task::yield_now;
use tower::ServiceExt as _;

use crate::support::{Answer, Bank, Books, Provider, by_card, card, eventually};

/// More than any request waits.
const POLLS_MAX: usize = 200;

/// Polls a future `polls` times, whenever it wakes, and drops it. `None`: it had not ended.
async fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(move |context| {
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn app(payments: &Payments) -> Router {
    let patient = || async {
        for _ in 0..5 {
            yield_now().await;
        }
        "A joke."
    };
    let joke = axum::routing::get(patient).route_layer(payments.price(usd!("0.01")));
    Router::new().route("/joke", joke)
}

fn request(payment: &str) -> Request {
    Request::get("/joke").header("payment", payment).body(Body::empty()).unwrap()
}

async fn answer(response: axum::response::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: String::new() }
}

/// Requests from credit, each dropped one poll later than the one before it.
async fn from_credit(books: Books) {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let app = app(&provider.payments);
    let method = bank.method(&card(1)).await;
    let credential = provider.joke(&by_card(&method)).await.credential();
    let payment = crate::support::by_credential(&credential).encode();

    let mut balance = provider.balance(&credential).await;
    for polls in 1..POLLS_MAX {
        let ended = poll_times(app.clone().oneshot(request(&payment)), polls).await;
        if let Some(response) = ended {
            let answer = answer(response.unwrap()).await;
            assert_eq!((answer.status, answer.charged()), (200, 100));
            provider.settles_at(&credential, balance - 100).await;
            println!("dropped at each of {} polls, {books:?}: nothing stays reserved", polls - 1);
            assert!(polls > 5, "it never waited");
            return;
        }
        // Once the handler has answered, its request is spent, also if nobody waits any more.
        let possible = [balance, balance - 100];
        let wanted = if polls <= 5 { &possible[..1] } else { &possible[..] };
        let ask = async || provider.balance(&credential).await;
        balance = eventually(Duration::from_secs(1), ask, |balance| wanted.contains(balance)).await;
    }
    panic!("a request waits more than {POLLS_MAX} times");
}

#[tokio::test]
async fn a_request_dropped_at_any_poll_leaves_nothing_reserved_in_memory() {
    from_credit(Books::Memory).await;
}

#[tokio::test]
async fn a_request_dropped_at_any_poll_leaves_nothing_reserved_on_disk() {
    from_credit(Books::Embedded).await;
}

/// First requests by card, each of a new card and dropped one poll later than the one before it.
async fn by_new_cards(books: Books) {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let app = app(&provider.payments);
    for polls in 1..POLLS_MAX {
        let number = card(u32::try_from(polls).unwrap());
        let payment: Payment = by_card(&bank.method(&number).await);
        let encoded = payment.encode();
        let ended = poll_times(app.clone().oneshot(request(&encoded)), polls).await.is_some();
        let again = provider.joke(&payment).await;
        assert!(again.is_served(), "{again:?}");
        assert_eq!(bank.charges().len(), polls, "each card is charged once");
        let possible = [49_900, 49_800];
        let wanted = if ended { &possible[1..] } else { &possible[..] };
        let ask = async || provider.balance(&again.credential()).await;
        eventually(Duration::from_secs(1), ask, |balance| wanted.contains(balance)).await;
        if ended {
            println!("first requests dropped at each of {} polls, {books:?}", polls - 1);
            return;
        }
    }
    panic!("a first request waits more than {POLLS_MAX} times");
}

#[tokio::test]
async fn a_first_request_dropped_at_any_poll_charges_its_card_once_in_memory() {
    by_new_cards(Books::Memory).await;
}

#[tokio::test]
async fn a_first_request_dropped_at_any_poll_charges_its_card_once_on_disk() {
    by_new_cards(Books::Embedded).await;
}

/// Keyed requests, each with a key of its own and dropped one poll later than the one before it.
/// Whatever became of it, repeating it until it is answered charges the key once.
async fn keyed(books: Books) {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let app = app(&provider.payments);
    let credential = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let payment = crate::support::by_credential(&credential).encode();
    let mut balance = provider.balance(&credential).await;
    for polls in 1..POLLS_MAX {
        let request = || {
            let key = http::HeaderValue::try_from(format!("key-{polls}")).unwrap();
            let mut request = request(&payment);
            request.headers_mut().insert("idempotency-key", key);
            request
        };
        let ended = poll_times(app.clone().oneshot(request()), polls).await;
        let status = async || app.clone().oneshot(request()).await.unwrap();
        let is_over = |answer: &axum::response::Response| {
            answer.status() == 200 || !answer.headers().contains_key("retry-after")
        };
        let again = eventually(Duration::from_secs(1), status, is_over).await;
        balance -= 100;
        provider.settles_at(&credential, balance).await;
        if let Some(answer) = ended {
            assert_eq!((answer.unwrap().status().as_u16(), again.status().as_u16()), (200, 409));
            println!("keyed, dropped at each of {} polls, {books:?}: one charge", polls - 1);
            assert!(polls > 5, "it never waited");
            return;
        }
        // A handler that has begun is finished by nobody but its task.
        assert_eq!(again.status().as_u16(), 409, "dropped at poll {polls}");
    }
    panic!("a request waits more than {POLLS_MAX} times");
}

#[tokio::test]
async fn a_keyed_request_dropped_at_any_poll_is_charged_once_in_memory() {
    keyed(Books::Memory).await;
}

#[tokio::test]
async fn a_keyed_request_dropped_at_any_poll_is_charged_once_on_disk() {
    keyed(Books::Embedded).await;
}

/// Requests that charge 30 micros before and after each of five waits, half of them in the body.
fn metered_app(payments: &Payments, charged: &Arc<AtomicI64>) -> Router {
    let charged = charged.clone();
    let drip = move |payer: Payer| async move {
        let drop_by_drop = move |(payer, n): (Payer, u32)| {
            let charged = charged.clone();
            async move {
                yield_now().await;
                payer.charge(usd!("0.00003"));
                charged.fetch_add(30, Ordering::SeqCst);
                (n < 5).then_some((Ok::<_, Infallible>("drop "), (payer, n + 1)))
            }
        };
        let start = drop_by_drop((payer, 0)).await;
        let rest = start.map(|(_, rest)| rest).unwrap();
        Body::from_stream(futures_util::stream::unfold(rest, drop_by_drop))
    };
    let price = Price::up_to(usd!("0.01"));
    Router::new().route("/drip", axum::routing::get(drip).route_layer(payments.price(price)))
}

/// Metered requests and their bodies, each dropped one poll later than the one before it.
async fn metered(books: Books, key: bool) {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let charged = Arc::new(AtomicI64::new(0));
    let app = metered_app(&provider.payments, &charged);
    let credential = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let payment = crate::support::by_credential(&credential).encode();
    let mut balance = provider.balance(&credential).await;
    for polls in 1..POLLS_MAX {
        charged.store(0, Ordering::SeqCst);
        let mut request = Request::get("/drip").header("payment", &payment);
        if key {
            request = request.header("idempotency-key", format!("key-{polls}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let app = app.clone();
        let has_head = Arc::new(AtomicBool::new(false));
        let call = async {
            let response = app.oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            has_head.store(true, Ordering::SeqCst);
            axum::body::to_bytes(response.into_body(), 1_000).await.unwrap()
        };
        let ended = poll_times(call, polls).await.is_some();
        // A keyed handler runs on to its head; an unkeyed one without a head costs nothing.
        let ask = async || {
            let micros = charged.load(Ordering::SeqCst);
            let units =
                if key || has_head.load(Ordering::SeqCst) { (micros + 99) / 100 } else { 0 };
            (provider.balance(&credential).await, units)
        };
        let settled = |(now, units): &(i64, i64)| *now == balance - units;
        (balance, _) = eventually(Duration::from_secs(1), ask, settled).await;
        if ended {
            println!("metered, dropped at each of {} polls, {books:?}, keyed: {key}", polls - 1);
            assert!(polls > 5, "it never waited");
            assert_eq!(charged.load(Ordering::SeqCst), 180);
            return;
        }
    }
    panic!("a request waits more than {POLLS_MAX} times");
}

#[tokio::test]
async fn a_metered_request_dropped_at_any_poll_costs_what_was_charged_in_memory() {
    metered(Books::Memory, false).await;
    metered(Books::Memory, true).await;
}

#[tokio::test]
async fn a_metered_request_dropped_at_any_poll_costs_what_was_charged_on_disk() {
    metered(Books::Embedded, false).await;
    metered(Books::Embedded, true).await;
}

/// What a dropped request set aside is not only shown: it can be spent.
#[tokio::test]
async fn what_dropped_requests_reserved_can_be_spent_to_the_last_unit() {
    let bank = Bank::open().await;
    let provider = Arc::new(Provider::open(&bank, Books::Embedded).await);
    let app = app(&provider.payments);
    let credential = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let payment = crate::support::by_credential(&credential).encode();
    for _ in 0..200 {
        assert!(poll_times(app.clone().oneshot(request(&payment)), 3).await.is_none());
    }
    provider.settles_at(&credential, 49_900).await;
    let mut served = 0;
    for _ in 0..600 {
        let answer = app.clone().oneshot(request(&payment)).await.unwrap();
        served += i32::from(answer.status() == 200);
    }
    assert_eq!(served, 499);
}
