//! What an agent remembers: its usage of the card, and per origin a credential, prices, the
//! publishable key and a payment whose outcome is not known.
//!
//! Everything here is bounded, and nothing here is card data.

use std::collections::BTreeMap;

use farebox_policy::{Hold, Usage};
use farebox_protocol::{ClientId, Currency, Micros, Money, Offer, PaymentMethodId, TopUpId, Units};
use serde::{Deserialize, Serialize};

use crate::origin::Origin;

const ORIGINS_MAX: usize = 1_024;
const ROUTES_MAX: usize = 256;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Books {
    pub(crate) usage: Usage,
    origins: BTreeMap<String, Known>,
    /// Counts uses, so that the least recently used is forgotten first.
    uses: u64,
}

/// What is known of one origin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) credential: Option<ClientId>,
    /// The key that the first card was tokenized under.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) publishable_key: Option<String>,
    /// The server has sent `charged`, `maxTopUp` or `payment_pending`. Then it also honours
    /// `maxAmount` and charges a repeated payment once. A v1 server does none of these.
    #[serde(default)]
    pub(crate) extended: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) unresolved: Option<Unresolved>,
    #[serde(default)]
    prices: BTreeMap<String, Price>,
    #[serde(default)]
    used: u64,
}

/// A payment that was or is about to be sent and whose outcome is not known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unresolved {
    pub(crate) payment_method: PaymentMethodId,
    pub(crate) hold: Hold,
    /// What the hold still pays for: its amount less the prices that it was sent for. Beyond it, a
    /// repeat may be a second top-up.
    #[serde(default)]
    pub(crate) covers: Micros,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) top_up_id: Option<TopUpId>,
    /// The server answered it by asking to be paid.
    #[serde(default)]
    pub(crate) asked_again: bool,
}

/// What is known before one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Glimpse {
    pub(crate) credential: Option<ClientId>,
    pub(crate) publishable_key: Option<String>,
    pub(crate) extended: bool,
    pub(crate) unresolved: Option<Unresolved>,
    /// The last price of the route.
    pub(crate) price: Option<Money>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Price {
    amount: Units,
    currency: Currency,
    used: u64,
}

impl Books {
    /// What is known of a route of `origin`; nothing, if it was never paid.
    pub(crate) fn glimpse(&self, origin: &Origin, route: &str) -> Glimpse {
        let Some(known) = self.origins.get(origin.key()) else { return Glimpse::default() };
        let price = known.prices.get(route);
        Glimpse {
            credential: known.credential.clone(),
            publishable_key: known.publishable_key.clone(),
            extended: known.extended,
            unresolved: known.unresolved.clone(),
            price: price.map(|price| Money::new(price.amount.micros(), price.currency)),
        }
    }

    /// The record of `origin`, made if need be. `None` when every record that could make room
    /// for it has an unresolved payment.
    pub(crate) fn entry(&mut self, origin: &Origin) -> Option<&mut Known> {
        if !self.origins.contains_key(origin.key()) && self.origins.len() >= ORIGINS_MAX {
            let forgettable = self.origins.iter().filter(|(_, known)| known.unresolved.is_none());
            // Records without credit go first.
            let least =
                forgettable.min_by_key(|(_, known)| (known.credential.is_some(), known.used));
            let key = least.map(|(key, _)| key.clone())?;
            self.origins.remove(&key);
        }
        self.uses = self.uses.saturating_add(1);
        let known = self.origins.entry(origin.key().to_owned()).or_default();
        known.used = self.uses;
        Some(known)
    }

    /// Remembers what an offer says of its route and its server; true if that is news.
    pub(crate) fn learn(&mut self, origin: &Origin, route: &str, offer: &Offer) -> bool {
        let Some(known) = self.entry(origin) else { return false };
        known.extended |= offer.max_top_up.is_some();
        let (used, amount, currency) = (known.used, offer.amount, offer.currency);
        let old = known.prices.insert(route.to_owned(), Price { amount, currency, used });
        if known.prices.len() > ROUTES_MAX {
            let oldest = known.prices.iter().min_by_key(|(_, price)| price.used);
            if let Some(route) = oldest.map(|(route, _)| route.clone()) {
                known.prices.remove(&route);
            }
        }
        old.is_none_or(|old| (old.amount, old.currency) != (amount, currency))
    }

