//! Refunds: how much may go back, and what happens when it does not arrive.

use farebox_sandbox::Impossible;

use crate::support::{Answer, Api, NOW};

async fn refund(api: &Api, intent: &str, more: &str) -> Answer {
    api.post("/v1/refunds", &format!("payment_intent={intent}{more}")).await
}

#[tokio::test]
async fn a_payment_is_refunded_in_parts_up_to_what_was_taken() {
    let api = Api::start().await;
    let id = api.paid("pm_card_visa").await;
    let before = api.events(0).await.len();
    let part = refund(&api, &id, "&amount=200&reason=duplicate&metadata[a]=b").await.ok();
    assert_eq!((part.at("amount"), part.at("status")), (200.into(), "succeeded".into()));
    assert_eq!((part.at("reason"), part.at("metadata.a")), ("duplicate".into(), "b".into()));
    assert_eq!(part.at("payment_intent"), id);
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("amount_refunded"), charge.at("refunded")), (200.into(), false.into()));
    assert_eq!(part.at("charge"), charge.at("id"));

    let too_much = refund(&api, &id, "&amount=301").await;
    too_much.is_invalid("", "amount");
    let message = "Refund amount (3.01 usd) is greater than unrefunded amount on charge (3.00 usd)";
    assert_eq!(too_much.at("error.message"), message);
    let rest = api.post("/v1/refunds", &format!("charge={}", charge.text("id"))).await.ok();
    assert_eq!(rest.at("amount"), 300);
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("amount_refunded"), charge.at("refunded")), (500.into(), true.into()));
    for more in ["", "&amount=1"] {
        let again = refund(&api, &id, more).await;
        again.is_error(400, "invalid_request_error", "charge_already_refunded");
    }
    let expected = ["refund.created", "charge.refunded", "refund.created", "charge.refunded"];
    assert_eq!(api.events(before).await, expected);
    let event = api.get("/v1/events?type=charge.refunded").await.ok();
    assert_eq!(event.at("data.1.data.object.amount_refunded"), 200);
}

#[tokio::test]
async fn a_refund_needs_a_payment_that_took_money() {
    let api = Api::start().await;
    let declined = api.pay("pm_card_visa_chargeDeclined", "").await;
    let (intent, charge) =
        (declined.text("error.payment_intent.id"), declined.text("error.charge"));
    refund(&api, &intent, "").await.is_error(400, "invalid_request_error", "");
    let answer = api.post("/v1/refunds", &format!("charge={charge}")).await;
    answer.is_invalid("charge_not_refundable", "charge");
    api.post("/v1/refunds", "charge=ch_1").await.is_invalid("resource_missing", "charge");
    refund(&api, "pi_1", "").await.is_invalid("resource_missing", "payment_intent");
    api.post("/v1/refunds", "").await.is_error(400, "invalid_request_error", "");
    let both = format!("charge={charge}&payment_intent={intent}");
    let answer = api.post("/v1/refunds", &both).await;
    answer.is_error(400, "invalid_request_error", "parameters_exclusive");
    let paid = api.paid("pm_card_visa").await;
    for (more, code, param) in [
        ("&amount=0", "parameter_invalid_integer", "amount"),
        ("&amount=-1", "parameter_invalid_integer", "amount"),
        ("&reason=greed", "", "reason"),
        ("&refund_application_fee=true", "parameter_unknown", "refund_application_fee"),
    ] {
        refund(&api, &paid, more).await.is_invalid(code, param);
    }
    assert!(api.sandbox.refunds().is_empty());
}

#[tokio::test]
async fn one_key_refunds_once() {
    let api = Api::start().await;
    let form = format!("payment_intent={}&amount=100", api.paid("pm_card_visa").await);
    let first = api.post_keyed("/v1/refunds", &form, "k").await.ok();
    let again = api.post_keyed("/v1/refunds", &form, "k").await.ok();
    assert_eq!(first.text, again.text);
    assert_eq!(api.sandbox.refunds().len(), 1);
}

