//! Setting money aside for a request, and spending it.

use farebox_protocol::{Currency, Micros};

use super::{Command, Outcome, Proof, Step, Then, usage_key};
use crate::book::{
    Account, Claim, ClaimState, Entry, Head, Line, Reservation, ReservationId, UsageKey,
};
use crate::clock::Timestamp;

/// The most routes that one reservation is spent at.
pub const LINES_MAX: usize = 8;
/// How long the key of a charged request is remembered.
pub const CLAIM_KEPT_MILLIS: i64 = 24 * 3_600 * 1_000;

pub(super) fn reserve(
    head: &mut Head,
    entry: Option<&Entry>,
    command: &Command,
    now: Timestamp,
) -> Step {
    let Command::Reserve { id, currency, amount, ttl, proof, claim } = command else {
        return Step::Unchanged(Outcome::Conflict); // never: the caller matched it
    };
    if !head.accepts(proof) {
        return Step::Unchanged(Outcome::Unauthorized);
    }
    let account = head.account(*currency);
    let number = match proof {
        Proof::Credential { number, .. } => *number,
        Proof::Method(_) => None,
    };
    let until = now.after(i64::from(*ttl));
    let spent = Vec::new();
    let open =
        Reservation { currency: *currency, amount: *amount, until, ttl: *ttl, number, spent };
    if let Some(found) = entry {
        let fingerprint = claim.map(|claim| claim.fingerprint);
        return Step::Unchanged(match found {
            Entry::Claim(other) if Some(other.fingerprint) != fingerprint => Outcome::Conflict,
            Entry::Claim(Claim { state: ClaimState::Done { charged, .. }, .. }) => {
                Outcome::Done { charged: *charged }
            }
            Entry::Claim(other) if other.id != *id => Outcome::InFlight,
            found if found.reservation().is_some_and(|found| is_repeat(found, &open)) => {
                Outcome::Reserved { available: account.available }
            }
            _ => Outcome::Conflict,
        });
    }
    if !head.frozen.is_empty() {
        return Step::Unchanged(Outcome::Frozen);
    }
    let account = match set_aside(head, &account, *currency, *amount, number) {
        Ok(account) => account,
        Err(refused) => return Step::Unchanged(refused),
    };
    head.accounts.insert(*currency, account);
    if let Some(issued) = number.and_then(|number| head.credentials.get_mut(&number)) {
        // At most its limit, or at most the account's sum.
        issued.reserved = issued.reserved.checked_add(*amount).unwrap_or(Micros::MAX);
        issued.last_used = Some(now.day());
    }
    if let Proof::Method(method) = proof {
        head.learn(method);
    }
    let entry = match claim {
        None => Entry::Reservation(open),
        Some(claim) => {
            let state = ClaimState::InFlight(open);
            Entry::Claim(Claim { id: *id, fingerprint: claim.fingerprint, state })
        }
    };
    Step::changed(Some(entry), Outcome::Reserved { available: account.available })
}

/// The account after `amount` was set aside, or why it cannot be.
fn set_aside(
    head: &Head,
    account: &Account,
    currency: Currency,
    amount: Micros,
    number: Option<u16>,
) -> Result<Account, Outcome> {
    if amount < Micros::ZERO {
        return Err(Outcome::OutOfRange);
    }
    let available = account.available.checked_sub(amount).ok_or(Outcome::OutOfRange)?;
    let reserved = account.reserved.checked_add(amount).ok_or(Outcome::OutOfRange)?;
    let issued = number.and_then(|number| head.credentials.get(&number));
    if let Some(left) = issued.and_then(|issued| issued.left(currency))
        && amount > left
    {
        return Err(Outcome::LimitReached { left });
    }
    if available < Micros::ZERO && amount > Micros::ZERO {
        // In range: both are within 2^53, and missing is at most their distance.
        let missing = Micros::new(-available.get()).unwrap_or(Micros::MAX);
        return Err(Outcome::Insufficient { missing });
    }
    Ok(Account { available, reserved, ..*account })
}

fn is_repeat(found: &Reservation, again: &Reservation) -> bool {
    let what = |r: &Reservation| (r.currency, r.amount, r.number);
    what(found) == what(again)
}

