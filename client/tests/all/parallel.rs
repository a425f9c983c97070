use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_client::{PaymentError, usd};
use farebox_protocol::ErrorCode;

use crate::support::{
    Seen, Server, agent, answering, client, failure, held, honest, offer, policy, refused,
    tokenizer,
};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_was_sent_before_a_decline_and_answered_after_it_shares_it() {
    let (arrived, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (has_arrived, may_answer) = (Arc::clone(&arrived), Arc::clone(&answer));
    let server = Server::start(move |seen: &Seen| {
        if seen.path == "/late" {
            has_arrived.store(true, Ordering::SeqCst);
            tokio::task::block_in_place(|| until(&may_answer));
        }
        match seen.card() {
            Some(_) => refused(ErrorCode::CardDeclined),
            None => offer(100, None),
        }
    })
    .await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let late = tokio::spawn(http.get(server.url("/late")).send());
    tokio::task::block_in_place(|| until(&arrived));
    let first = http.get(server.url("/joke")).send().await;
    assert!(matches!(failure(&first), PaymentError::Declined(_)));
    answer.store(true, Ordering::SeqCst);
    assert!(matches!(failure(&late.await.unwrap()), PaymentError::Declined(_)));
    assert_eq!(server.cards().len(), 1, "the card was offered once");
}

fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
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
