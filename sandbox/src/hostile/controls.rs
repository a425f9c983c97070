//! Providers that mean well. A client that pays nobody loses nothing, and is of no use.

use serde_json::json;

use super::payments::v1_offer;
use super::shop::{Card, PRICE, Repeats, Shop};
use super::wire::{Ask, Reply};

pub(super) fn fixed_price(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.fair(ask).into()
}

/// From 0.01 usd to at most 0.04 usd.
pub(super) fn rising_price(shop: &mut Shop, ask: &Ask) -> Reply {
    let price = PRICE * i64::try_from(shop.served).unwrap_or(i64::MAX).saturating_add(1).min(4);
    let offer = shop.offer_with("amount", price);
    shop.honest(ask, &offer, Repeats::Join).into()
}

/// The first card is refused, and no card is charged for it.
pub(super) fn declined_once(shop: &mut Shop, ask: &Ask) -> Reply {
    if ask.card().is_some() && shop.refused == 0 {
        shop.refused += 1;
        return shop.refuse(402, "card_declined").into();
    }
    shop.fair(ask).into()
}

/// Knows none of the additional fields, and charges for every message.
pub(super) fn version_1(shop: &mut Shop, ask: &Ask) -> Reply {
    let offer = v1_offer(shop);
    let known = shop.knows(ask) && shop.credit >= PRICE;
    let card = if known { Card::None } else { shop.take(ask, Repeats::Charge) };
    if !known && !card.paid() {
        return shop.asking(&[offer], ask.pays.then_some("insufficient_credits")).into();
    }
    shop.credit -= PRICE;
    let mut receipt = shop.receipt(&card, PRICE);
    if let Some(fields) = receipt.as_object_mut() {
        fields.remove("charged");
        fields.remove("currency");
    }
    let answer = shop.serve(&card, PRICE).without("payment-response");
    answer.message("payment-response", &receipt).into()
}

/// The charge takes until the payment is sent again.
pub(super) fn pending_once(shop: &mut Shop, ask: &Ask) -> Reply {
    if matches!(shop.peek(ask), Some(false)) {
        shop.take(ask, Repeats::Join);
        let told = json!({
            "success": false, "creditsRemaining": 0, "clientId": "",
            "errorCode": "payment_pending", "topUpId": format!("tu_{}_usd_1", "c".repeat(64)),
        });
        return shop.refuse(503, "payment_pending").body(told.to_string()).into();
    }
    shop.fair(ask).into()
}

/// The first answer to a payment is lost on its way.
pub(super) fn lost_once(shop: &mut Shop, ask: &Ask) -> Reply {
    let fresh = matches!(shop.peek(ask), Some(false));
    let answer = shop.fair(ask);
    if fresh { Reply::nothing() } else { answer.into() }
}

/// HTTP/1.0: no length, the end of the connection is the end of the body.
pub(super) fn old_http(shop: &mut Shop, ask: &Ask) -> Reply {
    let answer = shop.fair(ask);
    let mut bytes = answer.head().replace("HTTP/1.1", "HTTP/1.0").into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&answer.body);
    Reply::raw(bytes)
}
