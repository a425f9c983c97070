//! Disputes, inquiries and fraud warnings: what a cardholder and their bank do.

use farebox_sandbox::Impossible;
use serde_json::{Value, json};

use crate::support::{Answer, Api, NOW};

async fn dispute(api: &Api, id: &str) -> Answer {
    api.get(&format!("/v1/disputes/{id}")).await.ok()
}

/// (amount, fee, reporting category) of what a dispute moved.
fn moved(dispute: &Answer) -> Vec<(Value, Value, Value)> {
    let moved = dispute.at("balance_transactions");
    let row =
        |it: &Value| (it["amount"].clone(), it["fee"].clone(), it["reporting_category"].clone());
    moved.as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn a_chargeback_takes_the_money_and_a_fee() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let before = api.events(0).await.len();
    let id = api.sandbox.dispute(&payment).unwrap();
    let opened = dispute(&api, &id).await;
    assert_eq!((opened.at("status"), opened.at("amount")), ("needs_response".into(), 500.into()));
    assert_eq!((opened.at("reason"), opened.at("created")), ("fraudulent".into(), NOW.into()));
    assert_eq!(opened.at("payment_intent"), payment);
    assert_eq!(opened.at("is_charge_refundable"), false);
    assert_eq!(opened.at("payment_method_details.card.case_type"), "chargeback");
    assert_eq!(opened.at("payment_method_details.card.network_reason_code"), "10.4");
    assert_eq!(moved(&opened), [(json!(-500), json!(1500), json!("dispute"))]);
    assert_eq!(opened.at("balance_transactions.0.net"), -2000);
    let charge = api.charge(&payment).await;
    assert_eq!((charge.at("disputed"), charge.at("id")), (true.into(), opened.at("charge")));
    let expected = ["charge.dispute.created", "charge.dispute.funds_withdrawn"];
    assert_eq!(api.events(before).await, expected);
    let refund = api.post("/v1/refunds", &format!("payment_intent={payment}")).await;
    refund.is_error(400, "invalid_request_error", "charge_disputed");
}

#[tokio::test]
async fn a_chargeback_that_is_won_brings_the_money_back_without_the_fee() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let id = api.sandbox.dispute(&payment).unwrap();
    let before = api.events(0).await.len();
    api.sandbox.win(&id).unwrap();
    let won = dispute(&api, &id).await;
    assert_eq!((won.at("status"), won.at("is_charge_refundable")), ("won".into(), true.into()));
    let back = (json!(500), json!(0), json!("dispute_reversal"));
    assert_eq!(moved(&won), [(json!(-500), json!(1500), json!("dispute")), back]);
    let expected = ["charge.dispute.funds_reinstated", "charge.dispute.closed"];
    assert_eq!(api.events(before).await, expected);
    api.post("/v1/refunds", &format!("payment_intent={payment}")).await.ok();
    assert_eq!(api.charge(&payment).await.at("disputed"), true);
}

#[tokio::test]
async fn a_chargeback_that_is_lost_moves_nothing_more() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let id = api.sandbox.dispute(&payment).unwrap();
    let before = api.events(0).await.len();
    api.sandbox.lose(&id).unwrap();
    let lost = dispute(&api, &id).await;
    assert_eq!((lost.at("status"), moved(&lost).len()), ("lost".into(), 1));
    assert_eq!(api.events(before).await, ["charge.dispute.closed"]);
    let refund = api.post("/v1/refunds", &format!("payment_intent={payment}")).await;
    refund.is_error(400, "invalid_request_error", "charge_disputed");
    assert_eq!(api.sandbox.win(&id), Err(Impossible::WrongStatus("lost")));
    assert_eq!(api.sandbox.dispute(&payment), Err(Impossible::Amount { left: 0 }));
}

#[tokio::test]
async fn an_inquiry_moves_no_money_and_may_be_refunded() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let before = api.events(0).await.len();
    let id = api.sandbox.inquire(&payment).unwrap();
    let asked = dispute(&api, &id).await;
    assert_eq!(asked.at("status"), "warning_needs_response");
    assert_eq!((moved(&asked).len(), asked.at("is_charge_refundable")), (0, true.into()));
    assert_eq!(asked.at("payment_method_details.card.case_type"), "inquiry");
    assert_eq!(api.charge(&payment).await.at("disputed"), true);
    for wrong in [api.sandbox.win(&id), api.sandbox.lose(&id)] {
        assert_eq!(wrong, Err(Impossible::WrongStatus("warning_needs_response")));
    }
    api.post("/v1/refunds", &format!("payment_intent={payment}")).await.ok();
    assert_eq!(api.sandbox.escalate(&id), Err(Impossible::Amount { left: 0 }));
    api.sandbox.close_inquiry(&id).unwrap();
    assert_eq!(dispute(&api, &id).await.at("status"), "warning_closed");
    assert_eq!(api.sandbox.escalate(&id), Err(Impossible::WrongStatus("warning_closed")));
    let expected =
        ["charge.dispute.created", "refund.created", "charge.refunded", "charge.dispute.closed"];
    assert_eq!(api.events(before).await, expected);
}