#[tokio::test]
async fn a_failed_refund_gives_the_money_back_to_the_account() {
    let api = Api::start().await;
    let id = api.paid("pm_card_visa").await;
    let made = refund(&api, &id, "").await.ok().text("id");
    let before = api.events(0).await.len();
    api.sandbox.fail_refund(&made).unwrap();
    let failed = api.get(&format!("/v1/refunds/{made}")).await.ok();
    assert_eq!(failed.at("status"), "failed");
    assert_eq!(failed.at("failure_reason"), "expired_or_canceled_card");
    assert_ne!(failed.at("failure_balance_transaction"), failed.at("balance_transaction"));
    let charge = api.charge(&id).await;
    assert_eq!((charge.at("amount_refunded"), charge.at("refunded")), (0.into(), false.into()));
    assert_eq!(api.events(before).await, ["refund.updated", "refund.failed"]);
    assert_eq!(api.sandbox.fail_refund(&made), Err(Impossible::WrongStatus("failed")));
    assert_eq!(refund(&api, &id, "").await.ok().at("amount"), 500);
    let records = api.sandbox.refunds();
    let seen: Vec<_> = records.iter().map(|it| (it.amount, it.status)).collect();
    assert_eq!(seen, [(500, "failed"), (500, "succeeded")]);
    assert_eq!((&records[0].id, &records[0].payment_intent), (&made, &id));
}

#[tokio::test]
async fn a_pending_refund_is_settled_by_the_network() {
    let api = Api::start().await;
    let card = api.card("4000000000007726").await;
    let id = api.paid(&card).await;
    let pending = refund(&api, &id, "&amount=100").await.ok();
    assert_eq!(
        (pending.at("status"), pending.at("pending_reason")),
        ("pending".into(), "processing".into())
    );
    assert_eq!(api.charge(&id).await.at("amount_refunded"), 100);
    api.sandbox.succeed_refund(&pending.text("id")).unwrap();
    let settled = api.get(&format!("/v1/refunds/{}", pending.text("id"))).await.ok();
    assert_eq!(settled.at("status"), "succeeded");
    assert_eq!(api.events(0).await.last().unwrap(), "refund.updated");
    let again = api.sandbox.succeed_refund(&pending.text("id"));
    assert_eq!(again, Err(Impossible::WrongStatus("succeeded")));
    let other = refund(&api, &id, "&amount=50").await.ok().text("id");
    let failed = api.network(&format!("refunds/{other}/fail"), "").await.ok();
    assert_eq!(failed.at("status"), "failed");
    assert_eq!(api.charge(&id).await.at("amount_refunded"), 100);
}

#[tokio::test]
async fn refunds_are_listed_by_payment_charge_and_time() {
    let api = Api::start().await;
    let (a, b) = (api.paid("pm_card_visa").await, api.paid("pm_card_visa").await);
    let first = refund(&api, &a, "&amount=1").await.ok();
    api.advance(60);
    let second = refund(&api, &a, "&amount=2").await.ok();
    let other = refund(&api, &b, "&amount=3").await.ok();
    for (query, expected) in [
        (format!("payment_intent={a}"), vec![&second, &first]),
        (format!("charge={}", other.text("charge")), vec![&other]),
        (format!("created[lte]={NOW}"), vec![&first]),
        ("limit=1".to_owned(), vec![&other]),
        (format!("starting_after={}", second.text("id")), vec![&first]),
        ("payment_intent=pi_1".to_owned(), vec![]),
    ] {
        let found = api.get(&format!("/v1/refunds?{query}")).await.ok().at("data");
        let ids: Vec<_> = found.as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
        let expected: Vec<_> = expected.into_iter().map(|it| it.at("id")).collect();
        assert_eq!(ids, expected, "{query}");
    }
    api.get("/v1/refunds/re_1").await.is_error(404, "invalid_request_error", "resource_missing");
}
