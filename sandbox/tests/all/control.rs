//! The sandbox's own routes.

use farebox_sandbox::{Fault, FaultKind, Sandbox};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Api, NOW};
use crate::webhooks::Endpoint;

async fn call(api: &Api, method: Method, path: &str, body: &str) -> Answer {
    let request = api.http.request(method, format!("{}/sandbox{path}", api.sandbox.url()));
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}

async fn get(api: &Api, path: &str) -> Answer {
    call(api, Method::GET, path, "").await.ok()
}

#[tokio::test]
async fn faults_are_injected_listed_and_forgotten() {
    let api = Api::start().await;
    let fault =
        r#"{"method":"GET","path":"/v1/account","kind":"server_error","ran":false,"times":2}"#;
    let listed = json!({"method": "GET", "path": "/v1/account", "kind": "server_error",
        "ran": false, "skip": 0, "times": 2});
    let answer = call(&api, Method::POST, "/faults", fault).await.ok();
    assert_eq!(answer.json(), json!({"waiting": [listed], "hit": 0}));
    api.get("/v1/account").await.is_error(500, "api_error", "");
    let answer = get(&api, "/faults").await;
    assert_eq!((answer.at("waiting.0.times"), answer.at("hit")), (1.into(), 1.into()));
    let answer = call(&api, Method::DELETE, "/faults", "").await.ok();
    assert_eq!(answer.json(), json!({"waiting": [], "hit": 1}));
    api.get("/v1/account").await.ok();
}

#[tokio::test]
async fn calls_are_those_of_the_api() {
    let api = Api::start().await;
    api.sandbox.inject(Fault::at("GET", "/v1/account", FaultKind::BadGateway { ran: true }));
    api.get("/v1/account?a=b").await;
    get(&api, "").await;
    let expected = json!({"data": [{"method": "GET", "path": "/v1/account", "status": 502}]});
    assert_eq!(get(&api, "/calls").await.json(), expected);
}

