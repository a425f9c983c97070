//! Every movement of money is a balance transaction, and nothing else moves any.

use serde_json::{Value, json};

use crate::support::{Api, NOW};

/// Every row of a list, page by page.
async fn all(api: &Api, path: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let after = rows.last().and_then(|row| row["id"].as_str());
        let after = after.map(|id| format!("&starting_after={id}")).unwrap_or_default();
        let page = api.get(&format!("{path}?limit=100{after}")).await.ok();
        rows.extend(page.at("data").as_array().unwrap().clone());
        if page.at("has_more") == false {
            return rows;
        }
    }
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Value>, field: &str) -> i64 {
    rows.into_iter().map(|row| row[field].as_i64().unwrap()).sum()
}

#[tokio::test]
async fn charges_and_refunds_move_money_with_their_own_fees() {
    let api = Api::start().await;
    let payment = api.paid("pm_card_visa").await;
    let charge = api.charge(&payment).await;
    api.advance(60);
    let expand = "&amount=200&expand[]=balance_transaction&expand[]=charge.balance_transaction";
    let refund = api.post("/v1/refunds", &format!("payment_intent={payment}{expand}")).await.ok();
    assert_eq!(refund.at("charge.amount_refunded"), 200);
    let of_charge = refund.at("charge.balance_transaction");
    assert_eq!(of_charge["id"], charge.at("balance_transaction"));
    assert_eq!((&of_charge["amount"], &of_charge["type"]), (&json!(500), &json!("charge")));
    assert_eq!((&of_charge["fee"], &of_charge["net"]), (&json!(45), &json!(455)));
    assert_eq!(of_charge["fee_details"][0]["amount"], 45);
    let of_refund = refund.at("balance_transaction");
    assert_eq!((&of_refund["amount"], &of_refund["type"]), (&json!(-200), &json!("refund")));
    assert_eq!((&of_refund["fee"], &of_refund["fee_details"]), (&json!(0), &json!([])));
    assert_eq!((&of_refund["source"], &of_refund["created"]), (&refund.at("id"), &json!(NOW + 60)));

    api.sandbox.fail_refund(&refund.text("id")).unwrap();
    let path = format!("/v1/balance_transactions/{}", charge.text("balance_transaction"));
    assert_eq!(api.get(&path).await.ok().at("source"), charge.at("id"));
    for (query, amounts) in [
        ("type=charge".to_owned(), json!([500])),
        ("type=refund_failure".to_owned(), json!([200])),
        ("type=payout".to_owned(), json!([])),
        (format!("created[lte]={NOW}"), json!([500])),
        (format!("source={}", refund.text("id")), json!([200, -200])),
        ("limit=2".to_owned(), json!([200, -200])),
    ] {
        let found = api.get(&format!("/v1/balance_transactions?{query}")).await.ok().at("data");
        let found: Vec<_> =
            found.as_array().unwrap().iter().map(|row| row["amount"].clone()).collect();
        assert_eq!(json!(found), amounts, "{query}");
    }
    let expanded = api.get("/v1/balance_transactions?expand[]=data.source").await.ok();
    assert_eq!(expanded.at("data.2.source.payment_intent"), payment);
    let missing = api.get("/v1/balance_transactions/txn_1").await;
    missing.is_error(404, "invalid_request_error", "resource_missing");
}

/// Numbers that look random and are the same in every run of a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn amount(&mut self, most: usize) -> i64 {
        i64::try_from(self.below(most) + 1).unwrap()
    }
}

/// What a payment should have come to, kept by hand.
struct Payment {
    id: String,
    held: i64,
    taken: i64,
    /// (id, amount); amount 0 once it failed.
    refunds: Vec<(String, i64)>,
    /// (id, amount, whether it is an open inquiry, whether it is an open chargeback).
    disputes: Vec<(String, i64, bool, bool)>,
    /// Withdrawn and not reinstated.
    withdrawn: i64,
}

impl Payment {
    fn refunded(&self) -> i64 {
        self.refunds.iter().map(|(_, amount)| amount).sum()
    }

    fn left(&self) -> i64 {
        self.taken - self.refunded() - self.withdrawn
    }
}

async fn pay(api: &Api, dice: &mut Dice) -> Payment {
    let (amount, hold) = (dice.amount(900) + 100, dice.below(3) == 0);
    let method = if hold { "manual" } else { "automatic" };
    let form = format!(
        "amount={amount}&currency=usd&confirm=true&payment_method=pm_card_visa\
         &payment_method_types[]=card&capture_method={method}"
    );
    let id = api.post("/v1/payment_intents", &form).await.ok().text("id");
    let (held, taken) = if hold { (amount, 0) } else { (0, amount) };
    Payment { id, held, taken, refunds: Vec::new(), disputes: Vec::new(), withdrawn: 0 }
}

