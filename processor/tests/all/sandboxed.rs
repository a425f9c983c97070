//! The processor against a stand-in that keeps Stripe's rules.

use std::time::Duration;

use farebox_processor::{
    Call, Charge, CvcCheck, IdempotencyKey, IntentStatus, LookUpError, Mode, PaymentMethod,
    Rejection, Stripe, TopUp, Unknown, Verification,
};
use farebox_protocol::{Currency, Micros, PayerId, PaymentMethodId, TopUpId, usd};
use farebox_sandbox::Sandbox;

use crate::script::{Reply, Script};

const BUDGET: Duration = Duration::from_secs(10);
const VISA: &str = "4242424242424242";
const DECLINES: &str = "4000000000000002";
const WANTS_ITS_HOLDER: &str = "4000002760003184";
const FAILS_CVC: &str = "4000000000000101";

struct World {
    sandbox: Sandbox,
    stripe: Stripe,
}

impl World {
    async fn start() -> World {
        farebox_canary::watch();
        let sandbox = Sandbox::builder().seed(7).start("127.0.0.1:0".parse().unwrap()).await;
        let sandbox = sandbox.unwrap();
        let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key()).unwrap();
        let stripe = stripe.base_url(sandbox.url()).unwrap();
        World { sandbox, stripe }
    }

    /// Turns a card into a PaymentMethod, as a client does.
    async fn tokenize(&self, number: &str, cvc: Option<&str>) -> PaymentMethodId {
        let cvc = cvc.map(|cvc| format!("&card[cvc]={cvc}")).unwrap_or_default();
        let body =
            format!("type=card&card[number]={number}&card[exp_month]=12&card[exp_year]=2040{cvc}");
        let answer = reqwest::Client::new()
            .post(format!("{}/v1/payment_methods", self.sandbox.url()))
            .bearer_auth(self.stripe.publishable_key())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        object["id"].as_str().unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    async fn card(&self, number: &str) -> PaymentMethodId {
        self.tokenize(number, Some("123")).await
    }

    async fn customer(&self) -> String {
        self.stripe.customer(&payer(), None).await.unwrap()
    }

    fn call(&self, number: u64, customer: &str, card: &PaymentMethodId) -> Call {
        let (id, amount) = (id(number), usd!("5").micros());
        self.stripe.top_up(&TopUp { id, amount, customer, payment_method: card, save_card: true })
    }

    async fn charge(&self, number: u64, customer: &str, card: &PaymentMethodId) -> Charge {
        let call = self.call(number, customer, card);
        self.stripe.charge(&call, &id(number).into(), BUDGET).await
    }
}

fn payer() -> PayerId {
    PayerId::from_bytes([0xab; 32])
}

fn id(number: u64) -> TopUpId {
    TopUpId { payer: payer(), currency: Currency::USD, number }
}

fn five_dollars(charge: &Charge) -> &str {
    match charge {
        Charge::Charged { intent, received, currency: Currency::USD }
            if *received == usd!("5").micros() =>
        {
            intent
        }
        other => panic!("not five dollars: {other:?}"),
    }
}

#[tokio::test]
async fn a_card_is_charged_once_however_often_the_call_is_sent() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let first = world.charge(1, &customer, &card).await;
    let intent = five_dollars(&first);
    let stored = serde_json::to_string(&world.call(1, &customer, &card)).unwrap();
    let call: Call = serde_json::from_str(&stored).unwrap();
    for _ in 0..3 {
        assert_eq!(world.stripe.repeat(&call, &id(1).into(), BUDGET).await, first);
    }
    let [charge] = world.sandbox.charges().try_into().unwrap();
    assert_eq!((charge.id.as_str(), charge.amount), (intent, 500));
    assert_eq!(charge.customer, Some(customer));
    assert_eq!(charge.metadata["farebox"], "1");
    assert_eq!(charge.metadata["top_up"], id(1).to_string());
    assert_eq!(charge.metadata["payer"], payer().to_string());
}

