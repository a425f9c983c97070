use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use farebox_client::{Actor, Agent, MaxPrice, PaymentError, Policy, Reason, Rule, usd};
use farebox_protocol::ErrorCode;

use http::StatusCode;

use crate::support::{
    CARD, NOW, agent, answering, client, failure, held, honest, policy, refused, served, tokenizer,
    told,
};

#[tokio::test]
async fn a_price_above_max_price_is_refused_before_a_card_is_tokenized() {
    let (_, server) = honest(300).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let request = client(&agent).get(server.url("/joke")).with_extension(MaxPrice(usd!("0.02")));
    let result = request.send().await;
    let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
    assert_eq!(*reason, Reason::MaxPrice { price: usd!("0.03"), max: usd!("0.02") });
    assert_eq!((stripe.seen().len(), server.seen().len()), (0, 1));
    assert_eq!(held(&agent).await, usd!("0"));
}

#[tokio::test]
async fn a_host_that_is_not_allowed_gets_no_payment() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let policy = Policy::new().allow("example.com").per_request(usd!("1"));
    let http = client(&agent(policy.per_top_up(usd!("5")).per_day(usd!("5")), &stripe));
    let result = http.get(server.url("/joke")).send().await;
    let PaymentError::Refused(Reason::Policy(refusal)) = failure(&result) else { panic!() };
    assert_eq!(refusal.rule(), Rule::Host);
    assert_eq!(failure(&result).actor(), Actor::Owner);
    assert_eq!(stripe.seen().len(), 0);
}

#[tokio::test]
async fn a_day_ends_at_its_cap_and_the_next_begins_anew() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let agent = agent(policy(), &stripe).clock(move || clock.load(Ordering::SeqCst));
    let http = client(&agent);
    for _ in 0..2 {
        provider.balance.store(0, Ordering::SeqCst);
        http.get(server.url("/joke")).send().await.unwrap();
    }
    provider.balance.store(0, Ordering::SeqCst);
    let result = http.get(server.url("/joke")).send().await;
    let PaymentError::Refused(Reason::Policy(refusal)) = failure(&result) else { panic!() };
    assert_eq!((refusal.rule(), refusal.left()), (Rule::PerDay, Some(usd!("0"))));
    assert_eq!(failure(&result).retry_at(), Some(NOW - NOW % 86_400 + 86_400));
    assert_eq!((provider.charges(), stripe.seen().len()), (2, 2));

    now.store(NOW + 86_400, Ordering::SeqCst);
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(provider.charges(), 3);
}

#[tokio::test]
async fn a_smallest_top_up_above_the_limit_is_refused() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let result = client(&agent(policy().per_top_up(usd!("4.99")), &stripe))
        .get(server.url("/joke"))
        .send()
        .await;
    let PaymentError::Refused(Reason::Policy(refusal)) = failure(&result) else { panic!() };
    assert_eq!((refusal.rule(), refusal.asked()), (Rule::PerTopUp, Some(usd!("5"))));
    assert_eq!(stripe.seen().len(), 0);
}

#[tokio::test]
async fn every_definite_refusal_returns_the_hold() {
    let codes = [
        ErrorCode::CardDeclined,
        ErrorCode::AuthenticationRequired,
        ErrorCode::InvalidPayment,
        ErrorCode::TopUpBelowMinimum,
        ErrorCode::TopUpAboveMaximum,
        ErrorCode::PriceAboveMaximum,
        ErrorCode::LedgerUnavailable,
        ErrorCode::ProcessorUnavailable,
        ErrorCode::PriceUnavailable,
        ErrorCode::AccountFrozen,
        ErrorCode::RateLimited,
    ];
    for code in codes {
        let server = answering(move |_| refused(code)).await;
        let stripe = tokenizer().await;
        let agent = agent(policy(), &stripe);
        let http = client(&agent);
        for sent in 1..=3 {
            let result = http.get(server.url("/joke")).send().await;
            assert!(
                matches!(failure(&result), PaymentError::Declined(c) if *c == code),
                "{code:?}"
            );
            assert_eq!(held(&agent).await, usd!("0"), "{code:?}");
            assert_eq!(server.cards().len(), sent, "one payment per call");
        }
    }
}

