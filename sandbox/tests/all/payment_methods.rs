//! Who may use a PaymentMethod, how often, and how cards are recognised.

use crate::support::{Api, PAYMENT};

const BURNED: &str = "The provided PaymentMethod was previously used with a PaymentIntent without \
     Customer attachment";

async fn fingerprint(api: &Api, card: &str) -> String {
    api.get(&format!("/v1/payment_methods/{card}")).await.ok().text("card.fingerprint")
}

#[track_caller]
fn is_burned(answer: &crate::support::Answer) {
    answer.is_invalid("payment_method_unexpected_state", "payment_method");
    assert!(answer.text("error.message").starts_with(BURNED));
}

#[tokio::test]
async fn a_payment_method_without_a_customer_works_once() {
    let api = Api::start().await;
    let card = api.card("4242424242424242").await;
    api.pay(&card, "").await.ok();
    is_burned(&api.pay(&card, "").await);
    let customer = api.customer().await;
    is_burned(&api.pay(&card, &format!("&customer={customer}")).await);
    let path = format!("/v1/payment_methods/{card}/attach");
    let answer = api.post(&path, &format!("customer={customer}")).await;
    answer.is_invalid("payment_method_unexpected_state", "payment_method");
    assert_eq!(api.sandbox.charges().len(), 1);
}

#[tokio::test]
async fn a_declined_attempt_uses_it_up_as_well() {
    let api = Api::start().await;
    let card = api.card("4000000000000341").await;
    api.pay(&card, "").await.is_error(402, "card_error", "card_declined");
    is_burned(&api.pay(&card, "").await);
}

#[tokio::test]
async fn a_customer_without_setup_future_usage_does_not_save_the_card() {
    let api = Api::start().await;
    let (customer, card) = (api.customer().await, api.card("4242424242424242").await);
    let more = format!("&customer={customer}");
    api.pay(&card, &more).await.ok();
    is_burned(&api.pay(&card, &more).await);
}

#[tokio::test]
async fn setup_future_usage_attaches_on_success() {
    let api = Api::start().await;
    let (customer, card) = (api.customer().await, api.card("4242424242424242").await);
    let more = format!("&customer={customer}");
    api.pay(&card, &format!("{more}&setup_future_usage=off_session")).await.ok();
    for _ in 0..2 {
        api.pay(&card, &format!("{more}&off_session=true")).await.ok();
    }
    let cards = api.get(&format!("/v1/customers/{customer}/payment_methods")).await.ok();
    assert_eq!(cards.at("data.0.id"), card);
    assert_eq!(cards.at("data.0.customer"), customer);
}

#[tokio::test]
async fn setup_future_usage_without_a_customer_leaves_attaching() {
    let api = Api::start().await;
    let (customer, card) = (api.customer().await, api.card("4242424242424242").await);
    api.pay(&card, "&setup_future_usage=off_session").await.ok();
    is_burned(&api.pay(&card, "").await);
    let path = format!("/v1/payment_methods/{card}/attach");
    api.post(&path, &format!("customer={customer}")).await.ok();
    api.pay(&card, &format!("&customer={customer}")).await.ok();
}

#[tokio::test]
async fn an_attached_card_is_its_customers_alone() {
    let api = Api::start().await;
    let (owner, other) = (api.customer().await, api.customer().await);
    let card = api.card("4242424242424242").await;
    let path = format!("/v1/payment_methods/{card}/attach");
    api.post(&path, &format!("customer={owner}")).await.ok();
    api.post(&path, &format!("customer={owner}")).await.ok();
    api.post(&path, &format!("customer={other}")).await.is_error(400, "invalid_request_error", "");
    api.pay(&card, "").await.is_invalid("", "payment_method");
    api.pay(&card, &format!("&customer={other}")).await.is_invalid("", "payment_method");
    api.pay(&card, &format!("&customer={owner}")).await.ok();
}

#[tokio::test]
async fn a_detached_card_is_dead() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let card = api.card("4242424242424242").await;
    let path = format!("/v1/payment_methods/{card}");
    api.post(&format!("{path}/detach"), "").await.is_error(400, "invalid_request_error", "");
    api.post(&format!("{path}/attach"), &format!("customer={customer}")).await.ok();
    let detached = api.post(&format!("{path}/detach"), "").await.ok();
    assert_eq!(detached.at("customer"), serde_json::Value::Null);
    is_burned(&api.pay(&card, &format!("&customer={customer}")).await);
    let again = api.post(&format!("{path}/attach"), &format!("customer={customer}")).await;
    again.is_invalid("payment_method_unexpected_state", "payment_method");
}

