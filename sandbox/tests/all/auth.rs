//! Who may do what.

use reqwest::Method;

use crate::support::{Api, PAYMENT};

const CARD: &str =
    "type=card&card[number]=4242424242424242&card[exp_month]=12&card[exp_year]=2030&card[cvc]=123";

#[tokio::test]
async fn no_key_and_a_wrong_key_are_401() {
    let api = Api::start().await;
    let answer = api.request(Method::GET, "/v1/account").send().await;
    answer.is_error(401, "invalid_request_error", "");
    assert!(answer.text("error.message").starts_with("You did not provide an API key."));
    assert!(answer.header("www-authenticate").is_some());

    let answer =
        api.request(Method::GET, "/v1/account").bearer("sk_test_someone_elses").send().await;
    answer.is_error(401, "invalid_request_error", "");
    assert_eq!(answer.text("error.message"), "Invalid API Key provided: sk_test_*********lses");
}

#[tokio::test]
async fn live_keys_are_refused_and_never_repeated() {
    let api = Api::start().await;
    for prefix in ["sk", "rk", "pk"] {
        let key = format!("{prefix}_live_0123456789");
        let answer = api.request(Method::GET, "/v1/account").bearer(&key).send().await;
        answer.is_error(401, "invalid_request_error", "");
        assert!(answer.text("error.message").contains("takes no live keys"));
        assert!(!answer.text.contains("0123456789"));
    }
}

#[tokio::test]
async fn bearer_basic_and_restricted_keys_work() {
    let api = Api::start().await;
    let account = api.get("/v1/account").await.ok().text("id");
    assert!(account.starts_with("acct_sandbox"));
    // sk_test_farebox_sandbox as the user name, without a password
    let basic = "Basic c2tfdGVzdF9mYXJlYm94X3NhbmRib3g6";
    api.request(Method::GET, "/v1/account").header("authorization", basic).send().await.ok();
    let restricted = api.request(Method::GET, "/v1/account").bearer("rk_test_farebox_sandbox");
    restricted.send().await.ok();
}

#[tokio::test]
async fn a_publishable_key_makes_payment_methods_and_nothing_else() {
    let api = Api::start().await;
    let card = api.tokenize("4242424242424242").await.ok();
    assert_eq!(card.at("card.last4"), "4242");
    assert_eq!(card.at("card.fingerprint"), serde_json::Value::Null);
    let path = format!("/v1/payment_methods/{}", card.text("id"));
    for (method, path, form) in [
        (Method::GET, "/v1/account", ""),
        (Method::GET, path.as_str(), ""),
        (Method::GET, "/v1/payment_methods", ""),
        (Method::POST, "/v1/customers", ""),
        (Method::POST, "/v1/payment_intents", PAYMENT),
        (Method::POST, "/v1/payment_methods", "type=card&card[token]=tok_visa"),
    ] {
        let answer = api.request(method, path).publishable().form(form).send().await;
        answer.is_error(401, "invalid_request_error", "secret_key_required");
    }
}

#[tokio::test]
async fn the_secret_key_sees_the_fingerprint() {
    let api = Api::start().await;
    let card = api.card("4242424242424242").await;
    let seen = api.get(&format!("/v1/payment_methods/{card}")).await.ok();
    assert_eq!(seen.text("card.fingerprint").len(), 16);
}

#[tokio::test]
async fn the_secret_key_may_not_send_card_numbers_unless_switched_on() {
    let api = Api::start().await;
    let answer = api.post("/v1/payment_methods", CARD).await;
    answer.is_error(402, "invalid_request_error", "");
    let message = answer.text("error.message");
    assert!(message.starts_with("Sending credit card numbers directly to the Stripe API"));

    let api = Api::with(|builder| builder.raw_cards_with_secret_key(true)).await;
    api.post("/v1/payment_methods", CARD).await.ok();
}

#[tokio::test]
async fn tokenization_can_be_switched_off() {
    let api = Api::with(|builder| builder.tokenization(false)).await;
    let answer = api.tokenize("4242424242424242").await;
    assert_eq!(answer.at("error.type"), "invalid_request_error");
    let message = answer.text("error.message");
    assert!(message.starts_with("This integration surface is unsupported for publishable key"));
}

#[tokio::test]
async fn keys_are_settable() {
    let api =
        Api::with(|builder| builder.secret_key("sk_test_a").publishable_key("pk_test_b")).await;
    api.get("/v1/account").await.ok();
    api.tokenize("4242424242424242").await.ok();
    let old = api.request(Method::GET, "/v1/account").bearer("sk_test_farebox_sandbox");
    assert_eq!(old.send().await.status, 401);
}
