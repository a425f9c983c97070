//! The PaymentIntent's way from creation to its end.

use crate::support::{Api, NOW, PAYMENT};

#[tokio::test]
async fn a_payment_in_three_steps() {
    let api = Api::start().await;
    let made = api.post("/v1/payment_intents", PAYMENT).await.ok();
    assert_eq!(made.at("status"), "requires_payment_method");
    let path = format!("/v1/payment_intents/{}", made.text("id"));
    let bare = api.post(&format!("{path}/confirm"), "").await;
    bare.is_error(400, "invalid_request_error", "payment_intent_unexpected_state");
    assert_eq!(bare.at("error.payment_intent.id"), made.at("id"));

    let with_card = format!("{PAYMENT}&payment_method=pm_card_visa");
    let made = api.post("/v1/payment_intents", &with_card).await.ok();
    assert_eq!(made.at("status"), "requires_confirmation");
    assert_eq!(
        (made.at("amount_received"), made.at("latest_charge")),
        (0.into(), serde_json::Value::Null)
    );
    assert!(api.sandbox.charges().is_empty());
    let path = format!("/v1/payment_intents/{}", made.text("id"));
    let paid = api.post(&format!("{path}/confirm"), "").await.ok();
    assert_eq!((paid.at("status"), paid.at("amount_received")), ("succeeded".into(), 500.into()));
    assert_eq!(api.get(&path).await.ok().text, paid.text);
}

#[tokio::test]
async fn a_succeeded_payment_can_be_neither_confirmed_nor_canceled() {
    let api = Api::start().await;
    let path = format!("/v1/payment_intents/{}", api.pay("pm_card_visa", "").await.ok().text("id"));
    for verb in ["confirm", "cancel"] {
        let answer = api.post(&format!("{path}/{verb}"), "").await;
        answer.is_error(400, "invalid_request_error", "payment_intent_unexpected_state");
        assert_eq!(answer.at("error.payment_intent.status"), "succeeded");
    }
    assert_eq!(api.sandbox.charges().len(), 1);
}

#[tokio::test]
async fn a_canceled_payment_stays_canceled() {
    let api = Api::start().await;
    let made = api.post("/v1/payment_intents", PAYMENT).await.ok();
    let path = format!("/v1/payment_intents/{}", made.text("id"));
    let canceled = api.post(&format!("{path}/cancel"), "cancellation_reason=abandoned").await.ok();
    assert_eq!(canceled.at("status"), "canceled");
    assert_eq!(canceled.at("canceled_at"), NOW);
    assert_eq!(canceled.at("cancellation_reason"), "abandoned");
    for verb in ["confirm", "cancel"] {
        let answer = api.post(&format!("{path}/{verb}"), "").await;
        answer.is_error(400, "invalid_request_error", "payment_intent_unexpected_state");
    }
}

#[tokio::test]
async fn a_declined_payment_waits_for_another_card() {
    let api = Api::start().await;
    let declined =
        api.pay("pm_card_visa_chargeDeclinedInsufficientFunds", "&metadata[top_up]=1").await;
    declined.is_error(402, "card_error", "card_declined");
    let id = declined.text("error.payment_intent.id");
    let intent = api.get(&format!("/v1/payment_intents/{id}")).await.ok();
    assert_eq!(intent.at("status"), "requires_payment_method");
    assert_eq!(intent.at("payment_method"), serde_json::Value::Null);
    assert_eq!(intent.at("last_payment_error.decline_code"), "insufficient_funds");
    assert_eq!(intent.at("latest_charge"), declined.at("error.charge"));
    let charge = api.get(&format!("/v1/charges/{}", intent.text("latest_charge"))).await.ok();
    assert_eq!((charge.at("status"), charge.at("paid")), ("failed".into(), false.into()));
    assert_eq!(charge.at("failure_code"), "card_declined");

    let path = format!("/v1/payment_intents/{id}/confirm");
    let paid = api.post(&path, "payment_method=pm_card_visa").await.ok();
    assert_eq!(paid.at("last_payment_error"), serde_json::Value::Null);
    assert_eq!(paid.at("metadata.top_up"), "1");
    let charge = api.get(&format!("/v1/charges/{}", paid.text("latest_charge"))).await.ok();
    assert_eq!((charge.at("amount_captured"), charge.at("paid")), (500.into(), true.into()));
    assert_eq!(charge.at("payment_intent"), id);
}

#[tokio::test]
async fn three_d_secure_parks_the_payment() {
    let api = Api::start().await;
    for alias in [
        "authenticationRequired",
        "authenticationRequiredOnSetup",
        "authenticationRequiredSetupForOffSession",
    ] {
        let parked = api.pay(&format!("pm_card_{alias}"), "").await.ok();
        assert_eq!(parked.at("status"), "requires_action");
        assert_eq!(parked.at("next_action.type"), "use_stripe_sdk");
        assert_eq!(parked.at("amount_received"), 0);
        let path = format!("/v1/payment_intents/{}/cancel", parked.text("id"));
        assert_eq!(api.post(&path, "").await.ok().at("next_action"), serde_json::Value::Null);
    }
    assert!(api.sandbox.charges().is_empty());
}