#[tokio::test]
async fn an_inquiry_becomes_a_chargeback_of_what_is_left() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let id = api.sandbox.inquire(&payment).unwrap();
    api.post("/v1/refunds", &format!("payment_intent={payment}&amount=200")).await.ok();
    let before = api.events(0).await.len();
    api.sandbox.escalate(&id).unwrap();
    let taken = dispute(&api, &id).await;
    assert_eq!((taken.at("status"), taken.at("amount")), ("needs_response".into(), 300.into()));
    assert_eq!(moved(&taken), [(json!(-300), json!(1500), json!("dispute"))]);
    assert_eq!(taken.at("payment_method_details.card.case_type"), "chargeback");
    let expected = ["charge.dispute.updated", "charge.dispute.funds_withdrawn"];
    assert_eq!(api.events(before).await, expected);
    assert_eq!(api.sandbox.escalate(&id), Err(Impossible::WrongStatus("needs_response")));
    api.sandbox.win(&id).unwrap();
}

#[tokio::test]
async fn a_payment_is_disputed_in_parts_and_never_beyond_what_is_left() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    api.post("/v1/refunds", &format!("payment_intent={payment}&amount=100")).await.ok();
    let too_much = api.sandbox.dispute_part(&payment, 401);
    assert_eq!(too_much, Err(Impossible::Amount { left: 400 }));
    for bad in [0, -1, i64::MIN] {
        assert_eq!(api.sandbox.dispute_part(&payment, bad), Err(Impossible::Amount { left: 400 }));
    }
    let part = api.sandbox.dispute_part(&payment, 150).unwrap();
    assert_eq!(moved(&dispute(&api, &part).await)[0].0, -150);
    let rest = api.sandbox.dispute(&payment).unwrap();
    assert_eq!(dispute(&api, &rest).await.at("amount"), 250);
    let listed = api.get(&format!("/v1/disputes?payment_intent={payment}")).await.ok();
    assert_eq!((listed.at("data.0.id"), listed.at("data.1.id")), (rest.into(), part.into()));
}

#[tokio::test]
async fn only_money_that_was_taken_can_be_disputed() {
    let api = Api::start().await;
    let declined = api.pay("pm_card_visa_chargeDeclined", "").await;
    let held = api.pay("pm_card_visa", "&capture_method=manual").await.ok();
    for payment in [declined.text("error.payment_intent.id"), held.text("id")] {
        assert_eq!(api.sandbox.dispute(&payment), Err(Impossible::NotPaid));
        assert_eq!(api.sandbox.inquire(&payment), Err(Impossible::NotPaid));
        assert_eq!(api.sandbox.warn_of_fraud(&payment), Err(Impossible::NotPaid));
    }
    assert_eq!(api.sandbox.dispute("pi_1"), Err(Impossible::NotFound));
    assert_eq!(api.sandbox.win("dp_1"), Err(Impossible::NotFound));
    assert_eq!(api.sandbox.fail_refund("re_1"), Err(Impossible::NotFound));
    let path = format!("/v1/payment_intents/{}/capture", held.text("id"));
    api.post(&path, "amount_to_capture=300").await.ok();
    let released = api.get("/v1/refunds").await.ok().text("data.0.id");
    assert_eq!(api.sandbox.fail_refund(&released), Err(Impossible::NotPaid));
    let id = api.sandbox.dispute(&held.text("id")).unwrap();
    assert_eq!(dispute(&api, &id).await.at("amount"), 300);
}

#[tokio::test]
async fn disputes_are_listed_by_payment_charge_and_time() {
    let api = Api::start().await;
    let (a, b) = (api.paid("pm_card_visa").await, api.paid("pm_card_visa").await);
    let first = api.sandbox.dispute(&a).unwrap();
    api.advance(60);
    let second = api.sandbox.inquire(&b).unwrap();
    let charge = dispute(&api, &first).await.text("charge");
    for (query, expected) in [
        (format!("charge={charge}"), vec![&first]),
        (format!("payment_intent={b}"), vec![&second]),
        (format!("created[gt]={NOW}"), vec![&second]),
        (format!("starting_after={second}"), vec![&first]),
        ("limit=5".to_owned(), vec![&second, &first]),
    ] {
        let found = api.get(&format!("/v1/disputes?{query}")).await.ok().at("data");
        let ids: Vec<_> = found.as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
        assert_eq!(json!(ids), json!(expected), "{query}");
    }
    api.get("/v1/disputes/dp_1").await.is_error(404, "invalid_request_error", "resource_missing");
}