#[tokio::test]
async fn events_are_listed_and_sent_by_hand() {
    let (api, endpoint) = (Api::start().await, Endpoint::start(&[500]).await);
    api.pay("pm_card_visa", "").await.ok();
    let events = get(&api, "/events").await;
    assert_eq!(events.at("data").as_array().unwrap().len(), 3);
    let last = events.text("data.2.id");
    let deliver = format!("/events/{last}/deliver");
    let early = call(&api, Method::POST, &deliver, "").await;
    assert_eq!(early.status, 409);
    assert!(early.text("error").contains("PUT /sandbox/webhook"));
    let webhook = json!({"url": endpoint.url, "manual": true});
    let set = call(&api, Method::PUT, "/webhook", &webhook.to_string()).await.ok();
    assert_eq!(set.at("secrets"), json!([api.sandbox.webhook_secret()]));
    assert_eq!((set.at("url"), set.at("delivery.manual")), (json!(endpoint.url), json!(true)));
    call(&api, Method::POST, &deliver, "").await.ok();
    assert_eq!(endpoint.kinds(1).await, [events.text("data.2.type")]);
    endpoint.kinds(2).await;
    let expected = json!({"data": [
        {"event": last, "status": 500, "attempt": 1}, {"event": last, "status": 200, "attempt": 2},
    ]});
    assert_eq!(get(&api, "/deliveries").await.json(), expected);
    assert_eq!(call(&api, Method::POST, "/events/evt_none/deliver", "").await.status, 404);
    call(&api, Method::PUT, "/webhook", r#"{"url":null}"#).await.ok();
    assert_eq!(call(&api, Method::POST, &deliver, "").await.status, 409);
}

#[tokio::test]
async fn the_switches_of_a_webhook_are_those_of_a_delivery() {
    let (api, endpoint) = (Api::start().await, Endpoint::start(&[]).await);
    let body = json!({"url": endpoint.url, "secrets": ["whsec_a", "whsec_b"], "duplicate": true,
        "reorder": true, "delay_millis": 1, "drop": 0, "manual": false});
    let set = call(&api, Method::PUT, "/webhook", &body.to_string()).await.ok();
    for name in ["duplicate", "reorder", "delay_millis", "drop", "manual"] {
        assert_eq!(set.at(&format!("delivery.{name}")), body[name]);
    }
    api.pay("pm_card_visa", "").await.ok();
    endpoint.kinds(6).await;
    assert_eq!(api.sandbox.webhook_secret(), "whsec_a");
}

#[tokio::test]
async fn the_clock_moves_forward_a_test_s_and_the_machine_s() {
    let api = Api::start().await;
    let moved = call(&api, Method::POST, "/clock", r#"{"advance_seconds":86400}"#).await.ok();
    assert_eq!((moved.at("now"), api.clock.now()), (json!(NOW + 86_400), NOW + 86_400));
    api.sandbox.advance(std::time::Duration::from_secs(1));
    assert_eq!((api.sandbox.now(), api.clock.now()), (NOW + 86_401, NOW + 86_401));
    let sandbox = Sandbox::builder().start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let real = Api { sandbox, clock: api.clock.clone(), http: api.http.clone() };
    let before = real.sandbox.now();
    real.post_keyed("/v1/customers", "name=a", "k").await.ok();
    let moved = call(&real, Method::POST, "/clock", r#"{"advance_seconds":86400}"#).await.ok();
    let now = moved.at("now").as_i64().unwrap();
    assert!((86_400..86_420).contains(&(now - before)), "{now} {before}");
    let anew = real.post_keyed("/v1/customers", "name=a", "k").await.ok();
    assert_eq!(anew.header("idempotent-replayed"), None);
    assert!(anew.at("created").as_i64().unwrap() >= now);
}

#[tokio::test]
async fn rates_are_set_and_taken_back() {
    let api = Api::start().await;
    let rates = r#"{"per_endpoint_per_second":1,"per_account_per_second":9}"#;
    call(&api, Method::PUT, "/rate_limit", rates).await.ok();
    api.get("/v1/account").await.ok();
    assert_eq!(api.get("/v1/account").await.status, 429);
    call(&api, Method::PUT, "/rate_limit", "null").await.ok();
    api.get("/v1/account").await.ok();
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing_and_says_why() {
    let api = Api::start().await;
    let huge = format!(r#"{{"advance_seconds":{}1}}"#, " ".repeat(70_000));
    let far = r#"{"advance_seconds":99999999999}"#;
    for (method, path, body, status, words) in [
        (Method::POST, "/faults", "", 400, "EOF"),
        (Method::POST, "/faults", "{}", 400, "missing field `method`"),
        (
            Method::POST,
            "/faults",
            r#"{"method":"GET","path":"/v1/account","kind":"conflict","ran":true}"#,
            400,
            "has no `ran`",
        ),
        (Method::PUT, "/webhook", r#"{"url":null,"urls":1}"#, 400, "unknown field `urls`"),
        (Method::PUT, "/webhook", r#"{"url":"http://example.com/"}"#, 400, "on this machine"),
        (Method::PUT, "/rate_limit", r#"{"per_endpoint_per_second":-1}"#, 400, "expected u32"),
        (Method::POST, "/clock", r#"{"advance_seconds":-1}"#, 400, "expected u64"),
        (Method::POST, "/clock", r#"{"advance_seconds":1,"x":1}"#, 400, "unknown field `x`"),
        (Method::POST, "/clock", far, 400, "a hundred years"),
        (Method::POST, "/clock", &huge, 413, "65536 bytes"),
        (Method::DELETE, "/clock", "", 404, "GET /sandbox lists"),
        (Method::GET, "/nothing", "", 404, "GET /sandbox lists"),
    ] {
        let answer = call(&api, method, path, body).await;
        assert_eq!(answer.status, status, "{path} {}", answer.text);
        assert!(answer.text("error").contains(words), "{}", answer.text);
    }
    assert_eq!(api.sandbox.now(), NOW);
    assert_eq!(get(&api, "/faults").await.json(), json!({"waiting": [], "hit": 0}));
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_kept_out() {
    let api = Api::start().await;
    let url = format!("{}/sandbox/calls", api.sandbox.url());
    for (header, value, status) in [
        ("host", "sandbox.example.com", 403),
        ("host", "127.0.0.1.example.com:4021", 403),
        ("host", "192.0.2.1", 403),
        ("origin", "http://127.0.0.1:4021", 403),
        ("origin", "null", 403),
        ("host", "localhost:4021", 200),
        ("host", "[::1]:4021", 200),
    ] {
        let answer = api.http.get(&url).header(header, value).send().await.unwrap();
        assert_eq!(answer.status(), status, "{header}: {value}");
    }
}

#[tokio::test]
async fn every_request_that_the_help_names_is_there() {
    let api = Api::start().await;
    let help = get(&api, "").await;
    let requests = help.at("requests");
    assert!(requests.as_array().unwrap().len() > 10);
    for request in requests.as_array().unwrap() {
        let (method, path) = request["request"].as_str().unwrap().split_once(' ').unwrap();
        let path = path.strip_prefix("/sandbox").unwrap();
        let answer = call(&api, method.parse().unwrap(), path, "").await;
        assert!(!answer.text.contains("GET /sandbox lists"), "{method} {path}: {}", answer.text);
        if path.contains("{id}") || path.ends_with("disputes") || path.ends_with("warnings") {
            assert_eq!(answer.status.as_u16() / 100, 4, "it wants an object that is there");
            continue;
        }
        if let Some((_, body)) = request["does"].as_str().unwrap().split_once(": ") {
            let body = body.split(';').next().unwrap();
            call(&api, method.parse().unwrap(), path, body).await.ok();
        }
    }
}
