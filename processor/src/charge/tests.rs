//! The classification as a table: an answer and what happened before, to the next step.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::transport::Answer;

const INTENT: &str = "pi_1";

fn answer(status: u16, body: &Value) -> Answer {
    Answer { status, body: body.to_string().into_bytes(), ..Answer::default() }
}

#[expect(clippy::needless_pass_by_value, reason = "the tables read better without references")]
fn error(status: u16, error: Value) -> Answer {
    answer(status, &json!({ "error": error }))
}

fn intent(status: &str) -> Value {
    json!({"id": INTENT, "status": status, "amount": 500, "amount_received": 500,
           "currency": "usd", "livemode": false})
}

/// The step after `answer`, and what is known afterwards.
fn after(answer: Answer, mut before: Before) -> (Next<Step>, Before) {
    let next = judge(&Attempt::Answered(answer), &mut before, false);
    (next, before)
}

fn again() -> Next<Step> {
    Next::Again(Duration::ZERO)
}

fn ended(charge: Charge) -> Next<Step> {
    Next::Done(Step::Ended(charge))
}

fn charged() -> Charge {
    let received = Micros::new(5_000_000).unwrap();
    Charge::Charged { intent: INTENT.to_owned(), received, currency: Currency::USD }
}

/// Answers that are definite whatever happened before.
#[test]
fn a_definite_answer_is_definite_whatever_happened_before() {
    let type_and_code = |kind: &str, code: &str| json!({"type": kind, "code": code});
    let invalid = |code: &str, param: &str, message: &str| json!({"type": "invalid_request_error", "code": code, "param": param, "message": message});
    let says = |message: &str| json!({"type": "invalid_request_error", "message": message});
    let card = Charge::Rejected(Rejection::PaymentMethod);
    let customer = Charge::Rejected(Rejection::Customer);
    let operator = Charge::Rejected(Rejection::Operator);
    let auth = Charge::AuthenticationRequired;
    let look_up = Charge::Unknown(Unknown::LookUp);
    let used_up = "The provided PaymentMethod was previously used with a PaymentIntent without \
                   Customer attachment. It may not be used again. To use a PaymentMethod \
                   multiple times, you must attach it to a Customer first.";
    let foreign = "The payment method you provided is attached to a customer so for security \
                   purposes you must provide the customer in the request.";
    let table = [
        (error(402, type_and_code("card_error", "card_declined")), Charge::Declined),
        (error(402, type_and_code("card_error", "expired_card")), Charge::Declined),
        (error(402, type_and_code("card_error", "from_the_future")), Charge::Declined),
        (error(402, json!({"type": "card_error"})), Charge::Declined),
        (error(402, type_and_code("invalid_request_error", "card_declined")), Charge::Declined),
        (error(402, type_and_code("card_error", "authentication_required")), auth.clone()),
        (
            error(
                402,
                json!({"type": "card_error", "code": "card_declined",
                       "decline_code": "authentication_required"}),
            ),
            auth,
        ),
        (error(400, invalid("resource_missing", "customer", "No such customer")), customer.clone()),
        (
            error(400, json!({"code": "resource_missing", "message": "No such customer: 'cus_1'"})),
            customer,
        ),
        (error(400, invalid("resource_missing", "payment_method", "")), card.clone()),
        (error(404, says("No such PaymentMethod: 'pm_1'")), card.clone()),
        (error(400, says(used_up)), card.clone()),
        (error(400, says(foreign)), card.clone()),
        (error(400, says("The PaymentMethod does not belong to the customer")), card.clone()),
        (error(400, says("It is attached to another customer")), card),
        (error(400, invalid("amount_too_small", "amount", "")), operator.clone()),
        (error(400, invalid("parameter_unknown", "confirm", "")), operator.clone()),
        (error(404, says("Unrecognized request URL")), operator.clone()),
        (error(402, says("Sending credit card numbers directly is unsafe")), operator.clone()),
        (error(418, json!({})), operator),
        (error(400, type_and_code("idempotency_error", "")), look_up),
        (answer(200, &intent("succeeded")), charged()),
        (answer(200, &intent("canceled")), Charge::Declined),
        (answer(200, &intent("requires_payment_method")), Charge::Declined),
    ];
    for (answer, charge) in table {
        let shown = String::from_utf8(answer.body.clone()).unwrap();
        for before in [Before::Nothing, Before::Perhaps] {
            let copy =
                Answer { status: answer.status, body: answer.body.clone(), ..Answer::default() };
            assert_eq!(after(copy, before), (ended(charge.clone()), before), "{shown}");
        }
    }
}

