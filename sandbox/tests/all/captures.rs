//! Money that is held first, and taken or let go later.

use crate::support::{Answer, Api, NOW};

async fn hold(api: &Api) -> String {
    let held = api.pay("pm_card_visa", "&capture_method=manual").await.ok();
    assert_eq!(held.at("status"), "requires_capture");
    held.text("id")
}

async fn capture(api: &Api, intent: &str, form: &str) -> Answer {
    api.post(&format!("/v1/payment_intents/{intent}/capture"), form).await
}

#[tokio::test]
async fn held_money_is_not_received_until_it_is_captured() {
    let api = Api::start().await;
    let id = hold(&api).await;
    let held = api.get(&format!("/v1/payment_intents/{id}")).await.ok();
    assert_eq!((held.at("amount_capturable"), held.at("amount_received")), (500.into(), 0.into()));
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("captured"), charge.at("amount_captured")), (false.into(), 0.into()));
    assert_eq!((charge.at("paid"), charge.at("status")), (true.into(), "succeeded".into()));
    assert_eq!(charge.at("balance_transaction"), serde_json::Value::Null);
    assert!(api.sandbox.charges().is_empty());

    let taken = capture(&api, &id, "").await.ok();
    assert_eq!((taken.at("status"), taken.at("amount_received")), ("succeeded".into(), 500.into()));
    assert_eq!(taken.at("amount_capturable"), 0);
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("captured"), charge.at("amount_captured")), (true.into(), 500.into()));
    assert_eq!(api.sandbox.charges()[0].amount, 500);
    let expected = [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "charge.captured",
        "payment_intent.succeeded",
    ];
    assert_eq!(api.events(0).await, expected);
}

#[tokio::test]
async fn a_part_is_captured_and_the_rest_let_go() {
    let api = Api::start().await;
    let id = hold(&api).await;
    let taken = capture(&api, &id, "amount_to_capture=300").await.ok();
    assert_eq!((taken.at("amount"), taken.at("amount_received")), (500.into(), 300.into()));
    let charge = api.charge(&id).await;
    assert_eq!(
        (charge.at("amount_captured"), charge.at("amount_refunded"), charge.at("refunded")),
        (300.into(), 200.into(), false.into())
    );
    assert_eq!(api.sandbox.charges()[0].amount, 300);
    let released = api.get(&format!("/v1/refunds?payment_intent={id}")).await.ok();
    assert_eq!(released.at("data.0.amount"), 200);
    assert_eq!(released.at("data.0.balance_transaction"), serde_json::Value::Null);
    assert!(api.sandbox.refunds().is_empty());
    let moved = api.get("/v1/balance_transactions").await.ok();
    assert_eq!(moved.at("data").as_array().unwrap().len(), 1);
    assert_eq!(moved.at("data.0.amount"), 300);

    let form = format!("payment_intent={id}&amount=301");
    api.post("/v1/refunds", &form).await.is_invalid("", "amount");
    let refund = api.post("/v1/refunds", &format!("payment_intent={id}")).await.ok();
    assert_eq!(refund.at("amount"), 300);
    assert_eq!(api.charge(&id).await.at("refunded"), true);
}

#[tokio::test]
async fn more_than_is_held_cannot_be_captured_and_nothing_twice() {
    let api = Api::start().await;
    let id = hold(&api).await;
    let too_much = capture(&api, &id, "amount_to_capture=501").await;
    too_much.is_invalid("amount_too_large", "amount_to_capture");
    for bad in ["0", "-1"] {
        let answer = capture(&api, &id, &format!("amount_to_capture={bad}")).await;
        answer.is_invalid("parameter_invalid_integer", "amount_to_capture");
    }
    capture(&api, &id, "").await.ok();
    let again = capture(&api, &id, "").await;
    again.is_error(400, "invalid_request_error", "payment_intent_unexpected_state");
    let paid = api.paid("pm_card_visa").await;
    let never_held = capture(&api, &paid, "").await;
    never_held.is_error(400, "invalid_request_error", "payment_intent_unexpected_state");
    capture(&api, "pi_1", "").await.is_error(404, "invalid_request_error", "resource_missing");
    assert_eq!(api.sandbox.charges().len(), 2);
}

#[tokio::test]
async fn canceling_lets_go_of_held_money() {
    let api = Api::start().await;
    let id = hold(&api).await;
    let path = format!("/v1/payment_intents/{id}");
    api.post(&format!("{path}/confirm"), "").await.is_error(
        400,
        "invalid_request_error",
        "payment_intent_unexpected_state",
    );
    let canceled = api.post(&format!("{path}/cancel"), "").await.ok();
    assert_eq!(
        (canceled.at("status"), canceled.at("canceled_at")),
        ("canceled".into(), NOW.into())
    );
    assert_eq!(
        (canceled.at("amount_capturable"), canceled.at("amount_received")),
        (0.into(), 0.into())
    );
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("refunded"), charge.at("captured")), (true.into(), false.into()));
    capture(&api, &id, "").await.is_error(
        400,
        "invalid_request_error",
        "payment_intent_unexpected_state",
    );
    let form = format!("payment_intent={id}");
    api.post("/v1/refunds", &form).await.is_error(400, "invalid_request_error", "");
    assert_eq!(api.get("/v1/balance_transactions").await.ok().at("data"), serde_json::json!([]));
    assert!(api.sandbox.charges().is_empty());
}

#[tokio::test]
async fn charges_are_listed_by_their_payment() {
    let api = Api::start().await;
    let declined = api.pay("pm_card_visa_chargeDeclined", "").await;
    let id = declined.text("error.payment_intent.id");
    let path = format!("/v1/payment_intents/{id}/confirm");
    api.post(&path, "payment_method=pm_card_visa").await.ok();
    api.paid("pm_card_visa").await;
    let mine = api.get(&format!("/v1/charges?payment_intent={id}")).await.ok();
    assert_eq!(mine.at("data").as_array().unwrap().len(), 2);
    assert_eq!(
        (mine.at("data.0.status"), mine.at("data.1.status")),
        ("succeeded".into(), "failed".into())
    );
    let later = api.get(&format!("/v1/charges?created[gt]={NOW}")).await.ok();
    assert_eq!(later.at("data"), serde_json::json!([]));
    assert_eq!(api.get("/v1/charges?limit=1").await.ok().at("has_more"), true);
}
