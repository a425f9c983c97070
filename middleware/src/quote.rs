//! A quote: the price of a request and the 402 that offers it.

use std::fmt;
use std::sync::Arc;

use farebox_protocol::{
    Currency, ErrorCode, Micros, Money, Offer, PaymentRequired, Resource, header,
};

/// The smallest and the largest top-up, as configured. Where nothing is configured for a
/// currency, they are multiples of Stripe's smallest charge: 5 and 100 dollars.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) smallest: Vec<Money>,
    pub(crate) largest: Vec<Money>,
    /// The most that a new card is charged in a day.
    pub(crate) new_card: Vec<Money>,
}

/// The limits of a top-up leave no amount that a card could be charged; the operator acts.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// The largest top-up has a fraction of a minor unit.
    #[error("the largest top-up, {0}, must be whole minor units, such as cents")]
    NotWhole(Money),
    /// The smallest top-up is above the largest.
    #[error("the smallest top-up, {smallest}, is above the largest, {largest}")]
    Crossed {
        /// As set, or the default.
        smallest: Money,
        /// As set, or the default.
        largest: Money,
    },
    /// Stripe charges no card so little.
    #[error("the largest top-up, {largest}, is below Stripe's smallest charge, {minimum}")]
    BelowMinimum {
        /// As set.
        largest: Money,
        /// As Stripe publishes it.
        minimum: Money,
    },
}

/// As its Display, so that a `main` that returns it prints a sentence.
impl fmt::Debug for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const SMALLEST_CHARGES: i64 = 10;
const LARGEST_CHARGES: i64 = 200;

impl Limits {
    /// Finds at start what no route could offer.
    pub(crate) fn check(&self) -> Result<(), LimitsError> {
        for configured in self.smallest.iter().chain(&self.largest) {
            let currency = configured.currency();
            let money = |micros| Money::new(micros, currency);
            let smallest = Limits::of(&self.smallest, currency, SMALLEST_CHARGES);
            let largest = Limits::of(&self.largest, currency, LARGEST_CHARGES);
            let (Some(smallest), Some(largest)) = (smallest, largest) else { continue };
            if currency.refundable(largest) != largest {
                return Err(LimitsError::NotWhole(money(largest)));
            }
            if smallest > largest {
                let (smallest, largest) = (money(smallest), money(largest));
                return Err(LimitsError::Crossed { smallest, largest });
            }
            if let Some(minimum) = currency.minimum_charge().filter(|least| largest < *least) {
                let (largest, minimum) = (money(largest), money(minimum));
                return Err(LimitsError::BelowMinimum { largest, minimum });
            }
        }
        Ok(())
    }

    fn of(configured: &[Money], currency: Currency, charges: i64) -> Option<Micros> {
        let set = configured.iter().rev().find(|money| money.currency() == currency);
        let default = || Micros::new(currency.minimum_charge()?.get() * charges);
        set.map(|money| money.micros()).or_else(default)
    }

    pub(crate) fn new_card_per_day(&self, currency: Currency) -> Option<Micros> {
        let set = self.new_card.iter().rev().find(|money| money.currency() == currency);
        let default = || {
            let largest = Limits::of(&self.largest, currency, LARGEST_CHARGES)?;
            largest.checked_add(largest)
        };
        set.map(|money| money.micros()).or_else(default)
    }
}

/// Why a price cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unpayable {
    #[error("a price is whole units of 1/10,000, and free is spelled `Price::Free`")]
    NotWholeUnits,
    #[error("the price is above the largest top-up, so no payment could pay it")]
    AboveLargestTopUp,
    #[error("the largest top-up must be whole minor units, such as cents")]
    LimitNotWhole,
    #[error("there are no default top-ups in this currency: set min_top_up and max_top_up")]
    NoLimits,
}

/// What a request costs, which top-ups are taken for it, and the 402 that says so.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    pub(crate) currency: Currency,
    pub(crate) price: Micros,
    pub(crate) min_top_up: Micros,
    pub(crate) max_top_up: Micros,
    /// The 402's JSON behind the path, up to the last brace: the same for every request.
    tail: Arc<[u8]>,
}

impl Quote {
    pub(crate) fn new(
        price: Money,
        limits: &Limits,
        publishable_key: &str,
    ) -> Result<Quote, Unpayable> {
        let (micros, currency) = (price.micros(), price.currency());
        let units = micros.units_floor();
        if units.micros() != micros {
            return Err(Unpayable::NotWholeUnits);
        }
        let of = |configured, charges| Limits::of(configured, currency, charges);
        let smallest = of(&limits.smallest, SMALLEST_CHARGES).ok_or(Unpayable::NoLimits)?;
        let largest = of(&limits.largest, LARGEST_CHARGES).ok_or(Unpayable::NoLimits)?;
        if currency.chargeable(largest) != Some(largest) {
            return Err(Unpayable::LimitNotWhole);
        }
        let stripes = currency.minimum_charge().unwrap_or(Micros::ZERO);
        let min_top_up = currency.chargeable(smallest.max(stripes).max(micros));
        let min_top_up = min_top_up.ok_or(Unpayable::AboveLargestTopUp)?;
        if micros > largest || min_top_up > largest {
            return Err(Unpayable::AboveLargestTopUp);
        }
        let offer = Offer {
            currency,
            amount: units,
            min_top_up: min_top_up.units_ceil(),
            max_top_up: Some(largest.units_floor()),
            publishable_key: publishable_key.to_owned(),
            description: None,
        };
        let tail = tail(offer);
        Ok(Quote { currency, price: micros, min_top_up, max_top_up: largest, tail })
    }

