//! What needs the ledger's own hand: freezes, limits, abandoned reservations, lost answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;

use farebox_ledger::book::{Limit, Route};
use farebox_ledger::clock::{ManualClock, Timestamp};
use farebox_ledger::store::Memory;
use farebox_ledger::{Applied, Book, Command, Due, Head, Ledger, Proof, Store, StoreError, TopUp};
use farebox_protocol::{ErrorCode, PayerId, Payment, PaymentResponse, TopUpId, Units, usd};
use http::{HeaderValue, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use crate::payments::Shared;
use crate::reservation::{NotReserved, RESERVED_FOR_MILLIS, Reservation, Wanted};
use crate::{Payer, Payments, Price, Stripe};

const REVOCABLE: Proof = Proof::Credential { generation: 1, number: None };

fn wanted(cents: &str, proof: Proof) -> Wanted {
    let money = farebox_protocol::Money::parse(cents, farebox_protocol::Currency::USD).unwrap();
    Wanted { currency: money.currency(), amount: money.micros(), proof, claim: None }
}

fn payer(shared: &Shared) -> PayerId {
    farebox_canary::watch();
    shared.identity.payer("test card")
}

async fn available(shared: &Shared) -> i64 {
    let head = shared.ledger.load(&payer(shared)).await.unwrap();
    head.account(farebox_protocol::Currency::USD).available.units_floor().get()
}

async fn ask(payments: &Payments, payment: &HeaderValue) -> (StatusCode, Option<ErrorCode>) {
    let handler = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let service = payments.price(usd!("0.01")).layer(handler);
    let request = Request::get("/").header("payment", payment).body(()).unwrap();
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let told = PaymentResponse::from_json(&body).ok().and_then(|told| told.error_code);
    (head.status, told)
}

/// The same payment with a card beside it, and a wish for more credit.
fn with_card(payment: &HeaderValue) -> HeaderValue {
    let mut payment = Payment::decode(payment.as_bytes()).unwrap();
    payment.payment_method_id = Some("pm_1".parse().unwrap());
    payment.min_credit = Units::new(900_000);
    HeaderValue::try_from(payment.encode()).unwrap()
}

#[tokio::test]
async fn a_frozen_payer_is_refused_before_a_card_is_touched() {
    let mut payments = Payments::for_tests();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stripe = Stripe::new("sk_test_1", "pk_test_1").unwrap().base_url(&url).unwrap();
    Arc::get_mut(&mut payments.shared).unwrap().stripe = stripe;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let payment = payments.fund(usd!("0.01")).await;
    let shared = &payments.shared;
    let reason: farebox_ledger::book::FreezeReason = "operator".parse().unwrap();
    let freeze = Command::Freeze { reason: reason.clone() };
    shared.ledger.apply(&payer(shared), &freeze).await.unwrap();
    let frozen = (StatusCode::FORBIDDEN, Some(ErrorCode::AccountFrozen));
    assert_eq!(ask(&payments, &payment).await, frozen);
    assert_eq!(ask(&payments, &with_card(&payment)).await, frozen);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    shared.ledger.apply(&payer(shared), &Command::Unfreeze { reason }).await.unwrap();
    assert_eq!(ask(&payments, &payment).await.0, StatusCode::OK);
    assert_ne!(ask(&payments, &with_card(&payment)).await.0, StatusCode::OK);
    assert_ne!(asked.load(Ordering::SeqCst), 0, "else this shows nothing");
}

#[tokio::test]
async fn a_credential_at_its_limit_is_refused_for_good() {
    let payments = Payments::for_tests();
    payments.fund(usd!("5")).await;
    let shared = &payments.shared;
    let limit = Limit { currency: farebox_protocol::Currency::USD, amount: usd!("0.01").micros() };
    let issue = Command::IssueCredential {
        number: 1,
        label: "an-agent".parse().unwrap(),
        limit: Some(limit),
    };
    shared.ledger.apply(&payer(shared), &issue).await.unwrap();
    let proof = Proof::Credential { generation: 1, number: Some(1) };
    let open = |cents| Reservation::open(shared, payer(shared), wanted(cents, proof.clone()));
    assert!(matches!(
        open("0.02").await,
        Err(NotReserved::Refused(refusal)) if refusal.code == ErrorCode::CredentialLimitReached
    ));
    assert!(open("0.01").await.is_ok());
}

#[tokio::test]
async fn what_nobody_holds_expires_and_what_is_held_does_not() {
    let clock = ManualClock::default();
    clock.set(Timestamp::from_millis(1_000));
    let mut payments = Payments::for_tests();
    let shared = Arc::get_mut(&mut payments.shared).unwrap();
    shared.ledger = Ledger::Memory(Memory::new(Arc::new(clock.clone())));
    shared.clock = Arc::new(clock.clone());
    payments.fund(usd!("5")).await;
    let shared = &payments.shared;
    let held = Reservation::open(shared, payer(shared), wanted("1", REVOCABLE)).await;
    let Ok(held) = held else { panic!("nothing was reserved") };
    let (id, ttl, claim) = (7.into(), RESERVED_FOR_MILLIS, None);
    let Wanted { currency, amount, proof, .. } = wanted("2", REVOCABLE);
    let abandoned = Command::Reserve { id, currency, amount, ttl, proof, claim };
    shared.ledger.apply(&payer(shared), &abandoned).await.unwrap();
    assert_eq!(available(shared).await, 20_000);
    for (seconds, left) in [(31, 20_000), (59, 20_000), (62, 40_000), (93, 40_000), (200, 40_000)] {
        clock.set(Timestamp::from_millis(1_000 + seconds * 1_000));
        if seconds == 200 {
            break; // too late: its process was asleep
        }
        payments.sweep().await;
        assert_eq!(available(shared).await, left, "after {seconds} s");
    }
    assert!(held.settle(&Route::new("*"), amount).await.is_err(), "nothing is debited late");
    payments.sweep().await;
    assert_eq!(available(shared).await, 50_000);
}

/// A body that charges a cent with its only chunk.
struct Chunk(Option<Payer>);

impl Body for Chunk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.0.take().map(|payer| {
            payer.charge(usd!("0.01"));
            Ok(Frame::data(Bytes::from("chunk")))
        });
        Poll::Ready(chunk)
    }
}

