//! What was taken from the card, per host, and when.
//!
//! ```
//! use farebox_policy::{Policy, Request, Usage, Window, decide};
//! use farebox_protocol::{Currency, usd};
//!
//! let policy = Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5"));
//! let policy = policy.per_day(usd!("5"));
//! let request = Request::new("api.example.com", 443, usd!("0.01")).top_up(usd!("5"));
//!
//! let (_, usage) = decide(&policy, &Usage::new(), &request, 0);
//! let usage = usage.expect("a top-up was set aside");
//! assert_eq!(usage.held(Currency::USD, 86_399), usd!("5"));
//! assert_eq!(usage.held(Currency::USD, 86_400), usd!("0")); // the next day
//! assert_eq!(usage.held_in(Window::Lifetime, Currency::USD, 86_400), usd!("5"));
//!
//! // The card was declined: the hold goes back.
//! let hold = request.hold(0).expect("a top-up is held");
//! assert_eq!(usage.release(&hold).held(Currency::USD, 0), usd!("0"));
//! ```

use farebox_protocol::{Currency, Micros, Money};
use serde::{Deserialize, Serialize};

use crate::grain::{GRAINS_MAX, Grain};
use crate::hold::Hold;
use crate::host::{Host, HostPattern};
use crate::time;
use crate::window::{Span, Window};

/// Rows that are kept for single hosts. One more per currency counts for all other hosts.
const ROWS_MAX: usize = 256;
/// More than there are currencies.
const CURRENCIES_MAX: usize = 256;

/// Money set aside for top-ups: what left the card, and what may have left it.
///
/// Recent payments are kept to the second, older ones in sums per minute, hour and day, those that
/// no window reaches in one sum: so it stays small, windows of the calendar are exact, and a
/// rolling window counts a payment for at most one such sum too long, never too short. The first
/// 256 hosts are counted one by one. Those after them are counted together, and that sum counts
/// for each of them and for every other host.
///
/// Time never goes back: what happens at an earlier time than the latest that was counted is
/// counted at the latest. A clock that is more than a day behind it is refused
/// ([`Refusal::ClockBehind`](crate::Refusal::ClockBehind)): a clock that once was years ahead stops
/// all top-ups until those years are over, or the owner begins a new usage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Usage {
    /// The latest time that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<i64>,
    rows: Vec<Row>,
}

/// The payments to one host in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `None` for all hosts that have no row of their own.
    host: Option<String>,
    port: u16,
    currency: Currency,
    /// What no window but the lifetime reaches.
    older: Micros,
    /// The earliest first.
    sums: Vec<Sum>,
}

/// The payments of one grain: its first second, the money and the number of payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum(i64, Micros, u32);

/// What is summed over a window.
#[derive(Clone, Copy)]
pub(crate) enum Meter {
    Money(Currency),
    /// In every currency, released or not.
    Payments,
}

impl Usage {
    /// Nothing was taken.
    pub fn new() -> Usage {
        Usage::default()
    }

    /// What is held of one currency on the UTC day of `now`, at all hosts together.
    pub fn held(&self, currency: Currency, now: i64) -> Money {
        self.held_in(Window::Day, currency, now)
    }

    /// What is held of one currency in the window that contains `now`, at all hosts together, as
    /// [`decide()`](crate::decide()) counts it: at the latest time counted, if `now` is before it.
    pub fn held_in(&self, window: Window, currency: Currency, now: i64) -> Money {
        let held = self.sum(Meter::Money(currency), None, window, now);
        money(held, currency)
    }

    /// The same at the hosts that `entry` matches, with what is counted for all hosts together.
    pub fn held_at(
        &self,
        entry: &HostPattern,
        window: Window,
        currency: Currency,
        now: i64,
    ) -> Money {
        let held = self.sum(Meter::Money(currency), Some(entry), window, now);
        money(held, currency)
    }

    /// This usage without `hold`: the card was definitely not charged. To be called at most once
    /// per hold; nothing changes for one that is not in this usage.
    #[must_use]
    pub fn release(&self, hold: &Hold) -> Usage {
        let mut usage = self.clone();
        let (Some(latest), amount) = (self.latest, hold.amount.micros()) else { return usage };
        if let Some(row) = usage.row_of(hold) {
            row.release(time::clamp(hold.at), amount, latest);
        }
        usage
    }

    /// The latest time that was counted.
    pub(crate) fn latest(&self) -> Option<i64> {
        self.latest
    }

