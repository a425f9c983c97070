//! Credit that goes back to cards: newest charge first, never more than is unspent, once.

use std::time::Duration;

use farebox_middleware::{Money, RefundError, RefundState, Refundable, usd};
use farebox_protocol::{Currency, ErrorCode, PayerId, Payment, TopUpId, Units};
use farebox_sandbox::{Fault, FaultKind};
use http::Method;

use crate::support::{Bank, Books, Provider, by_card, by_credential, card, eventually};

/// A payer who paid 5 dollars with each of `charges` cards and spent a cent of them.
async fn payer(bank: &Bank, provider: &Provider, charges: u32) -> (String, PayerId) {
    let mut payment = by_card(&bank.method(&card(1)).await);
    let mut credential = provider.joke(&payment).await.credential();
    for n in 1..charges {
        let client_id = by_credential(&credential).client_id;
        // More than there is, so that the next card pays.
        let min_credit = Units::new(i64::from(n) * 50_000);
        payment = Payment { client_id, min_credit, ..by_card(&bank.method(&card(n + 1)).await) };
        credential = provider.joke(&payment).await.credential();
    }
    let payer = credential.split('.').next().unwrap().parse().unwrap();
    (credential, payer)
}

fn account(payer: PayerId) -> Refundable {
    (payer, Currency::USD).into()
}

/// What cards got back, in cents, newest first.
fn given_back(bank: &Bank) -> Vec<i64> {
    bank.sandbox().refunds().iter().map(|refund| refund.amount).collect()
}

#[tokio::test]
async fn the_newest_charge_goes_back_first_and_what_was_spent_stays() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let (credential, payer) = payer(&bank, &provider, 3).await;
    let spent = 300;
    assert_eq!(provider.balance(&credential).await, 150_000 - spent);

    let part = provider.payments.refund(account(payer), Some(usd!("6"))).await.unwrap();
    assert_eq!(part.total(), usd!("6"));
    let of = |number| TopUpId { payer, currency: Currency::USD, number };
    let parts: Vec<_> = part.parts.iter().map(|part| (part.top_up, part.state)).collect();
    assert_eq!(parts, [(of(3), RefundState::Done), (of(2), RefundState::Done)]);
    assert_eq!(given_back(&bank), [500, 100]);
    assert_eq!(provider.balance(&credential).await, 90_000 - spent);

    let rest = provider.payments.refund(account(payer), None).await.unwrap();
    assert_eq!(rest.total(), usd!("8.97"));
    assert_eq!(provider.balance(&credential).await, 0);
    assert_eq!(given_back(&bank).iter().sum::<i64>(), 1_497);
    let again = provider.payments.refund(account(payer), None).await;
    assert!(matches!(again, Err(RefundError::Insufficient { .. })), "{again:?}");
}

#[tokio::test]
async fn more_than_is_unspent_is_refused_whole() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (credential, payer) = payer(&bank, &provider, 1).await;
    let unspent = usd!("4.99");
    let most = provider.payments.refund(account(payer), Some(usd!("5"))).await;
    let is_told = |error: &RefundError| matches!(error, RefundError::Insufficient { unspent: told } if *told == unspent);
    assert!(most.as_ref().is_err_and(is_told), "{most:?}");
    let strange = [Money::new(usd!("1").micros(), "eur".parse().unwrap()), usd!("0.001")];
    for amount in strange {
        let refused = provider.payments.refund(account(payer), Some(amount)).await;
        assert!(matches!(refused, Err(RefundError::Amount)), "{refused:?}");
    }
    let nobodys = TopUpId { payer, currency: Currency::USD, number: 7 };
    let unknown = provider.payments.refund(nobodys, None).await;
    assert!(matches!(unknown, Err(RefundError::NotFound)), "{unknown:?}");
    assert!(given_back(&bank).is_empty());
    assert_eq!(provider.balance(&credential).await, 49_900);
}

#[tokio::test]
async fn a_refund_that_fails_later_is_credit_again() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (credential, payer) = payer(&bank, &provider, 1).await;
    provider.payments.refund(account(payer), Some(usd!("3"))).await.unwrap();
    assert_eq!(provider.balance(&credential).await, 19_900);
    bank.sandbox().fail_refund(&bank.sandbox().refunds()[0].id).unwrap();
    provider.payments.catch_up().await;
    assert_eq!(provider.balance(&credential).await, 49_900);
}

#[tokio::test]
async fn a_refund_that_stripe_refuses_is_credit_again() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (credential, payer) = payer(&bank, &provider, 1).await;
    // A disputed charge cannot be refunded, and nobody has told the server yet.
    bank.sandbox().dispute_part(&bank.charges()[0].id, 100).unwrap();
    let refunded = provider.payments.refund(account(payer), Some(usd!("3"))).await.unwrap();
    assert_eq!(refunded.parts[0].state, RefundState::Refused);
    assert!(given_back(&bank).is_empty());
    // Reading the charge has told of the dispute, too.
    assert_eq!(provider.balance(&credential).await, 39_900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_at_the_same_time_never_give_back_more_than_is_unspent() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let (credential, payer) = payer(&bank, &provider, 2).await;
    let refunds = (0..20).map(|_| {
        let payments = provider.payments.clone();
        tokio::spawn(async move { payments.refund(account(payer), Some(usd!("3"))).await })
    });
    let mut total = 0;
    for refund in refunds.collect::<Vec<_>>() {
        total += refund.await.unwrap().map_or(0, |refunded| refunded.total().micros().get());
    }
    let cents: i64 = given_back(&bank).iter().sum();
    assert_eq!(total, cents * 10_000);
    assert_eq!(provider.balance(&credential).await, 99_800 - cents * 100);
    assert!((600..=998).contains(&cents), "{cents}");
}

