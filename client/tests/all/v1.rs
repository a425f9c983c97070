//! A v1 TypeScript server: no `charged`, no `currency`, no `maxTopUp`, bare 64 hex credentials,
//! no idempotency.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use axum::response::Response;
use farebox_client::{Agent, PaymentError, Receipt, usd};
use farebox_protocol::{ErrorCode, PaymentResponse, Units};
use http::StatusCode;

use crate::support::{
    Reply, Seen, Server, agent, answer, answering, client, failure, held, offer, policy, served,
    tokenizer,
};

const CLIENT_ID: &str = "ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12";

fn told_v1(charge: Option<&str>, remaining: i64) -> PaymentResponse {
    let mut told = crate::support::told(charge, None, remaining);
    told.client_id = CLIENT_ID.to_owned();
    told
}

fn answer_v1(balance: &AtomicI64, price: i64, seen: &Seen) -> Response {
    let Some(payment) = &seen.payment else { return offer(price, None) };
    let credential = payment.client_id.as_ref().map(farebox_protocol::ClientId::as_str);
    let card = payment.payment_method_id.is_some();
    let left = balance.load(Ordering::SeqCst);
    if left >= price && (card || credential == Some(CLIENT_ID)) {
        balance.store(left - price, Ordering::SeqCst);
        return served(StatusCode::OK, &told_v1(None, left - price));
    }
    if !card {
        return offer(price, Some(ErrorCode::InsufficientCredits));
    }
    let left = left + payment.top_up_amount.map_or(50_000, Units::get) - price;
    balance.store(left, Ordering::SeqCst);
    served(StatusCode::OK, &told_v1(Some("pi_1"), left))
}

async fn server(price: i64) -> (Arc<AtomicI64>, Server) {
    let balance = Arc::new(AtomicI64::new(0));
    let books = Arc::clone(&balance);
    (balance, Server::start(move |seen: &Seen| answer_v1(&books, price, seen)).await)
}

async fn setup() -> (Server, Agent) {
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    (stripe, agent)
}

#[tokio::test]
async fn a_v1_server_is_paid_by_card_and_then_from_credit() {
    let (balance, server) = server(100).await;
    let (stripe, agent) = setup().await;
    let http = client(&agent);
    let first = http.get(server.url("/joke")).send().await.unwrap();
    let receipt = first.extensions().get::<Receipt>().unwrap();
    assert_eq!((receipt.charged, receipt.remaining), (None, usd!("4.99")));
    assert_eq!(receipt.top_up, Some(usd!("5")));
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.seen().len(), 3);
    assert_eq!(
        server.seen()[2].payment.as_ref().unwrap().client_id.as_ref().unwrap().as_str(),
        CLIENT_ID
    );
    // Credit runs out, and the server says so.
    balance.store(0, Ordering::SeqCst);
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!((stripe.seen().len(), held(&agent).await), (2, usd!("10")));
}

#[tokio::test]
async fn a_v1_server_is_asked_for_an_unknown_price_before_it_gets_the_credential() {
    let (balance, server) = server(100).await;
    let (_stripe, agent) = setup().await;
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap();
    let before = balance.load(Ordering::SeqCst);
    http.get(server.url("/other")).send().await.unwrap();
    let seen = server.seen();
    assert!(seen[2].payment.is_none(), "it would ignore maxAmount");
    assert!(seen[3].payment.is_some() && seen[3].card().is_none());
    assert_eq!(balance.load(Ordering::SeqCst), before - 100);
}

#[tokio::test]
async fn a_v1_decline_in_the_body_alone_returns_the_hold() {
    let body = r#"{"success":false,"creditsRemaining":0,"clientId":"","error":"Your card was declined.","errorCode":"card_declined"}"#;
    let server = answering(move |_| answer(StatusCode::PAYMENT_REQUIRED, body)).await;
    let (_stripe, agent) = setup().await;
    let result = client(&agent).get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::Declined(ErrorCode::CardDeclined)));
    assert_eq!(held(&agent).await, usd!("0"));
}

#[tokio::test]
async fn a_repeat_at_a_v1_server_is_held_on_its_own_because_it_may_charge_again() {
    let body = r#"{"success":false,"creditsRemaining":0,"clientId":"","error":"redis","errorCode":"payment_failed"}"#;
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| -> Reply {
        match payments.fetch_add(1, Ordering::SeqCst) {
            0 => answer(StatusCode::PAYMENT_REQUIRED, body).into(),
            _ => served(StatusCode::OK, &told_v1(Some("pi_2"), 49_900)).into(),
        }
    })
    .await;
    let (stripe, agent) = setup().await;
    let http = client(&agent);
    let result = http.get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::Unknown));
    assert_eq!(held(&agent).await, usd!("5"));
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1", "pm_1"]);
    assert_eq!((stripe.seen().len(), held(&agent).await), (1, usd!("10")));
}

#[tokio::test]
async fn a_repeat_that_a_v1_server_pays_from_credit_returns_the_second_hold() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| -> Reply {
        match payments.fetch_add(1, Ordering::SeqCst) {
            0 => answer(StatusCode::INTERNAL_SERVER_ERROR, "").into(),
            _ => served(StatusCode::OK, &told_v1(None, 49_900)).into(),
        }
    })
    .await;
    let (_stripe, agent) = setup().await;
    let http = client(&agent);
    assert!(http.get(server.url("/joke")).send().await.is_err());
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn repeats_at_a_v1_server_end_at_the_budget() {
    let server = answering(|_| answer(StatusCode::BAD_GATEWAY, "")).await;
    let (stripe, agent) = setup().await;
    let http = client(&agent);
    for _ in 0..5 {
        assert!(http.get(server.url("/joke")).send().await.is_err());
    }
    assert_eq!((server.cards().len(), stripe.seen().len()), (2, 1));
    assert_eq!(held(&agent).await, usd!("10"));
}
