//! What an agent knows: per origin the credential, the publishable key, the last prices and the
//! payment whose outcome is open; and which named calls were paid, and which a human approved.
//!
//! Everything here is bounded, and nothing here is card data. What was taken from the card is
//! counted elsewhere, in the [budget](crate::budget), which other agents may share.

use std::collections::BTreeMap;

use farebox_policy::Hold;
use farebox_protocol::{ClientId, Currency, Micros, Money, Offer, PaymentMethodId, TopUpId, Units};
use serde::{Deserialize, Serialize};

use crate::agent::Forgotten;
use crate::approval::{ApprovalId, Question};
use crate::budget::HoldId;
use crate::call::CallName;
use crate::origin::Origin;

const ORIGINS_MAX: usize = 1_024;
const ROUTES_MAX: usize = 256;
/// Named calls whose payment is remembered.
const CALLS_MAX: usize = 4_096;
/// Questions to a human that are remembered.
const QUESTIONS_MAX: usize = 256;
/// Denied charges of one origin that are remembered.
const DENIED_MAX: usize = 64;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Books {
    origins: BTreeMap<String, Known>,
    /// Named calls that a card was offered for.
    #[serde(default)]
    calls: BTreeMap<CallName, PaidCall>,
    #[serde(default)]
    questions: BTreeMap<ApprovalId, Asked>,
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
    /// The bounds of a top-up, as the last offer said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) bounds: Option<Bounds>,
    /// A hold that is being made or given back. No payment was sent under it, or the server took
    /// nothing: whoever has the origin's turn next releases it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) held: Option<HoldId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) unresolved: Option<Unresolved>,
    /// Holds of payments that the server answered by saying that it took nothing. That is only its
    /// word, so they stay counted until their owner takes them back.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) denied: Vec<HoldId>,
    /// Payments by card that were written down here.
    #[serde(default)]
    pub(crate) payments: u64,
    #[serde(default)]
    prices: BTreeMap<String, Price>,
    #[serde(default)]
    used: u64,
}

/// A payment that was or is about to be sent and whose outcome is not known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unresolved {
    pub(crate) id: HoldId,
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

/// A named call that a card was offered for: it goes on with this payment, and with no other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PaidCall {
    payment: HoldId,
    used: u64,
}

/// The smallest and the largest top-up that a server takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) min: Units,
    pub(crate) max: Option<Units>,
    pub(crate) currency: Currency,
}

/// A question to a human, and whether the answer was yes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    #[serde(default)]
    pub(crate) approved: bool,
    used: u64,
}

