//! Money that goes back, when everything that can come between comes between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use farebox_ledger::store::Memory;
use farebox_ledger::{Applied, Book, Command, Due, Head, Store, StoreError, TopUp};
use farebox_middleware::{Payments, RefundState, Refundable, Repair, WebhookService, usd};
use farebox_protocol::{Currency, PayerId, Payment, TopUpId, Units};
use farebox_sandbox::{Fault, FaultKind, Sandbox};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Request;
use sha2::Sha256;
use tower::util::ServiceExt as _;

use crate::support::{
    Bank, Choices, Persistence, Provider, Redis, Setup, by_card, card, eventually,
};

async fn hearing(bank: &Bank) -> Provider {
    let secret = bank.sandbox().webhook_secret();
    Provider::choosing(bank, |builder| builder.webhook_secret(&secret)).await
}

/// Sends an event as the bank would now.
async fn deliver(webhook: &WebhookService, sandbox: &Sandbox, event: &str) -> u16 {
    let (signature, body) = sandbox.signed(event, sandbox.now()).unwrap();
    let request = Request::post("/stripe").header("stripe-signature", signature);
    let request = request.body(Body::from(body)).unwrap();
    webhook.clone().oneshot(request).await.unwrap().status().as_u16()
}

/// The newest event of a kind.
fn newest(sandbox: &Sandbox, kind: &str) -> String {
    sandbox.events().into_iter().rev().find(|event| event.kind == kind).unwrap().id
}

struct Paid {
    credential: String,
    payer: PayerId,
    intent: String,
    top_up: TopUpId,
}

/// The payer of a card, who paid 5 dollars and spent a cent.
async fn pay(bank: &Bank, provider: &Provider, number: u32) -> Paid {
    let answer = provider.joke(&by_card(&bank.method(&card(number)).await)).await;
    assert!(answer.is_served(), "{answer:?}");
    let (credential, receipt) = (answer.credential(), answer.receipt());
    let payer = credential.split('.').next().unwrap().parse().unwrap();
    let (intent, top_up) = (receipt.charge_id.unwrap(), receipt.top_up_id.unwrap());
    Paid { credential, payer, intent, top_up }
}

fn account(payer: PayerId) -> Refundable {
    (payer, Currency::USD).into()
}

/// What cards got back, in cents, oldest first.
fn given_back(bank: &Bank) -> Vec<i64> {
    bank.sandbox().refunds().iter().map(|refund| refund.amount).collect()
}

async fn dashboard_refund(bank: &Bank, intent: &str, cents: i64, more: &str) {
    let form = format!("payment_intent={intent}&amount={cents}{more}");
    let answer = bank.post("/v1/refunds", &form).await;
    assert_eq!(answer["object"], "refund", "{answer}");
}

/// What was refunded to a payer, in micros.
async fn refunded(provider: &Provider, payer: PayerId) -> i64 {
    provider.payments.head(&payer).await.account(Currency::USD).refunded.get()
}

#[tokio::test]
async fn a_refund_that_bears_another_payers_name_is_booked_where_its_charge_is() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let (one, other) = (pay(&bank, &provider, 1).await, pay(&bank, &provider, 2).await);
    dashboard_refund(&bank, &one.intent, 100, &format!("&metadata[top_up]={}", other.top_up)).await;
    provider.payments.catch_up().await;
    assert_eq!(provider.balance(&one.credential).await, 39_900);
    bank.sandbox().fail_refund(&bank.sandbox().refunds()[0].id).unwrap();
    let webhook = provider.payments.webhook().unwrap();
    let failed = newest(bank.sandbox(), "refund.failed");
    assert_eq!(deliver(&webhook, bank.sandbox(), &failed).await, 200);
    assert_eq!(provider.balance(&one.credential).await, 49_900);
    assert_eq!(provider.balance(&other.credential).await, 49_900);
}

/// The provider's account also sells other things, in money that Farebox does not know.
#[tokio::test]
async fn what_farebox_did_not_sell_does_not_stop_it() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let method = bank.method(&card(9)).await;
    let form = format!(
        "amount=5000&currency=xcd&payment_method={method}&confirm=true\
         &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
    );
    let sold = bank.post("/v1/payment_intents", &form).await;
    assert_eq!(sold["status"], "succeeded", "{sold}");
    let sold = sold["id"].as_str().unwrap();
    dashboard_refund(&bank, sold, 5_000, "").await;
    bank.sandbox().warn_of_fraud(sold).ok();
    let webhook = provider.payments.webhook().unwrap();
    let told = newest(bank.sandbox(), "charge.refunded");
    assert_eq!(deliver(&webhook, bank.sandbox(), &told).await, 200);
    assert!(provider.payments.try_catch_up().await);
    let told = provider.payments.reconcile(0, Repair::Yes).await.unwrap();
    assert!(told.unread.is_empty() && told.differences.is_empty(), "{told:?}");
}

