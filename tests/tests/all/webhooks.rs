//! What Stripe tells: who is believed, and that the order of news does not matter.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use farebox_ledger::Head;
use farebox_middleware::{Payments, Repair, WebhookService};
use farebox_protocol::{Currency, ErrorCode, PayerId};
use farebox_sandbox::{Delivery, Fault, FaultKind, Sandbox};
use http::Request;
use tower::util::ServiceExt as _;

use crate::support::{Bank, Choices, Provider, by_card, by_credential, card, eventually, number};

/// A provider that hears the bank.
async fn hearing(bank: &Bank) -> Provider {
    let secret = bank.sandbox().webhook_secret();
    Provider::choosing(bank, |builder| builder.webhook_secret(&secret)).await
}

async fn send(webhook: &WebhookService, signature: &str, body: Vec<u8>) -> u16 {
    let request = Request::post("/stripe").header("stripe-signature", signature);
    let request = request.body(Body::from(body)).unwrap();
    webhook.clone().oneshot(request).await.unwrap().status().as_u16()
}

/// Sends an event as the bank would now.
async fn deliver(webhook: &WebhookService, sandbox: &Sandbox, event: &str) -> u16 {
    let (signature, body) = sandbox.signed(event, sandbox.now()).unwrap();
    send(webhook, &signature, body).await
}

/// The events of one payment.
fn events_of(sandbox: &Sandbox, intent: &str, from: usize) -> Vec<String> {
    const KINDS: [&str; 7] = [
        "payment_intent.succeeded",
        "charge.refunded",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ];
    let events = sandbox.events().into_iter().skip(from);
    let ours = events.filter(|event| {
        KINDS.contains(&event.kind.as_str()) && event.body.contains(&format!("\"{intent}\""))
    });
    ours.map(|event| event.id).collect()
}

async fn pay(bank: &Bank, provider: &Provider, number: u32) -> (String, PayerId, String) {
    let answer = provider.joke(&by_card(&bank.method(&card(number)).await)).await;
    assert!(answer.is_served(), "{answer:?}");
    let payer = answer.credential().split('.').next().unwrap().parse().unwrap();
    (answer.credential(), payer, answer.receipt().charge_id.unwrap())
}

/// What a payer's money came to.
fn sums(head: &Head) -> (i64, i64, i64, i64, usize) {
    let account = head.account(Currency::USD);
    let of = [account.available, account.received, account.refunded, account.withdrawn];
    let [available, received, refunded, withdrawn] = of.map(farebox_protocol::Micros::get);
    (available, received, refunded, withdrawn, head.frozen.len())
}

/// The `n`-th order of `items`.
fn order(mut items: Vec<String>, mut n: usize) -> Vec<String> {
    let mut ordered = Vec::new();
    while !items.is_empty() {
        let at = n % items.len();
        n /= items.len();
        ordered.push(items.remove(at));
    }
    ordered
}

/// What happens to a payment at the card network, one step after the other.
fn step(sandbox: &Sandbox, intent: &str, at: usize, is_won: bool) {
    let refund = || {
        sandbox
            .refunds()
            .iter()
            .rev()
            .find(|refund| refund.payment_intent == intent)
            .unwrap()
            .id
            .clone()
    };
    let dispute = || {
        let body = sandbox.events().into_iter().rev();
        let of_intent = |body: &str| body.contains(&format!("\"{intent}\""));
        let mut disputes =
            body.filter(|event| event.kind == "charge.dispute.created" && of_intent(&event.body));
        let event: serde_json::Value =
            serde_json::from_str(&disputes.next().unwrap().body).unwrap();
        event["data"]["object"]["id"].as_str().unwrap().to_owned()
    };
    match at {
        0 => sandbox.fail_refund(&refund()).unwrap(),
        1 => drop(sandbox.dispute(intent).unwrap()),
        _ if is_won => sandbox.win(&dispute()).unwrap(),
        _ => sandbox.lose(&dispute()).unwrap(),
    }
}

/// Seven events in every order, each also a second time, and each at any time after it happened:
/// the ledger ends as Stripe does. All 5,040 orders take minutes; by default every so manieth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_payment_end_in_one_ledger_in_whatever_order_they_come() {
    let orders = number("FAREBOX_ORDERS", 180).clamp(1, 5_040);
    let mut delivered = 0;
    for n in 0..orders {
        let at = usize::try_from(n * (5_040 / orders)).unwrap();
        delivered += one_order(at, n % 2 == 0, &mut Choices::of(n)).await;
    }
    println!("{orders} orders, {delivered} events and repeats of some: always the same ledger");
}

