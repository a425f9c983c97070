//! Topping up before credit runs out.

use std::sync::atomic::{AtomicUsize, Ordering};

use farebox_client::{PaymentKey, Receipt, usd};
use farebox_protocol::{ErrorCode, Units};
use http::StatusCode;

use crate::support::{
    Seen, Server, agent, asking, client, held, honest, policy, refused, required, served,
    tokenizer, told,
};

#[tokio::test]
async fn a_request_that_would_leave_too_little_brings_a_top_up_along() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe).keep_credit(usd!("4.98"));
    let http = client(&agent);
    for _ in 0..3 {
        http.get(server.url("/joke")).send().await.unwrap();
    }
    let seen = server.seen();
    let ahead = seen.last().unwrap().payment.as_ref().unwrap();
    // 4.98 are left, and 4.97 would be.
    assert_eq!((ahead.min_credit, ahead.top_up_amount), (Units::new(49_800), Units::new(50_000)));
    assert!(ahead.client_id.is_some() && ahead.payment_method_id.is_some());
    assert_eq!(seen.len(), 1 + 3, "no more round trips than before");
    // This server served it from credit: the hold went back.
    assert_eq!((provider.charges(), held(&agent).await), (1, usd!("5")));
}

/// A server that keeps `minCredit`, or answers a payment that asks for it with `refusal`.
async fn keeping(refusal: Option<ErrorCode>) -> Server {
    let balance = AtomicUsize::new(0);
    Server::start(move |seen: &Seen| {
        let Some(payment) = &seen.payment else {
            let mut required = required(20_000);
            required.accepts[0].max_top_up = Units::new(1_000_000);
            return asking(&required);
        };
        let low = balance.load(Ordering::SeqCst) < 20_000 + 25_000;
        if let (Some(_), Some(code)) = (payment.min_credit, refusal) {
            return refused(code);
        }
        let charge = payment.payment_method_id.is_some() && low;
        if charge {
            balance.fetch_add(50_000, Ordering::SeqCst);
        }
        let left = i64::try_from(balance.fetch_sub(20_000, Ordering::SeqCst) - 20_000).unwrap();
        served(StatusCode::OK, &told(charge.then_some("ch_1"), Some(20_000), left))
    })
    .await
}

#[tokio::test]
async fn what_is_taken_ahead_of_need_is_held_like_any_other_top_up() {
    let server = keeping(None).await;
    let stripe = tokenizer().await;
    let policy = policy().per_request(usd!("2"));
    let agent = agent(policy, &stripe).keep_credit(usd!("2.50"));
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap(); // 3.00 are left
    let response = http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(response.extensions().get::<Receipt>().unwrap().top_up, Some(usd!("5")));
    assert_eq!((held(&agent).await, stripe.seen().len()), (usd!("10"), 2));
    // 6.00, 4.00, 2.00 are left: the budget is used up, and credit is spent to its end.
    for _ in 0..3 {
        http.get(server.url("/joke")).send().await.unwrap();
    }
    assert_eq!((held(&agent).await, stripe.seen().len()), (usd!("10"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_calls_below_the_mark_bring_one_top_up_along() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe).keep_credit(usd!("4.985"));
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap(); // 4.99 are left
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        calls.spawn(http.get(server.url("/joke")).send());
    }
    for result in calls.join_all().await {
        assert!(result.unwrap().status().is_success());
    }
    // This server does not think that it is needed: it is not asked again at once.
    assert_eq!((provider.charges(), server.cards().len()), (1, 2));
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn a_named_call_that_was_paid_is_served_from_credit_however_low_it_is() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe).keep_credit(usd!("4.999"));
    let http = client(&agent);
    for _ in 0..3 {
        let named = PaymentKey::new("task-17").unwrap();
        http.get(server.url("/joke")).with_extension(named).send().await.unwrap();
    }
    assert_eq!((provider.charges(), server.cards().len()), (1, 1));
}

#[tokio::test]
async fn a_refused_top_up_ahead_of_need_does_not_fail_the_call_nor_repeat_itself() {
    for code in [ErrorCode::CardDeclined, ErrorCode::TopUpAboveMaximum, ErrorCode::RateLimited] {
        let server = keeping(Some(code)).await;
        let stripe = tokenizer().await;
        let policy = policy().per_request(usd!("2"));
        let agent = agent(policy, &stripe).keep_credit(usd!("4"));
        let http = client(&agent);
        for _ in 0..2 {
            assert!(http.get(server.url("/joke")).send().await.unwrap().status().is_success());
        }
        assert_eq!((held(&agent).await, server.cards().len()), (usd!("5"), 2), "{code:?}");
    }
}
