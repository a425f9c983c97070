//! Attacks by what is said about a payment after the card was charged.

use serde_json::json;

use super::shop::{Card, PRICE, Repeats, Shop};
use super::wire::{Answer, Ask, Reply};

pub(super) fn repeated_402(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    shop.ask(&[shop.offer()]).into()
}

pub(super) fn ghost_paywall(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    shop.asking(&[shop.offer()], ask.pays.then_some("insufficient_credits")).into()
}

pub(super) fn bargain(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    let price = (PRICE >> shop.requests.min(6)).max(1);
    shop.ask(&[shop.offer_with("amount", price)]).into()
}

pub(super) fn paid_402(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, card| {
        let receipt = shop.receipt(card, PRICE);
        shop.ask(&[shop.offer()]).message("payment-response", &receipt).into()
    })
}

pub(super) fn empty_credit(shop: &mut Shop, ask: &Ask) -> Reply {
    let card = shop.take(ask, Repeats::Join);
    shop.credit = 0;
    if card.paid() {
        return shop.serve(&card, PRICE).into();
    }
    shop.asking(&[shop.offer()], ask.pays.then_some("insufficient_credits")).into()
}

pub(super) fn eaten_credit(shop: &mut Shop, ask: &Ask) -> Reply {
    let card = shop.take(ask, Repeats::Join);
    let all = std::mem::take(&mut shop.credit);
    if card.paid() {
        return shop.serve(&card, all).into();
    }
    shop.asking(&[shop.offer()], ask.pays.then_some("insufficient_credits")).into()
}

/// The receipt reads as if credit had paid: it names no charge and no top-up.
pub(super) fn hidden_charge(shop: &mut Shop, ask: &Ask) -> Reply {
    let card = shop.take(ask, Repeats::Join);
    shop.credit = 0;
    if card.paid() {
        return shop.serve(&Card::None, PRICE).into();
    }
    shop.asking(&[shop.offer()], ask.pays.then_some("insufficient_credits")).into()
}

pub(super) fn credential_swap(shop: &mut Shop, ask: &Ask) -> Reply {
    let card = shop.take(ask, Repeats::Join);
    if !card.paid() {
        return shop.asking(&[shop.offer()], ask.pays.then_some("insufficient_credits")).into();
    }
    let mut receipt = shop.receipt(&card, PRICE);
    receipt["clientId"] = format!("{}.{}", shop.credential(), shop.requests).into();
    let answer = shop.serve(&card, PRICE).without("payment-response");
    answer.message("payment-response", &receipt).into()
}

pub(super) fn credential_bomb(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, card| {
        let mut receipt = shop.receipt(card, PRICE);
        receipt["clientId"] = format!("payer\r\nx-evil: 1{}", "A".repeat(4_000)).into();
        let answer = shop.serve(card, PRICE).without("payment-response");
        answer.message("payment-response", &receipt).into()
    })
}

/// The card was charged, and the server says that it was not.
pub(super) fn false_decline(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| shop.refuse(402, "card_declined").into())
}

pub(super) fn false_price_refusal(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| shop.asking(&[shop.offer()], Some("price_above_maximum")).into())
}

pub(super) fn false_outage(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| shop.refuse(503, "processor_unavailable").into())
}

pub(super) fn false_limit(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| shop.refuse(429, "rate_limited").into())
}

pub(super) fn false_freeze(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| shop.refuse(403, "account_frozen").into())
}

/// A name for a top-up, as a server of this protocol gives it.
fn top_up_id(payer: char, number: u64) -> String {
    format!("tu_{}_usd_{number}", payer.to_string().repeat(64))
}

fn pending(shop: &Shop, top_up: Option<String>) -> Reply {
    let mut told = json!({
        "success": false, "creditsRemaining": 0, "clientId": "", "errorCode": "payment_pending",
    });
    if let Some(id) = top_up {
        told["topUpId"] = id.into();
    }
    shop.refuse(503, "payment_pending").body(told.to_string()).into()
}

pub(super) fn pending_forever(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| pending(shop, Some(top_up_id('a', 1))))
}

pub(super) fn nameless_pending(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| pending(shop, None))
}

pub(super) fn changing_top_up(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| pending(shop, Some(top_up_id('a', shop.requests))))
}

/// The client goes on with a name that this server never gave, and is told that it ended.
pub(super) fn foreign_top_up(shop: &mut Shop, ask: &Ask) -> Reply {
    let named = ask.text_of("topUpId").is_some();
    shop.taking(ask, |shop, _| {
        let mut told = json!({
            "success": false, "creditsRemaining": 0, "clientId": "", "errorCode": "card_declined",
        });
        told["topUpId"] = top_up_id('b', 7).into();
        match named {
            true => shop.refuse(402, "card_declined").body(told.to_string()).into(),
            false => pending(shop, Some(top_up_id('b', 7))),
        }
    })
}

pub(super) fn lost_answers(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Reply::nothing())
}

/// A server of version 1 that charges whatever it is sent, and answers nothing.
pub(super) fn lost_answers_v1(shop: &mut Shop, ask: &Ask) -> Reply {
    if shop.take(ask, Repeats::Charge).paid() {
        return Reply::nothing();
    }
    shop.ask(&[v1_offer(shop)]).into()
}

pub(super) fn failures_v1(shop: &mut Shop, ask: &Ask) -> Reply {
    if shop.take(ask, Repeats::Charge).paid() {
        let told = json!({
            "success": false, "creditsRemaining": 0, "clientId": "", "errorCode": "payment_failed",
        });
        return Answer::new(402).body(told.to_string()).into();
    }
    shop.ask(&[v1_offer(shop)]).into()
}

pub(super) fn v1_offer(shop: &Shop) -> serde_json::Value {
    let mut offer = shop.offer();
    if let Some(fields) = offer.as_object_mut() {
        fields.remove("maxTopUp");
    }
    offer
}

pub(super) fn untold(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Answer::new(200).body("served\n").into())
}

pub(super) fn unsuccessful_200(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| {
        let told = json!({ "success": false, "creditsRemaining": 0, "clientId": "" });
        Answer::new(200).message("payment-response", &told).into()
    })
}

pub(super) fn crash_after_charge(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Answer::new(500).body("<html>Internal Server Error</html>").into())
}

pub(super) fn conflicting_codes(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, card| {
        let declined = json!({
            "success": false, "creditsRemaining": 0, "clientId": "", "errorCode": "card_declined",
        });
        let receipt = shop.receipt(card, PRICE);
        let answer = shop.asking(&[shop.offer()], Some("insufficient_credits"));
        answer.message("payment-response", &receipt).body(declined.to_string()).into()
    })
}

/// The payment comes back in a cookie and in a link.
pub(super) fn cookie(shop: &mut Shop, ask: &Ask) -> Reply {
    let sent = ask.text.lines().find_map(|line| line.strip_prefix("payment: ")).unwrap_or("");
    let cookie = format!("payment={}; Path=/; Domain=127.0.0.1", sent.trim());
    let away = format!("{}/resource", shop.elsewhere);
    shop.fair(ask).with("set-cookie", cookie).with("refresh", format!("0; url={away}")).into()
}

pub(super) fn retry_after_forever(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    Answer::new(503).with("retry-after", "4294967295").into()
}

pub(super) fn retry_storm(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |_, _| Answer::new(503).with("retry-after", "0").into())
}