    /// `now`, or the latest time that was counted if it is later.
    pub(crate) fn clock(&self, now: i64) -> i64 {
        let now = time::clamp(now);
        self.latest.map_or(now, |latest| latest.max(now))
    }

    /// With `hold` counted. The caller has seen to it that all that was ever held of its currency
    /// is still an amount of money.
    pub(crate) fn hold(&self, hold: &Hold) -> Usage {
        let mut usage = self.clone();
        let latest = self.clock(hold.at);
        usage.latest = Some(latest);
        for row in &mut usage.rows {
            row.merge(latest);
        }
        let row = match usage.row_of(hold) {
            Some(row) => row,
            None => {
                let own = usage.rows.len() < ROWS_MAX;
                let host = own.then(|| hold.host.clone());
                let port = if own { hold.port } else { 0 };
                let currency = hold.amount.currency();
                let row = Row { host, port, currency, older: Micros::ZERO, sums: Vec::new() };
                usage.rows.push(row);
                let last = usage.rows.len() - 1;
                &mut usage.rows[last]
            }
        };
        row.sums.push(Sum(latest, hold.amount.micros(), 1));
        row.merge(latest);
        usage
    }

    /// Micros, or a number of payments, in a window.
    pub(crate) fn sum(
        &self,
        meter: Meter,
        scope: Option<&HostPattern>,
        window: Window,
        now: i64,
    ) -> i64 {
        let now = self.clock(now);
        let older = match (window, meter) {
            (Window::Lifetime, Meter::Money(_)) => {
                self.rows(meter, scope).map(|row| row.older.get()).sum()
            }
            _ => 0,
        };
        older + self.within(meter, scope, window, now).map(|(_, amount)| amount).sum::<i64>()
    }

    /// When no more than `room` is left in a rolling window, if nothing else is paid before.
    pub(crate) fn falls_to(
        &self,
        room: i64,
        meter: Meter,
        scope: Option<&HostPattern>,
        span: Span,
        now: i64,
    ) -> Option<i64> {
        let now = self.clock(now);
        let mut sums: Vec<_> = self.within(meter, scope, Window::Rolling(span), now).collect();
        sums.sort_unstable();
        let mut total: i64 = sums.iter().map(|(_, amount)| amount).sum();
        sums.into_iter().find_map(|(last, amount)| {
            total -= amount;
            (total <= room).then_some(last + span.seconds())
        })
    }

    /// The last second and the amount of every sum that a window counts.
    fn within(
        &self,
        meter: Meter,
        scope: Option<&HostPattern>,
        window: Window,
        now: i64,
    ) -> impl Iterator<Item = (i64, i64)> {
        let first = window.first(now);
        let latest = self.clock(i64::MIN);
        let sums = self.rows(meter, scope).flat_map(|row| &row.sums);
        sums.filter_map(move |&Sum(at, held, payments)| {
            let amount = match meter {
                Meter::Money(_) => held.get(),
                Meter::Payments => i64::from(payments),
            };
            let last = Grain::of(at, latest)?.last;
            (last >= first).then_some((last, amount))
        })
    }

    fn rows(&self, meter: Meter, scope: Option<&HostPattern>) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| {
            let metered = match meter {
                Meter::Money(currency) => row.currency == currency,
                Meter::Payments => true,
            };
            metered
                && match (scope, &row.host) {
                    // An entry that is not a host limits every host.
                    (Some(entry), Some(host)) => !entry.is_host() || entry.matches(host, row.port),
                    _ => true,
                }
        })
    }

    /// The row in which `hold` is counted, or would be: a host that was once counted in the
    /// common row stays there, for a hold is released where it was counted.
    fn row_of(&mut self, hold: &Hold) -> Option<&mut Row> {
        let currency = hold.amount.currency();
        let own = |row: &Row| row.host.as_ref() == Some(&hold.host) && row.port == hold.port;
        let common = |row: &Row| row.host.is_none();
        let find = |matches: &dyn Fn(&Row) -> bool| {
            self.rows.iter().position(|row| row.currency == currency && matches(row))
        };
        let index = find(&own).or_else(|| find(&common))?;
        self.rows.get_mut(index)
    }
}

impl Row {
    /// Merges sums whose grains have become one.
    fn merge(&mut self, latest: i64) {
        let mut merged: Vec<Sum> = Vec::with_capacity(self.sums.len());
        for &Sum(at, held, payments) in &self.sums {
            match (Grain::of(at, latest), merged.last_mut()) {
                (None, _) => self.older = plus(self.older, held),
                (Some(grain), Some(last)) if last.0 == grain.first => {
                    last.1 = plus(last.1, held);
                    last.2 = last.2.saturating_add(payments);
                }
                (Some(grain), _) => merged.push(Sum(grain.first, held, payments)),
            }
        }
        self.sums = merged;
    }

