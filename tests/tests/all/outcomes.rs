//! What the handler does decides what a request costs, and the handler decides nothing else.

use std::time::Duration;

use farebox_protocol::header::PAYMENT;
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{
    Answer, Bank, Books, Provider, by_card, by_credential, card, eventually, send,
};

/// A provider, and a credential with 49,900 units.
async fn provider(bank: &Bank) -> (Provider, String) {
    let provider = Provider::open(bank, Books::Embedded).await;
    let first = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    let credential = first.credential();
    assert_eq!((first.remaining(), provider.balance(&credential).await), (49_900, 49_900));
    (provider, credential)
}

#[tokio::test]
async fn a_handler_that_fails_costs_nothing_and_says_so() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    for (path, status) in [("/api/fail", 500), ("/api/missing", 404)] {
        let answer = provider.get(path, &by_credential(&credential)).await;
        assert_eq!(answer.status, status);
        assert_eq!((answer.charged(), answer.remaining()), (0, 49_900));
        assert!(answer.receipt().success && answer.offer().is_none());
        assert_eq!(provider.balance(&credential).await, 49_900);
    }
    // After a top-up the client must learn its credential, whatever the handler answers.
    let first = provider.get("/api/fail", &by_card(&bank.method(&card(2)).await)).await;
    assert_eq!((first.status, first.charged(), first.remaining()), (500, 0, 50_000));
    assert_eq!(provider.balance(&first.credential()).await, 50_000);
}

#[tokio::test]
async fn a_handler_that_panics_costs_nothing() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let payment = by_credential(&credential).encode();
    let panicked = send(&provider.http, Method::GET, &provider.at("/api/panic"), &[&payment]).await;
    assert!(panicked.is_err(), "the connection closes: {panicked:?}");
    provider.settles_at(&credential, 49_900).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_pays_nothing() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let payment = by_credential(&credential).encode();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(provider.address()).await.unwrap();
        let request = format!("GET /api/wait HTTP/1.1\r\nhost: api\r\npayment: {payment}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
    }
    let running = async || provider.served();
    eventually(Duration::from_secs(5), running, |served| *served == 11).await;
    assert_eq!(provider.balance(&credential).await, 48_900, "what is reserved is not there");
    drop(clients);
    provider.settles_at(&credential, 49_900).await;
    println!("10 clients hung up: 1,000 units are back within a second");
}

#[tokio::test]
async fn head_costs_what_get_costs() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let unpaid = provider.send(Method::HEAD, "/api/joke", &[]).await;
    assert_eq!((unpaid.status, unpaid.body.as_str()), (402, ""));
    assert_eq!(unpaid.offer().unwrap().accepts[0].amount.get(), 100);

    let payment = by_credential(&credential).encode();
    let paid = provider.send(Method::HEAD, "/api/joke", &[&payment]).await;
    assert_eq!((paid.status, paid.body.as_str()), (200, ""));
    assert_eq!((paid.charged(), provider.balance(&credential).await), (100, 49_800));
}

#[tokio::test]
async fn a_body_is_passed_on_and_post_costs_its_price() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let request = provider.http.post(provider.at("/api/echo")).body("Is this thing on?");
    let request = request.header(PAYMENT, by_credential(&credential).encode());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "Is this thing on?");
    assert_eq!(provider.balance(&credential).await, 49_800);
}

fn all(answer: &Answer, name: &str) -> String {
    let values = answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_handler_cannot_speak_for_the_payment_layer_nor_make_its_answer_public() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let paid = provider.get("/api/lie", &by_credential(&credential)).await;
    assert_eq!((paid.charged(), paid.credential()), (100, credential));
    assert_eq!(paid.headers.get_all("payment-response").iter().count(), 1);
    assert!(paid.headers.get("payment-required").is_none());
    assert_eq!(all(&paid, "cache-control"), "max-age=60, private");
    assert_eq!(all(&paid, "vary"), "accept, payment, authorization");
    let exposed = all(&paid, "access-control-expose-headers");
    assert_eq!(exposed, "payment-required, payment-response");
}

#[tokio::test]
async fn a_free_route_is_not_touched_whatever_the_payment() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let good = by_credential(&credential).encode();
    for payments in [&[][..], &["malformed"], &["", ""], &[good.as_str()]] {
        let answer = provider.send(Method::GET, "/", payments).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "Trust me."));
        assert_eq!(answer.header("payment-response"), Some("forged"));
        assert_eq!(all(&answer, "cache-control"), "public, s-maxage=600, max-age=60");
        assert_eq!(all(&answer, "vary"), "accept");
    }
    assert_eq!(provider.balance(&credential).await, 49_900);
}

#[tokio::test]
async fn a_handler_does_not_see_the_payment() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let request = provider.http.get(provider.at("/api/seen")).header("x-mine", "1");
    let request = request.header(PAYMENT, by_credential(&credential).encode());
    let seen = request.send().await.unwrap().text().await.unwrap();
    assert!(seen.contains("x-mine") && !seen.contains("payment"), "{seen}");
}

#[tokio::test]
async fn two_prices_on_one_route_are_an_error_of_the_provider_and_take_nothing() {
    let bank = Bank::open().await;
    let (provider, credential) = provider(&bank).await;
    let served = provider.served();
    let answer = provider.get("/api/twice", &by_credential(&credential)).await;
    assert_eq!((answer.status, answer.charged()), (500, 0), "{answer:?}");
    assert_eq!(provider.balance(&credential).await, 49_900);

    // A card is charged at most once, and what it paid is credit.
    let first = provider.get("/api/twice", &by_card(&bank.method(&card(2)).await)).await;
    assert_eq!((first.status, first.charged()), (500, 0), "{first:?}");
    assert_eq!((bank.charges().len(), first.remaining()), (2, 50_000));
    assert!(!answer.body.contains("Paid twice") && !first.body.contains("Paid twice"));
    // The inner layer counts as the outer one's handler; the handler itself did not run.
    assert_eq!(provider.served(), served + 2);
}
