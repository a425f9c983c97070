//! Every answer parses into async-stripe's generated types, which follow Stripe's specification.

use miniserde::json::from_str;
use stripe_shared::{
    Account, ApiErrorsCode, ApiErrorsType, Charge, Customer, PaymentIntent, PaymentIntentStatus,
    PaymentMethod, SetupIntent, SetupIntentStatus,
};
use stripe_types::List;

use crate::support::{Answer, Api, PAYMENT};

#[track_caller]
fn parse<T: miniserde::Deserialize>(answer: &Answer) -> T {
    let Ok(object) = from_str(&answer.text) else { panic!("does not parse: {}", answer.text) };
    object
}

#[tokio::test]
async fn payment_methods_parse() {
    let api = Api::start().await;
    let card: PaymentMethod = parse(&api.tokenize("378282246310005").await.ok());
    assert!(card.card.unwrap().fingerprint.is_none());
    let path = format!("/v1/payment_methods/{}", card.id);
    let _: PaymentMethod = parse(&api.get(&path).await.ok());
    let customer = api.customer().await;
    let attached = api.post(&format!("{path}/attach"), &format!("customer={customer}")).await.ok();
    let attached: PaymentMethod = parse(&attached);
    assert_eq!(attached.customer.unwrap().id().to_string(), customer);
    for path in [format!("/v1/customers/{customer}/payment_methods"), "/v1/payment_methods".into()]
    {
        let list: List<PaymentMethod> = parse(&api.get(&path).await.ok());
        assert_eq!(list.data.len(), 1);
    }
    let _: PaymentMethod = parse(&api.post(&format!("{path}/detach"), "").await.ok());
}

#[tokio::test]
async fn customers_and_the_account_parse() {
    let api = Api::start().await;
    let made: Customer = parse(&api.post("/v1/customers", "name=Ada&metadata[a]=b").await.ok());
    assert_eq!(made.metadata.unwrap()["a"], "b");
    let _: Customer = parse(&api.get(&format!("/v1/customers/{}", made.id)).await.ok());
    let list: List<Customer> = parse(&api.get("/v1/customers").await.ok());
    assert_eq!(list.data.len(), 1);
    let _: Account = parse(&api.get("/v1/account").await.ok());
}

#[tokio::test]
async fn payment_intents_and_charges_parse() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let more = format!("&customer={customer}&setup_future_usage=off_session&metadata[a]=b");
    let paid: PaymentIntent = parse(&api.pay("pm_card_visa", &more).await.ok());
    assert_eq!((paid.status, paid.amount_received), (PaymentIntentStatus::Succeeded, 500));
    let path = format!("/v1/charges/{}", paid.latest_charge.unwrap().id());
    let charge: Charge = parse(&api.get(&path).await.ok());
    assert!(charge.paid && charge.captured);
    let expand = "&expand[]=latest_charge&expand[]=payment_method";
    let expanded: PaymentIntent = parse(&api.pay("pm_card_visa", expand).await.ok());
    assert!(expanded.latest_charge.unwrap().is_object());
    let parked: PaymentIntent = parse(&api.pay("pm_card_authenticationRequired", "").await.ok());
    assert_eq!(parked.status, PaymentIntentStatus::RequiresAction);
    let made: PaymentIntent = parse(&api.post("/v1/payment_intents", PAYMENT).await.ok());
    let path = format!("/v1/payment_intents/{}", made.id);
    let _: PaymentIntent = parse(&api.post(&format!("{path}/cancel"), "").await.ok());
    api.pay("pm_card_visa_chargeDeclined", "").await;
    let list: List<PaymentIntent> = parse(&api.get("/v1/payment_intents").await.ok());
    assert_eq!(list.data.len(), 5);
    assert!(list.data[0].last_payment_error.is_some());
}

#[tokio::test]
async fn setup_intents_parse() {
    let api = Api::start().await;
    let form = "payment_method_types[]=card&confirm=true&payment_method=pm_card_visa";
    let set_up: SetupIntent = parse(&api.post("/v1/setup_intents", form).await.ok());
    assert_eq!(set_up.status, SetupIntentStatus::Succeeded);
    let _: SetupIntent = parse(&api.get(&format!("/v1/setup_intents/{}", set_up.id)).await.ok());
    let form =
        "payment_method_types[]=card&confirm=true&payment_method=pm_card_authenticationRequired";
    let parked: SetupIntent = parse(&api.post("/v1/setup_intents", form).await.ok());
    assert_eq!(parked.status, SetupIntentStatus::RequiresAction);
    let list: List<SetupIntent> = parse(&api.get("/v1/setup_intents").await.ok());
    assert_eq!(list.data.len(), 2);
}

#[tokio::test]
async fn errors_parse_with_the_objects_inside() {
    let api = Api::start().await;
    let declined: stripe_shared::Error =
        parse(&api.pay("pm_card_visa_chargeDeclinedLostCard", "").await);
    let error = declined.error;
    assert_eq!(error.type_, ApiErrorsType::CardError);
    assert_eq!(error.code, Some(ApiErrorsCode::CardDeclined));
    assert_eq!(error.decline_code.as_deref(), Some("lost_card"));
    let intent = error.payment_intent.unwrap();
    assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod);
    assert_eq!(error.charge.as_deref(), Some(intent.latest_charge.unwrap().id().as_str()));
    assert!(error.payment_method.is_some() && intent.last_payment_error.is_some());

    let form =
        "payment_method_types[]=card&confirm=true&payment_method=pm_card_visa_chargeDeclined";
    let declined: stripe_shared::Error = parse(&api.post("/v1/setup_intents", form).await);
    assert!(declined.error.setup_intent.unwrap().last_setup_error.is_some());

    let unknown: stripe_shared::Error = parse(&api.post("/v1/customers", "a=1").await);
    assert_eq!(unknown.error.code, Some(ApiErrorsCode::ParameterUnknown));
    let lost: stripe_shared::Error = parse(&api.get("/v1/nothing").await);
    assert_eq!(lost.error.type_, ApiErrorsType::InvalidRequestError);
}
