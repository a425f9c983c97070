//! Which cards stay at Stripe, and which can pay again.

use std::time::Duration;

use farebox_protocol::{ErrorCode, PayerId, Payment, Units};
use serde_json::Value;

use crate::support::{
    Bank, Books, Fault, Gate, Provider, by_card, by_credential, card, eventually,
};

/// The cards that are attached to a customer, newest first.
async fn attached(bank: &Bank, customer: &str) -> Vec<String> {
    let path = format!("/v1/payment_methods?type=card&limit=100&customer={customer}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.get(format!("{}{path}", bank.url()));
    let answer = request.bearer_auth(bank.sandbox().secret_key()).send().await.unwrap();
    let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let cards = list["data"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    cards.iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect()
}

/// A payer who paid with each of these cards; its credential, and the PaymentMethods.
async fn payer(bank: &Bank, provider: &Provider, cards: u32) -> (String, PayerId, Vec<String>) {
    let mut methods = vec![bank.method(&card(1)).await];
    let credential = provider.joke(&by_card(&methods[0])).await.credential();
    for n in 1..cards {
        let method = bank.method(&card(n + 1)).await;
        let min_credit = Units::new(i64::from(n) * 50_000);
        let client_id = credential.parse().ok();
        let payment = Payment { client_id, min_credit, ..by_card(&method) };
        assert!(provider.joke(&payment).await.is_served());
        methods.push(method);
    }
    assert_eq!(bank.charges().len(), methods.len());
    let payer = credential.split('.').next().unwrap().parse().unwrap();
    (credential, payer, methods)
}

async fn customer(provider: &Provider, payer: PayerId) -> String {
    provider.payments.head(&payer).await.customer.unwrap()
}

/// Nothing is set aside, and no top-up is open.
async fn assert_idle(provider: &Provider, payer: PayerId) {
    let head = provider.payments.head(&payer).await;
    let idle = head.accounts.values().all(|account| {
        account.open.is_none() && account.reserved.get() == 0 && account.refunding.get() == 0
    });
    assert!(idle, "{head:?}");
}

#[tokio::test]
async fn of_seventeen_cards_the_one_used_longest_ago_is_detached_and_pays_no_more() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (_, payer, mut methods) = payer(&bank, &provider, 17).await;
    let customer = customer(&provider, payer).await;
    let forgotten = methods.remove(0);
    methods.reverse();
    let left = async || attached(&bank, &customer).await;
    eventually(Duration::from_secs(5), left, |left| *left == methods).await;
    let refused = provider.joke(&by_card(&forgotten)).await;
    assert_eq!(refused.code(), Some(ErrorCode::InvalidPayment), "{refused:?}");
    assert_eq!(bank.charges().len(), 17);
    // The newest of those that stay still pays.
    let served = provider.joke(&by_card(&methods[0])).await;
    assert_eq!((served.status, bank.charges().len()), (200, 17), "{served:?}");
    assert_idle(&provider, payer).await;
}

#[tokio::test]
async fn where_no_card_is_saved_every_top_up_needs_a_new_payment_method() {
    let bank = Bank::open().await;
    let provider = Provider::choosing(&bank, |builder| builder.save_cards(false)).await;
    let (credential, payer, methods) = payer(&bank, &provider, 1).await;
    let customer = customer(&provider, payer).await;
    assert!(attached(&bank, &customer).await.is_empty());

    let client_id = by_credential(&credential).client_id;
    let again = Payment { client_id: client_id.clone(), ..by_card(&methods[0]) };
    let refused = provider.get("/api/big", &again).await;
    assert_eq!(refused.code(), Some(ErrorCode::InvalidPayment), "{refused:?}");
    assert_idle(&provider, payer).await;
    assert_eq!((bank.charges().len(), provider.balance(&credential).await), (1, 49_900));

    let new = Payment { client_id, ..by_card(&bank.method(&card(1)).await) };
    let served = provider.get("/api/big", &new).await;
    assert_eq!((served.status, served.remaining()), (200, 49_900), "{served:?}");
    assert_eq!(bank.charges().len(), 2);
    assert!(attached(&bank, &customer).await.is_empty());
    assert_idle(&provider, payer).await;
}

#[tokio::test]
async fn revoking_detaches_every_card() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (credential, payer, methods) = payer(&bank, &provider, 3).await;
    let customer = customer(&provider, payer).await;
    assert_eq!(attached(&bank, &customer).await.len(), 3);
    provider.payments.revoke(&payer).await.unwrap();
    let left = async || attached(&bank, &customer).await;
    eventually(Duration::from_secs(5), left, Vec::is_empty).await;
    for leaked in [by_credential(&credential), by_card(&methods[2])] {
        assert!(!provider.joke(&leaked).await.is_served());
    }
    assert_eq!(bank.charges().len(), 3);
    // The card itself still leads to the credit.
    let holder = provider.joke(&by_card(&bank.method(&card(2)).await)).await;
    assert_eq!((holder.status, bank.charges().len()), (200, 3), "{holder:?}");
}

/// A card that is being charged stays where it is, and yet the others are detached: who knows the
/// id of one that stays attached could pay with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_beside_an_open_top_up_detaches_every_card_but_the_one_that_pays() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Memory).await;
    let (credential, payer, methods) = payer(&bank, &provider, 1).await;
    let customer = customer(&provider, payer).await;
    let paying = bank.method(&card(2)).await;
    let client_id = by_credential(&credential).client_id;
    gate.set(Fault::HoldAnswer);
    let both = Payment { client_id, ..by_card(&paying) };
    let (answer, ()) = tokio::join!(provider.get("/api/big", &both), async {
        let charges = async || bank.charges().len();
        eventually(Duration::from_secs(5), charges, |charges| *charges == 2).await;
        provider.payments.revoke(&payer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(attached(&bank, &customer).await.len(), 2);
        gate.set(Fault::None);
    });
    assert!(answer.is_served(), "the card itself has paid: {answer:?}");
    let left = async || attached(&bank, &customer).await;
    eventually(Duration::from_secs(10), left, |left| *left == [paying.clone()]).await;
    assert!(!provider.joke(&by_card(&methods[0])).await.is_served());
    assert_idle(&provider, payer).await;
}

#[tokio::test]
async fn a_card_that_wants_its_holder_is_not_charged_and_leaves_nothing_open() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let (credential, payer, _) = payer(&bank, &provider, 1).await;
    let client_id = by_credential(&credential).client_id;
    for wants in ["4000002760003184", "4000003800000446"] {
        let method = bank.method(wants).await;
        let payment = Payment { client_id: client_id.clone(), ..by_card(&method) };
        let refused = provider.get("/api/big", &payment).await;
        let code = Some(ErrorCode::AuthenticationRequired);
        assert_eq!((refused.status, refused.code()), (402, code), "{refused:?}");
        assert_idle(&provider, payer).await;
    }
    assert_eq!(bank.charges().len(), 1);
    let good = Payment { client_id, ..by_card(&bank.method(&card(1)).await) };
    assert!(provider.get("/api/big", &good).await.is_served());
}
