//! Giving credit back to the card it came from, in two steps: money is set aside, then Stripe is
//! asked, and what Stripe says ends it.

use farebox_protocol::{Currency, Micros};

use super::{Outcome, Step, top_up};
use crate::book::{Account, Entry, Head, Refund, TopUp, TopUpState, Totals};
use crate::clock::Timestamp;

pub(super) fn open(
    head: &mut Head,
    entry: Option<&Entry>,
    currency: Currency,
    refund: Refund,
) -> Step {
    let Some(Entry::TopUp(top_up)) = entry else { return Step::Unchanged(Outcome::NotFound) };
    let Refund { number, left: amount, .. } = refund;
    if let Some(open) = &top_up.refund {
        return Step::Unchanged(Outcome::Joined { number: open.number });
    }
    if !matches!(top_up.state, TopUpState::Succeeded { .. }) {
        return Step::Unchanged(Outcome::Conflict);
    }
    if number != top_up.refunds + 1 {
        return Step::Unchanged(Outcome::Stale { number: top_up.refunds + 1 });
    }
    if amount <= Micros::ZERO {
        return Step::Unchanged(Outcome::OutOfRange);
    }
    let account = head.account(currency);
    // Never more than is unspent, and never more than this card paid.
    let most = account.available.min(top_up.totals.net().unwrap_or_default());
    let (Some(available), Some(refunding)) =
        (account.available.checked_sub(amount), account.refunding.checked_add(amount))
    else {
        return Step::Unchanged(Outcome::OutOfRange);
    };
    if amount > most {
        let missing = amount.checked_sub(most).unwrap_or(Micros::MAX);
        return Step::Unchanged(Outcome::Insufficient { missing });
    }
    head.accounts.insert(currency, Account { available, refunding, ..account });
    let top_up = TopUp { refund: Some(refund), ..TopUp::clone(top_up) };
    Step::changed(Some(top_up.into()), Outcome::Opened)
}

pub(super) fn close(
    head: &mut Head,
    entry: Option<&Entry>,
    currency: Currency,
    number: u64,
    seen_version: u64,
    totals: Totals,
    now: Timestamp,
) -> Step {
    let Some(Entry::TopUp(top_up)) = entry else { return Step::Unchanged(Outcome::NotFound) };
    if number <= top_up.refunds {
        return Step::Unchanged(Outcome::Closed);
    }
    if top_up.refund.as_ref().is_none_or(|open| open.number != number) {
        return Step::Unchanged(Outcome::NotFound);
    }
    let mut account = head.account(currency);
    let mut closed = TopUp::clone(top_up);
    if totals != top_up.totals {
        match top_up::book(account, top_up, seen_version, totals, now) {
            Ok((booked, observed, _)) => (account, closed) = (booked, observed),
            Err(refused) => return Step::Unchanged(refused),
        }
    }
    // What Stripe did not give back returns to the account.
    let left = closed.refund.take().map_or(Micros::ZERO, |refund| refund.left);
    let (Some(available), Some(refunding)) =
        (account.available.checked_add(left), account.refunding.checked_sub(left))
    else {
        return Step::Unchanged(Outcome::OutOfRange);
    };
    head.accounts.insert(currency, Account { available, refunding, ..account });
    closed.refunds = number;
    Step::changed(Some(closed.into()), Outcome::Closed)
}