#[tokio::test]
async fn a_fraud_warning_asks_for_action_until_there_is_nothing_to_do() {
    let api = Api::start().await;
    let (refunded, disputed) = (api.paid("pm_card_visa").await, api.paid("pm_card_visa").await);
    let mut warnings = Vec::new();
    for payment in [&refunded, &disputed] {
        let id = api.sandbox.warn_of_fraud(payment).unwrap();
        assert_eq!(api.events(0).await.last().unwrap(), "radar.early_fraud_warning.created");
        let path = format!("/v1/radar/early_fraud_warnings/{id}");
        let warning = api.get(&path).await.ok();
        assert_eq!((warning.at("actionable"), warning.at("created")), (true.into(), NOW.into()));
        assert_eq!(warning.at("charge"), api.charge(payment).await.at("id"));
        let about = format!("/v1/radar/early_fraud_warnings?payment_intent={payment}");
        let found = api.get(&about).await.ok().at("data");
        assert_eq!((found.as_array().unwrap().len(), found[0]["id"].clone()), (1, id.into()));
        warnings.push(path);
    }
    api.post("/v1/refunds", &format!("payment_intent={refunded}")).await.ok();
    api.sandbox.dispute(&disputed).unwrap();
    for path in warnings {
        assert_eq!(api.get(&path).await.ok().at("actionable"), false);
    }
    let none = api.get(&format!("/v1/radar/early_fraud_warnings?created[lt]={NOW}")).await.ok();
    assert_eq!(none.at("data"), json!([]));
}

#[tokio::test]
async fn the_network_is_told_over_http_as_well() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let about = |more: &str| format!(r#"{{"payment_intent":"{payment}"{more}}}"#);
    let asked = api.network("disputes", &about(r#","kind":"inquiry","amount":100"#)).await.ok();
    assert_eq!(asked.at("object"), "dispute");
    assert_eq!(asked.at("status"), "warning_needs_response");
    assert_eq!(asked.at("amount"), 100);
    let path = format!("disputes/{}", asked.text("id"));
    let closed = api.network(&path, r#"{"end":"warning_closed"}"#).await.ok();
    assert_eq!(closed.at("status"), "warning_closed");
    let taken = api.network("disputes", &about(r#","kind":"chargeback""#)).await.ok();
    let path = format!("disputes/{}", taken.text("id"));
    for (end, status) in [("lost", "lost"), ("won", "")] {
        let answer = api.network(&path, &format!(r#"{{"end":"{end}"}}"#)).await;
        if status.is_empty() {
            answer.is_error(400, "invalid_request_error", "");
        } else {
            assert_eq!(answer.ok().at("status"), status);
        }
    }
    let other = api.paid("pm_card_visa").await;
    let warned = format!(r#"{{"payment_intent":"{other}"}}"#);
    let warning = api.network("early_fraud_warnings", &warned).await.ok();
    assert_eq!(warning.at("object"), "radar.early_fraud_warning");
    let asked = api.network("disputes", &warned.replace('}', r#","kind":"inquiry"}"#)).await.ok();
    let path = format!("disputes/{}", asked.text("id"));
    let escalated = api.network(&path, r#"{"end":"escalate"}"#).await.ok();
    assert_eq!(escalated.at("status"), "needs_response");
}

#[tokio::test]
async fn what_the_network_cannot_do_is_refused_and_bounded() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    for (json, code, param) in [
        ("{}", "parameter_missing", "payment_intent"),
        (r#"{"payment_intent":"P","kind":"robbery"}"#, "", "kind"),
        (r#"{"payment_intent":"P","amount":0}"#, "parameter_invalid_integer", "amount"),
        (r#"{"payment_intent":"P","amount":1.5}"#, "parameter_invalid_integer", "amount"),
        (r#"{"payment_intent":"P","amount":[1]}"#, "", "amount"),
        (r#"{"payment_intent":"P","why":"x"}"#, "parameter_unknown", "why"),
    ] {
        let answer = api.network("disputes", &json.replace('P', &payment)).await;
        answer.is_invalid(code, param);
    }
    for json in ["[]", "nonsense", "\"\""] {
        api.network("disputes", json).await.is_error(400, "invalid_request_error", "");
    }
    let missing = api.network("disputes", r#"{"payment_intent":"pi_1"}"#).await;
    missing.is_error(404, "invalid_request_error", "resource_missing");
    let missing = api.network("disputes/dp_1", r#"{"end":"won"}"#).await;
    missing.is_error(404, "invalid_request_error", "resource_missing");
    api.network("disputes/dp_1", "").await.is_invalid("parameter_missing", "end");
    assert_eq!(api.network("disputes", &"x".repeat(5_000)).await.status, 413);
    assert_eq!(api.get("/v1/disputes").await.ok().at("data"), json!([]));
}