#[tokio::test]
async fn an_event_that_cannot_be_booked_at_once_is_sent_again() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let paid = pay(&bank, &provider, 1).await;
    dashboard_refund(&bank, &paid.intent, 100, "").await;
    let told = newest(bank.sandbox(), "charge.refunded");
    let refused = Fault::at("GET", "/v1/payment_intents/*", FaultKind::Unauthorized);
    bank.sandbox().inject(refused.times(1_000));
    assert_eq!(deliver(&webhook, bank.sandbox(), &told).await, 503);
    bank.sandbox().clear_faults();
    assert_eq!(deliver(&webhook, bank.sandbox(), &told).await, 200);
    assert_eq!(refunded(&provider, paid.payer).await, 1_000_000);
}

/// The oldest of what is listed cannot be booked, and hours of other news come after it.
#[tokio::test]
async fn an_event_that_could_not_be_booked_is_read_again_however_old_it_gets() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let (one, two) = (pay(&bank, &provider, 1).await, pay(&bank, &provider, 2).await);
    dashboard_refund(&bank, &one.intent, 100, "").await;
    bank.sandbox().advance(Duration::from_secs(2 * 3_600));
    dashboard_refund(&bank, &two.intent, 200, "").await;
    let path = format!("/v1/payment_intents/{}", one.intent);
    bank.sandbox().inject(Fault::at("GET", &path, FaultKind::Unauthorized).times(1_000));
    assert!(!provider.payments.try_catch_up().await);
    assert_eq!(refunded(&provider, two.payer).await, 2_000_000);
    assert_eq!(refunded(&provider, one.payer).await, 0);
    bank.sandbox().clear_faults();
    assert!(provider.payments.try_catch_up().await);
    assert_eq!(refunded(&provider, one.payer).await, 1_000_000);
    // What comes later is found too, and what was booked is not read again.
    let calls = bank.sandbox().calls().len();
    assert!(provider.payments.try_catch_up().await);
    assert_eq!(bank.sandbox().calls().len(), calls + 1);
}

#[tokio::test]
async fn a_refund_after_one_that_failed_unheard_ends_at_once() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let paid = pay(&bank, &provider, 1).await;
    provider.payments.refund(account(paid.payer), Some(usd!("2"))).await.unwrap();
    bank.sandbox().fail_refund(&bank.sandbox().refunds()[0].id).unwrap();
    let again = provider.payments.refund(account(paid.payer), Some(usd!("1"))).await.unwrap();
    assert_eq!(again.parts[0].state, RefundState::Done);
    assert_eq!(provider.balance(&paid.credential).await, 39_900);
}

/// Stripe accepts a refund, and its bank refuses it before anybody looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_failed_before_it_was_seen_is_credit_again() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let paid = pay(&bank, &provider, 1).await;
    bank.sandbox().inject(Fault::at("POST", "/v1/refunds", FaultKind::Latency { millis: 1_000 }));
    let (refunded, ()) =
        tokio::join!(provider.payments.refund(account(paid.payer), Some(usd!("2"))), async {
            let accepted = async || given_back(&bank).len();
            eventually(Duration::from_secs(5), accepted, |refunds| *refunds == 1).await;
            bank.sandbox().fail_refund(&bank.sandbox().refunds()[0].id).unwrap();
        });
    assert_eq!(refunded.unwrap().parts[0].state, RefundState::Refused);
    assert_eq!(provider.balance(&paid.credential).await, 49_900);
}

/// A refund has ended in the ledger, and its driver has not heard of it yet: whoever asks for the
/// next one must not be told the end of that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_is_done_when_it_says_so_and_not_when_another_one_is() {
    let bank = Bank::open().await;
    let provider = Provider::choosing(&bank, |builder| builder.store(Odd::default())).await;
    let paid = pay(&bank, &provider, 1).await;
    let (payments, payer) = (provider.payments.clone(), paid.payer);
    let first = tokio::spawn(async move { payments.refund(account(payer), Some(usd!("1"))).await });
    let closed = async || refunded(&provider, payer).await;
    eventually(Duration::from_secs(5), closed, |refunded| *refunded == 1_000_000).await;
    let second = provider.payments.refund(account(payer), Some(usd!("2"))).await.unwrap();
    assert_eq!((second.parts[0].state, given_back(&bank)), (RefundState::Done, vec![100, 200]));
    assert_eq!(first.await.unwrap().unwrap().total(), usd!("1"));
    assert_eq!(provider.balance(&paid.credential).await, 19_900);
}