    /// Ends the unresolved payment of `origin`.
    pub(crate) fn resolve(&mut self, origin: &Origin) -> Option<Unresolved> {
        self.origins.get_mut(origin.key())?.unresolved.take()
    }

    /// Takes back a hold whose money did not leave the card.
    pub(crate) fn release(&mut self, hold: &Hold) {
        self.usage = self.usage.release(hold);
    }

    /// Forgets the publishable key of `origin`.
    pub(crate) fn forget_key(&mut self, origin: &Origin) {
        if let Some(known) = self.origins.get_mut(origin.key()) {
            known.publishable_key = None;
        }
    }

    /// Ends the unresolved payment of `origin`, whose money counts as spent.
    pub(crate) fn write_off(&mut self, origin: &Origin) -> Option<Money> {
        self.resolve(origin).map(|unresolved| unresolved.hold.amount())
    }
}

impl Unresolved {
    /// What the hold covers after a repeat of this price; `None` if that is more than it covers.
    pub(crate) fn covers_after(&self, price: Money) -> Option<Micros> {
        if self.hold.amount().currency() != price.currency() {
            return None;
        }
        self.covers.checked_sub(price.micros()).filter(|left| *left >= Micros::ZERO)
    }
}

impl Known {
    /// A route whose last price is wrong.
    pub(crate) fn forget_price(&mut self, route: &str) {
        self.prices.remove(route);
    }
}

#[cfg(test)]
mod tests {
    use farebox_policy::Request;
    use farebox_protocol::{PaymentRequired, usd};
    use reqwest::Url;

    use super::*;

    fn origin(n: usize) -> Origin {
        Origin::of(&Url::parse(&format!("https://host{n}.example/")).unwrap()).unwrap()
    }

    fn unresolved() -> Unresolved {
        Unresolved {
            payment_method: "pm_1".parse().unwrap(),
            hold: Request::new("host", 443, usd!("0")).top_up(usd!("5")).hold(0).unwrap(),
            covers: usd!("5").micros(),
            top_up_id: None,
            asked_again: false,
        }
    }

    #[test]
    fn routes_are_bounded_and_the_least_recently_learnt_goes_first() {
        let offer = PaymentRequired::stripe("/", usd!("0.01"), usd!("5"), "pk_test_1").accepts;
        let mut books = Books::default();
        for n in 0..=ROUTES_MAX {
            assert!(books.learn(&origin(0), &format!("GET /{n}"), &offer[0]));
        }
        assert_eq!(books.glimpse(&origin(0), "GET /0").price, None);
        assert_eq!(books.glimpse(&origin(0), "GET /1").price, Some(usd!("0.01")));
        assert_eq!(books.origins["https://host0.example"].prices.len(), ROUTES_MAX);
    }

    #[test]
    fn origins_are_bounded_and_those_with_credit_or_open_payments_stay_longest() {
        let mut books = Books::default();
        books.entry(&origin(0)).unwrap().unresolved = Some(unresolved());
        books.entry(&origin(1)).unwrap().credential = Some("credential".parse().unwrap());
        for n in 2..ORIGINS_MAX + 10 {
            assert!(books.entry(&origin(n)).is_some());
        }
        assert_eq!(books.origins.len(), ORIGINS_MAX);
        assert!(books.glimpse(&origin(0), "").unresolved.is_some());
        assert!(books.glimpse(&origin(1), "").credential.is_some());
        for known in books.origins.values_mut() {
            known.unresolved = Some(unresolved());
        }
        assert!(books.entry(&origin(9_999)).is_none(), "nothing may be forgotten");
        assert!(books.entry(&origin(0)).is_some());
    }
}