    /// Takes `amount` back, from the earliest sums that can contain what was set aside at `at`.
    ///
    /// The clock may have been behind, and the hold counted later than it says. Then earlier money
    /// may be taken in its place, and what stays is counted later than it was paid: for longer than
    /// it must be, never for less.
    fn release(&mut self, at: i64, amount: Micros, latest: i64) {
        let can_be_older = Grain::of(at, latest).is_none();
        let older = can_be_older.then_some(&mut self.older);
        let contains = |sum: &&mut Sum| Grain::of(sum.0, latest).is_some_and(|it| it.last >= at);
        let sums = self.sums.iter_mut().filter(contains).map(|sum| &mut sum.1);
        let mut from: Vec<&mut Micros> = older.into_iter().chain(sums).collect();
        let there = from.iter().try_fold(Micros::ZERO, |all, held| all.checked_add(**held));
        if there.is_none_or(|there| there < amount) {
            return; // it was never counted here
        }
        let mut left = amount;
        for held in &mut from {
            let taken = left.min(**held);
            **held = minus(**held, taken);
            left = minus(left, taken);
        }
    }

    fn is_valid(&self, latest: i64) -> bool {
        let host = self.host.as_deref().map(Host::parse);
        let host = match host {
            None => self.port == 0,
            Some(None) => false,
            Some(Some(host)) => self.host == Some(host.to_string()),
        };
        let on_grain = |sum: &Sum| {
            sum.0 <= latest && Grain::of(sum.0, latest).is_some_and(|grain| grain.first == sum.0)
        };
        host && self.older >= Micros::ZERO
            && self.sums.len() <= GRAINS_MAX
            && self.sums.iter().all(|sum| on_grain(sum) && sum.1 >= Micros::ZERO)
            && self.sums.is_sorted_by(|before, after| before.0 < after.0)
    }

    fn is_same(&self, other: &Row) -> bool {
        (&self.host, self.port, self.currency) == (&other.host, other.port, other.currency)
    }
}

/// All that was ever held of one currency is an amount of money, so no part of it overflows.
fn plus(a: Micros, b: Micros) -> Micros {
    a.checked_add(b).unwrap_or(Micros::MAX)
}

/// Nothing is taken from an amount but a part of it.
fn minus(a: Micros, b: Micros) -> Micros {
    a.checked_sub(b).unwrap_or(Micros::ZERO)
}

pub(crate) fn money(micros: i64, currency: Currency) -> Money {
    Money::new(Micros::new(micros).unwrap_or(Micros::MAX), currency)
}

/// A usage as it stands in a file, before it is believed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(default)]
    latest: Option<i64>,
    rows: Vec<Row>,
}

/// What is wrong with the usage in a file.
#[derive(Debug, thiserror::Error)]
enum NotAUsage {
    #[error("a time that no calendar has, or none")]
    Time,
    #[error("more hosts than are counted")]
    Rows,
    #[error("a host that was counted wrongly")]
    Row,
    #[error("a host that is counted twice")]
    Twice,
    #[error("more money than can be counted")]
    Overflow,
}

impl TryFrom<Stored> for Usage {
    type Error = NotAUsage;

    fn try_from(Stored { latest, rows }: Stored) -> Result<Usage, NotAUsage> {
        if latest.is_some_and(|latest| !time::is_time(latest))
            || latest.is_none() && !rows.is_empty()
        {
            return Err(NotAUsage::Time);
        }
        if rows.len() > ROWS_MAX + CURRENCIES_MAX {
            return Err(NotAUsage::Rows);
        }
        let mut totals: Vec<(Currency, Micros)> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            if !row.is_valid(latest.unwrap_or_default()) {
                return Err(NotAUsage::Row);
            }
            if rows[..i].iter().any(|other| other.is_same(row)) {
                return Err(NotAUsage::Twice);
            }
            let amounts = row.sums.iter().map(|sum| sum.1).chain([row.older]);
            let total = amounts.into_iter().try_fold(Micros::ZERO, Micros::checked_add);
            let total = total.ok_or(NotAUsage::Overflow)?;
            match totals.iter_mut().find(|(currency, _)| *currency == row.currency) {
                Some((_, sum)) => *sum = sum.checked_add(total).ok_or(NotAUsage::Overflow)?,
                None => totals.push((row.currency, total)),
            }
        }
        Ok(Usage { latest, rows })
    }
}
