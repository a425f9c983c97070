//! What goes wrong on demand, what it leaves behind, and what a repeat gets.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use farebox_sandbox::{Fault, FaultKind};
use reqwest::Method;

use crate::support::{Answer, Api, PAYMENT};

const PAY: &str = "/v1/payment_intents";
const CARD: &str = "&confirm=true&payment_method=pm_card_visa";

/// One payment under the key `k`; an answer, or how there was none.
async fn pay(api: &Api) -> Result<Answer, reqwest::Error> {
    let answer = api
        .http
        .post(format!("{}{PAY}", api.sandbox.url()))
        .bearer_auth(api.sandbox.secret_key())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("idempotency-key", "k")
        .body(format!("{PAYMENT}{CARD}"))
        .send()
        .await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    Ok(Answer { status, headers, text: answer.text().await? })
}

async fn with(kind: FaultKind) -> Api {
    let api = Api::start().await;
    api.sandbox.inject(Fault::at("POST", PAY, kind));
    api
}

/// The next request under the key is the first one to run.
async fn runs_anew(api: &Api) {
    assert_eq!(api.sandbox.charges().len(), 0);
    let answer = pay(api).await.unwrap().ok();
    assert_eq!(answer.header("idempotent-replayed"), None);
    assert_eq!(api.sandbox.charges().len(), 1);
}

/// The next request under the key gets what the first one did.
async fn replays(api: &Api) {
    assert_eq!(api.sandbox.charges().len(), 1);
    let answer = pay(api).await.unwrap().ok();
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    assert_eq!(answer.text("id"), api.sandbox.charges()[0].id);
    assert_eq!(api.sandbox.charges().len(), 1);
}

fn statuses(api: &Api) -> Vec<u16> {
    api.sandbox.calls().iter().map(|call| call.status).collect()
}

#[tokio::test]
async fn latency_is_between_the_effect_and_the_answer() {
    let api = with(FaultKind::Latency { millis: 400 }).await;
    let started = Instant::now();
    let meanwhile = async {
        while api.sandbox.charges().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pay(&api).await.unwrap().is_error(409, "invalid_request_error", "idempotency_key_in_use");
    };
    let (slow, ()) = tokio::join!(pay(&api), meanwhile);
    assert!(started.elapsed() >= Duration::from_millis(400));
    slow.unwrap().ok();
    replays(&api).await;
    assert_eq!(statuses(&api), [200, 409, 200]);
}

#[tokio::test]
async fn what_is_refused_at_the_door_leaves_nothing() {
    for (kind, status, code) in [
        (FaultKind::RateLimited, 429, "rate_limit"),
        (FaultKind::Conflict, 409, "idempotency_key_in_use"),
        (FaultKind::Unauthorized, 401, "api_key_expired"),
    ] {
        let api = with(kind).await;
        pay(&api).await.unwrap().is_error(status, "invalid_request_error", code);
        runs_anew(&api).await;
        assert_eq!(statuses(&api), [status, 200]);
    }
}

#[tokio::test]
async fn a_key_that_was_answered_is_refused_at_the_door_all_the_same() {
    let api = Api::start().await;
    pay(&api).await.unwrap().ok();
    api.sandbox.inject(Fault::at("POST", PAY, FaultKind::RateLimited));
    pay(&api).await.unwrap().is_error(429, "invalid_request_error", "rate_limit");
    replays(&api).await;
}

#[tokio::test]
async fn a_server_error_is_saved_whether_the_charge_was_made_or_not() {
    for (ran, charges) in [(false, 0), (true, 1)] {
        let api = with(FaultKind::ServerError { ran }).await;
        let first = pay(&api).await.unwrap();
        first.is_error(500, "api_error", "");
        let again = pay(&api).await.unwrap();
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(api.sandbox.charges().len(), charges);
        let intents = api.get(PAY).await.ok();
        assert_eq!(intents.at("data").as_array().unwrap().len(), charges);
    }
}

#[tokio::test]
async fn a_decline_is_an_effect_that_a_server_error_hides() {
    let declined = format!("{PAYMENT}&confirm=true&payment_method=pm_card_chargeDeclined");
    let api = with(FaultKind::ServerError { ran: true }).await;
    for _ in 0..2 {
        api.post_keyed(PAY, &declined, "d").await.is_error(500, "api_error", "");
    }
    let intents = api.get(PAY).await.ok();
    assert_eq!(intents.at("data").as_array().unwrap().len(), 1);
    assert_eq!(intents.at("data.0.status"), "requires_payment_method");
}

