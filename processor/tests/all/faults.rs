//! Charges against a server that fails on cue.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farebox_processor::{Charge, Rejection, Stripe, Unknown};
use farebox_protocol::{Currency, usd};
use serde_json::json;
use tracing_subscriber::util::SubscriberInitExt;

use crate::script::{
    PUBLISHABLE, Reply, SECRET, Script, call, error, html, intent, key, reply, top_up_id,
};

const BUDGET: Duration = Duration::from_secs(5);
/// Enough for one attempt and its failure, too short for a second attempt.
const ONE_ATTEMPT: Duration = Duration::from_millis(1100);

fn charged() -> Charge {
    Charge::Charged {
        intent: "pi_1".to_owned(),
        received: usd!("5").micros(),
        currency: Currency::USD,
    }
}

fn succeeded() -> Reply {
    reply(200, &intent("succeeded"))
}

async fn charge(script: &Script, budget: Duration) -> Charge {
    let stripe = script.stripe();
    stripe.charge(&call(&stripe), &key(), budget).await
}

/// Plays one failure and then a success, and demands that the second attempt is the first one.
async fn is_repeated(failure: Reply) {
    let shown = format!("{failure:?}");
    let script = Script::play([failure, succeeded()]).await;
    assert_eq!(charge(&script, BUDGET).await, charged(), "{shown}");
    assert_eq!(script.identical_attempts(), 2, "{shown}");
}

