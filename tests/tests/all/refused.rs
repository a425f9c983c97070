//! A payment that cannot pay for its request is refused before any card is charged.

use farebox_protocol::ErrorCode::{
    InsufficientCredits, InvalidPayment, PriceAboveMaximum, TopUpAboveMaximum, TopUpBelowMinimum,
};
use farebox_protocol::{ErrorCode, Payment, Units};

use crate::support::{Bank, Books, Provider, by_card, card};

/// Payments by card that must not charge it.
fn payments(card: &Payment) -> Vec<(&'static str, &'static str, ErrorCode, Payment)> {
    let top_up = |units| Payment { top_up_amount: Units::new(units), ..card.clone() };
    let most = |units| Payment { max_amount: Units::new(units), ..card.clone() };
    let none = card.payment_method_id.as_ref().unwrap().as_str().replace("pm_", "pm_none");
    let stranger = format!("tu_{}_usd_1", "0".repeat(64)).parse().ok();
    let huge = "/api/huge";
    vec![
        ("a top-up below the price", huge, TopUpBelowMinimum, top_up(75_000)),
        ("a top-up far below the price", huge, TopUpBelowMinimum, top_up(50_000)),
        ("a top-up below the smallest", "/api/joke", TopUpBelowMinimum, top_up(49_900)),
        ("the smallest top-up that is one", "/api/joke", TopUpBelowMinimum, top_up(1)),
        ("a top-up above the largest", "/api/joke", TopUpAboveMaximum, top_up(1_000_001)),
        ("all the money there is", "/api/joke", TopUpAboveMaximum, top_up(90_071_992_547_409)),
        ("a price above maxAmount", "/api/joke", PriceAboveMaximum, most(99)),
        ("a maxAmount of nothing", "/api/joke", PriceAboveMaximum, most(0)),
        ("a price a unit above maxAmount", huge, PriceAboveMaximum, most(75_000)),
        (
            "a currency that is not offered",
            "/api/joke",
            InvalidPayment,
            Payment { currency: "eur".parse().ok(), ..card.clone() },
        ),
        (
            "a card that Stripe does not know",
            "/api/joke",
            InvalidPayment,
            Payment { payment_method_id: none.parse().ok(), ..card.clone() },
        ),
        (
            "a top-up that is not the payer's",
            "/api/joke",
            InvalidPayment,
            Payment { top_up_id: stranger, ..card.clone() },
        ),
        (
            "a credential of nobody, without a card",
            "/api/joke",
            InsufficientCredits,
            Payment {
                client_id: "nobody".parse().ok(),
                payment_method_id: None,
                ..Payment::default()
            },
        ),
    ]
}

#[tokio::test]
async fn a_payment_that_cannot_pay_is_refused_before_any_charge() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let card = by_card(&bank.method(&card(1)).await);
    let payments = payments(&card);
    for (what, path, code, payment) in &payments {
        let answer = provider.get(path, payment).await;
        assert_eq!((answer.status, answer.code()), (402, Some(*code)), "{what}: {answer:?}");
    }
    assert_eq!((bank.charges().len(), bank.charge_calls()), (0, 0));
    assert_eq!(provider.served(), 0);
    println!("{} payments that cannot pay: 0 charges, 0 calls for one", payments.len());

    // The card was good all along.
    assert!(provider.joke(&card).await.is_served());
}

#[tokio::test]
async fn what_an_offer_asks_for_pays_for_the_request() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    for (n, path) in (1..).zip(["/api/joke", "/api/big", "/api/huge"]) {
        let unpaid = provider.send(http::Method::GET, path, &[]).await;
        let offer = unpaid.offer().unwrap().accepts.remove(0);
        let payment = Payment {
            top_up_amount: Some(offer.min_top_up),
            max_amount: Some(offer.amount),
            ..by_card(&bank.method(&card(n)).await)
        };
        let served = provider.get(path, &payment).await;
        assert!(served.is_served(), "{path}: {served:?}");
        let taken = offer.min_top_up.get() - offer.amount.get();
        assert_eq!((served.charged(), served.remaining()), (offer.amount.get(), taken));
    }
    // 5.00, 5.00 and 7.51 dollars: what is charged in whole cents is credited in full.
    assert_eq!(bank.charged(), 50_000 + 50_000 + 75_100);
}

#[tokio::test]
async fn without_an_amount_the_card_pays_what_is_needed_and_no_more() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let payment = Payment { top_up_amount: None, ..by_card(&bank.method(&card(1)).await) };
    assert!(provider.get("/api/huge", &payment).await.is_served());
    assert_eq!(bank.charged(), 75_100);
}
