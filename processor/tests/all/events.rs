//! What happened, warnings and attached cards, as answers of Stripe's form say it.

use farebox_processor::{Account, Event, EventKind, LookUpError, Warning};
use serde_json::{Value, json};

use crate::script::{Reply, Script, card, error, html, reply, top_up_id};

fn event(id: &str, kind: &str, object: &Value) -> Value {
    json!({"id": id, "object": "event", "type": kind, "created": 1_700_000_000,
           "livemode": false, "data": {"object": object}})
}

fn page(objects: &[Value], has_more: bool) -> Reply {
    reply(200, &json!({"object": "list", "data": objects, "has_more": has_more}))
}

#[tokio::test]
async fn events_come_oldest_first_and_name_what_they_are_about() {
    let id = top_up_id().to_string();
    let ours = json!({"top_up": id, "farebox": "1"});
    let table = [
        ("payment_intent.succeeded", EventKind::IntentSucceeded, "pi_1", true),
        ("payment_intent.payment_failed", EventKind::IntentFailed, "pi_1", true),
        ("payment_intent.canceled", EventKind::IntentCanceled, "pi_1", true),
        ("charge.refunded", EventKind::ChargeRefunded, "ch_1", true),
        ("refund.failed", EventKind::RefundFailed, "re_1", true),
        ("charge.dispute.created", EventKind::DisputeCreated, "du_1", false),
        ("charge.dispute.funds_withdrawn", EventKind::FundsWithdrawn, "du_1", false),
        ("charge.dispute.funds_reinstated", EventKind::FundsReinstated, "du_1", false),
        ("charge.dispute.closed", EventKind::DisputeClosed, "du_1", false),
        ("radar.early_fraud_warning.created", EventKind::FraudWarning, "issfr_1", false),
    ];
    let mut objects: Vec<_> = table
        .iter()
        .map(|(kind, _, object, named)| {
            let mut about = json!({"id": object});
            if *named {
                about["metadata"] = ours.clone();
            }
            if !object.starts_with("pi_") {
                about["payment_intent"] = json!("pi_1");
            }
            event(&format!("evt_{kind}"), kind, &about)
        })
        .collect();
    objects.reverse();
    let script = Script::play([page(&objects[..4], true), page(&objects[4..], false)]).await;
    let events = script.stripe().events_since(1_699_999_999).await.unwrap().unwrap();
    assert_eq!(events.len(), table.len());
    for (event, (name, kind, object, named)) in events.iter().zip(table) {
        let expected = Event {
            id: format!("evt_{name}"),
            kind,
            created: 1_700_000_000,
            livemode: false,
            intent: Some("pi_1".to_owned()),
            top_up: named.then(top_up_id),
            object: object.to_owned(),
        };
        assert_eq!(*event, expected);
    }
    let seen = script.seen();
    let asked: Vec<_> = seen[0].fields().into_iter().collect();
    let kinds = asked.iter().filter(|(name, _)| name.starts_with("types["));
    let mut kinds: Vec<_> = kinds.map(|(_, kind)| kind.as_str()).collect();
    kinds.sort_unstable();
    let mut known = table.map(|(kind, ..)| kind);
    known.sort_unstable();
    assert_eq!(kinds, known);
    assert_eq!(seen[0].fields()["created[gte]"], "1699999999");
    assert_eq!(seen[1].fields()["starting_after"], "evt_charge.dispute.funds_withdrawn");
}

#[tokio::test]
async fn a_stand_in_without_events_is_told_apart_from_no_events() {
    for absent in [html(404), error(404, &json!({}))] {
        let script = Script::play([absent]).await;
        assert_eq!(script.stripe().events_since(0).await, Ok(None));
    }
    let script = Script::play([page(&[], false)]).await;
    assert_eq!(script.stripe().events_since(0).await, Ok(Some(vec![])));
    for (answer, expected) in [
        (error(401, &json!({})), LookUpError::Operator),
        (error(403, &json!({})), LookUpError::Operator),
        (html(502).with("stripe-should-retry", "false"), LookUpError::Unavailable),
        (page(&[], true), LookUpError::Unavailable),
    ] {
        let script = Script::play([answer]).await;
        assert_eq!(script.stripe().events_since(0).await, Err(expected));
    }
}

#[tokio::test]
async fn kinds_that_nothing_follows_from_are_left_out() {
    let balance = event("evt_2", "balance.available", &json!({"object": "balance"}));
    let script = Script::play([page(&[balance], false)]).await;
    assert_eq!(script.stripe().events_since(0).await, Ok(Some(vec![])));
}

#[tokio::test]
async fn an_event_of_the_other_mode_or_without_object_spoils_the_list() {
    let mut live = event("evt_1", "charge.refunded", &json!({"id": "ch_1"}));
    live["livemode"] = json!(true);
    let script = Script::play([page(&[live], false)]).await;
    assert_eq!(script.stripe().events_since(0).await, Err(LookUpError::Operator));
    let nameless = event("evt_1", "charge.refunded", &json!({}));
    let script = Script::play([page(&[nameless], false)]).await;
    assert_eq!(script.stripe().events_since(0).await, Err(LookUpError::Unavailable));
}

fn warning(intent: &Value, actionable: &Value) -> Value {
    json!({"id": "issfr_1", "object": "radar.early_fraud_warning", "charge": "ch_1",
           "payment_intent": intent, "actionable": actionable, "livemode": false})
}