#[tokio::test]
async fn an_agent_without_a_card_says_so_and_holds_nothing() {
    let (_, server) = honest(100).await;
    let agent = Agent::new(policy()).clock(|| NOW);
    let result = client(&agent).get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::NoCard));
    assert_eq!(held(&agent).await, usd!("0"));
}

#[tokio::test]
async fn a_tokenizer_that_fails_returns_the_hold() {
    let cases = [
        (402, r#"{"error":{"type":"card_error","code":"incorrect_number","message":"no"}}"#),
        (
            402,
            r#"{"error":{"type":"invalid_request_error","message":"This integration surface is unsupported for publishable key tokenization."}}"#,
        ),
        (401, r#"{"error":{"type":"invalid_request_error"}}"#),
        (500, "{}"),
        (200, "{}"),
    ];
    let mut failures = Vec::new();
    for (status, body) in cases {
        let (provider, server) = honest(100).await;
        let stripe = crate::support::Server::start(move |_: &crate::support::Seen| {
            crate::support::answer(http::StatusCode::from_u16(status).unwrap(), body)
        })
        .await;
        let agent = agent(policy(), &stripe);
        let result = client(&agent).get(server.url("/joke")).send().await;
        failures.push(failure(&result).to_string());
        assert_eq!((provider.charges(), held(&agent).await), (0, usd!("0")));
        assert!(!format!("{result:?}").contains(&CARD[..16]));
    }
    assert_eq!(failures[0], "Stripe refused the card (incorrect_number)");
    assert!(failures[1].contains("provider has not enabled"));
    assert!(failures[2].contains("publishable key"));
    assert!(failures[3].contains("did not answer"));
    assert_eq!(failures[3], failures[4]);
}

/// The same policy, with an origin whose word is not believed.
fn wary() -> Policy {
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
    policy.per_top_up(usd!("5")).per_day(usd!("10"))
}

#[tokio::test]
async fn a_denial_of_a_server_that_is_not_trusted_stays_counted_until_its_owner_takes_it_back() {
    let denials: [fn() -> axum::response::Response; 3] = [
        || refused(ErrorCode::CardDeclined),
        || refused(ErrorCode::RateLimited),
        // Served, allegedly without a charge.
        || served(StatusCode::OK, &told(None, Some(100), 49_900)),
    ];
    for denial in denials {
        let server = answering(move |_| denial()).await;
        let stripe = tokenizer().await;
        let agent = agent(wary(), &stripe);
        // As the card would be charged each time: a call of its own, and no credential.
        for _ in 0..4 {
            let http = client(&agent);
            let _ = http.get(server.url("/joke")).send().await;
            agent.forget(&server.url("")).await.unwrap();
        }
        assert_eq!((server.cards().len(), held(&agent).await), (2, usd!("10")));
    }
    let server = answering(|_| refused(ErrorCode::CardDeclined)).await;
    let stripe = tokenizer().await;
    let agent = agent(wary(), &stripe);
    let http = client(&agent);
    for _ in 0..4 {
        assert!(http.get(server.url("/joke")).send().await.is_err());
    }
    assert_eq!(agent.known().await.unwrap()[0].denied, 2);
    assert_eq!(agent.take_back(&server.url("")).await.unwrap(), 2);
    assert_eq!(
        (agent.take_back(&server.url("")).await.unwrap(), held(&agent).await),
        (0, usd!("0"))
    );
    assert!(http.get(server.url("/joke")).send().await.is_err());
    assert_eq!((server.cards().len(), held(&agent).await), (3, usd!("5")));
}
