use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farebox_client::{PaymentError, Reason, usd};
use farebox_protocol::{Currency, ErrorCode, Units};
use http::{Extensions, StatusCode};

use crate::support::{
    PK, Seen, Server, agent, answering, asking, client, failure, held, honest, offer, offer_of,
    policy, required, served, tokenizer, told,
};

#[tokio::test]
async fn a_server_that_answers_402_forever_is_paid_once() {
    for error in [None, Some(ErrorCode::InsufficientCredits), Some(ErrorCode::PaymentRequired)] {
        let server = Server::start(move |_: &Seen| offer(100, error)).await;
        let stripe = tokenizer().await;
        let agent = agent(policy(), &stripe);
        let http = client(&agent);
        let result = http.get(server.url("/joke")).send().await;
        assert!(matches!(failure(&result), PaymentError::PaidButRefused), "{error:?}");
        assert_eq!((server.cards().len(), stripe.seen().len()), (1, 1));
        assert_eq!(held(&agent).await, usd!("5"));

        // Nor is it paid by the next calls, until the owner has written the payment off.
        for _ in 0..3 {
            let result = http.get(server.url("/joke")).send().await;
            assert!(matches!(failure(&result), PaymentError::PaidButRefused));
        }
        assert_eq!((server.cards().len(), stripe.seen().len()), (1, 1));
        assert_eq!(agent.write_off(&server.url("/")).await.unwrap(), Some(usd!("5")));
        assert_eq!(held(&agent).await, usd!("5"), "it counts as spent");
        let result = http.get(server.url("/joke")).send().await;
        assert!(matches!(failure(&result), PaymentError::PaidButRefused));
        assert_eq!((server.cards().len(), held(&agent).await), (2, usd!("10")));
    }
}

/// What an outer layer does: the same request and extensions at every attempt.
async fn retrying(
    http: &crate::support::Http,
    url: &str,
    attempts: usize,
) -> Result<reqwest::Response, reqwest_middleware::Error> {
    let mut extensions = Extensions::new();
    let request = http.get(url).build().unwrap();
    for _ in 1..attempts {
        let request = request.try_clone().unwrap();
        let result = http.execute_with_extensions(request, &mut extensions).await;
        if result.as_ref().is_ok_and(|response| response.status().is_success()) {
            return result;
        }
    }
    http.execute_with_extensions(request, &mut extensions).await
}

#[tokio::test]
async fn an_outer_retry_does_not_pay_twice_for_one_call() {
    let stripe = tokenizer().await;
    let declines = |seen: &Seen| match seen.card() {
        Some(_) => crate::support::refused(ErrorCode::CardDeclined),
        None => offer(100, None),
    };
    let hostile = Server::start(|_: &Seen| offer(100, None)).await;
    let declining = Server::start(declines).await;
    for server in [hostile, declining] {
        let agent = agent(policy(), &stripe);
        assert!(retrying(&client(&agent), &server.url("/joke"), 5).await.is_err());
        assert_eq!(server.cards().len(), 1);
    }
    // A payment of unknown outcome is not repeated at a server that may charge it twice.
    let broken = answering(|_| crate::support::answer(StatusCode::BAD_GATEWAY, "")).await;
    let agent = agent(policy(), &stripe);
    let result = retrying(&client(&agent), &broken.url("/joke"), 5).await;
    assert!(matches!(failure(&result), PaymentError::Unknown));
    assert_eq!((broken.cards().len(), held(&agent).await), (1, usd!("5")));
}

#[tokio::test]
async fn an_outer_retry_after_a_server_error_spends_the_credit() {
    let stripe = tokenizer().await;
    let failures = Arc::new(AtomicUsize::new(1));
    let server = Server::start(move |seen: &Seen| match &seen.payment {
        None => offer(100, None),
        Some(payment) if payment.payment_method_id.is_some() => {
            served(StatusCode::INTERNAL_SERVER_ERROR, &told(Some("ch_1"), Some(0), 50_000))
        }
        Some(_) if failures.fetch_sub(1, Ordering::SeqCst) == 1 => {
            served(StatusCode::OK, &told(None, Some(100), 49_900))
        }
        Some(_) => offer(100, None),
    })
    .await;
    let agent = agent(policy(), &stripe);
    let response = retrying(&client(&agent), &server.url("/joke"), 3).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.cards().len(), 1);
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let (_, first) = honest(100).await;
    let (_, second) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    http.get(first.url("/joke")).send().await.unwrap();
    http.get(second.url("/joke")).send().await.unwrap();
    let seen = second.seen();
    assert!(seen[0].payment.is_none());
    assert_eq!(seen[1].payment.as_ref().unwrap().client_id, None);
}

