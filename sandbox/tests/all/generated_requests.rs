//! Requests as async-stripe builds them are understood, so its users can point it here.

use bytes::Bytes;
use reqwest::Method;
use stripe_client_core::{CustomizedStripeRequest, StripeClient, StripeClientErr, StripeMethod};
use stripe_core::balance_transaction::ListBalanceTransaction;
use stripe_core::charge::ListCharge;
use stripe_core::customer::{CreateCustomer, ListPaymentMethodsCustomer, RetrieveCustomer};
use stripe_core::dispute::{ListDispute, RetrieveDispute};
use stripe_core::event::ListEvent;
use stripe_core::payment_intent::{
    CancelPaymentIntent, CapturePaymentIntent, CreatePaymentIntent,
    CreatePaymentIntentAutomaticPaymentMethods,
    CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects, CreatePaymentIntentOffSession,
    ListPaymentIntent, RetrievePaymentIntent,
};
use stripe_core::refund::{CreateRefund, ListRefund, RetrieveRefund};
use stripe_core::setup_intent::{CreateSetupIntent, RetrieveSetupIntent};
use stripe_payment::payment_method::{
    AttachPaymentMethod, CreatePaymentMethod, CreatePaymentMethodCard,
    CreatePaymentMethodCardDetailsParams, CreatePaymentMethodType, DetachPaymentMethod,
    RetrievePaymentMethod,
};
use stripe_shared::{
    PaymentIntentCaptureMethod, PaymentIntentSetupFutureUsage, PaymentIntentStatus,
    SetupIntentAllowedPaymentMethodTypes, SetupIntentStatus,
};
use stripe_types::{Currency, RangeBoundsTs, RangeQueryTs};

use crate::support::{Api, NOW};

/// Sends with the publishable key where that is all an agent has.
struct Wire<'a> {
    api: &'a Api,
    key: &'a str,
}

#[derive(Debug)]
#[expect(dead_code, reason = "only shown, by unwrap")]
struct Refused(String);

impl StripeClientErr for Refused {
    fn deserialize_err(message: impl std::fmt::Display) -> Self {
        Self(message.to_string())
    }
}

impl StripeClient for Wire<'_> {
    type Err = Refused;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, Refused> {
        let (request, _) = request.into_pieces();
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/v1{}{query}", request.path);
        let mut sent = self.api.request(method, &path).bearer(self.key);
        if let Some(body) = request.body {
            sent = sent.form(&body);
        }
        let answer = sent.send().await;
        if answer.status == 200 { Ok(answer.text.into()) } else { Err(Refused(answer.text)) }
    }
}

fn payment(card: &str) -> CreatePaymentIntent {
    let mut automatic = CreatePaymentIntentAutomaticPaymentMethods::new(true);
    automatic.allow_redirects =
        Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never);
    CreatePaymentIntent::new(500, Currency::USD)
        .automatic_payment_methods(automatic)
        .payment_method(card)
        .confirm(true)
        .error_on_requires_action(true)
        .expand(["latest_charge".to_owned()])
        .metadata([("top_up".to_owned(), "tu_1".to_owned())])
        .description("a top-up")
        .statement_descriptor_suffix("TOP-UP")
}