#[tokio::test]
async fn a_fraud_warning_names_its_intent_and_whether_to_act() {
    for (intent, actionable, expected) in [
        (json!("pi_1"), json!(true), (Some("pi_1"), true)),
        (json!({"id": "pi_1"}), json!(false), (Some("pi_1"), false)),
        (Value::Null, Value::Null, (None, false)),
    ] {
        let object = warning(&intent, &actionable);
        let script = Script::play([reply(200, &object), page(&[object], false)]).await;
        let (intent, actionable) = (expected.0.map(str::to_owned), expected.1);
        let expected = Warning { id: "issfr_1".to_owned(), intent, actionable };
        let stripe = script.stripe();
        assert_eq!(stripe.warning("issfr_1").await.as_ref(), Ok(&expected));
        assert_eq!(stripe.warnings_since(9).await, Ok(vec![expected]));
        let seen = script.seen();
        assert_eq!(seen[0].target, "/v1/radar/early_fraud_warnings/issfr_1");
        assert_eq!(seen[1].target.split('?').next(), Some("/v1/radar/early_fraud_warnings"));
        assert_eq!(seen[1].fields()["created[gte]"], "9");
        assert_eq!(seen[1].fields()["limit"], "100");
    }
}

#[tokio::test]
async fn warnings_that_are_not_there_or_not_ours_say_so() {
    let script = Script::play([html(404)]).await;
    assert_eq!(script.stripe().warnings_since(0).await, Err(LookUpError::NotFound));
    assert_eq!(script.stripe().warning("issfr_1/x").await, Err(LookUpError::NotFound));
    assert_eq!(script.seen().len(), 1);
    let mut live = warning(&json!("pi_1"), &json!(true));
    live["livemode"] = json!(true);
    let script = Script::play([reply(200, &live)]).await;
    assert_eq!(script.stripe().warning("issfr_1").await, Err(LookUpError::Operator));
}

#[tokio::test]
async fn attached_cards_are_listed_whole() {
    let method = |id: &str| json!({"id": id, "object": "payment_method", "livemode": false});
    let first = page(&[method("pm_2"), method("card_1")], true);
    let script = Script::play([first, page(&[method("pm_0")], false)]).await;
    let cards = script.stripe().cards("cus_1").await.unwrap();
    let ids: Vec<_> = cards.iter().map(|card| card.as_str()).collect();
    assert_eq!(ids, ["pm_2", "card_1", "pm_0"]);
    let fields = script.seen()[1].fields();
    let asked = ["customer", "type", "starting_after"].map(|name| fields[name].as_str());
    assert_eq!(asked, ["cus_1", "card", "card_1"]);

    let missing = json!({"code": "resource_missing", "param": "customer"});
    let script = Script::play([error(400, &missing)]).await;
    assert_eq!(script.stripe().cards("cus_1").await, Err(LookUpError::NotFound));
    assert_eq!(script.stripe().cards("").await, Err(LookUpError::NotFound));
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_card_is_detached_under_a_key_of_its_own() {
    let detached = reply(200, &json!({"id": "pm_scripted", "customer": null}));
    let script = Script::play([Reply::Reset, detached]).await;
    assert_eq!(script.stripe().detach(&card()).await, Ok(()));
    let seen = script.seen();
    assert_eq!(seen[0], seen[1]);
    assert_eq!((seen[0].method.as_str(), seen[0].body.as_str()), ("POST", ""));
    assert_eq!(seen[0].target, "/v1/payment_methods/pm_scripted/detach");
    assert_eq!(seen[0].header("idempotency-key"), "detach_pm_scripted");
}

#[tokio::test]
async fn a_refused_detachment_is_decided_by_the_card_itself() {
    let says = json!({"type": "invalid_request_error", "message": "is not attached"});
    let crash = error(500, &json!({"type": "api_error"})).with("idempotent-replayed", "true");
    let missing = json!({"code": "resource_missing", "param": "id"});
    let holder = |customer: Value| reply(200, &json!({"id": "pm_1", "customer": customer}));
    for (refusal, card_says, expected) in [
        (error(400, &says), holder(Value::Null), Ok(())),
        (error(400, &says), holder(json!("cus_1")), Err(LookUpError::Operator)),
        (error(404, &missing), error(404, &missing), Ok(())),
        (error(404, &missing), holder(json!("cus_1")), Err(LookUpError::NotFound)),
        (crash.clone(), holder(Value::Null), Ok(())),
        (crash, holder(json!({"id": "cus_1"})), Err(LookUpError::Unavailable)),
        (error(401, &json!({})), error(401, &json!({})), Err(LookUpError::Operator)),
    ] {
        let shown = format!("{refusal:?} {card_says:?}");
        let script = Script::play([refusal, card_says]).await;
        assert_eq!(script.stripe().detach(&card()).await, expected, "{shown}");
        assert_eq!(script.seen()[1].target, "/v1/payment_methods/pm_scripted");
    }
}

#[tokio::test]
async fn an_account_says_whether_it_may_charge() {
    for (said, charges_enabled) in [(json!(true), Some(true)), (json!(false), Some(false))] {
        let answer = json!({"id": "acct_1", "charges_enabled": said});
        let script = Script::play([reply(200, &answer)]).await;
        let account = Account { id: "acct_1".to_owned(), charges_enabled };
        assert_eq!(script.stripe().account().await, Ok(Some(account)));
    }
}