/// While a part of one charge goes back, all else that is unspent can be asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_to_go_back_is_not_planned_twice() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let first = pay(&bank, &provider, 1).await;
    let (client_id, min_credit) = (first.credential.parse().ok(), Units::new(50_000));
    let second = by_card(&bank.method(&card(2)).await);
    let paid = provider.joke(&Payment { client_id, min_credit, ..second }).await;
    assert_eq!(paid.remaining(), 99_800);
    let newest = TopUpId { number: 2, ..first.top_up };
    bank.sandbox().inject(Fault::at("POST", "/v1/refunds", FaultKind::Latency { millis: 2_000 }));
    let (part, rest) = tokio::join!(provider.payments.refund(newest, Some(usd!("3"))), async {
        let accepted = async || given_back(&bank).len();
        eventually(Duration::from_secs(5), accepted, |refunds| *refunds == 1).await;
        provider.payments.refund(account(first.payer), None).await
    });
    assert_eq!(part.unwrap().total(), usd!("3"));
    assert_eq!(rest.unwrap().total(), usd!("6.98"));
    assert_eq!(provider.balance(&first.credential).await, 0);
}

/// An observer reads the charge, sleeps, and wakes after another one has booked newer news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_reading_never_replaces_a_newer_one() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let paid = pay(&bank, &provider, 1).await;
    dashboard_refund(&bank, &paid.intent, 100, "").await;
    let old = newest(bank.sandbox(), "charge.refunded");
    let path = format!("/v1/payment_intents/{}", paid.intent);
    bank.sandbox().inject(Fault::at("GET", &path, FaultKind::Latency { millis: 1_500 }));
    let reads = bank.calls("GET", &path);
    assert_eq!(deliver(&webhook, bank.sandbox(), &old).await, 200);
    assert_eq!(bank.calls("GET", &path), reads + 1, "it has read, and waits for the answer");
    dashboard_refund(&bank, &paid.intent, 200, "").await;
    let new = newest(bank.sandbox(), "charge.refunded");
    assert_eq!(deliver(&webhook, bank.sandbox(), &new).await, 200);
    let booked = provider.payments.head(&paid.payer).await;
    assert_eq!(booked.account(Currency::USD).refunded.get(), 3_000_000);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(bank.calls("GET", &path) > reads + 3, "the one that slept is awake");
    assert_eq!(provider.payments.head(&paid.payer).await, booked);
}

/// The charge changes again between the reading and the booking, and nobody tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_booked_is_read_once_more() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let paid = pay(&bank, &provider, 1).await;
    dashboard_refund(&bank, &paid.intent, 100, "").await;
    let told = newest(bank.sandbox(), "charge.refunded");
    let path = format!("/v1/payment_intents/{}", paid.intent);
    bank.sandbox().inject(Fault::at("GET", &path, FaultKind::Latency { millis: 1_200 }));
    assert_eq!(deliver(&webhook, bank.sandbox(), &told).await, 200);
    dashboard_refund(&bank, &paid.intent, 200, "").await;
    let both = async || refunded(&provider, paid.payer).await;
    eventually(Duration::from_secs(5), both, |refunded| *refunded == 3_000_000).await;
}

/// Two shops with one Stripe account: neither touches the other's payers.
#[tokio::test]
async fn another_ledgers_charges_are_told_and_nobody_is_frozen_for_them() {
    let bank = Bank::open().await;
    let shop = hearing(&bank).await;
    let other = Provider::choosing(&bank, |builder| builder.secret(&[9; 32])).await;
    let (ours, theirs) = (pay(&bank, &shop, 1).await, pay(&bank, &other, 1).await);
    assert_ne!(ours.payer, theirs.payer);
    bank.sandbox().dispute(&theirs.intent).unwrap();
    shop.payments.catch_up().await;
    shop.payments.reconcile(0, Repair::Yes).await.unwrap();
    for (provider, paid) in [(&shop, &ours), (&shop, &theirs)] {
        assert!(provider.payments.head(&paid.payer).await.frozen.is_empty());
    }
    assert_eq!(shop.payments.head(&theirs.payer).await.seq, 0);
    other.payments.catch_up().await;
    assert_eq!(other.payments.head(&theirs.payer).await.frozen.len(), 1);
}