#[tokio::test]
async fn a_card_is_tokenized_kept_and_charged_again() {
    let api = Api::start().await;
    let agent = Wire { api: &api, key: api.sandbox.publishable_key() };
    let server = Wire { api: &api, key: api.sandbox.secret_key() };
    let mut card = CreatePaymentMethodCardDetailsParams::new(12, 2030, "4242424242424242");
    card.cvc = Some("123".to_owned());
    let card = CreatePaymentMethodCard::CardDetailsParams(card);
    let made = CreatePaymentMethod::new().type_(CreatePaymentMethodType::Card).card(card);
    let made = made.send(&agent).await.unwrap();
    let seen = RetrievePaymentMethod::new(made.id.clone()).send(&server).await.unwrap();
    assert!(seen.card.unwrap().fingerprint.is_some());

    let metadata = [("payer".to_owned(), "p".to_owned())];
    let customer = CreateCustomer::new().metadata(metadata).send(&server).await.unwrap();
    RetrieveCustomer::new(customer.id.clone()).send(&server).await.unwrap();
    let first = payment(made.id.as_str())
        .customer(customer.id.as_str())
        .setup_future_usage(PaymentIntentSetupFutureUsage::OffSession);
    let first = first.send(&server).await.unwrap();
    assert_eq!(first.status, PaymentIntentStatus::Succeeded);
    let second = payment(made.id.as_str())
        .customer(customer.id.as_str())
        .off_session(CreatePaymentIntentOffSession::Bool(true));
    second.send(&server).await.unwrap();

    let cards = ListPaymentMethodsCustomer::new(customer.id.clone()).limit(3);
    assert_eq!(cards.send(&server).await.unwrap().data.len(), 1);
    let since = RangeBoundsTs { gte: Some(NOW), gt: None, lt: None, lte: None };
    let listed = ListPaymentIntent::new()
        .customer(customer.id.as_str())
        .created(RangeQueryTs::Bounds(since))
        .limit(100);
    assert_eq!(listed.send(&server).await.unwrap().data.len(), 2);
    RetrievePaymentIntent::new(first.id).send(&server).await.unwrap();
    DetachPaymentMethod::new(made.id).send(&server).await.unwrap();
}

#[tokio::test]
async fn a_card_is_verified_and_attached_and_a_payment_canceled() {
    let api = Api::start().await;
    let server = Wire { api: &api, key: api.sandbox.secret_key() };
    let set_up = CreateSetupIntent::new()
        .confirm(true)
        .payment_method("pm_card_visa")
        .allowed_payment_method_types([SetupIntentAllowedPaymentMethodTypes::Card]);
    let set_up = set_up.send(&server).await.unwrap();
    assert_eq!(set_up.status, SetupIntentStatus::Succeeded);
    let read = RetrieveSetupIntent::new(set_up.id).send(&server).await.unwrap();
    let card = read.payment_method.unwrap().into_id();
    let customer = CreateCustomer::new().send(&server).await.unwrap();
    let attached = AttachPaymentMethod::new(card).customer(customer.id.as_str());
    attached.send(&server).await.unwrap();
    let open = CreatePaymentIntent::new(500, Currency::EUR).send(&server).await.unwrap();
    let canceled = CancelPaymentIntent::new(open.id).send(&server).await.unwrap();
    assert_eq!(canceled.status, PaymentIntentStatus::Canceled);
}

#[tokio::test]
async fn a_payment_is_captured_refunded_and_disputed() {
    let api = Api::start().await;
    let server = Wire { api: &api, key: api.sandbox.secret_key() };
    let held = payment("pm_card_visa").capture_method(PaymentIntentCaptureMethod::Manual);
    let held = held.send(&server).await.unwrap();
    let taken = CapturePaymentIntent::new(held.id).amount_to_capture(400);
    let taken = taken.send(&server).await.unwrap();
    let id = taken.id.as_str();
    let refund = CreateRefund::new().payment_intent(id).amount(100).send(&server).await.unwrap();
    RetrieveRefund::new(refund.id).send(&server).await.unwrap();
    let refunds = ListRefund::new().payment_intent(id).limit(10).send(&server).await.unwrap();
    assert_eq!(refunds.data.len(), 2);
    api.sandbox.dispute(id).unwrap();
    let since = RangeBoundsTs { gte: Some(NOW), gt: None, lt: None, lte: None };
    let since = RangeQueryTs::Bounds(since);
    let disputes = ListDispute::new().payment_intent(id).created(since);
    let dispute = disputes.send(&server).await.unwrap().data.remove(0);
    assert_eq!(RetrieveDispute::new(dispute.id).send(&server).await.unwrap().amount, 300);
    let charges = ListCharge::new().payment_intent(id).send(&server).await.unwrap();
    assert!(charges.data[0].disputed);
    let moved = ListBalanceTransaction::new().created(since).type_("adjustment");
    assert_eq!(moved.send(&server).await.unwrap().data[0].net, -1_800);
    let told = ListEvent::new().type_("charge.dispute.created").send(&server).await.unwrap();
    assert_eq!(told.data.len(), 1);
}