#[tokio::test]
async fn an_answer_lost_after_the_charge_is_found_by_repeating_it() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let sandbox = world.sandbox.url().strip_prefix("http://").unwrap().parse().unwrap();
    let wire = Script::play([
        Reply::RunAndReset(sandbox),
        Reply::Reset,
        Reply::RunAndReset(sandbox),
        Reply::Forward(sandbox),
    ])
    .await;
    let stripe = world.stripe.clone().base_url(&wire.url).unwrap();
    let call = world.call(1, &customer, &card);
    let charge = stripe.charge(&call, &id(1).into(), BUDGET).await;
    assert_eq!(wire.seen().len(), 4);
    let [only] = world.sandbox.charges().try_into().unwrap();
    assert_eq!(only.id, five_dollars(&charge));
}

#[tokio::test]
async fn many_at_once_under_one_key_are_one_charge() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let call = world.call(1, &customer, &card);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (stripe, call) = (world.stripe.clone(), call.clone());
            tokio::spawn(async move { stripe.charge(&call, &id(1).into(), BUDGET).await })
        })
        .collect();
    let mut intents = Vec::new();
    for task in tasks {
        intents.push(five_dollars(&task.await.unwrap()).to_owned());
    }
    intents.dedup();
    assert_eq!(intents.len(), 1);
    assert_eq!(world.sandbox.charges().len(), 1);
}

#[tokio::test]
async fn a_charged_card_can_be_charged_again() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    five_dollars(&world.charge(1, &customer, &card).await);
    let found = world.stripe.payment_method(&card).await.unwrap();
    assert_eq!(found.customer, Some(customer.clone()));
    five_dollars(&world.charge(2, &customer, &card).await);
    assert_eq!(world.sandbox.charges().len(), 2);
}

#[tokio::test]
async fn a_declined_card_takes_nothing() {
    let world = World::start().await;
    let (card, customer) = (world.card(DECLINES).await, world.customer().await);
    for _ in 0..2 {
        assert_eq!(world.charge(1, &customer, &card).await, Charge::Declined);
    }
    assert_eq!(world.sandbox.charges(), []);
}

#[tokio::test]
async fn a_card_that_wants_its_holder_takes_nothing() {
    let world = World::start().await;
    let (card, customer) = (world.card(WANTS_ITS_HOLDER).await, world.customer().await);
    let charge = world.charge(1, &customer, &card).await;
    assert_eq!(charge, Charge::AuthenticationRequired);
    assert_eq!(world.sandbox.charges(), []);
    for intent in world.stripe.intents_since(Some(&customer), 0).await.unwrap() {
        assert!(
            matches!(intent.status, IntentStatus::RequiresPaymentMethod | IntentStatus::Canceled),
            "{intent:?} could still succeed"
        );
    }
}

#[tokio::test]
async fn an_unknown_customer_is_made_anew() {
    let world = World::start().await;
    let card = world.card(VISA).await;
    let charge = world.charge(1, "cus_of_long_ago", &card).await;
    assert_eq!(charge, Charge::Rejected(Rejection::Customer));
    let first = world.customer().await;
    assert_eq!(world.customer().await, first);
    let anew = world.stripe.customer(&payer(), Some("cus_of_long_ago")).await.unwrap();
    assert_ne!(anew, first);
    five_dollars(&world.charge(2, &anew, &card).await);
}

#[tokio::test]
async fn an_unknown_card_is_the_payers_business() {
    let world = World::start().await;
    let (card, customer) = ("pm_of_nobody".parse().unwrap(), world.customer().await);
    let charge = world.charge(1, &customer, &card).await;
    assert_eq!(charge, Charge::Rejected(Rejection::PaymentMethod));
    assert_eq!(world.stripe.payment_method(&card).await, Err(LookUpError::NotFound));
}

