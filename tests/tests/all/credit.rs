//! Credit: it is spent to its last unit and no further, and it belongs to one payer, whichever
//! of their cards paid.

use farebox_protocol::{ErrorCode, Payment, Units};

use crate::support::{
    Bank, Books, Crowd, Provider, by_card, by_credential, card, get, whole_machine,
};

const CROWD: usize = 1_000;
const PAYABLE: usize = 700;

async fn thousand(books: Books) {
    let _machine = whole_machine().await;
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let method = bank.method(&card(1)).await;
    let first = Payment { top_up_amount: Units::new(70_100), ..by_card(&method) };
    let credential = provider.joke(&first).await.credential();
    assert_eq!(provider.balance(&credential).await, 70_000);

    let (url, payment) = (provider.at("/api/joke"), by_credential(&credential));
    let answers = Crowd::gather()
        .all(CROWD, |http, _| {
            let (url, payment) = (url.clone(), payment.clone());
            async move { get(&http, &url, &payment).await.unwrap() }
        })
        .await;

    let served = answers.iter().filter(|answer| answer.is_served()).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 402).collect();
    let balance = provider.balance(&credential).await;
    println!(
        "{CROWD} requests, credit for {PAYABLE}, {books:?}: {served} served, {} refused, \
         {balance} left",
        refused.len()
    );
    assert!(refused.iter().all(|answer| answer.code() == Some(ErrorCode::InsufficientCredits)));
    assert_eq!((served, refused.len(), balance), (PAYABLE, CROWD - PAYABLE, 0));
    assert_eq!(provider.served(), PAYABLE + 1);
    assert_eq!(bank.charges().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_with_credit_for_seven_hundred_serve_seven_hundred_on_disk() {
    thousand(Books::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_with_credit_for_seven_hundred_serve_seven_hundred_in_memory() {
    thousand(Books::Memory).await;
}

#[tokio::test]
async fn three_cards_under_one_credential_are_one_payer_and_strand_nothing() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let mut spent = 0;
    let first = provider.get("/api/big", &by_card(&bank.method(&card(1)).await)).await;
    let credential = first.credential();
    spent += first.charged();

    // The second card pays because the credit is gone, the third one before it is.
    let under = |method: &str, min_credit| Payment {
        client_id: by_credential(&credential).client_id,
        min_credit,
        ..by_card(method)
    };
    let second = under(&bank.method(&card(2)).await, None);
    let third = under(&bank.method(&card(3)).await, Units::new(60_000));
    for payment in [second, third] {
        let answer = provider.joke(&payment).await;
        assert!(answer.is_served(), "{answer:?}");
        assert_eq!(answer.credential(), credential);
        assert!(answer.receipt().charge_id.is_some());
        spent += answer.charged();
    }
    assert_eq!(bank.charges().len(), 3);

    // Each card alone, as a new PaymentMethod with its code, spends from the same account.
    for n in 1..=3 {
        let answer = provider.joke(&by_card(&bank.method(&card(n)).await)).await;
        assert!(answer.is_served(), "{answer:?}");
        assert_eq!(answer.credential(), credential, "card {n}");
        spent += answer.charged();
    }
    let remaining = provider.balance(&credential).await;
    println!(
        "three cards, one payer: charged {} = remaining {remaining} + spent {spent}",
        bank.charged()
    );
    assert_eq!(bank.charges().len(), 3, "no card was charged to prove who pays");
    assert_eq!((bank.charged(), remaining + spent), (150_000, 150_000));
}

#[tokio::test]
async fn many_requests_that_want_credit_to_be_left_top_up_once() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let method = bank.method(&card(1)).await;
    let credential = provider.joke(&by_card(&method)).await.credential();
    let (url, min_credit) = (provider.at("/api/joke"), Units::new(50_000));
    let client_id = by_credential(&credential).client_id;
    let payment = Payment { client_id, min_credit, ..by_card(&method) };
    let answers = Crowd::gather()
        .all(100, |http, _| {
            let (url, payment) = (url.clone(), payment.clone());
            async move { get(&http, &url, &payment).await.unwrap() }
        })
        .await;
    assert!(answers.iter().all(|answer| answer.is_served()));
    assert_eq!((bank.charges().len(), provider.balance(&credential).await), (2, 89_900));
}

#[tokio::test]
async fn a_single_use_card_for_each_top_up_strands_nothing() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let mut credential = None;
    for n in 0..20 {
        let payment =
            Payment { client_id: credential.take(), ..by_card(&bank.method(&card(n)).await) };
        let answer = provider.get("/api/big", &payment).await;
        assert!(answer.is_served(), "{answer:?}");
        credential = by_credential(&answer.credential()).client_id;
    }
    let credential = credential.unwrap();
    assert_eq!(bank.charges().len(), 20);
    assert_eq!(provider.balance(credential.as_str()).await, 0);
}

#[tokio::test]
async fn a_min_credit_beyond_the_largest_top_up_is_topped_up_once() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let min_credit = Units::new(90_071_992_547_409);
    let by_card = by_card(&bank.method(&card(1)).await);
    let payment = Payment { min_credit, top_up_amount: None, ..by_card };
    let client_id = provider.joke(&payment).await.credential().parse().ok();
    let payment = Payment { client_id, ..payment };
    for _ in 0..5 {
        assert!(provider.joke(&payment).await.is_served());
    }
    let amounts: Vec<i64> = bank.charges().iter().map(|charge| charge.amount).collect();
    assert_eq!(amounts, [10_000, 500], "the largest top-up, and the smallest to refill it");
}
