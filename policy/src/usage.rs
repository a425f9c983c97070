//! What was taken from the card, per UTC day.
//!
//! ```
//! use farebox_policy::{Decision, Policy, Request, Usage, decide};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5"));
//! let policy = policy.per_day(usd!("5"));
//! let request = Request::new("api.example.com", 443, usd!("0.01")).top_up(usd!("5"));
//!
//! let (_, usage) = decide(&policy, &Usage::new(), &request, 0);
//! assert_eq!(usage.held(usd!("5").currency(), 86_399), usd!("5"));
//! assert_eq!(usage.held(usd!("5").currency(), 86_400), usd!("0")); // the next day
//!
//! // The card was declined: the hold goes back.
//! let hold = request.hold(0).expect("a top-up is held");
//! assert_eq!(usage.release(&hold), Usage::new());
//! ```

use farebox_protocol::{Currency, Micros, Money};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Rows that are kept: one per day and currency with money held.
const ROWS_MAX: usize = 32;
const SECONDS_PER_DAY: i64 = 86_400;

/// The UTC day of a time in Unix seconds. It begins at 00:00 and ends before the next begins.
pub(crate) fn day_of(now: i64) -> i64 {
    now.div_euclid(SECONDS_PER_DAY)
}

/// Money held per day: what left the card, and what may have left it. Never more than 32 rows;
/// the oldest day is forgotten first, and from then on nothing is allowed on that day or before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(deserialize_with = "bounded")]
    rows: Vec<Row>,
    /// The last day that was forgotten.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    forgotten: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    day: i64,
    currency: Currency,
    held: Micros,
}

/// A top-up that is set aside in a [`Usage`] until its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    day: i64,
    amount: Money,
}

/// The sum or the day cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncounted {
    Overflow,
    Forgotten,
}

impl Usage {
    /// Nothing was taken.
    pub fn new() -> Usage {
        Usage::default()
    }

    /// What is held of one currency on the day of `now`.
    pub fn held(&self, currency: Currency, now: i64) -> Money {
        self.held_on(currency, day_of(now))
    }

    /// This usage without `hold`: the card was definitely not charged. Nothing changes when the
    /// day of the hold was forgotten.
    #[must_use]
    pub fn release(&self, hold: &Hold) -> Usage {
        let mut usage = self.clone();
        if let Some(row) = usage.row(hold.day, hold.amount.currency()) {
            let left = row.held.checked_sub(hold.amount.micros()).unwrap_or(Micros::ZERO);
            row.held = left.max(Micros::ZERO);
        }
        usage.rows.retain(|row| row.held > Micros::ZERO);
        usage
    }

    pub(crate) fn held_on(&self, currency: Currency, day: i64) -> Money {
        let row = self.rows.iter().find(|row| row.day == day && row.currency == currency);
        Money::new(row.map_or(Micros::ZERO, |row| row.held), currency)
    }

    pub(crate) fn hold(&self, hold: &Hold) -> Result<Usage, Uncounted> {
        if self.forgotten.is_some_and(|forgotten| hold.day <= forgotten) {
            return Err(Uncounted::Forgotten);
        }
        let mut usage = self.clone();
        let (currency, amount) = (hold.amount.currency(), hold.amount.micros());
        if let Some(row) = usage.row(hold.day, currency) {
            row.held = row.held.checked_add(amount).ok_or(Uncounted::Overflow)?;
            return Ok(usage);
        }
        usage.rows.push(Row { day: hold.day, currency, held: amount });
        if usage.rows.len() > ROWS_MAX {
            let oldest = usage.rows.iter().map(|row| row.day).min();
            usage.rows.retain(|row| Some(row.day) != oldest);
            usage.forgotten = oldest;
            if oldest == Some(hold.day) {
                return Err(Uncounted::Forgotten);
            }
        }
        Ok(usage)
    }

    fn row(&mut self, day: i64, currency: Currency) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.day == day && row.currency == currency)
    }
}

impl Hold {
    pub(crate) fn new(amount: Money, now: i64) -> Hold {
        Hold { day: day_of(now), amount }
    }

    /// How much is set aside.
    pub fn amount(&self) -> Money {
        self.amount
    }
}

#[derive(Serialize, Deserialize)]
struct StoredHold {
    day: i64,
    currency: Currency,
    amount: Micros,
}

impl Serialize for Hold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (currency, amount) = (self.amount.currency(), self.amount.micros());
        StoredHold { day: self.day, currency, amount }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StoredHold { day, currency, amount } = StoredHold::deserialize(deserializer)?;
        Ok(Hold { day, amount: Money::new(amount, currency) })
    }
}

/// Rows as they may stand in a file: few, one per day and currency, nothing negative.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
    let rows = Vec::<Row>::deserialize(deserializer)?;
    if rows.len() > ROWS_MAX {
        return Err(de::Error::custom("more days than are kept"));
    }
    for (i, row) in rows.iter().enumerate() {
        let same = |other: &Row| (other.day, other.currency) == (row.day, row.currency);
        if row.held < Micros::ZERO || rows[..i].iter().any(same) {
            return Err(de::Error::custom("a day that was counted wrongly"));
        }
    }
    Ok(rows)
}