/// Also when the ledger is slow: a client that read the end may spend what was set aside.
#[tokio::test]
async fn the_end_of_a_stream_waits_for_its_settlement() {
    let mut payments = Payments::for_tests();
    let lossy = Lossy { inner: Memory::default(), lost: AtomicUsize::new(2), done_first: false };
    Arc::get_mut(&mut payments.shared).unwrap().ledger = Ledger::Custom(Box::new(lossy));
    let payment = payments.fund(usd!("1")).await;
    let handler = service_fn(|request: Request<()>| async move {
        let payer = request.extensions().get::<Payer>().cloned();
        Ok::<_, Infallible>(http::Response::new(Chunk(payer)))
    });
    let service = payments.price(Price::up_to(usd!("0.50"))).layer(handler);
    let request = Request::get("/").header("payment", payment).body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(available(&payments.shared).await, 5_000);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "chunk");
    assert_eq!(available(&payments.shared).await, 9_900);
}

/// A ledger in memory that does a settlement and then loses the answer, or loses it before that.
struct Lossy {
    inner: Memory,
    lost: AtomicUsize,
    done_first: bool,
}

impl Store for Lossy {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        let lose = matches!(command, Command::Settle { .. })
            && self
                .lost
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if lose {
            if self.done_first {
                self.inner.apply(payer, command).await?;
            }
            return Err(unreachable_store().await);
        }
        self.inner.apply(payer, command).await
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        Store::load(&self.inner, payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        Store::top_up(&self.inner, id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        Store::book(&self.inner, payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        Store::payers(&self.inner).await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        Store::due(&self.inner).await
    }
}

/// An error of a store.
async fn unreachable_store() -> StoreError {
    let ledger = Ledger::Memory(Memory::default());
    let payer = PayerId::from_bytes([1; 32]);
    farebox_ledger::store::fund(&ledger, &payer, usd!("1")).await.unwrap();
    ledger.restore(payer, Book::default()).await.unwrap_err()
}

#[tokio::test]
async fn a_settlement_whose_answer_was_lost_is_repeated_and_debits_once() {
    for (done_first, lost) in [(true, 1), (false, 1), (true, 3), (false, 3)] {
        let mut payments = Payments::for_tests();
        let lossy = Lossy { inner: Memory::default(), lost: AtomicUsize::new(lost), done_first };
        Arc::get_mut(&mut payments.shared).unwrap().ledger = Ledger::Custom(Box::new(lossy));
        let payment = payments.fund(usd!("0.05")).await;
        assert_eq!(ask(&payments, &payment).await.0, StatusCode::OK, "{done_first} {lost}");
        assert_eq!(available(&payments.shared).await, 400);
        let book = payments.shared.ledger.book(&payer(&payments.shared)).await.unwrap();
        assert!(book.check().is_ok() && book.head.accounts.values().all(|a| a.reserved.get() == 0));
    }
}

#[tokio::test]
async fn a_ledger_that_stays_away_charges_nothing_it_was_not_told() {
    let mut payments = Payments::for_tests();
    let lossy = Lossy { inner: Memory::default(), lost: AtomicUsize::new(99), done_first: false };
    Arc::get_mut(&mut payments.shared).unwrap().ledger = Ledger::Custom(Box::new(lossy));
    let payment = payments.fund(usd!("0.05")).await;
    let away = (StatusCode::SERVICE_UNAVAILABLE, Some(ErrorCode::LedgerUnavailable));
    let started = std::time::Instant::now();
    assert_eq!(ask(&payments, &payment).await, away);
    assert!(started.elapsed().as_secs() < 4, "{:?}", started.elapsed());
}
