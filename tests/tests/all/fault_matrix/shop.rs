//! A provider whose books can be looked into.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use farebox_ledger::{Applied, Book, Command, Due, Entry, Head, Ledger, Store, StoreError, TopUp};
use farebox_middleware::{Payments, Stripe, usd};
use farebox_protocol::{ClientId, PayerId, Payment, TopUpId};
use http::Request;
use tower::ServiceExt as _;

use super::words::Word;
use crate::support::Answer;

/// A ledger that a test reads beside the provider that uses it.
#[derive(Clone)]
struct Shelf(Arc<Ledger>);

impl Store for Shelf {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        self.0.apply(payer, command).await
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.0.load(payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.0.top_up(id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.0.book(payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        self.0.payers().await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        self.0.due().await
    }
}

/// A provider in this process, with two priced routes.
pub(super) struct Shop {
    pub(super) payments: Payments,
    app: Router,
    shelf: Shelf,
}

impl Shop {
    pub(super) async fn open(stripe: Stripe, ledger: Ledger) -> Shop {
        let shelf = Shelf(Arc::new(ledger));
        let payments = Payments::builder(stripe).store(shelf.clone()).secret(&[7; 32]);
        let payments = payments.open().await.unwrap();
        let joke = get(|| async { "A joke." }).route_layer(payments.price(usd!("0.01")));
        let big = get(|| async { "A report." }).route_layer(payments.price(usd!("5")));
        let app = Router::new().route("/joke", joke).route("/big", big);
        Shop { payments, app, shelf }
    }

    pub(super) async fn get(&self, path: &str, payment: &Payment) -> Answer {
        let request = Request::get(path).header("payment", payment.encode()).body(Body::empty());
        let response = self.app.clone().oneshot(request.unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) async fn books(&self) -> BTreeMap<PayerId, Book> {
        let mut books = BTreeMap::new();
        for payer in self.shelf.payers().await.unwrap() {
            books.insert(payer, self.shelf.book(&payer).await.unwrap());
        }
        books
    }

    /// Every top-up of every book.
    pub(super) async fn top_ups(&self) -> Vec<(PayerId, TopUp)> {
        let mut top_ups = Vec::new();
        for (payer, book) in self.books().await {
            let of_book = book.entries.into_values().filter_map(|entry| match entry {
                Entry::TopUp(top_up) => Some((payer, *top_up)),
                _ => None,
            });
            top_ups.extend(of_book);
        }
        top_ups
    }

    /// How a top-up stands.
    pub(super) async fn word(&self, id: TopUpId) -> Word {
        let top_up = self.shelf.top_up(&id).await.unwrap();
        top_up.map_or(Word::NothingTaken, |top_up| Word::from(&top_up.state))
    }

    /// A purchase in which nothing goes wrong. Answers the credential.
    pub(super) async fn buys_a_joke(&self, payment: &Payment) -> ClientId {
        let served = self.get("/joke", payment).await;
        assert!(served.is_served(), "{served:?}");
        served.credential().parse().unwrap()
    }

    pub(super) async fn has_open(&self) -> bool {
        self.top_ups().await.iter().any(|(_, top_up)| top_up.is_open())
    }

    /// Sweeps, and waits for the tasks that the sweep leaves at work; what stays open is wrong.
    pub(super) async fn sweep(&self, within: Duration, wrong: &mut Vec<String>) {
        self.payments.sweep().await;
        let deadline = tokio::time::Instant::now() + within;
        while self.has_open().await {
            if tokio::time::Instant::now() > deadline {
                return wrong.push(format!("a top-up is open {within:?} after the sweep"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