/// A dispute of money that has no place in the ledger freezes its payer like any other.
#[tokio::test]
async fn a_second_charge_of_one_top_up_freezes_its_payer_also_when_it_is_disputed() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let paid = pay(&bank, &provider, 1).await;
    let method = bank.method(&card(1)).await;
    let form = format!(
        "amount=500&currency=usd&payment_method={method}&confirm=true&metadata[top_up]={}\
         &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never",
        paid.top_up
    );
    let second = bank.post("/v1/payment_intents", &form).await;
    let second = second["id"].as_str().unwrap();
    provider.payments.catch_up().await;
    let frozen = async || provider.payments.head(&paid.payer).await.frozen.len();
    assert_eq!(frozen().await, 1);
    let dispute = bank.sandbox().dispute(second).unwrap();
    provider.payments.catch_up().await;
    assert_eq!(frozen().await, 1, "the dispute took the money, and is a reason of its own");
    bank.sandbox().win(&dispute).unwrap();
    provider.payments.catch_up().await;
    assert_eq!(frozen().await, 1, "the money is there again");
    dashboard_refund(&bank, second, 500, "").await;
    provider.payments.catch_up().await;
    assert_eq!(frozen().await, 0);
    assert_eq!(provider.balance(&paid.credential).await, 49_900);
}

/// The refund was sent, its answer lost, and the server was away for a day: Stripe has forgotten
/// the key, and would give the money back again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_is_not_sent_again_after_a_day() {
    let bank = Bank::open().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let open = || Payments::builder(bank.stripe()).ledger(&ledger).secret(&[7; 32]);
    let first = || {
        let life = tokio::runtime::Runtime::new().unwrap();
        let paid = life.block_on(async {
            let payments = open().open().await.unwrap();
            let provider = Provider::of(payments, tempfile::tempdir().unwrap()).await;
            let paid = pay(&bank, &provider, 1).await;
            let lost = Fault::at("POST", "/v1/refunds", FaultKind::ResetAfter).times(1_000);
            bank.sandbox().inject(lost);
            let (payments, payer) = (provider.payments.clone(), paid.payer);
            tokio::spawn(async move { payments.refund(account(payer), Some(usd!("2"))).await });
            let refunds = async || given_back(&bank).len();
            eventually(Duration::from_secs(10), refunds, |refunds| *refunds == 1).await;
            paid
        });
        life.shutdown_timeout(Duration::from_secs(5));
        paid
    };
    let paid = std::thread::scope(|scope| scope.spawn(first).join().unwrap());
    bank.sandbox().clear_faults();
    bank.sandbox().advance(Duration::from_secs(25 * 3_600));
    let sent = bank.calls("POST", "/v1/refunds");
    let clock = farebox_middleware::ManualClock::default();
    clock.set(farebox_middleware::Timestamp::from_millis(bank.sandbox().now() * 1_000));
    let payments = open().clock(Arc::new(clock)).open().await.unwrap();
    let next = Provider::of(payments, tempfile::tempdir().unwrap()).await;
    next.settles_at(&paid.credential, 29_900).await;
    let closed = async || next.payments.head(&paid.payer).await.account(Currency::USD).refunding;
    eventually(Duration::from_secs(5), closed, |refunding| refunding.get() == 0).await;
    assert_eq!((given_back(&bank), bank.calls("POST", "/v1/refunds")), (vec![200], sent));
}

/// Books that are stuck at the first freeze, as if the process had died there, and that tell late
/// that a refund is closed.
#[derive(Default)]
struct Odd {
    books: Memory,
    freezes: AtomicUsize,
}

