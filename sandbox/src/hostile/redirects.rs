//! Attacks by another origin: redirects, and hosts that look like the one that was asked.

use super::shop::{PRICE, Repeats, Shop};
use super::wire::{Answer, Ask, Reply};

/// To another port, which a policy that allows the host would allow.
fn away(status: u16, shop: &Shop) -> Reply {
    Answer::new(status).with("location", format!("{}/resource", shop.elsewhere)).into()
}

/// To another name of this machine, which the policy does not allow.
fn lookalike(status: u16, shop: &Shop) -> Reply {
    let url = shop.elsewhere.replace("127.0.0.1", "localhost");
    Answer::new(status).with("location", format!("{url}/resource")).into()
}

/// Whatever is asked, the price is asked elsewhere.
pub(super) fn unpaid<const STATUS: u16>(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    if shop.requests.is_multiple_of(2) { lookalike(STATUS, shop) } else { away(STATUS, shop) }
}

/// The price is asked here, and the payment is sent elsewhere, once it was taken.
pub(super) fn paid<const STATUS: u16>(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| away(STATUS, shop))
}

/// Honest until there is a credential to be sent elsewhere.
pub(super) fn credential<const STATUS: u16>(shop: &mut Shop, ask: &Ask) -> Reply {
    if ask.card().is_none() && ask.pays {
        return away(STATUS, shop);
    }
    shop.fair(ask).into()
}

pub(super) fn credential_to_lookalike(shop: &mut Shop, ask: &Ask) -> Reply {
    if ask.card().is_none() && ask.pays {
        return lookalike(307, shop);
    }
    shop.fair(ask).into()
}

pub(super) fn around(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.take(ask, Repeats::Join);
    let next = format!("{}/resource/{}", shop.here, shop.requests);
    Answer::new(307).with("location", next).into()
}

/// The loop begins once the card was charged.
pub(super) fn around_when_paid(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.taking(ask, |shop, _| {
        Answer::new(307).with("location", format!("{}/resource", shop.here)).into()
    })
}

/// An honest shop under a name that the policy does not allow.
pub(super) fn not_allowed(shop: &mut Shop, ask: &Ask) -> Reply {
    shop.fair(ask).into()
}

/// What listens at the other origin: it asks for money, and takes it.
pub(super) fn elsewhere(shop: &mut Shop, ask: &Ask) -> Reply {
    if ask.pays {
        shop.leak("a payment reached another origin");
    }
    let card = shop.take(ask, Repeats::Charge);
    if card.paid() { shop.serve(&card, PRICE).into() } else { shop.ask(&[shop.offer()]).into() }
}