/// The `at`-th order of events; how many were delivered.
async fn one_order(at: usize, is_won: bool, choices: &mut Choices) -> usize {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let sandbox = bank.sandbox();
    let (_, payer, intent) = pay(&bank, &provider, 1).await;
    dashboard_refund(&bank, &intent, 200).await;
    // How far things are when news begins to arrive; the rest happens in between.
    let mut steps = choices.below(4);
    (0..steps).for_each(|at| step(sandbox, &intent, at, is_won));
    let mut waiting = order(events_of(sandbox, &intent, 0), at);
    let mut told: BTreeSet<String> = BTreeSet::new();
    while !waiting.is_empty() || steps < 3 {
        if waiting.is_empty() || (steps < 3 && choices.below(3) == 0) {
            step(sandbox, &intent, steps, is_won);
            steps += 1;
            let new = events_of(sandbox, &intent, 0).into_iter();
            waiting = order(new.filter(|event| !told.contains(event)).collect(), at);
            continue;
        }
        let event = waiting.remove(0);
        for _ in 0..=choices.below(2) {
            assert_eq!(deliver(&webhook, sandbox, &event).await, 200);
        }
        told.insert(event);
    }
    assert_eq!(told.len(), if is_won { 7 } else { 6 }, "{told:?}");
    let expected = match is_won {
        true => (4_990_000, 5_000_000, 0, 0, 0),
        false => (-10_000, 5_000_000, 0, 5_000_000, 1),
    };
    assert_eq!(sums(&provider.payments.head(&payer).await), expected, "order {at}");
    let agrees = provider.payments.reconcile(0, Repair::No).await.unwrap();
    assert!(agrees.differences.is_empty() && agrees.unread.is_empty(), "{agrees:?}");
    told.len()
}

async fn dashboard_refund(bank: &Bank, intent: &str, cents: i64) {
    let form = format!("payment_intent={intent}&amount={cents}");
    let answer = bank.post("/v1/refunds", &form).await;
    assert_eq!(answer["object"], "refund", "{answer}");
}

#[tokio::test]
async fn what_stripe_did_not_sign_just_now_is_refused() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    pay(&bank, &provider, 1).await;
    let sandbox = bank.sandbox();
    let event = &sandbox.events()[0].id;
    let now = sandbox.now();
    for (age, status) in [(0, 200), (298, 200), (303, 400), (-298, 200), (-303, 400), (86_400, 400)]
    {
        let (signature, body) = sandbox.signed(event, now - age).unwrap();
        assert_eq!(send(&webhook, &signature, body).await, status, "{age} s old");
    }
    let (signature, body) = sandbox.signed(event, now).unwrap();
    let forged = body.iter().map(|byte| if *byte == b'5' { b'6' } else { *byte }).collect();
    assert_eq!(send(&webhook, &signature, forged).await, 400);
    assert_eq!(send(&webhook, "", body.clone()).await, 400);
    assert_eq!(send(&webhook, "t=1,v1=00", body.clone()).await, 400);
    let request = Request::get("/stripe").body(Body::empty()).unwrap();
    assert_eq!(webhook.clone().oneshot(request).await.unwrap().status(), 405);
    let long = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(send(&webhook, &signature, long).await, 413);
    let twice = Request::post("/stripe").header("stripe-signature", &signature);
    let twice = twice.header("stripe-signature", &signature).body(Body::from(body)).unwrap();
    assert_eq!(webhook.clone().oneshot(twice).await.unwrap().status(), 400);
}

