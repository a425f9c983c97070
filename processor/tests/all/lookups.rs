//! Look-ups against a server that fails on cue, and what exactly is asked.

use std::collections::BTreeMap;

use farebox_processor::{Account, CvcCheck, IntentStatus, LookUpError, Mode, Verification};
use farebox_protocol::PayerId;
use serde_json::{Value, json};

use crate::script::{Reply, Script, card, error, html, intent, reply, top_up_id};

fn payer() -> PayerId {
    top_up_id().payer
}

fn method(cvc_check: &str) -> Value {
    json!({"id": "pm_scripted", "livemode": false, "customer": "cus_1",
           "card": {"fingerprint": "fp_1", "checks": {"cvc_check": cvc_check}}})
}

fn fields<const N: usize>(fields: [(&str, &str); N]) -> BTreeMap<String, String> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn missing(param: &str) -> Value {
    json!({"type": "invalid_request_error", "code": "resource_missing", "param": param})
}

fn spent() -> Reply {
    error(500, &json!({"type": "api_error"})).with("idempotent-replayed", "true")
}

#[tokio::test]
async fn the_account_is_named_where_it_is_known() {
    let script = Script::play([reply(200, &json!({"id": "acct_1"}))]).await;
    let account = Account { id: "acct_1".to_owned(), charges_enabled: None };
    assert_eq!(script.stripe().account().await, Ok(Some(account)));
    assert_eq!(script.seen()[0].target, "/v1/account");
    assert_eq!(script.stripe().mode(), Mode::Sandbox);
    for unknown in [html(404), error(404, &json!({})), error(403, &json!({}))] {
        let script = Script::play([unknown]).await;
        assert_eq!(script.stripe().account().await, Ok(None));
    }
    let script = Script::play([error(401, &json!({}))]).await;
    assert_eq!(script.stripe().account().await, Err(LookUpError::Operator));
}

#[tokio::test]
async fn a_card_is_read_with_fingerprint_check_and_customer() {
    let script = Script::play([Reply::Reset, html(502), reply(200, &method("pass"))]).await;
    let found = script.stripe().payment_method(&card()).await.unwrap();
    assert_eq!(found.id, card());
    assert_eq!(found.fingerprint, "fp_1");
    assert_eq!(found.cvc_check, CvcCheck::Pass);
    assert_eq!(found.customer.as_deref(), Some("cus_1"));
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].target, "/v1/payment_methods/pm_scripted");
    assert_eq!(seen[2].header("idempotency-key"), "");
}