#[tokio::test]
async fn a_used_up_card_is_the_payers_business() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    // Used once without a customer, which Stripe allows once.
    let bare = Call::clone(&world.call(1, &customer, &card));
    let mut stored = serde_json::to_value(&bare).unwrap();
    let body = stored["body"].as_str().unwrap();
    let kept = body.split('&').filter(|f| !f.starts_with("customer=") && !f.starts_with("setup_"));
    stored["body"] = kept.collect::<Vec<_>>().join("&").into();
    let bare: Call = serde_json::from_value(stored).unwrap();
    five_dollars(&world.stripe.charge(&bare, &id(1).into(), BUDGET).await);

    let charge = world.charge(2, &customer, &card).await;
    assert_eq!(charge, Charge::Rejected(Rejection::PaymentMethod));
    let verified = world.stripe.verify(&card, &customer).await;
    assert_eq!(verified, Err(LookUpError::Refused));
}

#[tokio::test]
async fn another_customers_card_is_the_payers_business() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    five_dollars(&world.charge(1, &customer, &card).await);
    let other = world.stripe.customer(&PayerId::from_bytes([1; 32]), None).await.unwrap();
    let charge = world.charge(2, &other, &card).await;
    assert_eq!(charge, Charge::Rejected(Rejection::PaymentMethod));
}

#[tokio::test]
async fn an_amount_that_stripe_refuses_is_the_operators_business() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    for (number, amount) in [(1, usd!("0.01").micros()), (2, Micros::new(-1).unwrap())] {
        let id = id(number);
        let top_up =
            TopUp { id, amount, customer: &customer, payment_method: &card, save_card: true };
        let charge = world.stripe.charge(&world.stripe.top_up(&top_up), &id.into(), BUDGET).await;
        assert_eq!(charge, Charge::Rejected(Rejection::Operator));
    }
}

#[tokio::test]
async fn another_call_under_a_used_key_can_only_be_looked_up() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    five_dollars(&world.charge(1, &customer, &card).await);
    let other = world.call(2, &customer, &card);
    let charge = world.stripe.charge(&other, &id(1).into(), BUDGET).await;
    assert_eq!(charge, Charge::Unknown(Unknown::LookUp));
}

#[tokio::test]
async fn a_wrong_secret_key_is_the_operators_business() {
    let world = World::start().await;
    let stripe = Stripe::new("sk_test_of_somebody_else", "pk_test_x").unwrap();
    let stripe = stripe.base_url(world.sandbox.url()).unwrap();
    let call = world.call(1, "cus_1", &"pm_1".parse().unwrap());
    let key = IdempotencyKey::from(id(1));
    let operator = Charge::Rejected(Rejection::Operator);
    assert_eq!(stripe.charge(&call, &key, BUDGET).await, operator);
    let unknown = Charge::Unknown(Unknown::Repeat);
    assert_eq!(stripe.repeat(&call, &key, BUDGET).await, unknown);
    assert_eq!(stripe.account().await, Err(LookUpError::Operator));
}

#[tokio::test]
async fn a_card_with_its_code_is_verified_and_one_without_is_not() {
    let world = World::start().await;
    let customer = world.customer().await;
    let with_code = world.card(VISA).await;
    let verified = world.stripe.verify(&with_code, &customer).await;
    assert_eq!(verified, Ok(Verification::Passed));
    let without_code = world.tokenize(VISA, None).await;
    let verified = world.stripe.verify(&without_code, &customer).await;
    assert_eq!(verified, Ok(Verification::Unproven));
    for number in [FAILS_CVC, DECLINES, WANTS_ITS_HOLDER] {
        let card = world.card(number).await;
        let verified = world.stripe.verify(&card, &customer).await;
        assert_eq!(verified, Ok(Verification::Unproven), "{number}");
    }
    let verified = world.stripe.verify(&world.card(VISA).await, "cus_of_nobody").await;
    assert_eq!(verified, Err(LookUpError::NotFound));
    assert_eq!(world.sandbox.charges(), []);
}

