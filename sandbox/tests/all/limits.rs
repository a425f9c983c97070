//! Rate limits, counted on the sandbox's clock.

use farebox_sandbox::{Fault, FaultKind};

use crate::support::Api;

const PAY: &str = "/v1/payment_intents";

#[tokio::test]
async fn an_endpoint_lets_in_so_many_requests_a_second() {
    let api = Api::with(|builder| builder.rate_limit(2, 100)).await;
    for id in ["pi_1", "pi_2"] {
        api.get(&format!("{PAY}/{id}")).await.is_error(
            404,
            "invalid_request_error",
            "resource_missing",
        );
    }
    let refused = api.get(&format!("{PAY}/pi_3")).await;
    refused.is_error(429, "invalid_request_error", "rate_limit");
    assert_eq!(refused.header("stripe-rate-limited-reason"), Some("endpoint-rate"));
    assert_eq!(refused.header("stripe-should-retry"), Some("true"));
    api.get(PAY).await.ok();
    api.advance(1);
    assert_eq!(api.get(&format!("{PAY}/pi_3")).await.status, 404);
}

#[tokio::test]
async fn an_account_lets_in_so_many_requests_a_second() {
    let api = Api::with(|builder| builder.rate_limit(100, 2)).await;
    api.get(PAY).await.ok();
    api.get("/v1/customers").await.ok();
    let refused = api.get("/v1/account").await;
    refused.is_error(429, "invalid_request_error", "rate_limit");
    assert_eq!(refused.header("stripe-rate-limited-reason"), Some("global-rate"));
    api.advance(1);
    api.get("/v1/account").await.ok();
    assert_eq!(api.sandbox.calls().iter().filter(|call| call.status == 429).count(), 1);
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_under_its_key_and_meets_no_fault() {
    let api = Api::with(|builder| builder.rate_limit(1, 100)).await;
    api.post("/v1/customers", "").await.ok();
    api.sandbox.inject(Fault::at("POST", "/v1/customers", FaultKind::Conflict));
    let post = || api.post_keyed("/v1/customers", "name=a", "k");
    post().await.is_error(429, "invalid_request_error", "rate_limit");
    api.advance(1);
    post().await.is_error(409, "invalid_request_error", "idempotency_key_in_use");
    api.advance(1);
    let ran = post().await.ok();
    assert_eq!(ran.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn by_default_there_is_no_limit() {
    let api = Api::start().await;
    for _ in 0..150 {
        assert_eq!(api.get("/v1/account").await.ok().header("stripe-rate-limited-reason"), None);
    }
}
