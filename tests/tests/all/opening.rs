//! What `Payments::open` makes of Stripe, of limits and of secrets; and every kind of currency.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use farebox_middleware::{Builder, Money, Payments, Stripe, usd};
use farebox_protocol::{Currency, Payment};
use farebox_sandbox::{Fault, FaultKind};

use crate::support::{Bank, Books, Provider, by_card, by_credential, card, serve};

const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

fn builder(stripe: Stripe) -> Builder {
    Payments::builder(stripe).ledger("memory:").secret(SECRET)
}

/// The one sentence that a start ends with.
async fn refused(builder: Builder) -> String {
    let error = builder.open().await.unwrap_err();
    let (shown, debugged) = (error.to_string(), format!("{error:?}"));
    assert_eq!(shown, debugged, "a `main` that returns it prints the sentence");
    assert!(!shown.contains('\n') && !shown.contains("sk_test"), "{shown}");
    shown
}

#[tokio::test]
async fn a_key_that_stripe_refuses_is_one_sentence() {
    let bank = Bank::open().await;
    let unknown = Stripe::new("sk_test_unknown", bank.sandbox().publishable_key()).unwrap();
    let told = refused(builder(unknown.base_url(bank.url()).unwrap())).await;
    assert!(told.starts_with("Stripe refuses STRIPE_SECRET_KEY"), "{told}");
    bank.sandbox().inject(Fault::at("GET", "/v1/account", FaultKind::Unauthorized));
    let expired = refused(builder(bank.stripe())).await;
    assert_eq!(expired, told);
    assert!(builder(bank.stripe()).open().await.is_ok());
}

#[tokio::test]
async fn limits_that_leave_no_amount_are_one_sentence() {
    let bank = Bank::open().await;
    let crossed = builder(bank.stripe()).min_top_up(usd!("20")).max_top_up(usd!("10"));
    let told = refused(crossed).await;
    assert!(told.contains("smallest") && told.contains("above the largest"), "{told}");
    let low = refused(builder(bank.stripe()).min_top_up(usd!("0.1")).max_top_up(usd!("0.2"))).await;
    assert!(low.contains("below Stripe's smallest charge"), "{low}");
    let fraction = refused(builder(bank.stripe()).max_top_up(usd!("10.001"))).await;
    assert!(fraction.contains("whole minor units"), "{fraction}");
}

#[tokio::test]
async fn a_webhook_secret_that_is_none_is_one_sentence_without_it() {
    let bank = Bank::open().await;
    for wrong in ["whsec_tooshort", "sk_test_0123456789abcdef", "whsec_with space 0123456789", ""] {
        let told = refused(builder(bank.stripe()).webhook_secret(wrong)).await;
        assert!(told.contains("begin with whsec_"), "{told}");
        assert!(wrong.is_empty() || !told.contains(wrong), "{told}");
    }
}

/// Stripe is out of reach, or does not answer: credit is served from the books all the same.
#[tokio::test]
async fn without_stripe_credit_is_served_from_the_books() {
    let bank = Bank::open().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let open = |stripe| Payments::builder(stripe).ledger(&ledger).secret(SECRET).open();
    let first = open(bank.stripe()).await.unwrap();
    let provider = Provider::of(first, tempfile::tempdir().unwrap()).await;
    let paid = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    let credential = paid.credential();
    // The file is another's as soon as nobody has it open.
    let backup = folder.path().join("copy.redb");
    provider.payments.close().await.unwrap();
    std::fs::copy(folder.path().join("books.redb"), &backup).unwrap();
    let ledger = format!("embedded:{}", backup.display());
    let open = |stripe| Payments::builder(stripe).ledger(&ledger).secret(SECRET).open();

    let begun = Instant::now();
    let down = open(bank.stripe_at("http://127.0.0.1:1")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let next = Provider::of(down, tempfile::tempdir().unwrap()).await;
    let served = next.joke(&by_credential(&credential)).await;
    assert_eq!((served.status, served.remaining()), (200, 49_800), "{served:?}");
}

#[tokio::test]
async fn a_stripe_that_does_not_answer_holds_a_start_up_for_seconds_only() {
    let bank = Bank::open().await;
    let stall = FaultKind::Stall { ran: false };
    bank.sandbox().inject(Fault::at("GET", "/v1/account", stall).times(10));
    let begun = Instant::now();
    let provider = Provider::with(bank.stripe(), Books::Memory).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(provider.joke(&by_card(&bank.method(&card(1)).await)).await.is_served());
}

/// One currency: what is set, what a card is charged at first, and what is left of it.
struct Case {
    currency: &'static str,
    price: &'static str,
    limits: Option<(&'static str, &'static str)>,
    minor: i64,
    units: i64,
    /// What goes back to the card, in minor units, and what cannot.
    back: i64,
    rest: i64,
}

const CASES: [Case; 5] = [
    Case {
        currency: "usd",
        price: "0.01",
        limits: None,
        minor: 500,
        units: 49_900,
        back: 499,
        rest: 0,
    },
    // Stripe's smallest charge, though less is allowed.
    Case {
        currency: "usd",
        price: "0.0001",
        limits: Some(("0.1", "10")),
        minor: 50,
        units: 4_999,
        back: 49,
        rest: 99,
    },
    Case {
        currency: "jpy",
        price: "1",
        limits: None,
        minor: 500,
        units: 4_990_000,
        back: 499,
        rest: 0,
    },
    Case {
        currency: "huf",
        price: "1",
        limits: None,
        minor: 175_000,
        units: 17_490_000,
        back: 174_900,
        rest: 0,
    },
    // Cards know two of the three decimals.
    Case {
        currency: "kwd",
        price: "0.005",
        limits: Some(("1.234", "10")),
        minor: 1_240,
        units: 12_350,
        back: 1_230,
        rest: 50,
    },
];

#[tokio::test]
async fn a_top_up_is_what_a_card_can_be_charged_in_each_currency() {
    for case in CASES {
        let bank = Bank::open().await;
        let currency: Currency = case.currency.parse().unwrap();
        let money = |amount| Money::parse(amount, currency).unwrap();
        let provider = Provider::choosing(&bank, |builder| match case.limits {
            Some((least, most)) => builder.min_top_up(money(least)).max_top_up(money(most)),
            None => builder,
        })
        .await;
        let priced = provider.payments.price(money(case.price));
        let joke = get(|| async { "A joke." }).route_layer(priced);
        let url = serve(Router::new().route("/joke", joke)).await;
        let payment_method_id = bank.method(&card(1)).await.parse().ok();
        let payment = Payment { payment_method_id, ..Payment::default() };
        let answer =
            crate::support::get(&provider.http, &format!("{url}/joke"), &payment).await.unwrap();
        let charge = &bank.charges()[0];
        let charged = (charge.currency.as_str(), charge.amount, answer.remaining());
        assert_eq!(charged, (case.currency, case.minor, case.units), "{answer:?}");

        let credential = answer.credential();
        let payer = credential.split('.').next().unwrap().parse().unwrap();
        let refunded = provider.payments.refund((payer, currency), None).await.unwrap();
        assert_eq!(refunded.total().micros(), currency.from_minor(case.back).unwrap());
        assert_eq!(bank.sandbox().refunds()[0].amount, case.back);
        assert_eq!(provider.balance(&credential).await, case.rest);
    }
}
