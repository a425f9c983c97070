//! A charge whose outcome is not known: never a 402, and the same top-up is gone on with.

use std::time::Duration;

use farebox_protocol::{ErrorCode, Payment, TopUpId, Units};
use tokio::time::Instant;

use crate::support::{
    Answer, Bank, Books, Fault, Gate, Provider, by_card, by_credential, card, eventually,
};

/// What a client is told while a charge is under way.
fn assert_pending(what: &str, answer: &Answer) -> TopUpId {
    let code = answer.code();
    assert_eq!((answer.status, code), (503, Some(ErrorCode::PaymentPending)), "{what}");
    assert!(answer.header("retry-after").is_some() && answer.offer().is_none(), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    answer.refusal().top_up_id.unwrap_or_else(|| panic!("{what}: no topUpId"))
}

/// The bank charges and hangs. This takes as long as a request waits for a charge: 20 seconds.
#[tokio::test]
async fn a_hanging_charge_is_pending_for_everybody_and_its_retry_is_served_without_another() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let first = by_card(&bank.method(&card(1)).await);
    let credit_only = by_credential(&provider.get("/api/big", &first).await.credential());
    let both = Payment { client_id: credit_only.client_id.clone(), ..first };
    let again = by_card(&bank.method(&card(1)).await);

    gate.set(Fault::HoldAnswer);
    let started = Instant::now();
    let (by_both, (by_credit, by_new_method)) = tokio::join!(provider.joke(&both), async {
        let begun = async || bank.charges().len();
        eventually(Duration::from_secs(5), begun, |charges| *charges == 2).await;
        tokio::join!(provider.joke(&credit_only), provider.joke(&again))
    });
    let waited = started.elapsed();
    let id = assert_pending("card and credential", &by_both);
    assert_eq!(assert_pending("new PaymentMethod", &by_new_method), id);
    assert_eq!(assert_pending("credential alone", &by_credit), id);
    assert!(waited < Duration::from_secs(25), "{waited:?}");
    assert_eq!((bank.charges().len(), provider.served()), (2, 1));

    let (top_up_id, late) = (Some(id), Payment { top_up_id: Some(id), ..credit_only });
    let resumed = Payment { top_up_id, ..both.clone() };
    let (served, by_credit, ()) =
        tokio::join!(provider.joke(&resumed), provider.joke(&late), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            gate.set(Fault::None);
        });
    assert!(served.is_served() && by_credit.is_served(), "{served:?} {by_credit:?}");
    assert_eq!(served.receipt().top_up_id, top_up_id);
    assert_eq!(served.receipt().charge_id, Some(bank.charges()[1].id.clone()));
    assert_eq!((bank.charges().len(), provider.served()), (2, 3));
    println!("a hanging charge: 503 payment_pending after {waited:?}, no second charge");

    // Where credit is short, an id that has ended opens no other top-up, and neither does one
    // that was never opened.
    let short = provider.get("/api/big", &resumed).await;
    assert_eq!(short.code(), Some(ErrorCode::InsufficientCredits), "{short:?}");
    let top_up_id = Some(TopUpId { number: 3, ..id });
    let unopened = provider.get("/api/big", &Payment { top_up_id, ..both }).await;
    assert_eq!(unopened.code(), Some(ErrorCode::InvalidPayment), "{unopened:?}");
    assert_eq!(bank.charges().len(), 2);
}

/// A top-up that was wanted for later requests does not hold up one that credit covers.
#[tokio::test]
async fn a_request_that_credit_covers_does_not_wait_for_a_hanging_charge() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let payment = by_card(&bank.method(&card(1)).await);
    let credential = provider.joke(&payment).await.credential();
    gate.set(Fault::HoldAnswer);
    let (client_id, min_credit) = (credential.parse().ok(), Units::new(60_000));
    let started = Instant::now();
    let served = provider.joke(&Payment { client_id, min_credit, ..payment }).await;
    let waited = started.elapsed();
    assert_eq!((served.status, served.remaining()), (200, 49_800), "{served:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    assert!(served.receipt().top_up_id.is_some(), "a top-up was begun: {served:?}");
    gate.set(Fault::None);
    let balance = async || provider.balance(&credential).await;
    eventually(Duration::from_secs(5), balance, |units| *units == 99_800).await;
    println!("minCredit and a hanging charge: served after {waited:?}");
}

#[tokio::test]
async fn a_top_up_of_another_payer_is_invalid_and_changes_nothing() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let others = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    let mine = provider.joke(&by_card(&bank.method(&card(2)).await)).await;
    let top_up_id = others.receipt().top_up_id;
    assert_ne!(top_up_id, mine.receipt().top_up_id);

    // Both are short of the price, so the id is looked at.
    let by_card = by_card(&bank.method(&card(3)).await);
    for payment in [by_credential(&mine.credential()), by_card] {
        let refused = provider.get("/api/big", &Payment { top_up_id, ..payment }).await;
        assert_eq!((refused.status, refused.code()), (402, Some(ErrorCode::InvalidPayment)));
    }
    assert_eq!((bank.charges().len(), provider.served()), (2, 2));
    assert_eq!(provider.balance(&others.credential()).await, 49_900);
    assert_eq!(provider.balance(&mine.credential()).await, 49_900);
}

/// Going on with a declined top-up tells the refusal again, and charges nothing.
#[tokio::test]
async fn a_top_up_that_was_refused_stays_refused() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let credential = provider.get("/api/big", &by_card(&bank.method(&card(1)).await)).await;
    let first = credential.receipt().top_up_id.unwrap();
    let client_id = by_credential(&credential.credential()).client_id;
    gate.set(Fault::Decline);
    let payment = Payment { client_id, ..by_card(&bank.method(&card(2)).await) };
    assert_eq!(provider.joke(&payment).await.code(), Some(ErrorCode::CardDeclined));
    gate.set(Fault::None);

    let top_up_id = Some(TopUpId { number: first.number + 1, ..first });
    let refused = provider.joke(&Payment { top_up_id, ..payment.clone() }).await;
    assert_eq!(refused.code(), Some(ErrorCode::CardDeclined), "{refused:?}");
    assert_eq!(refused.refusal().top_up_id, top_up_id, "so the client knows that it has ended");
    assert_eq!(bank.charges().len(), 1);
    // Without the id the same payment opens a new one, which succeeds.
    assert!(provider.joke(&payment).await.is_served());
    assert_eq!(bank.charges().len(), 2);
}

/// Who shows a card without its code pays with it to prove that it is theirs. While that charge
/// hangs, going on with it is no new question.
#[tokio::test]
async fn a_charge_that_proves_a_card_is_gone_on_with_while_it_hangs() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Memory).await;
    assert!(provider.joke(&by_card(&bank.method(&card(1)).await)).await.is_served());
    let bare = by_card(&bank.method_without_code(&card(1)).await);
    gate.set(Fault::HoldAnswer);
    let id = assert_pending("proof", &provider.joke(&bare).await);
    let asked = bank.calls("POST", "/v1/setup_intents");

    let resumed = Payment { top_up_id: Some(id), ..bare };
    let (served, ()) = tokio::join!(provider.joke(&resumed), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.set(Fault::None);
    });
    assert!(served.is_served(), "{served:?}");
    assert_eq!(served.receipt().top_up_id, Some(id));
    assert_eq!((bank.charges().len(), bank.calls("POST", "/v1/setup_intents")), (2, asked));
}