#[tokio::test]
async fn without_a_secret_there_is_no_webhook() {
    let bank = Bank::open().await;
    let provider = Provider::choosing(&bank, |builder| builder).await;
    let error = provider.payments.webhook().unwrap_err();
    assert!(error.to_string().contains("STRIPE_WEBHOOK_SECRET"), "{error}");
    let short = Payments::builder(bank.stripe()).ledger("memory:").secret(&[7; 32]);
    assert!(short.webhook_secret("whsec_short").open().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispute_freezes_its_payer_and_takes_what_stripe_took() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let url = listen(&provider).await;
    let rough = Delivery { duplicate: true, reorder: true, ..Delivery::default() };
    let secrets = [bank.sandbox().webhook_secret()];
    bank.sandbox().deliver_to(&url, secrets, rough).unwrap();
    let (credential, payer, intent) = pay(&bank, &provider, 1).await;
    let becomes = async |expected| {
        let head = async || sums(&provider.payments.head(&payer).await);
        eventually(Duration::from_secs(5), head, |sums| *sums == expected).await;
    };

    // A question of the bank takes nothing, and yet nobody spends until it is answered.
    let inquiry = bank.sandbox().inquire(&intent).unwrap();
    becomes((4_990_000, 5_000_000, 0, 0, 1)).await;
    let refused = provider.joke(&by_credential(&credential)).await;
    assert_eq!(refused.code(), Some(ErrorCode::AccountFrozen));
    assert_eq!(refused.status, 403);
    bank.sandbox().close_inquiry(&inquiry).unwrap();
    becomes((4_990_000, 5_000_000, 0, 0, 0)).await;

    let dispute = bank.sandbox().dispute_part(&intent, 300).unwrap();
    becomes((1_990_000, 5_000_000, 0, 3_000_000, 1)).await;
    let by_card = by_card(&bank.method(&card(1)).await);
    assert_eq!(provider.joke(&by_card).await.status, 403);
    assert_eq!(bank.charges().len(), 1, "a frozen payer's card is not charged");
    bank.sandbox().win(&dispute).unwrap();
    becomes((4_990_000, 5_000_000, 0, 0, 0)).await;
    assert!(provider.joke(&by_credential(&credential)).await.is_served());
}

/// A dispute is read while it is open, and booked after it was won and everybody knows that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reading_of_a_dispute_does_not_freeze_its_payer_for_good() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let sandbox = bank.sandbox();
    let (_, payer, intent) = pay(&bank, &provider, 1).await;
    let inquiry = sandbox.inquire(&intent).unwrap();
    let opened = sandbox.events().pop().unwrap();
    assert_eq!(opened.kind, "charge.dispute.created");
    sandbox.inject(Fault::at("GET", "/v1/disputes", FaultKind::Latency { millis: 500 }));
    let late = deliver(&webhook, sandbox, &opened.id);
    let (late, ()) = tokio::join!(late, async {
        let read = async || sandbox.faults_hit();
        eventually(Duration::from_secs(5), read, |hit| *hit == 1).await;
        sandbox.close_inquiry(&inquiry).unwrap();
        let closed = sandbox.events().pop().unwrap();
        assert_eq!(closed.kind, "charge.dispute.closed");
        assert_eq!(deliver(&webhook, sandbox, &closed.id).await, 200);
    });
    assert_eq!(late, 200);
    let frozen = async || sums(&provider.payments.head(&payer).await).4;
    tokio::time::sleep(Duration::from_millis(700)).await; // the late one may still be at it
    eventually(Duration::from_secs(5), frozen, |frozen| *frozen == 0).await;
}

#[tokio::test]
async fn without_webhooks_everything_is_found_only_later() {
    let bank = Bank::open().await;
    let provider = Provider::choosing(&bank, |builder| builder).await;
    let (_, refunded, first) = pay(&bank, &provider, 1).await;
    let (_, disputed, second) = pay(&bank, &provider, 2).await;
    let (_, suspected, third) = pay(&bank, &provider, 3).await;
    dashboard_refund(&bank, &first, 100).await;
    bank.sandbox().dispute(&second).unwrap();
    bank.sandbox().warn_of_fraud(&third).unwrap();
    let of = async |payer| sums(&provider.payments.head(&payer).await);
    assert_eq!(of(refunded).await, (4_990_000, 5_000_000, 0, 0, 0));
    provider.payments.catch_up().await;
    assert_eq!(of(refunded).await, (3_990_000, 5_000_000, 1_000_000, 0, 0));
    assert_eq!(of(disputed).await, (-10_000, 5_000_000, 0, 5_000_000, 1));
    assert_eq!(of(suspected).await, (4_990_000, 5_000_000, 0, 0, 1));
}

