//! How a charge stands, as answers of Stripe's form say it.

use farebox_processor::{Dispute, DisputeState, LookUpError, Standing};
use farebox_protocol::{Currency, Micros};
use serde_json::{Value, json};

use crate::script::{Reply, Script, error, html, intent, reply, top_up_id};

/// `usd!("5")`, of which the cents are told.
fn cents(cents: i64) -> Micros {
    Currency::USD.from_minor(cents).unwrap()
}

/// A charge of five dollars.
fn charge(refunded: i64, disputed: bool) -> Value {
    json!({"id": "ch_1", "object": "charge", "amount": 500, "amount_refunded": refunded,
           "currency": "usd", "disputed": disputed, "livemode": false, "payment_intent": "pi_1"})
}

fn charged(charge: Value) -> Value {
    let mut charged = intent("succeeded");
    charged["metadata"] = json!({"top_up": top_up_id().to_string()});
    charged["customer"] = json!("cus_1");
    charged["latest_charge"] = charge;
    charged
}

fn dispute(status: &str, moved: &[(i64, &str)]) -> Value {
    let moved: Vec<_> = moved
        .iter()
        .map(|(amount, currency)| json!({"amount": amount, "currency": currency, "fee": 1500}))
        .collect();
    json!({"id": "du_1", "object": "dispute", "amount": 500, "currency": "usd", "status": status,
           "payment_intent": "pi_1", "charge": "ch_1", "livemode": false,
           "balance_transactions": moved})
}

fn page(objects: &[Value]) -> Value {
    json!({"object": "list", "data": objects, "has_more": false})
}

async fn standing(replies: impl IntoIterator<Item = Value>) -> Result<Standing, LookUpError> {
    let script = Script::play(replies.into_iter().map(|body| reply(200, &body))).await;
    script.stripe().standing("pi_1").await
}

/// How a disputed charge of five dollars stands, of which `refunded` cents were given back.
async fn disputed(refunded: i64, disputes: &[Value]) -> Result<Standing, LookUpError> {
    standing([charged(charge(refunded, true)), page(disputes)]).await
}

#[tokio::test]
async fn a_plain_charge_stands_in_one_request() {
    let script = Script::play([reply(200, &charged(charge(0, false)))]).await;
    let standing = script.stripe().standing("pi_1").await.unwrap();
    assert_eq!(standing.intent.received, cents(500));
    assert_eq!(standing.intent.top_up, Some(top_up_id()));
    assert_eq!((standing.refunded, standing.withdrawn), (Micros::ZERO, Micros::ZERO));
    assert_eq!((standing.disputes, standing.customer.as_deref()), (vec![], Some("cus_1")));
    let [seen] = script.seen().try_into().unwrap();
    assert_eq!(seen.target.split('?').next(), Some("/v1/payment_intents/pi_1"));
    assert_eq!(seen.fields().into_values().collect::<Vec<_>>(), ["latest_charge"]);
    assert!(seen.fields().keys().all(|name| name.starts_with("expand[")));
}