#[tokio::test]
async fn three_d_secure_is_an_error_when_nobody_can_act() {
    let api = Api::start().await;
    for number in ["4000002760003184", "4000002500003155"] {
        let card = api.card(number).await;
        let answer = api.pay(&card, "&error_on_requires_action=true").await;
        answer.is_error(402, "card_error", "authentication_required");
        assert_eq!(answer.at("error.payment_intent.status"), "requires_payment_method");
        assert_eq!(answer.at("error.payment_intent.next_action"), serde_json::Value::Null);
        assert_eq!(
            answer.at("error.payment_intent.last_payment_error.code"),
            "authentication_required"
        );
        let card = api.card(number).await;
        let answer = api.pay(&card, "&off_session=true").await;
        answer.is_error(402, "card_error", "authentication_required");
        assert_eq!(answer.at("error.decline_code"), "authentication_required");
    }
    assert!(api.sandbox.charges().is_empty());
}

#[tokio::test]
async fn a_card_set_up_before_pays_off_session() {
    let api = Api::start().await;
    let card = "pm_card_authenticationRequiredSetupForOffSession";
    api.pay(card, "&off_session=true").await.ok();
}

#[tokio::test]
async fn amounts_have_minimums_maximums_and_steps() {
    let api = Api::start().await;
    for (amount, currency, code) in [
        ("49", "usd", "amount_too_small"),
        ("29", "gbp", "amount_too_small"),
        ("0", "usd", "parameter_invalid_integer"),
        ("-500", "usd", "parameter_invalid_integer"),
        ("100000000", "usd", "amount_too_large"),
        ("1234", "kwd", ""),
        ("550", "isk", ""),
        ("510", "ugx", ""),
    ] {
        let form = format!("amount={amount}&currency={currency}");
        api.post("/v1/payment_intents", &form).await.is_invalid(code, "amount");
    }
    let answer = api.post("/v1/payment_intents", "amount=500&currency=zzz").await;
    answer.is_invalid("", "currency");
    for (amount, currency) in
        [("50", "USD"), ("30", "gbp"), ("99999999", "eur"), ("1230", "kwd"), ("50", "jpy")]
    {
        let form = format!("amount={amount}&currency={currency}");
        let made = api.post("/v1/payment_intents", &form).await.ok();
        assert_eq!(made.text("currency"), currency.to_ascii_lowercase());
    }
}

#[tokio::test]
async fn payment_methods_that_redirect_need_a_return_url() {
    let api = Api::start().await;
    let form = "amount=500&currency=usd&confirm=true&payment_method=pm_card_visa";
    let answer = api.post("/v1/payment_intents", form).await;
    answer.is_error(400, "invalid_request_error", "");
    assert!(answer.text("error.message").contains("you must provide a `return_url`"));
    assert!(api.get("/v1/payment_intents").await.at("data").as_array().unwrap().is_empty());
    for more in [
        "return_url=https://example.com",
        "payment_method_types[]=card",
        "allowed_payment_method_types[]=card",
    ] {
        api.post("/v1/payment_intents", &format!("{form}&{more}")).await.ok();
    }
}

#[tokio::test]
async fn a_card_payment_takes_only_a_descriptor_suffix() {
    let api = Api::start().await;
    let paid = api
        .pay(
            "pm_card_visa",
            "&statement_descriptor_suffix=TOP-UP&description=d&receipt_email=a@b.c",
        )
        .await
        .ok();
    assert_eq!(paid.at("statement_descriptor_suffix"), "TOP-UP");
    assert_eq!((paid.at("description"), paid.at("receipt_email")), ("d".into(), "a@b.c".into()));
    let answer = api.pay("pm_card_visa", "&statement_descriptor=FAREBOX").await;
    answer.is_invalid("", "statement_descriptor");
    for bad in ["12345", "A-VERY-LONG-DESCRIPTOR-INDEED", "A*B"] {
        let answer = api.pay("pm_card_visa", &format!("&statement_descriptor_suffix={bad}")).await;
        answer.is_invalid("", "statement_descriptor_suffix");
    }
}

#[tokio::test]
async fn charges_lists_what_succeeded() {
    let api = Api::start().await;
    let customer = api.customer().await;
    api.pay("pm_card_visa_chargeDeclined", "").await;
    let paid = api.pay("pm_card_visa", &format!("&customer={customer}&metadata[a]=b")).await.ok();
    let charges = api.sandbox.charges();
    assert_eq!(charges.len(), 1);
    let charge = &charges[0];
    assert_eq!((&charge.id, charge.amount, &*charge.currency), (&paid.text("id"), 500, "usd"));
    assert_eq!(charge.customer.as_ref(), Some(&customer));
    assert_eq!(charge.payment_method, paid.text("payment_method"));
    assert_eq!(charge.metadata["a"], "b");
    assert_eq!(charge.created, NOW);
}
