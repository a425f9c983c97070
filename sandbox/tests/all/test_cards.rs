//! Each of Stripe's test cards does what Stripe's page "Testing" says.

use crate::support::Api;

/// (number, alias, code, decline code)
const DECLINES: [(&str, &str, &str, Option<&str>); 9] = [
    ("4000000000000002", "visa_chargeDeclined", "card_declined", Some("generic_decline")),
    (
        "4000000000009995",
        "visa_chargeDeclinedInsufficientFunds",
        "card_declined",
        Some("insufficient_funds"),
    ),
    ("4000000000009987", "visa_chargeDeclinedLostCard", "card_declined", Some("lost_card")),
    ("4000000000009979", "visa_chargeDeclinedStolenCard", "card_declined", Some("stolen_card")),
    (
        "4000000000006975",
        "visa_chargeDeclinedVelocityLimitExceeded",
        "card_declined",
        Some("card_velocity_exceeded"),
    ),
    ("4000000000000069", "chargeDeclinedExpiredCard", "expired_card", None),
    ("4000000000000127", "chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
    ("4000000000000119", "chargeDeclinedProcessingError", "processing_error", None),
    ("4100000000000019", "radarBlock", "card_declined", Some("fraudulent")),
];

#[tokio::test]
async fn good_cards_pay_and_show_their_brand() {
    let api = Api::start().await;
    for (number, alias, brand, funding) in [
        ("4242424242424242", "visa", "visa", "credit"),
        ("4000056655665556", "visa_debit", "visa", "debit"),
        ("5555555555554444", "mastercard", "mastercard", "credit"),
        ("378282246310005", "amex", "amex", "credit"),
        ("6011111111111117", "discover", "discover", "credit"),
        ("3056930009020004", "diners", "diners", "credit"),
        ("3566002020360505", "jcb", "jcb", "credit"),
        ("6200000000000005", "unionpay", "unionpay", "credit"),
    ] {
        let typed = api.card(number).await;
        for card in [typed, format!("pm_card_{alias}")] {
            let paid = api.pay(&card, "&expand[]=payment_method").await.ok();
            assert_eq!(paid.at("status"), "succeeded");
            assert_eq!(paid.at("payment_method.card.brand"), brand);
            assert_eq!(paid.at("payment_method.card.funding"), funding);
            assert_eq!(paid.at("payment_method.card.last4"), number[number.len() - 4..]);
            assert_eq!(paid.at("payment_method.card.country"), "US");
        }
    }
}

#[tokio::test]
async fn declining_cards_decline_with_their_codes() {
    let api = Api::start().await;
    for (number, alias, code, decline_code) in DECLINES {
        let typed = api.card(number).await;
        for card in [typed, format!("pm_card_{alias}")] {
            let answer = api.pay(&card, "").await;
            answer.is_error(402, "card_error", code);
            assert_eq!(answer.at("error.decline_code"), serde_json::json!(decline_code));
            assert_eq!(answer.at("error.payment_intent.status"), "requires_payment_method");
            assert_eq!(answer.at("error.payment_method.card.last4"), number[12..]);
        }
    }
    assert!(api.sandbox.charges().is_empty());
}

#[tokio::test]
async fn declining_cards_can_be_neither_attached_nor_set_up() {
    let api = Api::start().await;
    let customer = api.customer().await;
    for (number, _, code, decline_code) in DECLINES {
        let card = api.card(number).await;
        let path = format!("/v1/payment_methods/{card}/attach");
        let attached = api.post(&path, &format!("customer={customer}")).await;
        let form = format!("confirm=true&payment_method={card}&payment_method_types[]=card");
        let set_up = api.post("/v1/setup_intents", &form).await;
        for answer in [&attached, &set_up] {
            answer.is_error(402, "card_error", code);
            assert_eq!(answer.at("error.decline_code"), serde_json::json!(decline_code));
        }
        assert_eq!(set_up.at("error.setup_intent.last_setup_error.code"), code);
    }
}

#[tokio::test]
async fn one_card_attaches_and_then_fails_every_charge() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let card = api.card("4000000000000341").await;
    let path = format!("/v1/payment_methods/{card}/attach");
    api.post(&path, &format!("customer={customer}")).await.ok();
    for _ in 0..2 {
        let answer = api.pay(&card, &format!("&customer={customer}&off_session=true")).await;
        answer.is_error(402, "card_error", "card_declined");
    }
}

#[tokio::test]
async fn bad_card_data_is_a_card_error_at_tokenization() {
    let api = Api::start().await;
    for (number, param, code) in [
        ("4242424242424241", "number", "incorrect_number"),
        ("37828224631000", "number", "incorrect_number"),
        ("hello", "number", "invalid_number"),
        ("4012888888881881", "number", "card_declined"),
    ] {
        let answer = api.tokenize(number).await;
        answer.is_error(402, "card_error", code);
        assert_eq!(answer.at("error.param"), param);
    }
    assert_eq!(
        api.tokenize("4012888888881881").await.text("error.decline_code"),
        "test_mode_live_card"
    );
}