#[tokio::test]
async fn a_server_error_replaces_no_answer_that_comes_without_running() {
    let api = Api::start().await;
    pay(&api).await.unwrap().ok();
    api.sandbox.inject(Fault::at("POST", PAY, FaultKind::ServerError { ran: false }).times(2));
    replays(&api).await;
    let unknown = api.post(PAY, &format!("{PAYMENT}&nonsense=1")).await;
    unknown.is_invalid("parameter_unknown", "nonsense");
    assert_eq!(api.sandbox.faults_hit(), 2);
}

#[tokio::test]
async fn a_reset_before_the_charge_leaves_nothing() {
    let api = with(FaultKind::ResetBefore).await;
    assert!(pay(&api).await.is_err());
    runs_anew(&api).await;
    assert_eq!(statuses(&api), [0, 200]);
}

#[tokio::test]
async fn a_reset_after_the_charge_leaves_the_answer_under_the_key() {
    let api = with(FaultKind::ResetAfter).await;
    assert!(pay(&api).await.is_err());
    replays(&api).await;
    assert_eq!(statuses(&api), [0, 200]);
}

#[tokio::test]
async fn a_reset_is_a_reset_and_no_byte_of_an_answer() {
    for kind in [FaultKind::ResetBefore, FaultKind::ResetAfter] {
        let api = with(kind).await;
        let address = api.sandbox.url().strip_prefix("http://").unwrap().to_owned();
        let head = format!(
            "POST {PAY} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nauthorization: Bearer {}\r\n\r\n",
            api.sandbox.secret_key()
        );
        let read = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer);
            (answer, end.map_err(|error| error.kind()))
        });
        let (answer, end) = read.await.unwrap();
        assert_eq!(answer, b"");
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn a_truncated_answer_is_complete_for_http_and_broken_for_json() {
    let api = with(FaultKind::Truncated).await;
    let half = pay(&api).await.unwrap().ok();
    assert!(serde_json::from_str::<serde_json::Value>(&half.text).is_err());
    assert_eq!(half.header("content-length"), Some(half.text.len().to_string().as_str()));
    let whole = pay(&api).await.unwrap().ok();
    assert!(whole.text.starts_with(&half.text));
    replays(&api).await;
}

#[tokio::test]
async fn a_bad_gateway_is_a_page_before_or_after_the_charge() {
    for ran in [false, true] {
        let api = with(FaultKind::BadGateway { ran }).await;
        let page = pay(&api).await.unwrap();
        assert_eq!(page.status, 502);
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
        assert!(page.text.starts_with("<html>"));
        assert_eq!(page.header("request-id"), None);
        if ran {
            replays(&api).await;
        } else {
            runs_anew(&api).await;
        }
        assert_eq!(statuses(&api)[..2], [502, 200]);
    }
}

#[tokio::test]
async fn a_stalled_answer_does_not_come_and_blocks_no_key() {
    for ran in [false, true] {
        let api = with(FaultKind::Stall { ran }).await;
        let stalled = pay(&api);
        let meanwhile = async {
            while api.sandbox.calls().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if ran { replays(&api).await } else { runs_anew(&api).await }
        };
        let patience = Duration::from_millis(300);
        let (stalled, ()) = tokio::join!(tokio::time::timeout(patience, stalled), meanwhile);
        assert!(stalled.is_err());
        assert_eq!(statuses(&api)[..2], [0, 200]);
    }
}

#[tokio::test]
async fn a_sandbox_with_a_stalled_request_stops_at_once() {
    let api = with(FaultKind::Stall { ran: true }).await;
    let request = api.http.post(format!("{}{PAY}", api.sandbox.url()));
    let stalled = tokio::spawn(request.bearer_auth(api.sandbox.secret_key()).send());
    while api.sandbox.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = tokio::time::timeout(Duration::from_secs(5), api.sandbox.stop());
    stopped.await.expect("stopping does not wait for a stalled request");
    assert!(stalled.await.unwrap().is_err());
}

#[tokio::test]
async fn a_fault_waits_for_its_request_and_is_then_spent() {
    let api = Api::start().await;
    let confirm = "/v1/payment_intents/*/confirm";
    api.sandbox.inject(Fault::at("POST", confirm, FaultKind::RateLimited).skip(1).times(2));
    let form = format!("{PAYMENT}&payment_method=pm_card_visa");
    let intent = api.post(PAY, &form).await.ok().text("id");
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = api.post(&format!("{PAY}/{intent}/confirm"), "x=1").await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [400, 429, 429, 400]);
    assert_eq!(api.sandbox.faults_hit(), 2);
}

#[tokio::test]
async fn cleared_faults_do_not_happen() {
    let api = with(FaultKind::Unauthorized).await;
    api.sandbox.inject(Fault::at("GET", "/v1/account", FaultKind::ResetBefore));
    api.sandbox.clear_faults();
    runs_anew(&api).await;
    api.request(Method::GET, "/v1/account").secret().send().await.ok();
    assert_eq!(api.sandbox.faults_hit(), 0);
}
