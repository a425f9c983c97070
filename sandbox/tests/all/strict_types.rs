//! Every answer parses into async-stripe's generated types, which follow Stripe's specification.

use miniserde::json::from_str;
use stripe_shared::{
    Account, ApiErrorsCode, ApiErrorsType, BalanceTransaction, BalanceTransactionType, Charge,
    Customer, Dispute, DisputePaymentMethodDetailsCardCaseType, DisputeStatus, Event,
    PaymentIntent, PaymentIntentStatus, PaymentMethod, Refund, SetupIntent, SetupIntentStatus,
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

#[tokio::test]
async fn refunds_and_captures_parse() {
    let api = Api::start().await;
    let held: PaymentIntent = parse(&api.pay("pm_card_visa", "&capture_method=manual").await.ok());
    assert_eq!(held.status, PaymentIntentStatus::RequiresCapture);
    let path = format!("/v1/payment_intents/{}/capture", held.id);
    let taken: PaymentIntent = parse(&api.post(&path, "amount_to_capture=300").await.ok());
    let form = format!("payment_intent={}&amount=100&expand[]=charge", taken.id);
    let made: Refund = parse(&api.post("/v1/refunds", &form).await.ok());
    assert!(made.charge.as_ref().unwrap().is_object() && made.balance_transaction.is_some());
    api.sandbox.fail_refund(made.id.as_str()).unwrap();
    let failed: Refund = parse(&api.get(&format!("/v1/refunds/{}", made.id)).await.ok());
    assert_eq!((failed.status.as_deref(), failed.amount), (Some("failed"), 100));
    assert!(failed.failure_balance_transaction.is_some() && failed.failure_reason.is_some());
    let pending = api.paid("pm_card_pendingRefund").await;
    let pending = api.post("/v1/refunds", &format!("payment_intent={pending}")).await.ok();
    let pending: Refund = parse(&pending);
    assert!(pending.pending_reason.is_some());
    let list: List<Refund> = parse(&api.get("/v1/refunds").await.ok());
    assert_eq!(list.data.len(), 3);
    let list: List<Charge> = parse(&api.get("/v1/charges").await.ok());
    assert_eq!(list.data.iter().map(|charge| charge.amount_refunded).sum::<i64>(), 700);
}

#[tokio::test]
async fn disputes_and_balance_transactions_parse() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_createDisputeInquiry").await;
    let asked: List<Dispute> = parse(&api.get("/v1/disputes").await.ok());
    assert_eq!(asked.data[0].status, DisputeStatus::WarningNeedsResponse);
    let id = asked.data[0].id.as_str();
    api.sandbox.escalate(id).unwrap();
    api.sandbox.win(id).unwrap();
    let won: Dispute = parse(&api.get(&format!("/v1/disputes/{id}?expand[]=charge")).await.ok());
    assert_eq!((&won.status, won.balance_transactions.len()), (&DisputeStatus::Won, 2));
    assert!(won.charge.is_object());
    assert_eq!(won.payment_intent.unwrap().id().as_str(), payment);
    let card = won.payment_method_details.unwrap().card.unwrap();
    assert_eq!(card.case_type, DisputePaymentMethodDetailsCardCaseType::Chargeback);
    api.post("/v1/refunds", &format!("payment_intent={payment}")).await.ok();
    let path = "/v1/balance_transactions?expand[]=data.source";
    let list: List<BalanceTransaction> = parse(&api.get(path).await.ok());
    let kinds: Vec<_> = list.data.iter().rev().map(|it| it.type_.clone()).collect();
    let adjusted = BalanceTransactionType::Adjustment;
    let expected = [
        BalanceTransactionType::Charge,
        adjusted.clone(),
        adjusted,
        BalanceTransactionType::Refund,
    ];
    assert_eq!(kinds, expected);
    assert!(list.data.iter().all(|it| it.source.as_ref().unwrap().is_object()));
    let path = format!("/v1/balance_transactions/{}", list.data[0].id);
    let one: BalanceTransaction = parse(&api.get(&path).await.ok());
    assert_eq!((one.amount, one.fee), (-500, 0));
}

/// async-stripe's crate with this type is not among the dependencies: the fields are those of the
/// object in Stripe's API reference.
#[tokio::test]
async fn fraud_warnings_have_stripes_fields() {
    let api = Api::start().await;
    api.paid("pm_card_createIssuerFraudRecord").await;
    let list = api.get("/v1/radar/early_fraud_warnings").await.ok();
    let fields: Vec<String> = list.at("data.0").as_object().unwrap().keys().cloned().collect();
    let expected = [
        "actionable",
        "charge",
        "created",
        "fraud_type",
        "id",
        "livemode",
        "object",
        "payment_intent",
    ];
    assert_eq!(fields, expected);
    assert_eq!(list.at("data.0.object"), "radar.early_fraud_warning");
}

#[tokio::test]
async fn events_parse() {
    let api = Api::start().await;
    api.paid("pm_card_createDispute").await;
    let list: List<Event> = parse(&api.get("/v1/events").await.ok());
    let kinds: Vec<String> = list.data.iter().rev().map(|it| it.type_.to_string()).collect();
    let expected = [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
    ];
    assert_eq!(kinds, expected);
    let one: Event = parse(&api.get(&format!("/v1/events/{}", list.data[0].id)).await.ok());
    assert_eq!(one.id, list.data[0].id);
}