impl Store for Odd {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        if matches!(command, Command::Freeze { .. })
            && self.freezes.fetch_add(1, Ordering::SeqCst) == 0
        {
            std::future::pending::<()>().await;
        }
        let applied = self.books.apply(payer, command).await;
        if matches!(command, Command::CloseRefund { .. }) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        applied
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.books.load(payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.books.top_up(id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.books.book(payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        self.books.payers().await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        self.books.due().await
    }
}

/// A dispute was lost while the server was away, and the server dies while it freezes the payer.
#[tokio::test]
async fn whoever_took_money_back_is_frozen_whenever_the_server_dies() {
    let bank = Bank::open().await;
    let provider = Provider::choosing(&bank, |builder| builder.store(Odd::default())).await;
    let paid = pay(&bank, &provider, 1).await;
    let dispute = bank.sandbox().dispute(&paid.intent).unwrap();
    bank.sandbox().lose(&dispute).unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(1), provider.payments.catch_up()).await;
    assert!(cut.is_err(), "it is stuck");
    provider.payments.catch_up().await;
    let head = provider.payments.head(&paid.payer).await;
    let account = head.account(Currency::USD);
    assert_eq!((head.frozen.len(), account.withdrawn.get()), (1, 5_000_000));
}

/// An endpoint at Stripe may tell of both modes.
#[tokio::test]
async fn an_event_of_the_other_mode_is_heard_and_not_acted_on() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let paid = pay(&bank, &provider, 1).await;
    dashboard_refund(&bank, &paid.intent, 100, "").await;
    let told = newest(bank.sandbox(), "charge.refunded");
    let (_, body) = bank.sandbox().signed(&told, bank.sandbox().now()).unwrap();
    let mut event: serde_json::Value = serde_json::from_slice(&body).unwrap();
    event["livemode"] = true.into();
    let (body, now) = (event.to_string(), bank.sandbox().now());
    let secret = bank.sandbox().webhook_secret();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{now}.{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let request = Request::post("/stripe").header("stripe-signature", format!("t={now},v1={hex}"));
    let request = request.body(Body::from(body)).unwrap();
    assert_eq!(webhook.clone().oneshot(request).await.unwrap().status(), 200);
    assert_eq!(refunded(&provider, paid.payer).await, 0);
    assert_eq!(deliver(&webhook, bank.sandbox(), &told).await, 200);
    assert_eq!(refunded(&provider, paid.payer).await, 1_000_000);
}

const SAFE: Setup = Setup { persistence: Persistence::EverySecond, password: None, tls: false };

/// Two processes on one ledger hear every event, in orders of their own, while both give back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_ledger_book_all_that_goes_back_once() {
    let (bank, redis) = (Bank::open().await, Redis::start(SAFE).await);
    let (url, secret) = (redis.url("shop"), bank.sandbox().webhook_secret());
    let open = async || {
        let payments = Payments::builder(bank.stripe()).ledger(&url).secret(&[7; 32]);
        let payments = payments.webhook_secret(&secret).open().await.unwrap();
        Provider::of(payments, tempfile::tempdir().unwrap()).await
    };
    let both = [open().await, open().await];
    for seed in 0..6 {
        let number = u32::try_from(seed).unwrap();
        let paid = pay(&bank, &both[seed % 2], number + 1).await;
        let from = bank.sandbox().events().len();
        dashboard_refund(&bank, &paid.intent, 50, "").await;
        let refunds = both.iter().map(|provider| {
            let part = Some(usd!("0.70"));
            async move { provider.payments.refund(account(paid.payer), part).await }
        });
        let hear = both.iter().zip(0..).map(|(provider, nth)| {
            let (bank, paid) = (&bank, &paid);
            async move {
                let mut choices = Choices::of(number.into());
                let webhook = provider.payments.webhook().unwrap();
                for round in 0..12 {
                    if round == 4 && nth == 0 {
                        dashboard_refund(bank, &paid.intent, 30, "").await;
                    }
                    let events = bank.sandbox().events().split_off(from);
                    let event = &events[choices.below(events.len())].id;
                    assert_eq!(deliver(&webhook, bank.sandbox(), event).await, 200);
                }
            }
        });
        let (given, _) = tokio::join!(join_all(refunds), join_all(hear));
        let told: i64 = given.iter().flatten().map(|given| given.total().micros().get()).sum();
        assert_eq!(told, 1_400_000, "{given:?}");
        for provider in &both {
            provider.payments.catch_up().await;
        }
        let cents = 50 + 30 + 140;
        assert_eq!(both[0].balance(&paid.credential).await, 49_900 - cents * 100);
        let head = both[1].payments.head(&paid.payer).await;
        let account = head.account(Currency::USD);
        assert_eq!((account.refunding.get(), account.refunded.get()), (0, cents * 10_000));
    }
    let told = both[0].payments.reconcile(0, Repair::No).await.unwrap();
    assert!(told.differences.is_empty() && told.unread.is_empty(), "{told:?}");
}