#[tokio::test]
async fn one_card_number_has_one_fingerprint() {
    let world = World::start().await;
    let read = async |card: PaymentMethodId| -> PaymentMethod {
        world.stripe.payment_method(&card).await.unwrap()
    };
    let first = read(world.card(VISA).await).await;
    let second = read(world.card(VISA).await).await;
    let other = read(world.card(DECLINES).await).await;
    assert_ne!(first.id, second.id);
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_ne!(first.fingerprint, other.fingerprint);
    assert_ne!(first.cvc_check, CvcCheck::Pass);
    assert_eq!(first.customer, None);
}

#[tokio::test]
async fn a_customers_intents_tell_which_top_ups_were_charged() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let charge = world.charge(1, &customer, &card).await;
    let declining = world.card(DECLINES).await;
    world.charge(2, &customer, &declining).await;

    let intents = world.stripe.intents_since(Some(&customer), 0).await.unwrap();
    let of = |number| intents.iter().find(|intent| intent.top_up == Some(id(number))).unwrap();
    assert_eq!(intents.len(), 2);
    assert_eq!(of(1).status, IntentStatus::Succeeded);
    assert_eq!((of(1).received, of(1).livemode), (usd!("5").micros(), false));
    assert_eq!(of(2).status, IntentStatus::RequiresPaymentMethod);
    assert_eq!(of(2).received, Micros::ZERO);
    assert_eq!(world.stripe.intent(five_dollars(&charge)).await.as_ref(), Ok(of(1)));
    assert_eq!(world.stripe.intent("pi_of_nobody").await, Err(LookUpError::NotFound));

    let far = i64::from(u32::MAX);
    assert_eq!(world.stripe.intents_since(Some(&customer), far).await, Ok(vec![]));
}

#[tokio::test]
async fn the_sandbox_has_an_account_and_its_mode_is_sandbox() {
    let world = World::start().await;
    assert_eq!(world.stripe.mode(), Mode::Sandbox);
    let account = world.stripe.account().await.unwrap();
    assert!(account.is_none_or(|account| account.id.starts_with("acct_")));
}

#[tokio::test]
async fn a_charge_stands_as_it_was_received() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let charge = world.charge(1, &customer, &card).await;
    let standing = world.stripe.standing(five_dollars(&charge)).await.unwrap();
    assert_eq!(
        (standing.intent.received, standing.intent.top_up),
        (usd!("5").micros(), Some(id(1)))
    );
    assert_eq!((standing.refunded, standing.withdrawn), (Micros::ZERO, Micros::ZERO));
    assert_eq!((standing.disputes, standing.customer), (vec![], Some(customer)));
    let nobody = world.stripe.standing("pi_of_nobody").await;
    assert_eq!(nobody, Err(LookUpError::NotFound));
}

#[tokio::test]
async fn a_card_is_kept_only_if_the_top_up_says_so() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    let (top_up, amount) = (id(1), usd!("5").micros());
    let once =
        TopUp { id: top_up, amount, customer: &customer, payment_method: &card, save_card: false };
    let call = world.stripe.top_up(&once);
    five_dollars(&world.stripe.charge(&call, &top_up.into(), BUDGET).await);
    assert_eq!(world.stripe.cards(&customer).await, Ok(vec![]));

    let kept = world.card(VISA).await;
    five_dollars(&world.charge(2, &customer, &kept).await);
    assert_eq!(world.stripe.cards(&customer).await, Ok(vec![kept]));
}

#[tokio::test]
async fn a_detached_card_is_gone_however_often_it_is_detached() {
    let world = World::start().await;
    let (card, customer) = (world.card(VISA).await, world.customer().await);
    five_dollars(&world.charge(1, &customer, &card).await);
    for _ in 0..2 {
        assert_eq!(world.stripe.detach(&card).await, Ok(()));
        assert_eq!(world.stripe.cards(&customer).await, Ok(vec![]));
    }
    let charge = world.charge(2, &customer, &card).await;
    assert_eq!(charge, Charge::Rejected(Rejection::PaymentMethod));
    for never_attached in [world.card(VISA).await, "pm_of_nobody".parse().unwrap()] {
        assert_eq!(world.stripe.detach(&never_attached).await, Ok(()));
    }
}
