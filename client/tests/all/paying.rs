use farebox_client::{MaxPrice, Receipt, usd};
use http::{Method, StatusCode};

use crate::support::{
    Seen, Server, agent, answer, asking, client, held, honest, policy, required, served, tokenizer,
    told,
};

#[tokio::test]
async fn the_first_call_costs_one_more_round_trip_and_later_ones_none() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    for _ in 0..3 {
        let response = http.get(server.url("/joke")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(server.seen().len(), 1 + 3);
    assert_eq!((provider.charges(), stripe.seen().len()), (1, 1));
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn what_is_paid_is_what_was_asked_for() {
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let (_, server) = honest(100).await;
        let stripe = tokenizer().await;
        let http = client(&agent(policy(), &stripe));
        let request = http.request(method.clone(), server.url("/joke?of=the+day"));
        let request = request.header("accept-language", "eo").header("authorization", "Bearer me");
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let seen = server.seen();
        let [unpaid, paid] = &seen[..] else { panic!("{} requests", seen.len()) };
        assert_eq!((unpaid.card(), paid.card().is_some()), (None, true));
        assert_eq!((&paid.method, &paid.path), (&method, &unpaid.path));
        for name in ["accept-language", "authorization"] {
            assert_eq!(paid.headers.get(name), unpaid.headers.get(name), "{name}");
            assert!(paid.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_receipt_says_what_was_charged_and_what_remains() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let first = http.get(server.url("/joke")).send().await.unwrap();
    let receipt = first.extensions().get::<Receipt>().unwrap();
    assert_eq!(receipt.charged, Some(usd!("0.01")));
    assert_eq!(receipt.remaining, usd!("4.99"));
    assert_eq!((receipt.top_up, receipt.charge_id.as_deref()), (Some(usd!("5")), Some("ch_1")));
    assert_eq!(first.text().await.unwrap(), "served");

    let second = http.get(server.url("/joke")).send().await.unwrap();
    let receipt = second.extensions().get::<Receipt>().unwrap();
    assert_eq!((receipt.remaining, receipt.top_up), (usd!("4.98"), None));
}

#[tokio::test]
async fn another_route_of_a_known_origin_is_paid_in_one_round_trip() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    http.get(server.url("/joke")).send().await.unwrap();
    let request = http.get(server.url("/other")).with_extension(MaxPrice(usd!("0.02")));
    request.send().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    // The price is not known, so the payment allows what the caller allows.
    assert_eq!(seen[2].payment.as_ref().unwrap().max_amount.unwrap().get(), 200);
    assert_eq!(seen[2].card(), None);
}

#[tokio::test]
async fn a_price_that_rose_is_paid_again_only_within_the_limits() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    http.get(server.url("/joke")).send().await.unwrap();
    provider.price.store(300, std::sync::atomic::Ordering::SeqCst);
    http.get(server.url("/joke")).send().await.unwrap();
    provider.price.store(501, std::sync::atomic::Ordering::SeqCst);
    let refused = http.get(server.url("/joke")).send().await;
    assert!(refused.is_err(), "above the limit per request");
    assert_eq!(provider.charges(), 1);
    assert_eq!(provider.balance.load(std::sync::atomic::Ordering::SeqCst), 50_000 - 100 - 300);
}

#[tokio::test]
async fn used_up_credit_is_topped_up_with_the_credential_beside_the_card() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap();
    provider.balance.store(0, std::sync::atomic::Ordering::SeqCst);
    http.get(server.url("/joke")).send().await.unwrap();
    let last = server.seen().last().unwrap().payment.clone().unwrap();
    assert!(last.client_id.is_some() && last.payment_method_id.is_some());
    assert_eq!((provider.charges(), held(&agent).await), (2, usd!("10")));
}

#[tokio::test]
async fn credit_that_a_card_already_has_returns_the_hold() {
    let (provider, server) = honest(100).await;
    provider.balance.store(40_000, std::sync::atomic::Ordering::SeqCst);
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let response = client(&agent).get(server.url("/joke")).send().await.unwrap();
    assert_eq!(response.extensions().get::<Receipt>().unwrap().top_up, None);
    assert_eq!((provider.charges(), held(&agent).await), (0, usd!("0")));
}

#[tokio::test]
async fn unsafe_methods_and_payments_by_card_carry_one_key_per_call() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    http.post(server.url("/write")).body("text").send().await.unwrap();
    http.post(server.url("/write")).body("text").send().await.unwrap();
    http.get(server.url("/joke")).send().await.unwrap();
    let request = http.post(server.url("/write")).header("Idempotency-Key", "mine");
    request.send().await.unwrap();
    let seen = server.seen();
    let keys: Vec<Option<&str>> = seen.iter().map(crate::support::Seen::key).collect();
    assert_eq!(keys[0].unwrap().len(), 32);
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    assert_eq!(keys[3], None, "a GET from credit");
    assert_eq!(keys[4], Some("mine"));
    assert!(seen[..3].iter().all(|seen| seen.body == "text"));
}

#[tokio::test]
async fn a_server_error_after_a_top_up_is_an_answer_and_leaves_credit() {
    let server = crate::support::answering(|_| {
        let told = crate::support::told(Some("ch_1"), Some(0), 50_000);
        crate::support::served(StatusCode::INTERNAL_SERVER_ERROR, &told)
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let response = client(&agent).get(server.url("/joke")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let receipt = response.extensions().get::<Receipt>().unwrap();
    assert_eq!((receipt.charged, receipt.top_up), (Some(usd!("0")), Some(usd!("5"))));
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn other_402_answers_reach_the_caller_whole() {
    let long = "x".repeat(200_000);
    let text = long.clone();
    let server = crate::support::Server::start(move |seen: &crate::support::Seen| {
        let body = if seen.path == "/long" { text.as_str() } else { r#"{"error":"pay"}"# };
        answer(StatusCode::PAYMENT_REQUIRED, body)
    })
    .await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let response = http.get(server.url("/short")).send().await.unwrap();
    assert_eq!(response.url().as_str(), server.url("/short"));
    assert_eq!(response.text().await.unwrap(), r#"{"error":"pay"}"#);
    let response = http.get(server.url("/long")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), long);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_offer_in_the_body_alone_is_paid() {
    let (provider, server) = honest(100).await;
    let bare = crate::support::Server::start(move |seen: &crate::support::Seen| {
        let mut response = provider.answer(seen);
        response.headers_mut().remove("payment-required");
        response
    })
    .await;
    drop(server);
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    assert_eq!(http.get(bare.url("/joke")).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_cheapest_offer_that_is_allowed_is_taken() {
    let server = Server::start(|seen: &Seen| {
        if seen.card().is_some() {
            return served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900));
        }
        let mut required = required(300);
        for price in [100, 200] {
            let mut offer = required.accepts[0].clone();
            offer.amount = farebox_protocol::Units::new(price).unwrap();
            required.accepts.push(offer);
        }
        asking(&required)
    })
    .await;
    let stripe = tokenizer().await;
    client(&agent(policy(), &stripe)).get(server.url("/joke")).send().await.unwrap();
    let paid = server.seen()[1].payment.clone().unwrap();
    assert_eq!(paid.max_amount, farebox_protocol::Units::new(100));
}