#[tokio::test]
async fn a_card_expires_with_the_clock() {
    let api = Api::start().await;
    api.tokenize("4242424242424242").await.ok();
    api.advance(5 * 366 * 86_400);
    let answer = api.tokenize("4242424242424242").await;
    answer.is_error(402, "card_error", "invalid_expiry_year");
}

#[tokio::test]
async fn a_security_code_is_unchecked_until_an_issuer_was_asked() {
    let api = Api::start().await;
    for (number, after) in [("4242424242424242", "pass"), ("4000000000000101", "fail")] {
        let card = api.tokenize(number).await.ok();
        assert_eq!(card.at("card.checks.cvc_check"), "unchecked");
        api.pay(&card.text("id"), "").await.ok();
        let card = api.get(&format!("/v1/payment_methods/{}", card.text("id"))).await.ok();
        assert_eq!(card.at("card.checks.cvc_check"), after);
    }
}

#[tokio::test]
async fn a_security_code_that_was_not_given_is_never_checked() {
    let api = Api::with(|builder| builder.raw_cards_with_secret_key(true)).await;
    let form = "type=card&card[number]=4242424242424242&card[exp_month]=12&card[exp_year]=30";
    let card = api.post("/v1/payment_methods", form).await.ok();
    assert_eq!(card.at("card.checks.cvc_check"), serde_json::Value::Null);
    api.pay(&card.text("id"), "").await.ok();
    let card = api.get(&format!("/v1/payment_methods/{}", card.text("id"))).await.ok();
    assert_eq!(card.at("card.checks.cvc_check"), serde_json::Value::Null);
}

#[tokio::test]
async fn attaching_and_setting_up_check_the_security_code() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let attached = api.card("4242424242424242").await;
    let path = format!("/v1/payment_methods/{attached}/attach");
    let attached = api.post(&path, &format!("customer={customer}")).await.ok();
    assert_eq!(attached.at("card.checks.cvc_check"), "pass");
    let card = api.card("4000000000000101").await;
    let form = format!(
        "confirm=true&payment_method={card}&payment_method_types[]=card&expand[]=payment_method"
    );
    let set_up = api.post("/v1/setup_intents", &form).await.ok();
    assert_eq!(set_up.at("status"), "succeeded");
    assert_eq!(set_up.at("payment_method.card.checks.cvc_check"), "fail");
}

#[tokio::test]
async fn some_cards_succeed_and_are_disputed_at_once() {
    let api = Api::start().await;
    for (number, alias, status, reason) in [
        ("4000000000000259", "createDispute", "needs_response", "fraudulent"),
        (
            "4000000000002685",
            "createDisputeProductNotReceived",
            "needs_response",
            "product_not_received",
        ),
        ("4000000000001976", "createDisputeInquiry", "warning_needs_response", "fraudulent"),
    ] {
        for card in [api.card(number).await, format!("pm_card_{alias}")] {
            let payment = api.paid(&card).await;
            let found = api.get(&format!("/v1/disputes?payment_intent={payment}")).await.ok();
            assert_eq!(
                (found.at("data.0.status"), found.at("data.0.reason")),
                (status.into(), reason.into())
            );
            assert_eq!(found.at("data.0.amount"), 500);
        }
    }
}

#[tokio::test]
async fn a_held_payment_is_disputed_once_it_is_captured() {
    let api = Api::start().await;
    let held = api.pay("pm_card_createDispute", "&capture_method=manual").await.ok().text("id");
    assert!(api.get("/v1/disputes").await.ok().at("data").as_array().unwrap().is_empty());
    let path = format!("/v1/payment_intents/{held}/capture");
    api.post(&path, "amount_to_capture=300").await.ok();
    let found = api.get("/v1/disputes").await.ok();
    assert_eq!(
        (found.at("data.0.amount"), found.at("data.1")),
        (300.into(), serde_json::Value::Null)
    );
}

#[tokio::test]
async fn one_card_is_reported_as_fraud() {
    let api = Api::start().await;
    for card in [api.card("4000000000005423").await, "pm_card_createIssuerFraudRecord".to_owned()] {
        let payment = api.paid(&card).await;
        let path = format!("/v1/radar/early_fraud_warnings?payment_intent={payment}");
        assert_eq!(api.get(&path).await.ok().at("data.0.actionable"), true);
    }
    assert!(api.get("/v1/disputes").await.ok().at("data").as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_refunds_of_two_cards_do_not_just_succeed() {
    let api = Api::start().await;
    for (number, alias, answer, later) in [
        ("4000000000005126", "refundFail", "succeeded", "failed"),
        ("4000000000007726", "pendingRefund", "pending", "pending"),
    ] {
        for card in [api.card(number).await, format!("pm_card_{alias}")] {
            let form = format!("payment_intent={}", api.paid(&card).await);
            let made = api.post("/v1/refunds", &form).await.ok();
            assert_eq!(made.at("status"), answer);
            let read = api.get(&format!("/v1/refunds/{}", made.text("id"))).await.ok();
            assert_eq!(read.at("status"), later);
        }
    }
    assert_eq!(api.events(0).await.iter().filter(|kind| *kind == "refund.failed").count(), 2);
}
