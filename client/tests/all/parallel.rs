use std::sync::atomic::Ordering;

use farebox_client::{PaymentError, usd};
use farebox_protocol::ErrorCode;

use crate::support::{agent, answering, client, failure, held, honest, policy, refused, tokenizer};

#[tokio::test(flavor = "multi_thread")]
async fn parallel_first_requests_make_one_top_up() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..32 {
        let call = http.get(server.url(&format!("/joke/{}", n % 4))).send();
        calls.spawn(call);
    }
    for result in calls.join_all().await {
        assert!(result.unwrap().status().is_success());
    }
    assert_eq!((provider.charges(), stripe.seen().len()), (1, 1));
    assert_eq!(provider.balance.load(Ordering::SeqCst), 50_000 - 32 * 100);
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_share_one_decline() {
    let server = answering(|_| refused(ErrorCode::CardDeclined)).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        calls.spawn(http.get(server.url("/joke")).send());
    }
    for result in calls.join_all().await {
        assert!(matches!(failure(&result), PaymentError::Declined(_)));
    }
    assert!(server.cards().len() < 16, "{} declines", server.cards().len());
    assert_eq!(held(&agent).await, usd!("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_payments_at_many_origins_stay_within_the_day() {
    let stripe = tokenizer().await;
    let agent = agent(policy().per_day(usd!("15")), &stripe);
    let http = client(&agent);
    let mut providers = Vec::new();
    for _ in 0..8 {
        providers.push(honest(100).await);
    }
    let mut calls = tokio::task::JoinSet::new();
    for (_, server) in &providers {
        for _ in 0..4 {
            calls.spawn(http.get(server.url("/joke")).send());
        }
    }
    calls.join_all().await;
    let charges: usize = providers.iter().map(|(provider, _)| provider.charges()).sum();
    assert_eq!((charges, held(&agent).await), (3, usd!("15")));
}
