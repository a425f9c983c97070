//! Who may spend: credentials, cards, the Customer, and freezes.

use farebox_protocol::{Micros, PayerId, PaymentMethodId};

use super::{Outcome, Step};
use crate::book::{
    CREDENTIALS_MAX, FREEZES_MAX, FreezeReason, Head, IssuedCredential, Label, Limit,
};
use crate::clock::Timestamp;

pub(super) fn freeze(head: &mut Head, reason: &FreezeReason) -> Step {
    if head.frozen.contains(reason) {
        return Step::Unchanged(Outcome::Frozen);
    }
    if head.frozen.len() == FREEZES_MAX {
        return Step::Unchanged(Outcome::TooMany); // frozen it is, and stays so
    }
    head.frozen.insert(reason.clone());
    Step::changed(None, Outcome::Frozen)
}

pub(super) fn unfreeze(head: &mut Head, reason: &FreezeReason) -> Step {
    let removed = head.frozen.remove(reason);
    let outcome = if head.frozen.is_empty() { Outcome::Unfrozen } else { Outcome::Frozen };
    if removed { Step::changed(None, outcome) } else { Step::Unchanged(outcome) }
}

pub(super) fn issue(
    head: &mut Head,
    number: u16,
    label: &Label,
    limit: Option<Limit>,
    now: Timestamp,
) -> Step {
    let generation = head.generation;
    if limit.is_some_and(|limit| limit.amount < Micros::ZERO) {
        return Step::Unchanged(Outcome::OutOfRange);
    }
    let Some(next) = head.issued.checked_add(1) else { return Step::Unchanged(Outcome::TooMany) };
    if head.credentials.len() == CREDENTIALS_MAX {
        return Step::Unchanged(Outcome::TooMany);
    }
    if number != next {
        return Step::Unchanged(Outcome::Stale { number: u64::from(next) });
    }
    let credential = IssuedCredential {
        label: label.clone(),
        issued: now,
        limit,
        spent: Micros::ZERO,
        reserved: Micros::ZERO,
        last_used: None,
    };
    head.credentials.insert(number, credential);
    head.issued = number;
    Step::changed(None, Outcome::Issued { generation })
}

pub(super) fn revoke(head: &mut Head, number: u16) -> Step {
    let outcome = Outcome::Revoked { generation: head.generation };
    match head.credentials.remove(&number) {
        Some(_) => Step::changed(None, outcome),
        // Also a number that was never issued: nothing spends under it.
        None => Step::Unchanged(outcome),
    }
}

pub(super) fn revoke_all(head: &mut Head) -> Step {
    let Some(generation) = head.generation.checked_add(1) else {
        return Step::Unchanged(Outcome::OutOfRange);
    };
    head.generation = generation;
    head.known.clear();
    // Numbers are never used again: an old reservation must not count against a new credential.
    head.credentials.clear();
    Step::changed(None, Outcome::Revoked { generation })
}

pub(super) fn own_card(head: &mut Head, owner: PayerId) -> Step {
    match head.owner {
        Some(owner) => Step::Unchanged(Outcome::Owner(owner)),
        None => {
            head.owner = Some(owner);
            Step::changed(None, Outcome::Owner(owner))
        }
    }
}

pub(super) fn link_card(head: &mut Head, method: &PaymentMethodId) -> Step {
    if head.known.last() == Some(method) {
        return Step::Unchanged(Outcome::Linked);
    }
    head.learn(method);
    Step::changed(None, Outcome::Linked)
}

pub(super) fn set_customer(head: &mut Head, customer: &str, replaces: Option<&str>) -> Step {
    match &head.customer {
        Some(known) if known == customer || replaces != Some(known) => {
            Step::Unchanged(Outcome::Customer(known.clone()))
        }
        _ => {
            head.customer = Some(customer.to_owned());
            Step::changed(None, Outcome::Customer(customer.to_owned()))
        }
    }
}