#[tokio::test]
async fn a_payment_method_without_fingerprint_or_of_the_other_mode_is_refused() {
    let change = |pointer: &str, value: Value| {
        let mut changed = method("pass");
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    for odd in [
        change("/card", Value::Null),
        change("/card/fingerprint", Value::Null),
        change("/card/fingerprint", json!("")),
        change("/livemode", json!(true)),
    ] {
        let script = Script::play([reply(200, &odd)]).await;
        let found = script.stripe().payment_method(&card()).await;
        assert_eq!(found, Err(LookUpError::Refused), "{odd}");
    }
    for (check, known) in [
        (json!("fail"), CvcCheck::Fail),
        (json!("unavailable"), CvcCheck::Unavailable),
        (json!("unchecked"), CvcCheck::Unchecked),
        (json!("dreaming"), CvcCheck::Unchecked),
        (Value::Null, CvcCheck::Unchecked),
    ] {
        let script = Script::play([reply(200, &change("/card/checks/cvc_check", check))]).await;
        assert_eq!(script.stripe().payment_method(&card()).await.unwrap().cvc_check, known);
    }
}

#[tokio::test]
async fn a_failed_look_up_says_who_must_act() {
    for (answer, expected) in [
        (error(404, &missing("id")), LookUpError::NotFound),
        (error(400, &missing("payment_method")), LookUpError::NotFound),
        (error(401, &json!({})), LookUpError::Operator),
        (error(403, &json!({})), LookUpError::Operator),
        (error(400, &json!({"type": "invalid_request_error"})), LookUpError::Operator),
        (error(402, &json!({"type": "card_error"})), LookUpError::Refused),
        (html(404).with("stripe-should-retry", "false"), LookUpError::Unavailable),
        (html(503).with("stripe-should-retry", "false"), LookUpError::Unavailable),
    ] {
        let shown = format!("{answer:?}");
        let script = Script::play([answer]).await;
        let found = script.stripe().payment_method(&card()).await;
        assert_eq!(found, Err(expected), "{shown}");
        assert_eq!(script.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_customer_has_fixed_parameters_and_a_key_of_its_payer() {
    let made = || reply(200, &json!({"id": "cus_2"}));
    let script = Script::play([Reply::Reset, made(), made()]).await;
    let stripe = script.stripe();
    assert_eq!(stripe.customer(&payer(), None).await.as_deref(), Ok("cus_2"));
    assert_eq!(stripe.customer(&payer(), Some("cus_1")).await.as_deref(), Ok("cus_2"));
    let seen = script.seen();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].body, seen[2].body);
    assert_eq!(seen[0].target, "/v1/customers");
    assert_eq!(seen[0].header("idempotency-key"), format!("cust_{}", payer()));
    assert_eq!(seen[2].header("idempotency-key"), format!("cust_{}_cus_1", payer()));
    let id = payer().to_string();
    let expected = [
        ("description", "Farebox payer"),
        ("metadata[farebox]", "1"),
        ("metadata[payer]", id.as_str()),
    ];
    assert_eq!(seen[0].fields(), fields(expected));
}

#[tokio::test]
async fn a_crash_that_stripe_saved_does_not_keep_a_payer_without_customer() {
    let mismatch = error(400, &json!({"type": "idempotency_error"}));
    let script = Script::play([spent(), mismatch, reply(200, &json!({"id": "cus_3"}))]).await;
    assert_eq!(script.stripe().customer(&payer(), None).await.as_deref(), Ok("cus_3"));
    let keys: Vec<_> =
        script.seen().iter().map(|s| s.header("idempotency-key").to_owned()).collect();
    let base = format!("cust_{}", payer());
    assert_eq!(keys[..2], [base.clone(), format!("{base}_2")]);
    assert!(keys[2].starts_with(&format!("{base}_")) && !keys[..2].contains(&keys[2]), "{keys:?}");
}

#[tokio::test]
async fn a_refused_customer_is_never_the_payers_fault() {
    for answer in [error(404, &json!({})), error(400, &missing("customer")), error(401, &json!({}))]
    {
        let script = Script::play([answer]).await;
        assert_eq!(script.stripe().customer(&payer(), None).await, Err(LookUpError::Operator));
    }
}

#[tokio::test]
async fn a_card_is_verified_by_a_confirmed_setup_and_a_passed_check() {
    let setup = |status: &str| reply(200, &json!({"id": "seti_1", "status": status}));
    let script = Script::play([setup("succeeded"), reply(200, &method("pass"))]).await;
    let verified = script.stripe().verify(&card(), "cus_1").await;
    assert_eq!(verified, Ok(Verification::Passed));
    let seen = script.seen();
    assert_eq!(seen[0].target, "/v1/setup_intents");
    assert_eq!(seen[0].header("idempotency-key"), "verify_pm_scripted_cus_1");
    let expected = [
        ("automatic_payment_methods[allow_redirects]", "never"),
        ("automatic_payment_methods[enabled]", "true"),
        ("confirm", "true"),
        ("customer", "cus_1"),
        ("metadata[farebox]", "1"),
        ("payment_method", "pm_scripted"),
        ("usage", "off_session"),
    ];
    assert_eq!(seen[0].fields(), fields(expected));

    for check in ["fail", "unavailable", "unchecked"] {
        let script = Script::play([setup("succeeded"), reply(200, &method(check))]).await;
        let verified = script.stripe().verify(&card(), "cus_1").await;
        assert_eq!(verified, Ok(Verification::Unproven), "{check}");
    }
    for status in ["requires_action", "processing", "requires_payment_method", "dreaming"] {
        let script = Script::play([setup(status), reply(200, &method("pass"))]).await;
        let verified = script.stripe().verify(&card(), "cus_1").await;
        assert_eq!(verified, Ok(Verification::Unproven), "{status}");
    }
}

#[tokio::test]
async fn a_refused_verification_proves_nothing_or_says_who_must_act() {
    let declined = json!({"type": "card_error", "code": "card_declined"});
    let used_up = json!({"message": "It may not be used again."});
    for (answer, expected) in [
        (error(402, &declined), Ok(Verification::Unproven)),
        (spent(), Ok(Verification::Unproven)),
        (error(400, &missing("customer")), Err(LookUpError::NotFound)),
        (error(400, &missing("payment_method")), Err(LookUpError::Refused)),
        (error(400, &used_up), Err(LookUpError::Refused)),
        (error(401, &json!({})), Err(LookUpError::Operator)),
    ] {
        let script = Script::play([answer]).await;
        assert_eq!(script.stripe().verify(&card(), "cus_1").await, expected);
    }
}

#[tokio::test]
async fn an_intent_is_read_with_its_top_up() {
    let mut ours = intent("succeeded");
    ours["metadata"] = json!({"farebox": "1", "top_up": top_up_id().to_string()});
    let script = Script::play([reply(200, &ours)]).await;
    let found = script.stripe().intent("pi_1").await.unwrap();
    assert_eq!(found.status, IntentStatus::Succeeded);
    assert_eq!(found.top_up, Some(top_up_id()));
    assert_eq!(found.received.get(), 5_000_000);
    assert_eq!(script.seen()[0].target, "/v1/payment_intents/pi_1");
}

#[tokio::test]
async fn an_id_cannot_lead_to_another_endpoint() {
    let script = Script::play([reply(200, &intent("succeeded"))]).await;
    for id in ["", "../account", "pi_1/cancel", "pi_1?expand=x", "pi 1", "pi_1#", "%2e%2e"] {
        let found = script.stripe().intent(id).await;
        assert_eq!(found, Err(LookUpError::NotFound), "{id:?}");
    }
    assert_eq!(script.seen(), []);
}

#[tokio::test]
async fn intents_are_listed_page_by_page() {
    let named = |id: &str| {
        let mut intent = intent("succeeded");
        intent["id"] = json!(id);
        intent
    };
    let first = json!({"data": [named("pi_3"), named("pi_2")], "has_more": true});
    let second = json!({"data": [named("pi_1")], "has_more": false});
    let script = Script::play([reply(200, &first), Reply::Reset, reply(200, &second)]).await;
    let found = script.stripe().intents_since(Some("cus_1"), 1_700_000_000).await.unwrap();
    let ids: Vec<_> = found.iter().map(|intent| intent.id.as_str()).collect();
    assert_eq!(ids, ["pi_3", "pi_2", "pi_1"]);
    let seen = script.seen();
    let query = [("created[gte]", "1700000000"), ("customer", "cus_1"), ("limit", "100")];
    let mut expected = fields(query);
    assert_eq!(seen[0].fields(), expected);
    expected.insert("starting_after".to_owned(), "pi_2".to_owned());
    assert_eq!(seen[2].fields(), expected);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_whole_is_an_error() {
    let mut foreign = intent("succeeded");
    foreign["currency"] = json!("xxx");
    let mut ours = foreign.clone();
    ours["metadata"] = json!({"top_up": top_up_id().to_string()});
    let page = |intent: Value| reply(200, &json!({"data": [intent], "has_more": false}));

    let script = Script::play([page(foreign)]).await;
    assert_eq!(script.stripe().intents_since(Some("cus_1"), 0).await, Ok(vec![]));
    let script = Script::play([page(ours)]).await;
    let found = script.stripe().intents_since(Some("cus_1"), 0).await;
    assert_eq!(found, Err(LookUpError::Unavailable));
    let script = Script::play([reply(200, &json!({"data": [], "has_more": true}))]).await;
    let found = script.stripe().intents_since(Some("cus_1"), 0).await;
    assert_eq!(found, Err(LookUpError::Unavailable));
    let script = Script::play([error(400, &missing("customer"))]).await;
    let found = script.stripe().intents_since(Some("cus_1"), 0).await;
    assert_eq!(found, Err(LookUpError::NotFound));
}