/// Every fault at the call that gives back, and what it comes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_a_refund_is_given_once_or_not_at_all() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let faults = [
        FaultKind::RateLimited,
        FaultKind::Conflict,
        FaultKind::ServerError { ran: true },
        FaultKind::ServerError { ran: false },
        FaultKind::ResetBefore,
        FaultKind::ResetAfter,
        FaultKind::Truncated,
        FaultKind::BadGateway { ran: true },
        FaultKind::BadGateway { ran: false },
    ];
    for (at, kind) in faults.into_iter().enumerate() {
        let method = bank.method(&card(100 + u32::try_from(at).unwrap())).await;
        let credential = provider.joke(&by_card(&method)).await.credential();
        let payer = credential.split('.').next().unwrap().parse().unwrap();
        let before = given_back(&bank).len();
        bank.sandbox().inject(Fault::at("POST", "/v1/refunds", kind));
        let refunded = provider.payments.refund(account(payer), Some(usd!("2"))).await.unwrap();
        bank.sandbox().clear_faults();
        let given = given_back(&bank).len() - before;
        let expected = match kind {
            FaultKind::ServerError { ran: false } => (0, RefundState::Refused, 49_900),
            _ => (1, RefundState::Done, 29_900),
        };
        let state = refunded.parts[0].state;
        let balance = provider.balance(&credential).await;
        assert_eq!((given, state, balance), expected, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_of_an_earlier_life_goes_on_at_the_next_start() {
    let bank = Bank::open().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let open = async || {
        let payments = farebox_middleware::Payments::builder(bank.stripe()).ledger(&ledger);
        payments.secret(&[7; 32]).open().await.unwrap()
    };
    // The first life has threads of its own, so that nothing of it is left.
    let first = || {
        let life = tokio::runtime::Runtime::new().unwrap();
        let credential = life.block_on(async {
            let provider = Provider::of(open().await, tempfile::tempdir().unwrap()).await;
            let (credential, payer) = payer(&bank, &provider, 1).await;
            let lost = Fault::at("POST", "/v1/refunds", FaultKind::ResetAfter).times(1_000);
            bank.sandbox().inject(lost);
            let payments = provider.payments.clone();
            tokio::spawn(async move { payments.refund(account(payer), Some(usd!("2"))).await });
            let refunds = async || given_back(&bank).len();
            eventually(Duration::from_secs(10), refunds, |refunds| *refunds == 1).await;
            credential
        });
        life.shutdown_timeout(Duration::from_secs(5));
        credential
    };
    let credential = std::thread::scope(|scope| scope.spawn(first).join().unwrap());
    bank.sandbox().clear_faults();
    let next = Provider::of(open().await, tempfile::tempdir().unwrap()).await;
    next.settles_at(&credential, 29_900).await;
    assert_eq!(given_back(&bank), [200]);
}

#[tokio::test]
async fn a_payer_takes_back_what_is_unspent_if_the_provider_allows_it() {
    let bank = Bank::open().await;
    let closed = Provider::choosing(&bank, |builder| builder).await;
    let (credential, _) = payer(&bank, &closed, 1).await;
    let ask = async |provider: &Provider, credential: &str| {
        let request = provider.http.request(Method::POST, provider.at("/account/refund"));
        let request = request.header("payment", by_credential(credential).encode());
        let answer = request.body(r#"{"currency":"usd"}"#).send().await.unwrap();
        let status = answer.status().as_u16();
        let json: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, json)
    };
    let (status, json) = ask(&closed, &credential).await;
    assert_eq!((status, &json["errorCode"]), (403, &"refunds_not_offered".into()));

    let open = Provider::choosing(&bank, |builder| builder.payer_refunds(true)).await;
    let (credential, payer) = payer_of_card(&bank, &open, 9).await;
    let (status, json) = ask(&open, "nobody.1.secret").await;
    assert_eq!(status, 403, "{json}");
    let (status, json) = ask(&open, &credential).await;
    assert_eq!((status, &json["refunded"], &json["pending"]), (200, &49_900.into(), &0.into()));
    assert_eq!(open.balance(&credential).await, 0);
    let (status, json) = ask(&open, &credential).await;
    assert_eq!((status, &json["refunded"]), (200, &0.into()));
    assert_eq!(given_back(&bank), [499]);

    // Whoever is suspected of fraud does not get the money by asking.
    open.joke(&by_card(&bank.method(&card(9)).await)).await;
    bank.sandbox().warn_of_fraud(&bank.charges().last().unwrap().id).unwrap();
    open.payments.catch_up().await;
    let (status, json) = ask(&open, &credential).await;
    let code = ErrorCode::AccountFrozen.as_str();
    assert_eq!((status, &json["errorCode"]), (403, &code.into()));
    assert!(open.payments.refund(account(payer), None).await.is_ok());
}

async fn payer_of_card(bank: &Bank, provider: &Provider, number: u32) -> (String, PayerId) {
    let answer = provider.joke(&by_card(&bank.method(&card(number)).await)).await;
    let credential = answer.credential();
    let payer = credential.split('.').next().unwrap().parse().unwrap();
    (credential, payer)
}
