//! Giving back against a server that fails on cue.

use std::time::Duration;

use farebox_processor::{Call, GiveBack, IdempotencyKey, Refund, Stripe, Unknown};
use farebox_protocol::{Micros, TopUpId};
use serde_json::{Value, json};

use crate::script::{PUBLISHABLE, Reply, SECRET, Script, error, html, reply, top_up_id};

const BUDGET: Duration = Duration::from_secs(5);
/// Enough for one attempt and its failure, too short for a second attempt.
const ONE_ATTEMPT: Duration = Duration::from_millis(1100);

fn refund(number: u64, micros: i64) -> Refund<'static> {
    let amount = Micros::new(micros).unwrap();
    Refund { top_up: top_up_id(), number, intent: "pi_1", amount }
}

fn call(stripe: &Stripe) -> (Call, IdempotencyKey) {
    let refund = refund(2, 1_500_000);
    (stripe.refund(&refund), refund.key())
}

fn made(status: &str) -> Reply {
    reply(200, &json!({"id": "re_1", "object": "refund", "status": status, "amount": 150}))
}

fn accepted() -> GiveBack {
    GiveBack::Accepted { refund: "re_1".to_owned() }
}

fn refused(code: Option<&str>) -> GiveBack {
    GiveBack::Refused { code: code.map(str::to_owned) }
}

async fn give_back(script: &Script, budget: Duration) -> GiveBack {
    let stripe = script.stripe();
    let (call, key) = call(&stripe);
    let outcome = stripe.give_back(&call, &key, budget).await;
    let seen = script.seen();
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "an attempt differs from the first one");
    outcome
}

/// The outcome of a script, and how often something was sent.
async fn played(replies: impl IntoIterator<Item = Reply>) -> (GiveBack, usize) {
    let script = Script::play(replies).await;
    let outcome = give_back(&script, BUDGET).await;
    (outcome, script.seen().len())
}

#[tokio::test]
async fn a_refund_is_one_request_with_its_key_amount_and_metadata() {
    let script = Script::play([made("succeeded")]).await;
    assert_eq!(give_back(&script, BUDGET).await, accepted());
    let [seen] = script.seen().try_into().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/refunds"));
    assert_eq!(seen.header("idempotency-key"), format!("re_{}_2", top_up_id()));
    assert_eq!(
        seen.body,
        format!(
            "amount=150&metadata%5Bfarebox%5D=1&metadata%5Brefund%5D=2&\
             metadata%5Btop_up%5D={}&payment_intent=pi_1",
            top_up_id()
        )
        .replace("%5B", "[")
        .replace("%5D", "]"),
    );
}

#[test]
fn one_refund_is_always_the_same_call_under_the_same_key() {
    let stripe = Stripe::new(SECRET, PUBLISHABLE).unwrap();
    let (first, key) = call(&stripe);
    assert!((0..64).all(|_| call(&stripe) == (first.clone(), key.clone())));
    let others = [refund(1, 1).key(), refund(3, 1).key(), top_up_id().into()];
    assert!(others.iter().all(|other| *other != key));
    let longest = TopUpId { number: u64::MAX, ..top_up_id() };
    let longest = Refund { top_up: longest, number: u64::MAX, ..refund(1, 1) }.key();
    assert_eq!(IdempotencyKey::new(longest.as_str()), Ok(longest));
}

#[tokio::test]
async fn never_more_is_given_back_than_was_set_aside() {
    for (currency, micros, minor) in [
        ("usd", 1_500_000, "150"),
        ("usd", 1_509_999, "150"),
        ("usd", 9_999, "0"),
        ("usd", 0, "0"),
        ("usd", -1, "0"),
        ("jpy", 1_999_999, "1"),
        ("kwd", 1_009_999, "1000"),
        ("isk", 1_999_999, "100"),
    ] {
        let top_up = top_up_id().to_string().replace("usd", currency).parse().unwrap();
        let script = Script::play([made("succeeded")]).await;
        let stripe = script.stripe();
        let refund = Refund { top_up, ..refund(1, micros) };
        stripe.give_back(&stripe.refund(&refund), &refund.key(), BUDGET).await;
        assert_eq!(script.seen()[0].fields()["amount"], minor, "{micros} {currency}");
    }
}

