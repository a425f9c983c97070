//! A request's future is dropped at every point where it waits. Nothing stays reserved, and a
//! card is charged at most once.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use farebox_middleware::{Payments, usd};
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