#[tokio::test]
async fn a_fingerprint_belongs_to_the_number_and_to_every_sandbox() {
    let (api, other) = (Api::start().await, Api::with(|builder| builder.seed(8)).await);
    let (a, b) = (api.card("4242424242424242").await, api.card("4242 4242 4242 4242").await);
    let c = api.card("5555555555554444").await;
    let d = other.card("4242424242424242").await;
    assert_ne!(a, d);
    let expected = fingerprint(&api, &a).await;
    assert_eq!(expected.len(), 16);
    assert_eq!(fingerprint(&api, &b).await, expected);
    assert_ne!(fingerprint(&api, &c).await, expected);
    assert_eq!(fingerprint(&other, &d).await, expected);
}

#[tokio::test]
async fn every_number_beginning_424242_is_a_payer_of_its_own() {
    let api = Api::start().await;
    let (a, b) = (api.card("4242420000000000").await, api.card("4242420000000018").await);
    assert_ne!(fingerprint(&api, &a).await, fingerprint(&api, &b).await);
    api.pay(&a, "").await.ok();
}

#[tokio::test]
async fn an_alias_makes_a_new_payment_method_each_time() {
    let api = Api::start().await;
    let (a, b) = (api.pay("pm_card_visa", "").await.ok(), api.pay("pm_card_visa", "").await.ok());
    assert!(a.text("payment_method").starts_with("pm_"));
    assert_ne!(a.text("payment_method"), b.text("payment_method"));
    assert_ne!(a.text("payment_method"), "pm_card_visa");
    let typed = api.card("4242424242424242").await;
    let alias = fingerprint(&api, &a.text("payment_method")).await;
    assert_eq!(fingerprint(&api, &typed).await, alias);
    let token = api.post("/v1/payment_methods", "type=card&card[token]=tok_mastercard").await.ok();
    assert_eq!(token.at("card.brand"), "mastercard");
    let customer = api.customer().await;
    let form = format!("customer={customer}");
    let attached = api.post("/v1/payment_methods/pm_card_amex/attach", &form).await.ok();
    assert_eq!(attached.at("customer"), customer);
}

#[tokio::test]
async fn a_customer_can_be_made_with_a_card_or_not_at_all() {
    let api = Api::start().await;
    let form =
        "payment_method=pm_card_visa&name=Ada&email=ada@example.com&description=d&metadata[a]=b";
    let made = api.post("/v1/customers", form).await.ok();
    assert_eq!((made.text("name"), made.text("email")), ("Ada".into(), "ada@example.com".into()));
    let path = format!("/v1/customers/{}/payment_methods", made.text("id"));
    assert_eq!(api.get(&path).await.ok().at("data").as_array().unwrap().len(), 1);
    let refused = api.post("/v1/customers", "payment_method=pm_card_visa_chargeDeclined").await;
    refused.is_error(402, "card_error", "card_declined");
    assert_eq!(api.get("/v1/customers").await.ok().at("data").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn billing_details_and_metadata_are_kept() {
    let api = Api::start().await;
    let form = "type=card&card[token]=tok_visa&billing_details[name]=Ada\
         &billing_details[address][postal_code]=94107&metadata[k]=v";
    let card = api.post("/v1/payment_methods", form).await.ok();
    assert_eq!(card.at("billing_details.name"), "Ada");
    assert_eq!(card.at("billing_details.address.postal_code"), "94107");
    assert_eq!(card.at("billing_details.address.city"), serde_json::Value::Null);
    assert_eq!(card.at("metadata.k"), "v");
    let bad = format!("{form}&billing_details[address][zip]=1");
    let answer = api.post("/v1/payment_methods", &bad).await;
    answer.is_invalid("parameter_unknown", "billing_details[address][zip]");
}

#[tokio::test]
async fn a_card_detached_before_a_confirmation_is_not_charged() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let card = api.card("4242424242424242").await;
    let path = format!("/v1/payment_methods/{card}");
    api.post(&format!("{path}/attach"), &format!("customer={customer}")).await.ok();
    let form = format!("{PAYMENT}&customer={customer}&payment_method={card}");
    let open = api.post("/v1/payment_intents", &form).await.ok().text("id");
    api.post(&format!("{path}/detach"), "").await.ok();
    is_burned(&api.post(&format!("/v1/payment_intents/{open}/confirm"), "").await);
    let form = format!("confirm=true&payment_method={card}&payment_method_types[]=card");
    is_burned(&api.post("/v1/setup_intents", &form).await);
    let cards = api.get(&format!("/v1/customers/{customer}/payment_methods")).await.ok();
    assert!(cards.at("data").as_array().unwrap().is_empty());
    let twice = api.post(&format!("{path}/detach"), "").await;
    twice.is_error(400, "invalid_request_error", "");
    assert!(api.sandbox.charges().is_empty());
}
