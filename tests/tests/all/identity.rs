//! Who pays: a card's number opens no account, and nobody's card becomes somebody else's.

use std::time::Duration;

use farebox_protocol::{ErrorCode, Payment};
use futures_util::future::join_all;

use crate::support::{
    Answer, Bank, Books, Fault, Gate, Provider, by_card, by_credential, card, eventually,
};

#[tokio::test]
async fn a_card_without_its_code_spends_no_credit_and_is_charged_itself() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let owner = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    assert_eq!((bank.charges().len(), owner.remaining()), (1, 49_900));

    let method = bank.method_without_code(&card(1)).await;
    let served = provider.joke(&by_card(&method)).await;
    assert!(served.is_served(), "{served:?}");
    assert_eq!(bank.charges().len(), 2, "the charge is the proof");
    assert_eq!(bank.charges()[1].payment_method, method);
    assert_eq!(provider.balance(&owner.credential()).await, 2 * 50_000 - 2 * 100);
}

/// Some ask while the charge that proves the card runs, some after it, some between.
#[tokio::test]
async fn a_card_without_its_code_is_charged_once_however_often_it_asks() {
    let bank = Bank::slow(Duration::from_millis(200)).await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    assert!(provider.joke(&by_card(&bank.method(&card(1)).await)).await.is_served());
    let bare = by_card(&bank.method_without_code(&card(1)).await);
    let asked = join_all((0..30).map(|n| {
        let (provider, bare) = (&provider, &bare);
        async move {
            tokio::time::sleep(Duration::from_millis(70 * n)).await;
            provider.joke(bare).await
        }
    }));
    let answers = asked.await;
    assert!(answers.iter().all(Answer::is_served), "{answers:?}");
    assert_eq!((bank.charges().len(), provider.served()), (2, 31));
}

#[tokio::test]
async fn a_card_without_its_code_that_cannot_be_charged_gets_nothing() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let owner = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();

    gate.set(Fault::Decline);
    let thief = by_card(&bank.method_without_code(&card(1)).await);
    for _ in 0..3 {
        let refused = provider.joke(&thief).await;
        assert_eq!(refused.code(), Some(ErrorCode::CardDeclined), "{refused:?}");
        assert!(refused.headers.get("payment-response").is_none(), "no credential leaks");
    }
    assert_eq!((bank.charges().len(), provider.balance(&owner).await), (1, 49_900));
    assert_eq!(provider.served(), 1);
}

/// Whoever shows a card's number while its owner tops up waits for the owner's charge, and is
/// then charged as well: that one proves nothing about them.
#[tokio::test]
async fn a_card_without_its_code_that_joins_its_owners_top_up_still_pays() {
    let bank = Bank::slow(Duration::from_millis(200)).await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let owner = by_card(&bank.method(&card(1)).await);
    let other = by_card(&bank.method_without_code(&card(1)).await);
    let (owned, joined) = tokio::join!(provider.joke(&owner), async {
        let begun = async || bank.charge_calls();
        eventually(Duration::from_secs(5), begun, |calls| *calls == 1).await;
        provider.joke(&other).await
    });
    assert!(owned.is_served() && joined.is_served(), "{owned:?} {joined:?}");
    let methods: Vec<_> = bank.charges().into_iter().map(|c| c.payment_method).collect();
    assert_eq!(methods.len(), 2, "{methods:?}");
    assert_ne!(methods[0], methods[1]);
}

/// A top-up's id is no secret and proves nothing.
#[tokio::test]
async fn the_id_of_its_owners_top_up_opens_no_credit_for_a_card_without_its_code() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let owner = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    let top_up_id = owner.receipt().top_up_id;
    assert!(top_up_id.is_some());
    let method = bank.method_without_code(&card(1)).await;
    let refused = provider.joke(&Payment { top_up_id, ..by_card(&method) }).await;
    assert_eq!((refused.status, refused.code()), (402, Some(ErrorCode::InvalidPayment)));
    assert_eq!((bank.charges().len(), provider.served()), (1, 1));
}

