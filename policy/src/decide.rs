//! The decision.
//!
//! ```
//! use farebox_policy::{Decision, Policy, Request, Usage, decide};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let from_credit = Request::new("api.example.com", 443, usd!("0.01"));
//! let (decision, usage) = decide(&policy, &Usage::new(), &from_credit, 0);
//! assert_eq!(decision, Decision::Allow);
//! assert_eq!(usage, Usage::new()); // nothing left the card
//! ```

use farebox_protocol::{Micros, Money};

use crate::policy::Policy;
use crate::refusal::{Refusal, Rule};
use crate::usage::{Hold, Uncounted, Usage, day_of};

/// What an agent is about to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    host: &'a str,
    port: u16,
    price: Money,
    top_up: Option<Money>,
}

impl<'a> Request<'a> {
    /// A request to `host` on `port` that costs `price`, paid from credit.
    pub fn new(host: &'a str, port: u16, price: Money) -> Request<'a> {
        Request { host, port, price, top_up: None }
    }

    /// The same, paid from a card charge of `amount`.
    #[must_use]
    pub fn top_up(mut self, amount: Money) -> Request<'a> {
        self.top_up = Some(amount);
        self
    }

    /// What [`decide()`] sets aside at `now` when it allows this request: its top-up.
    pub fn hold(&self, now: i64) -> Option<Hold> {
        self.top_up.map(|amount| Hold::new(amount, now))
    }
}

/// Whether it may be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Refuse(Refusal),
}

/// Decides about `request` at `now` (Unix seconds) and returns the usage after it: with the
/// top-up held if it is allowed, unchanged otherwise.
///
/// A hold is what leaves the card if all goes well. Keep the new usage before the money is sent,
/// and take the hold back with [`Usage::release`] only when the card was definitely not charged.
pub fn decide(
    policy: &Policy,
    usage: &Usage,
    request: &Request<'_>,
    now: i64,
) -> (Decision, Usage) {
    match judge(policy, usage, request, now) {
        Ok(usage) => (Decision::Allow, usage),
        Err(refusal) => (Decision::Refuse(refusal), usage.clone()),
    }
}

fn judge(
    policy: &Policy,
    usage: &Usage,
    request: &Request<'_>,
    now: i64,
) -> Result<Usage, Refusal> {
    let (host, port) = (request.host, request.port);
    if !policy.allows(host, port) {
        let allowed = policy.allowed().iter().map(ToString::to_string).collect();
        return Err(Refusal::Host { host: host.to_owned(), port, allowed });
    }
    let limits = policy.limits();
    if request.price.micros() < Micros::ZERO {
        return Err(Refusal::NotAnAmount { rule: Rule::PerRequest, asked: request.price });
    }
    within(Rule::PerRequest, limits.per_request, request.price, None)?;
    let Some(amount) = request.top_up else { return Ok(usage.clone()) };
    if amount.micros() <= Micros::ZERO {
        return Err(Refusal::NotAnAmount { rule: Rule::PerTopUp, asked: amount });
    }
    within(Rule::PerTopUp, limits.per_top_up, amount, None)?;
    let held = usage.held_on(amount.currency(), day_of(now));
    let limit = within(Rule::PerDay, limits.per_day, amount, Some(held))?;
    usage.hold(&Hold::new(amount, now)).map_err(|uncounted| match uncounted {
        Uncounted::Forgotten => Refusal::ClockBehind { asked: amount },
        Uncounted::Overflow => {
            let left = Money::new(Micros::ZERO, limit.currency());
            Refusal::Above { rule: Rule::PerDay, limit, asked: amount, left }
        }
    })
}

/// The limit, if `asked` fits into what `held` leaves of it.
fn within(
    rule: Rule,
    limit: Option<Money>,
    asked: Money,
    held: Option<Money>,
) -> Result<Money, Refusal> {
    let limit = limit.ok_or(Refusal::Unset { rule, asked })?;
    if limit.currency() != asked.currency() {
        return Err(Refusal::Currency { rule, limit, asked });
    }
    let held = held.map_or(Micros::ZERO, Money::micros);
    let left = limit.micros().checked_sub(held).unwrap_or(Micros::ZERO).max(Micros::ZERO);
    if asked.micros() > left {
        let left = Money::new(left, limit.currency());
        return Err(Refusal::Above { rule, limit, asked, left });
    }
    Ok(limit)
}