#[tokio::test]
async fn what_may_have_run_is_repeated_under_the_same_key() {
    let limit = error(429, &json!({"type": "invalid_request_error"}));
    let in_use = json!({"type": "idempotency_error", "code": "idempotency_key_in_use"});
    for failure in [
        Reply::Reset,
        Reply::Truncated,
        html(502),
        html(200),
        html(404),
        limit,
        error(409, &in_use),
        error(500, &json!({"type": "api_error"})),
        error(424, &json!({})),
    ] {
        let shown = format!("{failure:?}");
        assert_eq!(played([failure, made("succeeded")]).await, (accepted(), 2), "{shown}");
    }
}

#[tokio::test]
async fn a_refund_that_stripe_made_is_accepted_until_it_failed() {
    for status in ["succeeded", "pending", "requires_action", "from_the_future"] {
        assert_eq!(played([made(status)]).await, (accepted(), 1), "{status}");
    }
    assert_eq!(played([reply(200, &json!({"id": "re_1"}))]).await, (accepted(), 1));
    let failed = json!({"id": "re_1", "status": "failed", "failure_reason": "lost_or_stolen_card"});
    let refusal = refused(Some("lost_or_stolen_card"));
    assert_eq!(played([reply(200, &failed)]).await, (refusal, 1));
    assert_eq!(played([made("canceled")]).await, (refused(Some("canceled")), 1));
}

#[tokio::test]
async fn a_refusal_is_final_at_once_and_says_why() {
    let says = |code: Value| json!({"type": "invalid_request_error", "code": code});
    for code in ["charge_already_refunded", "charge_disputed", "balance_insufficient"] {
        let (outcome, sent) = played([error(400, &says(json!(code)))]).await;
        assert_eq!((outcome, sent), (refused(Some(code)), 1));
    }
    assert_eq!(played([error(400, &says(Value::Null))]).await, (refused(None), 1));
    // Saved with the key, so it was the answer to the lost attempt too.
    let after_reset = played([Reply::Reset, error(404, &says(json!("resource_missing")))]).await;
    assert_eq!(after_reset, (refused(Some("resource_missing")), 2));
}

#[tokio::test]
async fn what_was_turned_away_was_not_sent_unless_an_attempt_may_have_run() {
    let unknown = GiveBack::Unknown(Unknown::Repeat);
    for gate in [
        error(401, &json!({"type": "invalid_request_error"})),
        error(403, &json!({"type": "invalid_request_error"})),
        error(429, &json!({"type": "x"})).with("stripe-should-retry", "false"),
    ] {
        let shown = format!("{gate:?}");
        assert_eq!(played([gate.clone()]).await, (GiveBack::NotSent, 1), "{shown}");
        assert_eq!(played([Reply::Reset, gate]).await, (unknown.clone(), 2), "{shown}");
    }
}

#[tokio::test]
async fn what_stripe_saved_of_a_crash_is_looked_up() {
    let crash = error(500, &json!({"type": "api_error"}));
    let replay = crash.clone().with("idempotent-replayed", "true");
    let look_up = GiveBack::Unknown(Unknown::LookUp);
    assert_eq!(played([crash, replay]).await, (look_up.clone(), 2));
    let mismatch = error(400, &json!({"type": "idempotency_error"}));
    assert_eq!(played([mismatch]).await, (look_up, 1));
}

#[tokio::test]
async fn an_outcome_that_does_not_come_in_time_is_unknown() {
    let script = Script::play([Reply::Silence]).await;
    let outcome = give_back(&script, Duration::from_millis(600)).await;
    assert_eq!(outcome, GiveBack::Unknown(Unknown::Repeat));

    let script = Script::play([made("succeeded")]).await;
    assert_eq!(give_back(&script, Duration::ZERO).await, GiveBack::NotSent);
    assert_eq!(script.seen(), []);
}

#[tokio::test]
async fn a_refused_connection_is_not_sent_until_something_was() {
    let script = Script::play([Reply::ResetAndLeave]).await;
    assert_eq!(give_back(&script, ONE_ATTEMPT).await, GiveBack::Unknown(Unknown::Repeat));
    assert_eq!(give_back(&script, Duration::from_millis(800)).await, GiveBack::NotSent);
    assert_eq!(script.seen().len(), 1);
}
