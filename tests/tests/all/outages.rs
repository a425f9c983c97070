//! Stripe is away, or answers and is not heard.

use std::time::Duration;

use farebox_middleware::{Payments, Stripe, usd};
use farebox_protocol::ErrorCode;
use tokio::time::Instant;

use crate::support::{Bank, Books, Fault, Gate, Provider, by_card, card};

/// An address at which nobody listens.
fn nowhere() -> Stripe {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    Stripe::new("sk_test_1", "pk_test_1").unwrap().base_url(&url).unwrap()
}

#[tokio::test]
async fn without_stripe_a_card_is_told_to_wait_and_credit_is_still_spent() {
    let provider = Provider::with(nowhere(), Books::Embedded).await;
    let credit = provider.payments.fund(usd!("5")).await;
    let credit = [credit.to_str().unwrap()];
    let started = Instant::now();
    let card = by_card("pm_1");
    let (by_card, by_credit) =
        tokio::join!(provider.joke(&card), provider.send(http::Method::GET, "/api/joke", &credit));
    assert!(by_credit.is_served(), "{by_credit:?}");
    assert_eq!(by_card.status, 503, "{by_card:?}");
    assert_eq!(by_card.code(), Some(ErrorCode::ProcessorUnavailable));
    assert!(by_card.header("retry-after").is_some() && by_card.offer().is_none());
    assert_eq!(by_card.header("cache-control"), Some("no-store"));
    assert!(by_card.refusal().top_up_id.is_none(), "nothing was begun");
    println!("Stripe down: 503 after {:?}, credit is spent meanwhile", started.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_is_asked_for_again_under_the_same_key() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let method = bank.method(&card(1)).await;
    gate.set(Fault::LoseAnswer);
    let payment = by_card(&method);
    let (served, ()) = tokio::join!(provider.joke(&payment), async {
        let tried = async || gate.charge_keys().len();
        crate::support::eventually(Duration::from_secs(10), tried, |tries| *tries == 2).await;
        gate.set(Fault::None);
    });
    assert!(served.is_served(), "{served:?}");
    let keys = gate.charge_keys();
    assert!(keys.len() >= 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let top_up = served.receipt().top_up_id.unwrap().to_string();
    assert_eq!((bank.charges().len(), &keys[0]), (1, &top_up));
}

#[tokio::test]
async fn payments_for_tests_need_no_stripe() {
    let payments = Payments::for_tests();
    let counts = std::sync::Arc::default();
    let url = crate::support::serve(crate::support::app(&payments, &counts)).await;
    let credit = payments.fund(usd!("0.02")).await;
    let (http, url) = (reqwest::Client::new(), format!("{url}/api/joke"));
    let mut served = Vec::new();
    for _ in 0..3 {
        let value = credit.to_str().unwrap();
        let answer = crate::support::send(&http, http::Method::GET, &url, &[value]).await.unwrap();
        served.push(answer.status);
    }
    assert_eq!(served, [200, 200, 402]);
}
