//! The first executed answer, again and again.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::support::{Api, PAYMENT};

const PAY: &str = "/v1/payment_intents";

fn pay_with(card: &str) -> String {
    format!("{PAYMENT}&confirm=true&payment_method={card}")
}

#[tokio::test]
async fn a_replayed_key_returns_the_first_answer_byte_for_byte() {
    let api = Api::start().await;
    let first = api.post_keyed(PAY, &pay_with("pm_card_visa"), "k").await.ok();
    assert_eq!(first.header("idempotent-replayed"), None);
    api.advance(60);
    let again = api.post_keyed(PAY, &pay_with("pm_card_visa"), "k").await.ok();
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("original-request"), first.header("request-id"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    assert_eq!(api.sandbox.charges().len(), 1);
    assert_eq!(api.sandbox.calls().len(), 2);
}

#[tokio::test]
async fn a_replayed_key_returns_the_saved_decline() {
    let api = Api::start().await;
    let form = pay_with("pm_card_visa_chargeDeclined");
    let first = api.post_keyed(PAY, &form, "k").await;
    first.is_error(402, "card_error", "card_declined");
    let again = api.post_keyed(PAY, &form, "k").await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let intents = api.get(PAY).await.ok();
    assert_eq!(intents.at("data").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_order_of_parameters_does_not_matter() {
    let api = Api::start().await;
    let first = api.post_keyed("/v1/customers", "name=a&email=b", "k").await.ok();
    let again = api.post_keyed("/v1/customers", "email=b&name=a", "k").await.ok();
    assert_eq!(first.text, again.text);
}

#[tokio::test]
async fn other_parameters_or_another_path_are_a_mismatch() {
    let api = Api::start().await;
    api.post_keyed("/v1/customers", "name=a", "k").await.ok();
    for (path, form) in [
        ("/v1/customers", "name=b"),
        ("/v1/customers", "name=a&email=b"),
        ("/v1/customers", "name=a&unknown=1"),
        ("/v1/setup_intents", "name=a"),
        ("/v1/setup_intents", ""),
    ] {
        let answer = api.post_keyed(path, form, "k").await;
        answer.is_error(400, "idempotency_error", "");
        let message = answer.text("error.message");
        assert!(message.starts_with("Keys for idempotent requests can only be used "));
    }
    let customers = api.get("/v1/customers").await.ok();
    assert_eq!(customers.at("data").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_error_found_while_executing_is_saved() {
    let api = Api::start().await;
    let form = pay_with("pm_nope");
    api.post_keyed(PAY, &form, "k").await.is_invalid("resource_missing", "payment_method");
    let again = api.post_keyed(PAY, &form, "k").await;
    again.is_invalid("resource_missing", "payment_method");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn a_request_that_never_ran_leaves_no_answer() {
    let api = Api::start().await;
    api.post_keyed("/v1/customers", "nmae=a", "k").await.is_invalid("parameter_unknown", "nmae");
    api.post_keyed(PAY, "amount=1&currency=usd", "k")
        .await
        .is_invalid("amount_too_small", "amount");
    let request = api.request(Method::POST, "/v1/customers").bearer("sk_test_wrong").form("name=a");
    assert_eq!(request.header("idempotency-key", "k").send().await.status, 401);
    api.post_keyed("/v1/nothing", "", "k").await.is_error(404, "invalid_request_error", "");
    let ran = api.post_keyed("/v1/customers", "name=a", "k").await.ok();
    assert_eq!(ran.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_key_in_flight_is_409_and_later_replays() {
    const LATENCY: Duration = Duration::from_millis(800);
    let api = Api::with(|builder| builder.latency(LATENCY)).await;
    let form = pay_with("pm_card_visa");
    let started = Instant::now();
    let meanwhile = async {
        while api.sandbox.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(api.sandbox.charges().len(), 1, "the effect precedes the answer");
        let other = api.post_keyed(PAY, "amount=600&currency=usd", "k");
        tokio::join!(api.post_keyed(PAY, &form, "k"), other)
    };
    let (first, (same, other)) = tokio::join!(api.post_keyed(PAY, &form, "k"), meanwhile);
    assert!(started.elapsed() >= LATENCY);
    first.ok();
    same.is_error(409, "invalid_request_error", "idempotency_key_in_use");
    other.is_error(400, "idempotency_error", "");
    let replayed = api.post_keyed(PAY, &form, "k").await.ok();
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(api.sandbox.charges().len(), 1);
}

#[tokio::test]
async fn a_caller_that_hung_up_finds_the_answer_under_its_key() {
    let api = Api::with(|builder| builder.latency(Duration::from_secs(2))).await;
    let form = pay_with("pm_card_visa");
    let impatient = api.post_keyed(PAY, &form, "k");
    assert!(tokio::time::timeout(Duration::from_millis(300), impatient).await.is_err());
    assert_eq!(api.sandbox.charges().len(), 1);
    let answer = api.post_keyed(PAY, &form, "k").await.ok();
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    assert_eq!(api.sandbox.charges().len(), 1);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day() {
    let api = Api::start().await;
    let first = api.post_keyed("/v1/customers", "name=a", "k").await.ok();
    api.advance(86_399);
    let kept = api.post_keyed("/v1/customers", "name=a", "k").await.ok();
    assert_eq!(kept.text, first.text);
    api.advance(1);
    let anew = api.post_keyed("/v1/customers", "name=b", "k").await.ok();
    assert_ne!(anew.text("id"), first.text("id"));
    assert_eq!(anew.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn keys_have_one_to_255_characters_and_gets_ignore_them() {
    let api = Api::start().await;
    api.post_keyed("/v1/customers", "", &"k".repeat(255)).await.ok();
    for key in [String::new(), "k".repeat(256)] {
        let answer = api.post_keyed("/v1/customers", "", &key).await;
        answer.is_error(400, "idempotency_error", "");
    }
    for path in ["/v1/account", "/v1/customers"] {
        let get = api.request(Method::GET, path).secret().header("idempotency-key", "g");
        assert_eq!(get.send().await.ok().header("idempotent-replayed"), None);
    }
}
