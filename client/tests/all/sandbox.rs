use farebox_client::{Agent, Card, PaymentError, usd};
use farebox_sandbox::Sandbox;

use crate::support::{Seen, Server, asking, client, failure, policy, required, served, told};

/// A provider whose publishable key is `key`.
async fn provider(key: String) -> Server {
    Server::start(move |seen: &Seen| {
        if seen.card().is_some() {
            return served(http::StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900));
        }
        let mut required = required(100);
        required.accepts[0].publishable_key.clone_from(&key);
        asking(&required)
    })
    .await
}

#[tokio::test]
async fn the_sandbox_makes_payment_methods_of_cards() {
    let sandbox = Sandbox::builder().seed(7).start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = provider(sandbox.publishable_key().to_string()).await;
    let agent = |card: &str| {
        let card: Card = card.parse().unwrap();
        let agent = Agent::new(policy().per_day(usd!("5"))).card(card);
        agent.tokenizer(sandbox.url()).unwrap()
    };
    client(&agent("4242424242424242:12:40:123")).get(server.url("/")).send().await.unwrap();
    let cards = server.cards();
    assert!(cards.len() == 1 && cards[0].starts_with("pm_"), "{cards:?}");

    let result = client(&agent("4242424242424241:12:40:123")).get(server.url("/")).send().await;
    assert!(matches!(failure(&result), PaymentError::CardRejected(_)), "{result:?}");

    let foreign = provider("pk_test_nobody".to_owned()).await;
    let result = client(&agent("4242424242424242:12:40:123")).get(foreign.url("/")).send().await;
    assert!(matches!(failure(&result), PaymentError::PublishableKeyRejected), "{result:?}");
}
