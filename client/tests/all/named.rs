//! Calls that their caller named: one payment by card, whatever happens in between.

use std::sync::atomic::{AtomicUsize, Ordering};

use farebox_client::{Agent, PaymentError, PaymentKey, usd};
use farebox_protocol::ErrorCode;
use http::StatusCode;

use crate::support::{
    Seen, Server, agent, answer, answering, client, failure, held, honest, policy, refused, served,
    tokenizer, told,
};

async fn call(
    agent: &Agent,
    url: String,
    name: &str,
) -> Result<reqwest::Response, reqwest_middleware::Error> {
    client(agent).get(url).with_extension(PaymentKey::new(name).unwrap()).send().await
}

#[tokio::test]
async fn a_named_call_has_one_idempotency_key_in_every_process() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["task-17", "task-17", "task-18"] {
        let agent = agent(policy(), &stripe).state(folder.path().join(name)).unwrap();
        call(&agent, server.url("/joke"), name).await.unwrap();
    }
    let seen = server.seen();
    let keys: Vec<_> = seen.iter().filter_map(Seen::key).collect();
    assert_eq!(keys[0], keys[keys.len() - 2]);
    assert_ne!(keys[0], keys[keys.len() - 1]);
    assert!(!keys.iter().any(|key| key.contains("task")), "the name is the caller's business");
}

#[tokio::test]
async fn a_named_call_is_not_paid_twice_at_a_server_of_version_1() {
    let server = answering(|_| answer(StatusCode::BAD_GATEWAY, "lost")).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    for _ in 0..3 {
        let agent = agent(policy(), &stripe).state(&path).unwrap();
        let result = call(&agent, server.url("/joke"), "task-17").await;
        assert!(matches!(failure(&result), PaymentError::Unknown), "{result:?}");
        assert_eq!((server.cards().len(), held(&agent).await), (1, usd!("5")));
    }
}

#[tokio::test]
async fn a_named_call_that_was_paid_is_not_paid_again_when_its_credit_is_gone() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let first = agent(policy(), &stripe).state(&path).unwrap();
    call(&first, server.url("/joke"), "task-17").await.unwrap();
    drop(first);
    provider.balance.store(0, Ordering::SeqCst);
    let second = agent(policy(), &stripe).state(&path).unwrap();
    let result = call(&second, server.url("/joke"), "task-17").await;
    assert!(matches!(failure(&result), PaymentError::PaidButRefused), "{result:?}");
    assert_eq!(provider.charges(), 1);
    call(&second, server.url("/joke"), "task-18").await.unwrap();
    assert_eq!(provider.charges(), 2);
}

#[tokio::test]
async fn a_named_call_whose_card_was_declined_can_be_paid_later() {
    let tries = AtomicUsize::new(0);
    let server = answering(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => refused(ErrorCode::CardDeclined),
        _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let result = call(&agent, server.url("/joke"), "task-17").await;
    assert!(matches!(failure(&result), PaymentError::Declined(ErrorCode::CardDeclined)));
    call(&agent, server.url("/joke"), "task-17").await.unwrap();
    assert_eq!(server.cards().len(), 2);
}

#[tokio::test]
async fn a_call_that_was_charged_before_says_so_and_returns_the_hold() {
    let server = answering(|_| refused(ErrorCode::AlreadyCharged)).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let result = call(&agent, server.url("/joke"), "task-17").await;
    assert!(matches!(failure(&result), PaymentError::AlreadyCharged), "{result:?}");
    assert!(!failure(&result).is_unknown());
    assert_eq!(held(&agent).await, usd!("0"));
    // The name is free again, and so is the origin.
    let result = call(&agent, server.url("/joke"), "task-18").await;
    assert!(matches!(failure(&result), PaymentError::AlreadyCharged));
    assert_eq!(server.cards(), ["pm_1", "pm_2"]);
}

#[tokio::test]
async fn names_are_of_a_bounded_length() {
    assert!(PaymentKey::new("x".repeat(256)).is_some());
    assert!(PaymentKey::new("x".repeat(257)).is_none());
    let _ = Server::start(|_: &Seen| answer(StatusCode::OK, "")).await;
}