/// What is known before one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Glimpse {
    pub(crate) credential: Option<ClientId>,
    pub(crate) publishable_key: Option<String>,
    pub(crate) extended: bool,
    pub(crate) bounds: Option<Bounds>,
    pub(crate) held: Option<HoldId>,
    pub(crate) unresolved: Option<Unresolved>,
    pub(crate) denied: Vec<HoldId>,
    pub(crate) payments: u64,
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
            bounds: known.bounds.clone(),
            held: known.held,
            unresolved: known.unresolved.clone(),
            denied: known.denied.clone(),
            payments: known.payments,
            price: price.map(|price| Money::new(price.amount.micros(), price.currency)),
        }
    }

    /// Whether there is credit at `origin`, or a payment that nobody knows the end of.
    pub(crate) fn is_customer(&self, origin: &Origin) -> bool {
        let known = self.origins.get(origin.key());
        known.is_some_and(|known| known.credential.is_some() || known.unresolved.is_some())
    }

    /// The record of `origin`, if it has one.
    pub(crate) fn known(&mut self, origin: &Origin) -> Option<&mut Known> {
        self.origins.get_mut(origin.key())
    }

    /// All records, by origin.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.origins.iter().map(|(origin, known)| (origin.as_str(), known))
    }

    /// The record of `origin`, made if need be. `None` when every record that could make room
    /// for it has an open payment.
    pub(crate) fn entry(&mut self, origin: &Origin) -> Option<&mut Known> {
        if !self.origins.contains_key(origin.key()) && self.origins.len() >= ORIGINS_MAX {
            let forgettable = self.origins.iter().filter(|(_, known)| !known.is_open());
            // Records without credit go first.
            let least =
                forgettable.min_by_key(|(_, known)| (known.credential.is_some(), known.used));
            let key = least.map(|(key, _)| key.clone())?;
            self.origins.remove(&key);
        }
        let used = self.tick();
        let known = self.origins.entry(origin.key().to_owned()).or_default();
        known.used = used;
        Some(known)
    }

    /// Whether an offer says something new of its route or its server.
    pub(crate) fn is_news(&self, origin: &Origin, route: &str, offer: &Offer) -> bool {
        let Some(known) = self.origins.get(origin.key()) else { return true };
        let price = known.prices.get(route).map(|price| (price.amount, price.currency));
        price != Some((offer.amount, offer.currency))
            || known.bounds.as_ref() != Some(&Bounds::of(offer))
            || !known.extended && offer.max_top_up.is_some()
    }

    /// Remembers what an offer says of its route and its server.
    pub(crate) fn learn(&mut self, origin: &Origin, route: &str, offer: &Offer) {
        let Some(known) = self.entry(origin) else { return };
        known.extended |= offer.max_top_up.is_some();
        known.bounds = Some(Bounds::of(offer));
        let (used, amount, currency) = (known.used, offer.amount, offer.currency);
        known.prices.insert(route.to_owned(), Price { amount, currency, used });
        if known.prices.len() > ROUTES_MAX {
            let oldest = known.prices.iter().min_by_key(|(_, price)| price.used);
            if let Some(route) = oldest.map(|(route, _)| route.clone()) {
                known.prices.remove(&route);
            }
        }
    }

    /// The payment under which a card was offered for the call of this name.
    pub(crate) fn paid_under(&self, call: &CallName) -> Option<HoldId> {
        self.calls.get(call).map(|paid| paid.payment)
    }

    /// Remembers that a card is offered for the call of this name.
    pub(crate) fn set_paid(&mut self, call: CallName, payment: HoldId) {
        let used = self.tick();
        self.calls.insert(call, PaidCall { payment, used });
        forget_oldest(&mut self.calls, CALLS_MAX, |paid| paid.used);
    }

    /// The card that was offered for this call was not taken.
    pub(crate) fn unset_paid(&mut self, call: &CallName) {
        self.calls.remove(call);
    }

    /// A question that was asked before.
    pub(crate) fn asked(&self, id: &ApprovalId) -> Option<&Asked> {
        self.questions.get(id)
    }

    /// Remembers a question, or that it was answered with yes.
    pub(crate) fn ask(&mut self, question: &Question, approved: bool) {
        let used = self.tick();
        let asked = Asked { question: question.clone(), approved, used };
        self.questions.insert(question.id, asked);
        forget_oldest(&mut self.questions, QUESTIONS_MAX, |asked| asked.used);
    }

    /// Forgets a question that was answered with no, or whose yes was used.
    pub(crate) fn unask(&mut self, id: &ApprovalId) {
        self.questions.remove(id);
    }

    /// Forgets an origin: its credential and with it the credit there.
    pub(crate) fn forget(&mut self, origin: &Origin) -> Forgotten {
        match self.origins.get(origin.key()) {
            Some(known) if known.is_open() => Forgotten::Open,
            Some(_) => {
                self.origins.remove(origin.key());
                Forgotten::Forgotten
            }
            None => Forgotten::Unknown,
        }
    }

    fn tick(&mut self) -> u64 {
        self.uses = self.uses.saturating_add(1);
        self.uses
    }
}

fn forget_oldest<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, V>,
    most: usize,
    used: impl Fn(&V) -> u64,
) {
    while map.len() > most {
        let oldest = map.iter().min_by_key(|(_, value)| used(value));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
        map.remove(&key);
    }
}

impl Bounds {
    fn of(offer: &Offer) -> Bounds {
        Bounds { min: offer.min_top_up, max: offer.max_top_up, currency: offer.currency }
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
    /// Whether money may be on its way.
    fn is_open(&self) -> bool {
        self.unresolved.is_some() || self.held.is_some()
    }

    /// The server says that it took nothing under this hold. Of too many the oldest is forgotten:
    /// it is counted for good.
    pub(crate) fn deny(&mut self, id: HoldId) {
        if !self.denied.contains(&id) {
            self.denied.push(id);
        }
        let over = self.denied.len().saturating_sub(DENIED_MAX);
        self.denied.drain(..over);
    }

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
            id: HoldId::random().unwrap(),
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
            let route = format!("GET /{n}");
            assert!(books.is_news(&origin(0), &route, &offer[0]));
            books.learn(&origin(0), &route, &offer[0]);
            assert!(!books.is_news(&origin(0), &route, &offer[0]));
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