async fn capture(api: &Api, dice: &mut Dice, payment: &mut Payment) {
    let (id, amount) = (&payment.id, dice.amount(1_100));
    let form = format!("amount_to_capture={amount}");
    let answer = api.post(&format!("/v1/payment_intents/{id}/capture"), &form).await;
    let possible = amount <= payment.held;
    assert_eq!(answer.status == 200, possible, "{}", answer.text);
    if possible {
        (payment.held, payment.taken) = (0, amount);
    }
}

async fn refund(api: &Api, dice: &mut Dice, payment: &mut Payment) {
    let amount = dice.amount(500);
    let form = format!("payment_intent={}&amount={amount}", payment.id);
    let answer = api.post("/v1/refunds", &form).await;
    let possible = payment.withdrawn == 0 && amount <= payment.left();
    assert_eq!(answer.status == 200, possible, "{}", answer.text);
    if possible {
        payment.refunds.push((answer.text("id"), amount));
    }
}

fn fail_refund(api: &Api, dice: &mut Dice, payment: &mut Payment) {
    if payment.refunds.is_empty() {
        return;
    }
    let at = dice.below(payment.refunds.len());
    let (id, amount) = &mut payment.refunds[at];
    assert_eq!(api.sandbox.fail_refund(id).is_ok(), *amount > 0);
    *amount = 0;
}

fn dispute(api: &Api, dice: &mut Dice, payment: &mut Payment) {
    let amount = dice.amount(500);
    let possible = amount <= payment.left();
    let opened = api.sandbox.dispute_part(&payment.id, amount);
    assert_eq!(opened.is_ok(), possible);
    if let Ok(id) = opened {
        payment.withdrawn += amount;
        payment.disputes.push((id, amount, false, true));
    }
}

fn inquire(api: &Api, payment: &mut Payment) {
    let left = payment.left();
    let opened = api.sandbox.inquire(&payment.id);
    assert_eq!(opened.is_ok(), left > 0);
    if let Ok(id) = opened {
        payment.disputes.push((id, left, true, false));
    }
}

fn go_on(api: &Api, dice: &mut Dice, payment: &mut Payment) {
    if payment.disputes.is_empty() {
        return;
    }
    let (at, left) = (dice.below(payment.disputes.len()), payment.left());
    let (id, amount, inquiry, chargeback) = &mut payment.disputes[at];
    let was = (*inquiry, *chargeback);
    match dice.below(4) {
        0 => {
            assert_eq!(api.sandbox.win(id).is_ok(), was.1);
            payment.withdrawn -= if was.1 { *amount } else { 0 };
            *chargeback = false;
        }
        1 => {
            assert_eq!(api.sandbox.lose(id).is_ok(), was.1);
            *chargeback = false;
        }
        2 => {
            assert_eq!(api.sandbox.close_inquiry(id).is_ok(), was.0);
            *inquiry = false;
        }
        _ => {
            let possible = was.0 && left > 0;
            assert_eq!(api.sandbox.escalate(id).is_ok(), possible);
            if possible {
                (*amount, *inquiry, *chargeback) = ((*amount).min(left), false, true);
                payment.withdrawn += *amount;
            }
        }
    }
}

async fn check(api: &Api, payments: &[Payment]) {
    let balance = sum(&all(api, "/v1/balance_transactions").await, "amount");
    let kept: i64 = payments.iter().map(Payment::left).sum();
    assert_eq!(balance, kept);
    assert!(payments.iter().all(|payment| payment.left() >= 0));

    let (charges, refunds) = (all(api, "/v1/charges").await, all(api, "/v1/refunds").await);
    let paid_out = |it: &&Value| it["status"] != "failed" && !it["balance_transaction"].is_null();
    let refunded = sum(refunds.iter().filter(paid_out), "amount");
    let disputes = all(api, "/v1/disputes").await;
    let disputed: i64 = disputes
        .iter()
        .map(|it| sum(it["balance_transactions"].as_array().unwrap(), "amount"))
        .sum();
    assert_eq!(balance, sum(&charges, "amount_captured") - refunded + disputed);
    let back = sum(&charges, "amount_refunded");
    let alive = refunds.iter().filter(|it| it["status"] != "failed");
    assert_eq!(back, sum(alive, "amount"));
}

#[tokio::test]
async fn whatever_happens_the_balance_is_what_was_taken_and_not_given_back() {
    for seed in 1..=4 {
        let (api, mut dice) = (Api::start().await, Dice(seed));
        let mut payments = vec![pay(&api, &mut dice).await];
        for step in 0..150 {
            let at = dice.below(payments.len());
            let payment = &mut payments[at];
            match dice.below(8) {
                0 => payments.push(pay(&api, &mut dice).await),
                1 => capture(&api, &mut dice, payment).await,
                2 | 3 => refund(&api, &mut dice, payment).await,
                4 => fail_refund(&api, &mut dice, payment),
                5 => dispute(&api, &mut dice, payment),
                6 => inquire(&api, payment),
                _ => go_on(&api, &mut dice, payment),
            }
            if step % 5 == 0 {
                check(&api, &payments).await;
            }
        }
        check(&api, &payments).await;
    }
}