#[tokio::test]
async fn a_charge_that_is_not_expanded_is_read_by_its_id() {
    let replies = [charged(json!("ch_1")), charge(200, false)].map(|body| reply(200, &body));
    let script = Script::play(replies).await;
    let standing = script.stripe().standing("pi_1").await.unwrap();
    assert_eq!(standing.refunded, cents(200));
    assert_eq!(script.seen()[1].target, "/v1/charges/ch_1");

    let script = Script::play([reply(200, &charged(json!("../account")))]).await;
    assert_eq!(script.stripe().standing("pi_1").await, Err(LookUpError::Unavailable));
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn refunds_are_a_total() {
    for refunded in [0, 1, 499, 500] {
        let standing = standing([charged(charge(refunded, false))]).await.unwrap();
        assert_eq!(standing.refunded, cents(refunded));
        assert_eq!(standing.intent.received, cents(500));
    }
}

#[tokio::test]
async fn an_intent_that_took_nothing_stands_without_a_charge() {
    let mut failed = charged(Value::Null);
    failed["status"] = json!("requires_payment_method");
    failed["amount_received"] = json!(0);
    let found = standing([failed.clone()]).await.unwrap();
    assert_eq!((found.intent.received, found.refunded), (Micros::ZERO, Micros::ZERO));
    failed["latest_charge"] = charge(0, false);
    assert_eq!(standing([failed]).await.unwrap(), found);
}

#[tokio::test]
async fn disputes_are_asked_for_by_intent_and_only_where_there_are_some() {
    let replies = [charged(charge(0, true)), page(&[dispute("needs_response", &[(-500, "usd")])])];
    let script = Script::play(replies.map(|body| reply(200, &body))).await;
    let standing = script.stripe().standing("pi_1").await.unwrap();
    let expected = Dispute {
        id: "du_1".to_owned(),
        intent: Some("pi_1".to_owned()),
        state: DisputeState::Open,
        withdrawn: cents(500),
    };
    assert_eq!((standing.disputes, standing.withdrawn), (vec![expected], cents(500)));
    let fields = script.seen()[1].fields();
    assert_eq!(script.seen()[1].target.split('?').next(), Some("/v1/disputes"));
    assert_eq!((fields["payment_intent"].as_str(), fields["limit"].as_str()), ("pi_1", "100"));
}

#[tokio::test]
async fn a_dispute_takes_what_its_balance_transactions_say() {
    use DisputeState::{Lost, Open, Won};
    type Moved<'a> = &'a [(i64, &'a str)];
    let table: [(&str, Moved, DisputeState, i64); 17] = [
        // Inquiries take nothing, although they have an amount.
        ("warning_needs_response", &[], Open, 0),
        ("warning_under_review", &[], Open, 0),
        ("warning_closed", &[], Won, 0),
        ("prevented", &[], Won, 0),
        ("needs_response", &[(-500, "usd")], Open, 500),
        ("under_review", &[(-300, "usd")], Open, 300),
        ("from_the_future", &[(-500, "usd")], Open, 500),
        ("lost", &[(-500, "usd")], Lost, 500),
        ("won", &[(-500, "usd"), (500, "usd")], Won, 0),
        // Won, and the money is still on its way.
        ("won", &[(-500, "usd")], Won, 500),
        ("won", &[(-500, "usd"), (200, "usd")], Won, 300),
        ("won", &[(500, "usd")], Won, 0),
        // Settled in euros: the amount of the dispute in dollars, all or nothing.
        ("needs_response", &[(-460, "eur")], Open, 500),
        ("lost", &[(-460, "eur")], Lost, 500),
        ("won", &[(-460, "eur"), (460, "eur")], Won, 0),
        // The rate has changed between the ways out and back.
        ("won", &[(-460, "eur"), (450, "eur")], Won, 0),
        ("won", &[(-460, "eur")], Won, 500),
    ];
    for (status, moved, state, taken) in table {
        let found = disputed(0, &[dispute(status, moved)]).await.unwrap();
        let [only] = found.disputes.try_into().unwrap();
        let expected = (state, cents(taken), cents(taken));
        assert_eq!((only.state, only.withdrawn, found.withdrawn), expected, "{status} {moved:?}");
    }
}

#[tokio::test]
async fn several_disputes_add_up() {
    let mut second = dispute("lost", &[(-100, "usd")]);
    second["id"] = json!("du_2");
    let found = disputed(50, &[second, dispute("needs_response", &[(-200, "usd")])]).await.unwrap();
    assert_eq!((found.refunded, found.withdrawn), (cents(50), cents(300)));
    let ids: Vec<_> = found.disputes.iter().map(|dispute| dispute.id.as_str()).collect();
    assert_eq!(ids, ["du_2", "du_1"]);
}

#[tokio::test]
async fn never_more_is_taken_back_than_was_received() {
    let lost = || dispute("lost", &[(-500, "usd")]);
    for (refunded, disputes, expected) in [
        (200, vec![lost()], (200, 300)),
        (500, vec![lost()], (500, 0)),
        (0, vec![lost(), lost()], (0, 500)),
        (0, vec![dispute("lost", &[(-501, "usd")])], (0, 500)),
        (900, vec![], (500, 0)),
    ] {
        let found = disputed(refunded, &disputes).await.unwrap();
        let expected = (cents(expected.0), cents(expected.1));
        assert_eq!((found.refunded, found.withdrawn), expected, "{refunded} {disputes:?}");
    }
}

#[tokio::test]
async fn what_decides_about_money_and_cannot_be_read_is_an_error() {
    let change = |mut object: Value, field: &str, value: Value| {
        object[field] = value;
        object
    };
    for odd in [Value::Null, json!("many"), json!(-1), json!(i64::MAX), json!(1.5)] {
        let charge = change(charge(0, false), "amount_refunded", odd.clone());
        assert_eq!(standing([charged(charge)]).await, Err(LookUpError::Unavailable), "{odd}");
    }
    // Money was received, and no charge says how it stands.
    assert_eq!(standing([charged(Value::Null)]).await, Err(LookUpError::Unavailable));

    let lost = dispute("lost", &[(-460, "eur")]);
    for odd in [
        change(lost.clone(), "balance_transactions", Value::Null),
        change(lost.clone(), "balance_transactions", json!([{"amount": "x", "currency": "usd"}])),
        change(lost.clone(), "amount", Value::Null),
        change(lost.clone(), "amount", json!(-500)),
        change(lost.clone(), "currency", json!("jpy")),
        dispute("lost", &[(i64::MIN, "usd")]),
        dispute("lost", &[(i64::MIN, "usd"), (-1, "usd")]),
    ] {
        let found = disputed(0, std::slice::from_ref(&odd)).await;
        assert_eq!(found, Err(LookUpError::Unavailable), "{odd}");
    }
}

#[tokio::test]
async fn disputes_that_cannot_be_listed_are_an_error() {
    let refused = |reply: Reply| async {
        let script = Script::play([reply_of_a_disputed_charge(), reply]).await;
        script.stripe().standing("pi_1").await.unwrap_err()
    };
    // It is the disputes that are not found, not the intent.
    assert_eq!(refused(error(404, &json!({}))).await, LookUpError::Unavailable);
    assert_eq!(refused(error(403, &json!({}))).await, LookUpError::Operator);
    let given_up = html(404).with("stripe-should-retry", "false");
    assert_eq!(refused(given_up).await, LookUpError::Unavailable);
    let unfinished = reply(200, &json!({"data": [], "has_more": true}));
    assert_eq!(refused(unfinished).await, LookUpError::Unavailable);
}

fn reply_of_a_disputed_charge() -> Reply {
    reply(200, &charged(charge(0, true)))
}

#[tokio::test]
async fn objects_of_the_other_mode_are_the_operators_business() {
    let live = |mut object: Value| {
        object["livemode"] = json!(true);
        object
    };
    let operator = Err(LookUpError::Operator);
    assert_eq!(standing([live(charged(charge(0, false)))]).await, operator);
    assert_eq!(standing([charged(live(charge(0, false)))]).await, operator);
    assert_eq!(disputed(0, &[live(dispute("lost", &[]))]).await, operator);
    let script = Script::play([reply(200, &page(&[live(dispute("lost", &[]))]))]).await;
    assert_eq!(script.stripe().disputes_since(0).await, Err(LookUpError::Operator));
}

#[tokio::test]
async fn somebody_elses_intent_in_an_unknown_currency_is_not_ours() {
    let mut foreign = charged(charge(0, false));
    foreign["currency"] = json!("xxx");
    assert_eq!(standing([foreign.clone()]).await, Err(LookUpError::Unavailable));
    foreign["metadata"] = json!({});
    assert_eq!(standing([foreign]).await, Err(LookUpError::NotFound));
}

#[tokio::test]
async fn an_intents_id_cannot_lead_to_another_endpoint() {
    let script = Script::play([reply(200, &charged(charge(0, false)))]).await;
    let long = "p".repeat(256);
    for id in ["", "../account", "pi_1/cancel", "pi_1?expand=x", "pi 1", "%2e%2e", &long] {
        let found = script.stripe().standing(id).await;
        assert_eq!(found, Err(LookUpError::NotFound), "{id:?}");
    }
    assert_eq!(script.seen(), []);
}

#[tokio::test]
async fn disputes_since_are_read_page_by_page() {
    let mut foreign = dispute("lost", &[(-5, "xxx")]);
    foreign["currency"] = json!("xxx");
    foreign["id"] = json!("du_2");
    let first = json!({"data": [dispute("lost", &[(-500, "usd")]), foreign], "has_more": true});
    let mut oldest = dispute("won", &[]);
    oldest["payment_intent"] = json!({"id": "pi_9", "object": "payment_intent"});
    let replies = [first, page(&[oldest])].map(|body| reply(200, &body));
    let script = Script::play(replies).await;
    let disputes = script.stripe().disputes_since(1_700_000_000).await.unwrap();
    let found: Vec<_> =
        disputes.iter().map(|d| (d.intent.as_deref().unwrap(), d.state, d.withdrawn)).collect();
    let expected =
        [("pi_1", DisputeState::Lost, cents(500)), ("pi_9", DisputeState::Won, Micros::ZERO)];
    assert_eq!(found, expected);
    let seen = script.seen();
    assert_eq!(seen[0].fields()["created[gte]"], "1700000000");
    assert_eq!(seen[1].fields()["created[gte]"], "1700000000");
    assert_eq!(seen[1].fields()["starting_after"], "du_2");
}

#[tokio::test]
async fn refunded_intents_are_named_once_each() {
    let refund = |id: &str, intent: Value| json!({"id": id, "payment_intent": intent});
    let refunds = page(&[
        refund("re_4", json!("pi_2")),
        refund("re_3", json!({"id": "pi_1"})),
        refund("re_2", Value::Null),
        refund("re_1", json!("pi_2")),
    ]);
    let script = Script::play([reply(200, &refunds)]).await;
    let intents = script.stripe().refunded_since(7).await.unwrap();
    assert_eq!(intents, ["pi_2", "pi_1"]);
    let [seen] = script.seen().try_into().unwrap();
    assert_eq!(seen.target.split('?').next(), Some("/v1/refunds"));
    assert_eq!(seen.fields()["created[gte]"], "7");
}