#[tokio::test]
async fn a_charge_is_one_request_with_key_version_and_form() {
    let script = Script::play([succeeded()]).await;
    assert_eq!(charge(&script, BUDGET).await, charged());
    let [seen] = script.seen().try_into().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/payment_intents"));
    assert_eq!(seen.header("idempotency-key"), top_up_id().to_string());
    assert_eq!(seen.header("stripe-version"), "2026-09-30.endive");
    assert_eq!(seen.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(seen.fields()["amount"], "500");
}

#[tokio::test]
async fn a_stored_call_is_sent_with_the_bytes_and_the_version_it_was_stored_with() {
    let script = Script::play([succeeded()]).await;
    let stored = r#"{"path":"/payment_intents","body":"b=2&a=1","version":"2025-01-01.old"}"#;
    let call = serde_json::from_str(stored).unwrap();
    assert_eq!(script.stripe().repeat(&call, &key(), BUDGET).await, charged());
    let [seen] = script.seen().try_into().unwrap();
    assert_eq!(seen.body, "b=2&a=1");
    assert_eq!(seen.header("stripe-version"), "2025-01-01.old");
}

#[tokio::test]
async fn a_reset_after_commit_is_repeated_with_the_same_key() {
    is_repeated(Reply::Reset).await;
}

#[tokio::test]
async fn an_answer_cut_in_half_is_repeated_with_the_same_key() {
    is_repeated(Reply::Truncated).await;
}

#[tokio::test]
async fn a_server_error_is_repeated_with_the_same_key() {
    is_repeated(error(500, &json!({"type": "api_error"}))).await;
}

#[tokio::test]
async fn a_failed_dependency_is_repeated_with_the_same_key() {
    is_repeated(error(424, &json!({"type": "invalid_request_error"}))).await;
}

#[tokio::test]
async fn a_proxys_error_page_is_repeated_with_the_same_key() {
    is_repeated(html(502)).await;
    is_repeated(html(200)).await;
}

#[tokio::test]
async fn a_key_in_use_is_repeated_until_it_is_free() {
    is_repeated(error(
        409,
        &json!({"type": "idempotency_error", "code": "idempotency_key_in_use"}),
    ))
    .await;
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    is_repeated(error(429, &json!({"type": "invalid_request_error", "code": "rate_limit"}))).await;
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    is_repeated(Reply::Answer {
        status: 200,
        headers: vec![],
        body: format!("{{\"x\":\"{}\"}}", "x".repeat(16 * 1024 * 1024)),
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Script::play([succeeded()]).await;
    let location: &'static str = Box::leak(elsewhere.url.clone().into_boxed_str());
    is_repeated(html(307).with("location", location)).await;
    assert_eq!(elsewhere.seen(), []);
}

#[tokio::test]
async fn a_silent_server_leaves_the_outcome_unknown_when_the_budget_is_spent() {
    let script = Script::play([Reply::Silence]).await;
    let start = Instant::now();
    let outcome = charge(&script, Duration::from_millis(600)).await;
    assert_eq!(outcome, Charge::Unknown(Unknown::Repeat));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(script.identical_attempts(), 1);
}

#[tokio::test]
async fn a_budget_bounds_a_server_that_only_fails() {
    let script = Script::play(std::iter::repeat_n(html(502), 50)).await;
    let start = Instant::now();
    let outcome = charge(&script, Duration::from_secs(3)).await;
    assert_eq!(outcome, Charge::Unknown(Unknown::Repeat));
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!((2..8).contains(&script.identical_attempts()));
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let script = Script::play([Reply::ResetAndLeave]).await;
    // Use the server up, so that nobody listens.
    assert_eq!(charge(&script, ONE_ATTEMPT).await, Charge::Unknown(Unknown::Repeat));
    assert_eq!(charge(&script, Duration::from_millis(800)).await, Charge::NotSent);
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_refused_connection_after_a_reset_stays_unknown() {
    let script = Script::play([Reply::ResetAndLeave]).await;
    let outcome = charge(&script, Duration::from_secs(2)).await;
    assert_eq!(outcome, Charge::Unknown(Unknown::Repeat));
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_repetition_that_is_not_sent_stays_unknown() {
    let script = Script::play([Reply::ResetAndLeave]).await;
    assert_eq!(charge(&script, ONE_ATTEMPT).await, Charge::Unknown(Unknown::Repeat));
    let stripe = script.stripe();
    let outcome = stripe.repeat(&call(&stripe), &key(), ONE_ATTEMPT).await;
    assert_eq!(outcome, Charge::Unknown(Unknown::Repeat));
}

#[tokio::test]
async fn no_budget_sends_nothing() {
    let script = Script::play([succeeded()]).await;
    assert_eq!(charge(&script, Duration::ZERO).await, Charge::NotSent);
    assert_eq!(script.seen(), []);
}

#[tokio::test]
async fn rate_limits_alone_are_not_sent() {
    let limit = error(429, &json!({"type": "invalid_request_error"}));
    let script = Script::play(std::iter::repeat_n(limit, 20)).await;
    assert_eq!(charge(&script, Duration::from_secs(3)).await, Charge::NotSent);
    assert!(script.identical_attempts() >= 2);
}

#[tokio::test]
async fn a_rate_limit_after_a_reset_stays_unknown() {
    let limit =
        error(429, &json!({"type": "invalid_request_error"})).with("stripe-should-retry", "false");
    let script = Script::play([Reply::Reset, limit]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::Repeat));
    assert_eq!(script.identical_attempts(), 2);
}

#[tokio::test]
async fn a_refused_key_is_the_operators_business() {
    for status in [401, 403] {
        let refused = error(status, &json!({"type": "invalid_request_error"}));
        let script = Script::play([refused.clone()]).await;
        assert_eq!(charge(&script, BUDGET).await, Charge::Rejected(Rejection::Operator));
        assert_eq!(script.identical_attempts(), 1);

        let script = Script::play([Reply::Reset, refused]).await;
        assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::Repeat));
        assert_eq!(script.identical_attempts(), 2);
    }
}

#[tokio::test]
async fn a_replayed_crash_is_not_repeated_for_ever() {
    let crash = error(500, &json!({"type": "api_error"}));
    let replay = crash.clone().with("idempotent-replayed", "true");
    let script = Script::play([crash, replay]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::LookUp));
    assert_eq!(script.identical_attempts(), 2);
}

#[tokio::test]
async fn a_replayed_success_is_a_success() {
    let replay = succeeded().with("idempotent-replayed", "true");
    let script = Script::play([Reply::Reset, replay]).await;
    assert_eq!(charge(&script, BUDGET).await, charged());
}

#[tokio::test]
async fn stripe_may_forbid_the_retry() {
    let never = error(500, &json!({"type": "api_error"})).with("stripe-should-retry", "false");
    let script = Script::play([never]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::Repeat));
    assert_eq!(script.identical_attempts(), 1);
}

#[tokio::test]
async fn a_decline_is_final_at_once() {
    let script =
        Script::play([error(402, &json!({"type": "card_error", "code": "card_declined"}))]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Declined);
    assert_eq!(script.identical_attempts(), 1);
}

#[tokio::test]
async fn an_intent_that_waits_for_a_human_is_cancelled_and_read_again() {
    let script = Script::play([
        reply(200, &intent("requires_action")),
        reply(200, &intent("canceled")),
        reply(200, &intent("canceled")),
    ])
    .await;
    assert_eq!(charge(&script, BUDGET).await, Charge::AuthenticationRequired);
    let seen = script.seen();
    let targets: Vec<_> = seen.iter().map(|s| (s.method.as_str(), s.target.as_str())).collect();
    assert_eq!(
        targets,
        [
            ("POST", "/v1/payment_intents"),
            ("POST", "/v1/payment_intents/pi_1/cancel"),
            ("GET", "/v1/payment_intents/pi_1"),
        ]
    );
    assert!(seen[1].header("idempotency-key").starts_with("cancel_pi_1_"));
}