pub(super) fn settle(
    head: &mut Head,
    entry: Option<&Entry>,
    id: ReservationId,
    lines: &[Line],
    then: Then,
    now: Timestamp,
) -> Step {
    if let Some(Entry::Claim(claim)) = entry {
        if claim.id != id {
            return Step::Unchanged(Outcome::Expired);
        }
        if let ClaimState::Done { currency, charged, .. } = claim.state {
            let repeat = Line::total(lines) == Some(charged);
            let available = head.account(currency).available;
            return Step::Unchanged(match repeat {
                true => Outcome::Settled { available },
                false => Outcome::Expired, // its time was over, or it is not the caller's
            });
        }
    }
    let Some(open) = entry.and_then(Entry::reservation) else {
        return Step::Unchanged(Outcome::Expired);
    };
    if now >= open.until {
        return end(head, entry, open, now, Outcome::Expired);
    }
    let spent = match merge(open, lines) {
        Ok(spent) => spent,
        Err(refused) => return Step::Unchanged(refused),
    };
    let Some(new) = spend(head, open, &spent) else { return Step::Unchanged(Outcome::OutOfRange) };
    let usage = usage(open, &spent, now);
    let open = Reservation { spent, until: now.after(i64::from(open.ttl)), ..open.clone() };
    let available = new.available;
    head.accounts.insert(open.currency, new);
    let settled = match then {
        Then::Keep => Step::changed(Some(around(entry, open)), Outcome::Settled { available }),
        Then::Close => {
            let available = available.checked_add(open.left()).unwrap_or(available);
            end(head, entry, &open, now, Outcome::Settled { available })
        }
    };
    match settled {
        Step::Changed(entry, _, outcome) => Step::Changed(entry, usage, outcome),
        unchanged @ Step::Unchanged(_) => unchanged,
    }
}

/// The totals by route after `lines`. A total never falls, and a route never goes.
fn merge(open: &Reservation, lines: &[Line]) -> Result<Vec<Line>, Outcome> {
    let mut spent = open.spent.clone();
    for line in lines {
        match spent.iter().position(|known| known.route == line.route) {
            Some(at) if line.spent < spent[at].spent => return Err(Outcome::Conflict),
            Some(at) => spent[at].spent = line.spent,
            None if line.spent < Micros::ZERO => return Err(Outcome::OutOfRange),
            None if spent.len() == LINES_MAX => return Err(Outcome::TooMany),
            None => spent.push(line.clone()),
        }
    }
    match Line::total(&spent) {
        Some(total) if total <= open.amount => Ok(spent),
        _ => Err(Outcome::OutOfRange),
    }
}

/// The account after a reservation's totals rose to `spent`. Counts it against the credential.
fn spend(head: &mut Head, open: &Reservation, spent: &[Line]) -> Option<Account> {
    let more = Line::total(spent)?.checked_sub(open.total())?;
    let account = head.account(open.currency);
    let account = Account {
        reserved: account.reserved.checked_sub(more)?,
        spent: account.spent.checked_add(more)?,
        ..account
    };
    if let Some(issued) = open.number.and_then(|number| head.credentials.get_mut(&number)) {
        issued.reserved = issued.reserved.checked_sub(more).unwrap_or_default();
        issued.spent = issued.spent.checked_add(more).unwrap_or(Micros::MAX);
    }
    Some(account)
}

fn usage(open: &Reservation, spent: &[Line], now: Timestamp) -> Vec<(UsageKey, Micros)> {
    let before = |line: &Line| {
        let known = open.spent.iter().find(|known| known.route == line.route);
        known.map_or(Micros::ZERO, |known| known.spent)
    };
    let more = |line: &Line| {
        let more = line.spent.checked_sub(before(line)).filter(|more| *more > Micros::ZERO)?;
        Some((usage_key(now, open.currency, &line.route), more))
    };
    spent.iter().filter_map(more).collect()
}

/// Returns what is left of a reservation. A claim that was charged stays, as done.
fn end(
    head: &mut Head,
    entry: Option<&Entry>,
    open: &Reservation,
    now: Timestamp,
    outcome: Outcome,
) -> Step {
    let (left, account) = (open.left(), head.account(open.currency));
    let ended = (|| {
        let reserved = account.reserved.checked_sub(left)?;
        let available = account.available.checked_add(left)?;
        Some(Account { reserved, available, ..account })
    })();
    let Some(ended) = ended else { return Step::Unchanged(Outcome::OutOfRange) };
    head.accounts.insert(open.currency, ended);
    if let Some(issued) = open.number.and_then(|number| head.credentials.get_mut(&number)) {
        issued.reserved = issued.reserved.checked_sub(left).unwrap_or_default();
    }
    let charged = open.total();
    let entry = match entry {
        Some(Entry::Claim(claim)) if charged > Micros::ZERO => {
            let until = now.after(CLAIM_KEPT_MILLIS);
            let state = ClaimState::Done { currency: open.currency, charged, until };
            Some(Entry::Claim(Claim { state, ..claim.clone() }))
        }
        _ => None,
    };
    Step::changed(entry, outcome)
}

/// The entry with the reservation in it.
fn around(entry: Option<&Entry>, open: Reservation) -> Entry {
    match entry {
        Some(Entry::Claim(claim)) => {
            Entry::Claim(Claim { state: ClaimState::InFlight(open), ..claim.clone() })
        }
        _ => Entry::Reservation(open),
    }
}

pub(super) fn expire(head: &mut Head, entry: Option<&Entry>, now: Timestamp) -> Step {
    let Some(entry) = entry else { return Step::Unchanged(Outcome::NotFound) };
    if !entry.is_due(now) {
        return Step::Unchanged(Outcome::NotDue);
    }
    match entry.reservation() {
        Some(open) => end(head, Some(entry), open, now, Outcome::Expired),
        None => Step::changed(None, Outcome::Expired),
    }
}