/// Answers after which the card may have been charged.
#[test]
fn an_attempt_that_may_have_run_is_repeated_and_remembered() {
    let text = |status: u16, body: &str| Answer {
        status,
        body: body.as_bytes().to_vec(),
        ..Answer::default()
    };
    let table = [
        text(502, "<html>Bad Gateway</html>"),
        text(500, ""),
        text(200, ""),
        text(200, r#"{"id":"pi_1","status":"succ"#),
        text(200, "<html>Welcome to the airport</html>"),
        text(400, "Bad Request"),
        text(401, "<html>log in</html>"),
        text(403, "blocked"),
        text(404, "not found"),
        text(429, "slow down"),
        text(307, ""),
        answer(200, &json!({"object": "list"})),
        answer(400, &json!({"message": "not Stripe's form"})),
        error(500, json!({"type": "api_error"})),
        error(503, json!({"type": "api_error"})),
        error(400, json!({"type": "api_error"})),
        error(409, json!({"type": "idempotency_error", "code": "idempotency_key_in_use"})),
        error(409, json!({"type": "invalid_request_error", "code": "lock_timeout"})),
        error(400, json!({"type": "idempotency_error", "code": "idempotency_key_in_use"})),
        error(424, json!({"type": "invalid_request_error"})),
        error(429, json!({"type": "invalid_request_error", "code": "lock_timeout"})),
        error(408, json!({"type": "invalid_request_error"})),
    ];
    for answer in table {
        let shown = format!("{answer:?}");
        assert_eq!(after(answer, Before::Nothing), (again(), Before::Perhaps), "{shown}");
    }
    let mut before = Before::Nothing;
    assert_eq!(judge(&Attempt::Lost, &mut before, false), again());
    assert_eq!(before, Before::Perhaps);
}

#[test]
fn no_connection_tells_nothing_about_an_earlier_attempt() {
    for mut before in [Before::Nothing, Before::Perhaps] {
        let known = before;
        assert_eq!(judge(&Attempt::NotSent, &mut before, false), again());
        assert_eq!(before, known);
    }
    assert_eq!(Charge::unfinished(Before::Nothing), Charge::NotSent);
    assert_eq!(Charge::unfinished(Before::Perhaps), Charge::Unknown(Unknown::Repeat));
}

#[test]
fn a_rate_limit_tells_nothing_about_an_earlier_attempt() {
    for before in [Before::Nothing, Before::Perhaps] {
        let limited = || error(429, json!({"type": "invalid_request_error", "code": "rate_limit"}));
        assert_eq!(after(limited(), before), (again(), before));
        let never = Answer { should_retry: Some(false), ..limited() };
        assert_eq!(after(never, before), (Next::Stop, before));
    }
}

#[test]
fn a_refused_key_tells_nothing_about_an_earlier_attempt() {
    for status in [401, 403] {
        let refused = || error(status, json!({"type": "invalid_request_error"}));
        let operator = ended(Charge::Rejected(Rejection::Operator));
        assert_eq!(after(refused(), Before::Nothing), (operator, Before::Nothing));
        let unknown = ended(Charge::Unknown(Unknown::Repeat));
        assert_eq!(after(refused(), Before::Perhaps), (unknown, Before::Perhaps));
        let retry = Answer { should_retry: Some(true), ..refused() };
        assert_eq!(after(retry, Before::Nothing), (again(), Before::Nothing));
    }
}

#[test]
fn stripe_decides_whether_to_retry() {
    let server = || error(500, json!({"type": "api_error"}));
    let never = Answer { should_retry: Some(false), ..server() };
    assert_eq!(after(never, Before::Nothing), (Next::Stop, Before::Perhaps));
    let decline = || error(402, json!({"type": "card_error", "code": "card_declined"}));
    let retry = Answer { should_retry: Some(true), ..decline() };
    assert_eq!(after(retry, Before::Nothing), (again(), Before::Perhaps));
    let last_word = Answer { should_retry: Some(false), ..decline() };
    assert_eq!(after(last_word, Before::Nothing).0, ended(Charge::Declined));
}

#[test]
fn retry_after_is_a_lower_bound() {
    let wait = Duration::from_secs(3);
    for status in [429, 503] {
        let late = Answer { retry_after: Some(wait), ..error(status, json!({})) };
        assert_eq!(after(late, Before::Nothing).0, Next::Again(wait));
    }
}

#[test]
fn a_replayed_crash_can_only_be_looked_up() {
    for status in [424, 500, 502, 503] {
        for before in [Before::Nothing, Before::Perhaps] {
            let crash = Answer { replayed: true, ..error(status, json!({"type": "api_error"})) };
            assert_eq!(after(crash, before).0, ended(Charge::Unknown(Unknown::LookUp)));
        }
    }
}

#[test]
fn a_replayed_success_or_refusal_is_one() {
    let success = Answer { replayed: true, ..answer(200, &intent("succeeded")) };
    assert_eq!(after(success, Before::Perhaps).0, ended(charged()));
    let decline =
        Answer { replayed: true, ..error(402, json!({"type": "card_error", "code": "x"})) };
    assert_eq!(after(decline, Before::Perhaps).0, ended(Charge::Declined));
}

#[test]
fn an_intent_that_waits_for_a_human_is_cancelled() {
    let cancel = Next::Done(Step::Cancel(INTENT.to_owned()));
    assert_eq!(after(answer(200, &intent("requires_action")), Before::Nothing).0, cancel);
    let parked = json!({"type": "card_error", "code": "authentication_required",
                        "payment_intent": intent("requires_action")});
    assert_eq!(after(error(402, parked), Before::Nothing).0, cancel);
}

#[test]
fn an_unfinished_intent_is_read_because_its_answer_would_be_replayed() {
    for status in ["processing", "requires_capture", "requires_confirmation", "dreaming"] {
        let read = Next::Done(Step::Read(INTENT.to_owned()));
        assert_eq!(after(answer(200, &intent(status)), Before::Nothing).0, read, "{status}");
    }
}

#[test]
fn an_error_around_a_succeeded_intent_is_a_charge() {
    let odd = json!({"type": "card_error", "payment_intent": intent("succeeded")});
    assert_eq!(after(error(402, odd), Before::Nothing).0, ended(charged()));
}

#[test]
fn a_succeeded_intent_whose_amount_cannot_be_read_is_not_a_refusal() {
    let mut odd = intent("succeeded");
    odd["currency"] = json!("xxx");
    let object = serde_json::from_value(odd).unwrap();
    assert_eq!(settled(&object, false), Charge::Unknown(Unknown::Repeat));
}

#[test]
fn a_charge_in_the_other_mode_is_no_credit() {
    let operator = ended(Charge::Rejected(Rejection::Operator));
    for (livemode, keys) in [(true, false), (false, true)] {
        let mut other = intent("succeeded");
        other["livemode"] = json!(livemode);
        let attempt = Attempt::Answered(answer(200, &other));
        assert_eq!(judge(&attempt, &mut Before::Nothing.clone(), keys), operator);
    }
    let mut untold = intent("succeeded");
    untold["livemode"] = Value::Null;
    let attempt = Attempt::Answered(answer(200, &untold));
    assert_eq!(judge(&attempt, &mut Before::Nothing.clone(), true), ended(charged()));
}

#[test]
fn the_leniency_towards_a_missing_amount_received_reaches_the_outcome() {
    let mut short = intent("succeeded");
    short.as_object_mut().unwrap().remove("amount_received");
    assert_eq!(after(answer(200, &short), Before::Nothing).0, ended(charged()));
}
