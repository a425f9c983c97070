//! What the tests share.

use farebox_policy::{Decision, Policy, Refusal, Request, Usage, decide};
use farebox_protocol::{Currency, Money};

pub(crate) const DAY: i64 = 86_400;
/// 2023-11-14T22:13:20Z, a Tuesday.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) fn cents(cents: i64) -> Money {
    Money::new(Currency::USD.from_minor(cents).unwrap(), Currency::USD)
}

/// A request that is free, with a top-up.
pub(crate) fn top_up(host: &str, amount: Money) -> Request<'_> {
    Request::new(host, 443, cents(0)).top_up(amount)
}

/// The usage after a payment that the policy allows.
pub(crate) fn pay(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Usage {
    match decide(policy, usage, request, now) {
        (Decision::Allow, Some(usage)) => usage,
        other => panic!("not paid: {other:?}"),
    }
}

pub(crate) fn refusal(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Refusal {
    match decide(policy, usage, request, now) {
        (Decision::Refuse(refusal), None) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
