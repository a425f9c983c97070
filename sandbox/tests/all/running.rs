//! Starting, stopping, seeds and counting.

use std::time::Duration;

use farebox_sandbox::{Sandbox, StartErrorKind};

use crate::support::Api;

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let error = Sandbox::builder().start(address.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::NotLoopback, "{address}");
    }
}

#[tokio::test]
async fn keys_that_are_no_test_keys_are_refused() {
    for key in ["sk_live_1", "sk_test_", "pk_test_1", "sk_test_a b", ""] {
        let builder = Sandbox::builder().secret_key(key);
        let error = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::InvalidKey, "{key}");
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_and_a_stopped_sandbox_frees_it() {
    let api = Api::start().await;
    let address = api.sandbox.url().strip_prefix("http://").unwrap().to_owned();
    let taken = Sandbox::builder().start(address.parse().unwrap()).await.unwrap_err();
    assert_eq!(taken.kind(), StartErrorKind::AddressUnavailable);
    api.get("/v1/account").await.ok();
    api.sandbox.stop().await;
    Sandbox::builder().start(address.parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_sandbox_stops_serving() {
    let api = Api::start().await;
    let url = format!("{}/v1/account", api.sandbox.url());
    drop(api.sandbox);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(api.http.get(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn stopping_answers_the_open_requests() {
    let api = Api::with(|builder| builder.latency(Duration::from_millis(200))).await;
    let request = api.http.get(format!("{}/v1/account", api.sandbox.url()));
    let open = tokio::spawn(request.bearer_auth(api.sandbox.secret_key()).send());
    while api.sandbox.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    api.sandbox.stop().await;
    assert_eq!(open.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn equal_seeds_give_equal_answers_and_no_seed_gives_new_ones() {
    let (a, b) = (Api::start().await, Api::start().await);
    let (paid, again) =
        (a.pay("pm_card_visa", "").await.ok(), b.pay("pm_card_visa", "").await.ok());
    assert_eq!(paid.text, again.text);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sandbox = Sandbox::builder().start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let api = Api { sandbox, clock: a.clock.clone(), http: a.http.clone() };
        ids.push(api.customer().await);
        assert_eq!(api.get("/v1/account").await.text, a.get("/v1/account").await.text);
        assert_eq!(api.sandbox.secret_key(), "sk_test_farebox_sandbox");
        assert_eq!(api.sandbox.publishable_key(), "pk_test_farebox_sandbox");
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn calls_are_counted_with_their_status() {
    let api = Api::start().await;
    api.get("/v1/payment_intents?limit=1").await.ok();
    api.post("/v1/customers", "x=1").await;
    let calls: Vec<_> =
        api.sandbox.calls().into_iter().map(|call| (call.method, call.path, call.status)).collect();
    let expected = [
        ("GET".to_owned(), "/v1/payment_intents".to_owned(), 200),
        ("POST".to_owned(), "/v1/customers".to_owned(), 400),
    ];
    assert_eq!(calls, expected);
}