    /// The body of a 402 for the request at `path`.
    pub(crate) fn json(&self, path: &str, error: Option<ErrorCode>) -> Vec<u8> {
        let path = shortened(path);
        let mut json = Vec::with_capacity(HEAD.len() + path.len() + self.tail.len() + 64);
        json.extend_from_slice(HEAD);
        write_string(&mut json, path);
        json.extend_from_slice(&self.tail);
        if let Some(code) = error {
            json.extend_from_slice(br#","error":"#);
            write_string(&mut json, code.as_str());
        }
        json.push(b'}');
        json
    }
}

/// A path of any length must not make the header longer than clients read.
const PATH_BYTES_MAX: usize = 2_048;

fn shortened(path: &str) -> &str {
    if path.len() <= PATH_BYTES_MAX {
        return path;
    }
    let fits = path.char_indices().take_while(|(at, c)| at + c.len_utf8() <= PATH_BYTES_MAX);
    &path[..fits.last().map_or(0, |(at, c)| at + c.len_utf8())]
}

const HEAD: &[u8] = br#"{"stripe402Version":1,"resource":{"url":"#;

/// What follows the path, cut from the message itself so that there is one encoder.
fn tail(offer: Offer) -> Arc<[u8]> {
    let message = PaymentRequired {
        version: header::Version1,
        resource: Resource { url: String::new(), description: None, mime_type: None },
        accepts: vec![offer],
        error: None,
    };
    let json = message.to_json();
    let (path_end, brace) = (HEAD.len() + 2, json.len() - 1);
    json[path_end..brace].into()
}

/// Appends a JSON string. Writing to a Vec cannot fail.
fn write_string(json: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(json, text);
}

#[cfg(test)]
mod tests {
    use farebox_protocol::{Units, usd};

    use super::*;

    fn quote(price: Money) -> Result<Quote, Unpayable> {
        Quote::new(price, &Limits::default(), "pk_test_1")
    }

    #[test]
    fn a_prebuilt_402_reads_as_the_message() {
        let json = quote(usd!("0.01")).unwrap().json("/a \"b\"", Some(ErrorCode::CardDeclined));
        let message = PaymentRequired::from_json(&json).unwrap();
        assert_eq!(message.resource.url, "/a \"b\"");
        assert_eq!(message.error, Some(ErrorCode::CardDeclined));
        assert_eq!(message.accepts[0].amount.get(), 100);
        assert_eq!(message.accepts[0].min_top_up.get(), 50_000);
        assert_eq!(message.accepts[0].max_top_up.map(Units::get), Some(1_000_000));
        assert_eq!(message.to_json(), json);
    }

    #[test]
    fn a_price_above_the_default_top_up_raises_it_to_whole_cents() {
        let quote = quote(usd!("7.0001")).unwrap();
        assert_eq!(quote.min_top_up, usd!("7.01").micros());
    }

    #[test]
    fn unpayable_prices_are_refused() {
        assert_eq!(quote(usd!("0.00001")).unwrap_err(), Unpayable::NotWholeUnits);
        assert_eq!(quote(usd!("100.0001")).unwrap_err(), Unpayable::AboveLargestTopUp);
        let rwf = Money::parse("100", "rwf".parse().unwrap()).unwrap();
        assert_eq!(quote(rwf).unwrap_err(), Unpayable::NoLimits);
    }

    #[test]
    fn the_header_fits_whatever_the_path() {
        for path in ["/\"".repeat(9_000), "/\u{20ac}".repeat(9_000)] {
            let json = quote(usd!("0.01")).unwrap().json(&path, None);
            assert!(header::encode_json(&json).len() <= header::HEADER_BYTES_MAX);
            assert!(path.starts_with(&PaymentRequired::from_json(&json).unwrap().resource.url));
        }
    }

    #[test]
    fn stripes_minimum_holds_below_a_configured_one() {
        let limits = Limits { smallest: vec![usd!("0.10")], largest: vec![], ..Limits::default() };
        let quote = Quote::new(usd!("0.01"), &limits, "pk_test_1").unwrap();
        assert_eq!(quote.min_top_up, usd!("0.50").micros());
    }
}
