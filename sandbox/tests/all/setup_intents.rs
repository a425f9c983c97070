//! Cards kept for later.

use crate::support::Api;

const SETUP: &str =
    "automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never";

#[tokio::test]
async fn setting_up_attaches_the_card_to_the_customer() {
    let api = Api::start().await;
    let (customer, card) = (api.customer().await, api.card("4242424242424242").await);
    let form = format!(
        "{SETUP}&confirm=true&customer={customer}&payment_method={card}&usage=off_session\
             &metadata[a]=b"
    );
    let intent = api.post("/v1/setup_intents", &form).await.ok();
    assert_eq!(
        (intent.at("status"), intent.at("usage")),
        ("succeeded".into(), "off_session".into())
    );
    let seen = api.get(&format!("/v1/payment_methods/{card}")).await.ok();
    assert_eq!(
        (seen.at("customer"), seen.at("card.checks.cvc_check")),
        (customer.clone().into(), "pass".into())
    );
    let read = api.get(&format!("/v1/setup_intents/{}", intent.text("id"))).await.ok();
    assert_eq!(read.text, intent.text);
    api.pay(&card, &format!("&customer={customer}&off_session=true")).await.ok();
}

#[tokio::test]
async fn without_a_customer_the_card_can_still_be_used() {
    let api = Api::start().await;
    let card = api.card("4242424242424242").await;
    let form = format!("{SETUP}&confirm=true&payment_method={card}");
    api.post("/v1/setup_intents", &form).await.ok();
    api.pay(&card, "").await.ok();
    let again = api.post("/v1/setup_intents", &form).await;
    again.is_invalid("payment_method_unexpected_state", "payment_method");
}

#[tokio::test]
async fn three_d_secure_parks_a_setup() {
    let api = Api::start().await;
    for alias in ["authenticationRequired", "authenticationRequiredOnSetup"] {
        let form = format!("{SETUP}&confirm=true&payment_method=pm_card_{alias}");
        let intent = api.post("/v1/setup_intents", &form).await.ok();
        assert_eq!(intent.at("status"), "requires_action");
    }
}

#[tokio::test]
async fn a_setup_can_be_confirmed_later_or_canceled() {
    let api = Api::start().await;
    let made = api.post("/v1/setup_intents", SETUP).await.ok();
    assert_eq!(made.at("status"), "requires_payment_method");
    let path = format!("/v1/setup_intents/{}", made.text("id"));
    let bare = api.post(&format!("{path}/confirm"), "").await;
    bare.is_error(400, "invalid_request_error", "setup_intent_unexpected_state");
    let declined =
        api.post(&format!("{path}/confirm"), "payment_method=pm_card_visa_chargeDeclined").await;
    declined.is_error(402, "card_error", "card_declined");
    assert_eq!(declined.at("error.setup_intent.status"), "requires_payment_method");
    api.post(&format!("{path}/confirm"), "payment_method=pm_card_visa").await.ok();
    for verb in ["confirm", "cancel"] {
        let again = api.post(&format!("{path}/{verb}"), "").await;
        again.is_error(400, "invalid_request_error", "setup_intent_unexpected_state");
    }
    let form = format!("{SETUP}&payment_method=pm_card_visa");
    let made = api.post("/v1/setup_intents", &form).await.ok();
    assert_eq!(made.at("status"), "requires_confirmation");
    let path = format!("/v1/setup_intents/{}/cancel", made.text("id"));
    assert_eq!(api.post(&path, "").await.ok().at("status"), "canceled");
}

#[tokio::test]
async fn confirming_needs_a_card_and_a_place_to_return_to() {
    let api = Api::start().await;
    let answer = api.post("/v1/setup_intents", &format!("{SETUP}&confirm=true")).await;
    answer.is_error(400, "invalid_request_error", "setup_intent_unexpected_state");
    let form = "confirm=true&payment_method=pm_card_visa";
    let answer = api.post("/v1/setup_intents", form).await;
    assert!(answer.text("error.message").contains("`return_url`"));
    let answer = api.post("/v1/setup_intents", &format!("{form}&return_url=https://e.com")).await;
    answer.ok();
    let answer = api.post("/v1/setup_intents", "return_url=https://e.com").await;
    answer.is_invalid("", "return_url");
}