#[tokio::test]
async fn a_card_with_its_code_spends_its_credit_after_a_check_and_without_a_charge() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let owner = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    assert_eq!(bank.calls("POST", "/v1/setup_intents"), 0);

    let again = by_card(&bank.method(&card(1)).await);
    for n in 1..=3 {
        let served = provider.joke(&again).await;
        assert!(served.is_served(), "{served:?}");
        assert_eq!(served.credential(), owner);
        assert_eq!(served.remaining(), 49_900 - n * 100);
    }
    let checks = bank.calls("POST", "/v1/setup_intents");
    println!("a new PaymentMethod of a known card: {checks} check, 0 charges");
    assert_eq!((bank.charges().len(), checks), (1, 1));
}

/// The bank calls the code of this card wrong, and charges it all the same.
#[tokio::test]
async fn a_card_whose_code_is_wrong_spends_no_credit() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let number = "4000000000000101";
    let owner = provider.joke(&by_card(&bank.method(number).await)).await.credential();
    let served = provider.joke(&by_card(&bank.method(number).await)).await;
    assert!(served.is_served(), "{served:?}");
    assert_eq!(bank.charges().len(), 2, "it paid instead");
    assert_eq!(provider.balance(&owner).await, 100_000 - 200);
}

#[tokio::test]
async fn a_declined_card_does_not_become_the_card_of_whoever_showed_it() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let thief = provider.get("/api/big", &by_card(&bank.method(&card(1)).await)).await;
    let thief = thief.credential();

    gate.set(Fault::Decline);
    let client_id = by_credential(&thief).client_id;
    let victims = Payment { client_id, ..by_card(&bank.method_without_code(&card(2)).await) };
    let refused = provider.joke(&victims).await;
    assert_eq!(refused.code(), Some(ErrorCode::CardDeclined), "{refused:?}");
    gate.set(Fault::None);

    let victim = provider.joke(&by_card(&bank.method(&card(2)).await)).await;
    assert!(victim.is_served(), "{victim:?}");
    assert_ne!(victim.credential(), thief);
    assert_eq!(provider.balance(&thief).await, 0);
    assert_eq!(provider.balance(&victim.credential()).await, 49_900);
}

#[tokio::test]
async fn a_card_that_paid_for_another_payer_later_leads_to_them_only_if_it_is_new() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let owner = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let other = provider.get("/api/big", &by_card(&bank.method(&card(2)).await)).await.credential();

    // The first card helps out under the other credential; it stays its owner's.
    let client_id = by_credential(&other).client_id;
    let help = Payment { client_id, ..by_card(&bank.method(&card(1)).await) };
    assert!(provider.joke(&help).await.is_served());
    assert_eq!(provider.balance(&other).await, 49_900);
    let alone = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    assert_eq!(alone.credential(), owner, "{alone:?}");
    assert_eq!(bank.charges().len(), 3);
}

/// Somebody who has a card's number pays with it once; the card does not become theirs.
#[tokio::test]
async fn a_card_without_its_code_that_paid_for_a_stranger_still_leads_to_its_owner() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let thief = provider.get("/api/big", &by_card(&bank.method(&card(1)).await)).await.credential();
    let client_id = by_credential(&thief).client_id;
    let stolen = Payment { client_id, ..by_card(&bank.method_without_code(&card(2)).await) };
    assert!(provider.joke(&stolen).await.is_served());
    assert_eq!(provider.balance(&thief).await, 49_900);

    let owner = provider.joke(&by_card(&bank.method(&card(2)).await)).await;
    assert!(owner.is_served(), "{owner:?}");
    assert_ne!(owner.credential(), thief);
    assert_eq!((bank.charges().len(), owner.remaining()), (3, 49_900));
    assert_eq!(provider.balance(&thief).await, 49_900, "its credit is out of the owner's reach");
}
