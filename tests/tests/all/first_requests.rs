//! Many requests of a card that nobody has seen before: one charge, and nobody is left out.

use std::sync::Arc;
use std::time::Duration;

use farebox_protocol::{ErrorCode, Payment};
use tokio::time::Instant;

use crate::support::{
    Answer, Bank, Books, Crowd, Fault, Gate, Provider, by_card, by_credential, card, eventually,
    get, whole_machine,
};

const CROWD: usize = 500;

/// Repeats a payment until it is served. Nothing but "later" is an honest answer on the way.
async fn until_served(http: reqwest::Client, url: String, payment: Payment) -> (Answer, usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for repeated in 0.. {
        let answer = get(&http, &url, &payment).await.unwrap();
        if answer.is_served() {
            return (answer, repeated);
        }
        assert!(matches!(answer.status, 429 | 503), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(Instant::now() < deadline, "still refused: {answer:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    unreachable!()
}

/// 500 first requests that need all of the credit of one top-up.
async fn crowd(books: Books, methods: usize) {
    let _machine = whole_machine().await;
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, books).await;
    let mut shown = Vec::new();
    for _ in 0..methods {
        shown.push(bank.method(&card(1)).await);
    }
    let (shown, url) = (Arc::new(shown), provider.at("/api/joke"));
    let started = Instant::now();
    let answers = Crowd::gather()
        .all(CROWD, |http, n| until_served(http, url.clone(), by_card(&shown[n % shown.len()])))
        .await;

    let spent: i64 = answers.iter().map(|(answer, _)| answer.charged()).sum();
    let repeats: usize = answers.iter().map(|(_, repeats)| repeats).sum();
    let credential = answers[0].0.credential();
    assert!(answers.iter().all(|(answer, _)| answer.credential() == credential), "one payer");
    let remaining = provider.balance(&credential).await;
    println!(
        "{CROWD} first requests, {methods} PaymentMethods of one card, {books:?}: {} charge, \
         charged {} = remaining {remaining} + spent {spent}, {repeats} repeats, {:?}",
        bank.charges().len(),
        bank.charged(),
        started.elapsed(),
    );
    assert_eq!(bank.charges().len(), 1);
    assert_eq!(provider.served(), CROWD);
    assert_eq!((bank.charged(), spent, remaining), (50_000, 50_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_with_one_method_charge_once_on_disk() {
    crowd(Books::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_with_one_method_charge_once_in_memory() {
    crowd(Books::Memory, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_with_as_many_methods_charge_once_on_disk() {
    crowd(Books::Embedded, CROWD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_with_as_many_methods_charge_once_in_memory() {
    crowd(Books::Memory, CROWD).await;
}

#[tokio::test]
async fn a_good_card_is_served_though_it_joined_the_top_up_of_a_bad_one() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Provider::with(bank.stripe_at(&gate.url), Books::Embedded).await;
    let first = bank.method(&card(1)).await;
    let credential = provider.get("/api/big", &by_card(&first)).await.credential();
    assert_eq!(provider.balance(&credential).await, 0);

    let client_id = by_credential(&credential).client_id;
    let with = |method: &str| Payment { client_id: client_id.clone(), ..by_card(method) };
    let bad = with(&bank.method("4000000000000341").await);
    let good = bank.method(&card(2)).await;
    let good_is_read = format!("/v1/payment_methods/{good}");
    let good = with(&good);
    gate.set(Fault::HoldAnswer);
    let (refused, served, ()) = tokio::join!(
        provider.joke(&bad),
        async {
            // The bad one's top-up is open by now, and stays so.
            let asked = async || bank.charge_calls();
            eventually(Duration::from_secs(5), asked, |calls| *calls == 2).await;
            provider.joke(&good).await
        },
        async {
            let read = async || bank.calls("GET", &good_is_read);
            eventually(Duration::from_secs(5), read, |calls| *calls == 1).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            gate.set(Fault::None);
        }
    );
    assert_eq!(refused.code(), Some(ErrorCode::CardDeclined), "{refused:?}");
    assert!(served.is_served(), "{served:?}");
    assert_eq!(bank.charges().len(), 2);
    assert_eq!(provider.balance(&credential).await, 49_900);
}
