//! A card charge that becomes credit, and what becomes of it.

use farebox_protocol::{Currency, ErrorCode, Micros};

use super::{Outcome, Step};
use crate::book::{Account, Entry, Head, TopUp, TopUpState, Totals};
use crate::clock::Timestamp;

pub(super) fn open(
    head: &mut Head,
    currency: Currency,
    number: u64,
    needed: Option<Micros>,
    top_up: TopUp,
) -> Step {
    let account = head.account(currency);
    if !head.frozen.is_empty() {
        return Step::Unchanged(Outcome::Frozen);
    }
    if let Some(open) = account.open {
        return Step::Unchanged(Outcome::Joined { number: open });
    }
    let needless = match needed {
        Some(needed) => account.available >= needed,
        None => head.knows(&top_up.method),
    };
    if needless {
        return Step::Unchanged(Outcome::NotNeeded);
    }
    if number != account.ended + 1 {
        return Step::Unchanged(Outcome::Stale { number: account.ended + 1 });
    }
    head.accounts.insert(currency, Account { open: Some(number), ..account });
    Step::changed(Some(top_up.into()), Outcome::Opened)
}

pub(super) fn observe(
    head: &mut Head,
    entry: Option<&Entry>,
    currency: Currency,
    intent: &str,
    seen_version: u64,
    totals: Totals,
    now: Timestamp,
) -> Step {
    let Some(Entry::TopUp(top_up)) = entry else { return Step::Unchanged(Outcome::NotFound) };
    if let TopUpState::Succeeded { intent: known } = &top_up.state {
        if known != intent {
            return Step::Unchanged(Outcome::Conflict);
        }
        if top_up.totals == totals {
            return Step::Unchanged(Outcome::Observed { difference: Micros::ZERO });
        }
    }
    let (mut account, mut top_up, difference) =
        match book(head.account(currency), top_up, seen_version, totals, now) {
            Ok(booked) => booked,
            Err(refused) => return Step::Unchanged(refused),
        };
    if matches!(top_up.state, TopUpState::Open { .. }) {
        account.open = None;
        account.ended += 1;
    }
    head.accounts.insert(currency, account);
    if !matches!(top_up.state, TopUpState::Succeeded { .. }) {
        // The card paid: whoever holds this PaymentMethod may spend what it bought.
        head.learn(&top_up.method);
    }
    top_up.state = TopUpState::Succeeded { intent: intent.to_owned() };
    Step::changed(Some(top_up.into()), Outcome::Observed { difference })
}

/// Books the difference between what Stripe says and what it said before. What was refunded since
/// comes first out of the money that the open refund has set aside.
pub(super) fn book(
    account: Account,
    top_up: &TopUp,
    seen_version: u64,
    totals: Totals,
    now: Timestamp,
) -> Result<(Account, TopUp, Micros), Outcome> {
    let Totals { received, refunded, withdrawn } = totals;
    // A charge that took nothing is no charge: it must not end a top-up, nor make its card known.
    let is_charge = received > Micros::ZERO;
    if !is_charge || [refunded, withdrawn].iter().any(|total| *total < Micros::ZERO) {
        return Err(Outcome::OutOfRange);
    }
    let known = top_up.totals;
    // What a card paid never becomes less; money goes back as a refund or a dispute.
    if seen_version != top_up.version || received < known.received {
        return Err(Outcome::Conflict);
    }
    let mut top_up = top_up.clone();
    let booked = (|| {
        let difference = totals.net()?.checked_sub(known.net()?)?;
        let more = refunded.checked_sub(known.refunded)?.max(Micros::ZERO);
        let covered = match &mut top_up.refund {
            Some(refund) => {
                let covered = more.min(refund.left);
                refund.left = refund.left.checked_sub(covered)?;
                covered
            }
            None => Micros::ZERO,
        };
        let sum =
            |total: Micros, new: Micros, old: Micros| total.checked_add(new)?.checked_sub(old);
        let account = Account {
            available: account.available.checked_add(difference)?.checked_add(covered)?,
            refunding: account.refunding.checked_sub(covered)?,
            received: sum(account.received, received, known.received)?,
            refunded: sum(account.refunded, refunded, known.refunded)?,
            withdrawn: sum(account.withdrawn, withdrawn, known.withdrawn)?,
            ..account
        };
        Some((account, difference))
    })();
    let (account, difference) = booked.ok_or(Outcome::OutOfRange)?;
    top_up.record(now, totals);
    Ok((account, top_up, difference))
}

pub(super) fn fail(
    head: &mut Head,
    entry: Option<&Entry>,
    currency: Currency,
    code: ErrorCode,
) -> Step {
    let Some(Entry::TopUp(top_up)) = entry else { return Step::Unchanged(Outcome::NotFound) };
    match top_up.state {
        TopUpState::Succeeded { .. } => Step::Unchanged(Outcome::Succeeded),
        TopUpState::Failed { .. } => Step::Unchanged(Outcome::Failed),
        TopUpState::Open { .. } => {
            let account = head.account(currency);
            let ended = account.ended + 1;
            head.accounts.insert(currency, Account { open: None, ended, ..account });
            let failed = TopUp { state: TopUpState::Failed { code }, ..TopUp::clone(top_up) };
            Step::changed(Some(failed.into()), Outcome::Failed)
        }
    }
}