/// Stripe is slow, and slower than that: a webhook is answered within a second all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_answered_within_a_second_and_booked_nevertheless() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let (_, payer, intent) = pay(&bank, &provider, 1).await;
    let from = bank.sandbox().events().len();
    dashboard_refund(&bank, &intent, 100).await;
    let event = events_of(bank.sandbox(), &intent, from).remove(0);
    let slow = FaultKind::Latency { millis: 3_000 };
    bank.sandbox().inject(Fault::at("GET", "/v1/payment_intents/*", slow));
    bank.sandbox().inject(Fault::at("GET", "/v1/payment_intents/*", FaultKind::ResetBefore));
    let begun = Instant::now();
    assert_eq!(deliver(&webhook, bank.sandbox(), &event).await, 200);
    // On a machine that does nothing else it is 800 ms; on a busy one, still long before Stripe.
    let answered = begun.elapsed();
    println!("a webhook was answered after {answered:?}");
    assert!(answered < Duration::from_secs(2), "{answered:?}");
    let refunded = async || sums(&provider.payments.head(&payer).await).2;
    eventually(Duration::from_secs(10), refunded, |refunded| *refunded == 1_000_000).await;
}

#[tokio::test]
async fn two_secrets_are_believed_while_one_replaces_the_other() {
    let bank = Bank::open().await;
    let (old, new) = (bank.sandbox().webhook_secret(), format!("whsec_{}", "n".repeat(32)));
    let provider =
        Provider::choosing(&bank, |builder| builder.webhook_secret(&new).webhook_secret(&old))
            .await;
    let url = listen(&provider).await;
    let stranger = format!("whsec_{}", "x".repeat(32));
    let cases = [
        (vec![old.clone()], 200),
        (vec![new.clone()], 200),
        (vec![old, new.clone()], 200),
        (vec![stranger.clone()], 400),
        (vec![stranger, new], 200),
    ];
    for (n, (secrets, status)) in (1..).zip(cases) {
        bank.sandbox().deliver_to(&url, secrets, Delivery::default()).unwrap();
        let from = bank.sandbox().events().len();
        pay(&bank, &provider, n).await;
        let told = bank.sandbox().events().pop().unwrap().id;
        let heard = async || {
            let deliveries = bank.sandbox().deliveries().into_iter();
            deliveries.filter(|of| of.event == told).map(|of| of.status).next()
        };
        let heard = eventually(Duration::from_secs(5), heard, Option::is_some).await;
        assert_eq!(heard, Some(status), "case {n}, after event {from}");
    }
}

/// Credit that was refunded before its own top-up is known is not given twice: the answer of the
/// charge was lost, the merchant gave the money back, and then the client came again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_was_refunded_while_its_outcome_was_unknown_is_no_credit() {
    let bank = Bank::open().await;
    let provider = hearing(&bank).await;
    let webhook = provider.payments.webhook().unwrap();
    let lost = Fault::at("POST", "/v1/payment_intents", FaultKind::ResetAfter).times(1_000);
    bank.sandbox().inject(lost);
    let payment = by_card(&bank.method(&card(1)).await);
    let asking = {
        let (http, url, payment) =
            (provider.http.clone(), provider.at("/api/joke"), payment.clone());
        tokio::spawn(async move { crate::support::get(&http, &url, &payment).await })
    };
    let charged = async || bank.charges().len();
    eventually(Duration::from_secs(10), charged, |charges| *charges == 1).await;
    let intent = bank.charges()[0].id.clone();
    dashboard_refund(&bank, &intent, 500).await;
    let event = events_of(bank.sandbox(), &intent, 0).pop().unwrap();
    assert_eq!(deliver(&webhook, bank.sandbox(), &event).await, 200);
    bank.sandbox().clear_faults();
    let answer = asking.await.unwrap().unwrap();
    assert!(!answer.is_served(), "{answer:?}");
    let payer: PayerId = bank.charges()[0].metadata["payer"].parse().unwrap();
    assert_eq!(sums(&provider.payments.head(&payer).await), (0, 5_000_000, 5_000_000, 0, 0));
    assert_eq!(bank.charges().len(), 1);
}

/// Serves the webhook on a port of its own.
async fn listen(provider: &Provider) -> String {
    let webhook = provider.payments.webhook().unwrap();
    let app = axum::Router::new().route_service("/stripe", webhook);
    format!("{}/stripe", crate::support::serve(app).await)
}