#[tokio::test]
async fn a_cancellation_that_crashed_is_sent_under_another_key() {
    let waits = || reply(200, &intent("requires_action"));
    let crashed = error(500, &json!({"type": "api_error"})).with("idempotent-replayed", "true");
    let gone = || reply(200, &intent("canceled"));
    let script = Script::play([waits(), crashed, waits(), waits(), gone(), gone()]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::Repeat));
    assert_eq!(charge(&script, BUDGET).await, Charge::AuthenticationRequired);
    let seen = script.seen();
    let (first, second) = (&seen[1], &seen[4]);
    assert!(first.target.ends_with("/cancel") && second.target == first.target);
    assert_ne!(first.header("idempotency-key"), second.header("idempotency-key"));
}

#[tokio::test]
async fn an_intent_that_was_found_waiting_is_cancelled() {
    let waits = reply(200, &intent("requires_action"));
    let gone = || reply(200, &intent("canceled"));
    let script = Script::play([waits, gone(), gone()]).await;
    let ended = script.stripe().end_intent("pi_1", BUDGET).await;
    assert_eq!(ended, Charge::AuthenticationRequired);
    assert!(script.seen()[1].target.ends_with("/pi_1/cancel"));
}

#[tokio::test]
async fn an_intent_that_succeeded_before_it_could_be_cancelled_is_a_charge() {
    let late = error(
        400,
        &json!({"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}),
    );
    let script = Script::play([reply(200, &intent("requires_action")), late, succeeded()]).await;
    assert_eq!(charge(&script, BUDGET).await, charged());
}

#[tokio::test]
async fn an_intent_that_could_not_be_cancelled_stays_unknown() {
    let waits = || reply(200, &intent("requires_action"));
    let refused = error(400, &json!({"type": "invalid_request_error"}));
    let script = Script::play([waits(), refused, waits()]).await;
    assert_eq!(charge(&script, BUDGET).await, Charge::Unknown(Unknown::Repeat));
}

#[tokio::test]
async fn an_intent_in_processing_is_read_again() {
    let processing = || reply(200, &intent("processing"));
    for (later, outcome) in [
        (succeeded(), charged()),
        (reply(200, &intent("requires_payment_method")), Charge::Declined),
        (processing(), Charge::Unknown(Unknown::Repeat)),
    ] {
        let script = Script::play([processing(), later]).await;
        assert_eq!(charge(&script, BUDGET).await, outcome);
        assert_eq!(script.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_call_that_http_cannot_carry_is_not_sent() {
    let script = Script::play([succeeded()]).await;
    let stripe = script.stripe();
    for stored in [
        r#"{"path":"/payment_intents","body":"","version":"a\nb"}"#,
        r#"{"path":"/../../else","body":"","version":"v"}"#,
    ] {
        let call = serde_json::from_str(stored).unwrap();
        let first = stripe.charge(&call, &key(), BUDGET).await;
        assert_eq!(first, Charge::Rejected(Rejection::Operator));
        let again = stripe.repeat(&call, &key(), BUDGET).await;
        assert_eq!(again, Charge::Unknown(Unknown::Repeat));
    }
    assert_eq!(script.seen(), []);
}

#[tokio::test]
async fn a_path_prefix_is_kept() {
    let script = Script::play([succeeded()]).await;
    let stripe = script.stripe().base_url(&format!("{}/stand/in/", script.url)).unwrap();
    assert_eq!(stripe.charge(&call(&stripe), &key(), BUDGET).await, charged());
    assert_eq!(script.seen()[0].target, "/stand/in/v1/payment_intents");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_names_a_key_or_a_card() {
    for level in [tracing::Level::TRACE, tracing::Level::INFO] {
        let log = Log::default();
        let writer = log.clone();
        let guard = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .set_default();
        let says = json!({"type": "invalid_request_error", "code": "api_key_expired",
                          "message": format!("No such PaymentMethod: pm_scripted, {SECRET}")});
        let script = Script::play([
            Reply::Reset,
            html(502),
            error(409, &says),
            error(400, &says),
            error(404, &says),
        ])
        .await;
        charge(&script, BUDGET).await;
        let stripe = script.stripe();
        let _ = stripe.payment_method(&crate::script::card()).await;
        drop(guard);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("req_scripted"), "{text}");
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains("pm_scripted") && !text.contains("No such"), "{text}");
    }
}

#[tokio::test]
async fn nothing_shows_the_secret_key() {
    let stripe = Stripe::new(SECRET, PUBLISHABLE).unwrap();
    let shown = format!("{stripe:?} {:?}", call(&stripe));
    assert!(!shown.contains(SECRET) && !shown.contains("scripted"), "{shown}");
    assert_eq!(stripe.publishable_key(), PUBLISHABLE);
}

#[tokio::test]
async fn charging_can_be_spawned() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let script = Script::play([succeeded()]).await;
    let stripe = script.stripe();
    let call = call(&stripe);
    assert_eq!(is_send(stripe.charge(&call, &key(), BUDGET)).await, charged());
}