#[tokio::test]
async fn a_changed_publishable_key_is_refused() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |seen: &Seen| {
        if seen.card().is_some() {
            return served(StatusCode::OK, &told(Some("ch_1"), Some(100), 0));
        }
        let mut required = required(100);
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            offer_of(&mut required).publishable_key = format!("{PK}_other");
        }
        asking(&required)
    })
    .await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    http.get(server.url("/joke")).send().await.unwrap();
    let result = http.get(server.url("/joke")).send().await;
    let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
    assert_eq!(*reason, Reason::PublishableKeyChanged);
    assert_eq!(stripe.seen().len(), 1);
}

#[tokio::test]
async fn malformed_offers_cost_nothing() {
    for key in ["sk_test_1", "pk_test_", "pk_live_a/../b", "pk_test_a b", "pk_prod_1"] {
        let server = Server::start(move |_: &Seen| {
            let mut required = required(100);
            key.clone_into(&mut offer_of(&mut required).publishable_key);
            asking(&required)
        })
        .await;
        let stripe = tokenizer().await;
        let agent = agent(policy(), &stripe);
        let result = client(&agent).get(server.url("/joke")).send().await;
        let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
        assert_eq!((reason, stripe.seen().len()), (&Reason::PublishableKey, 0));
        assert_eq!(held(&agent).await, usd!("0"));
    }
    let server = Server::start(|_: &Seen| {
        let mut required = required(100);
        offer_of(&mut required).max_top_up = Units::new(40_000);
        asking(&required)
    })
    .await;
    let stripe = tokenizer().await;
    let result = client(&agent(policy(), &stripe)).get(server.url("/joke")).send().await;
    let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
    assert!(matches!(reason, Reason::TopUpBounds { .. }));
    assert_eq!(stripe.seen().len(), 0);
}

#[tokio::test]
async fn the_first_offer_that_the_policy_allows_is_taken() {
    let server = Server::start(|seen: &Seen| {
        if seen.card().is_some() {
            return served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900));
        }
        let mut required = required(100);
        let allowed = offer_of(&mut required).clone();
        let mut euros = allowed.clone();
        euros.currency = "eur".parse().unwrap();
        let mut dear = allowed.clone();
        dear.amount = Units::new(10_000).unwrap();
        required.accepts = vec![euros, dear, allowed];
        asking(&required)
    })
    .await;
    let stripe = tokenizer().await;
    client(&agent(policy(), &stripe)).get(server.url("/joke")).send().await.unwrap();
    let paid = server.seen()[1].payment.clone().unwrap();
    assert_eq!((paid.currency, paid.max_amount), (Some(Currency::USD), Units::new(100)));
}

#[tokio::test]
async fn insufficient_credits_forever_ends_at_the_budget() {
    // Takes every top-up and never admits that there is credit.
    let server = Server::start(|seen: &Seen| match seen.card() {
        Some(_) => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 0)),
        None => offer(100, Some(ErrorCode::InsufficientCredits)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    for _ in 0..10 {
        let _ = http.get(server.url("/joke")).send().await;
    }
    assert_eq!((server.cards().len(), held(&agent).await), (2, usd!("10")));
}

#[tokio::test]
async fn plain_http_is_paid_on_loopback_only() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy().allow("shop.example"), &stripe);
    let url = reqwest::Url::parse(&server.url("/joke")).unwrap();
    let port = url.port().unwrap();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .resolve("shop.example", std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let http = agent.client(builder).unwrap().build();
    let result = http.get(format!("http://shop.example:{port}/joke")).send().await;
    let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
    assert_eq!((reason, provider.charges()), (&Reason::Insecure, 0));
    assert_eq!(stripe.seen().len(), 0);
}

/// Sends everything that fails a second time, whatever it is.
struct Again;

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Again {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let again = request.try_clone().unwrap();
        let first = next.clone().run(request, extensions).await?;
        if first.status().is_success() { Ok(first) } else { next.run(again, extensions).await }
    }
}

#[tokio::test]
async fn a_retry_inside_of_the_payment_repeats_it_under_the_same_key() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 => crate::support::answer(StatusCode::BAD_GATEWAY, ""),
        _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = agent.client(reqwest::Client::builder().no_proxy()).unwrap().with(Again).build();
    http.get(server.url("/joke")).send().await.unwrap();
    let seen = server.seen();
    let paid: Vec<&Seen> = seen.iter().filter(|seen| seen.card().is_some()).collect();
    assert_eq!(paid.len(), 2);
    assert_eq!((paid[0].card(), paid[0].key()), (paid[1].card(), paid[1].key()));
}
