//! The part of a book that every command reads.

use std::collections::{BTreeMap, BTreeSet};

use farebox_protocol::{Currency, Micros, PayerId, PaymentMethodId};
use serde::{Deserialize, Serialize};

use super::names::{FreezeReason, Label};
use crate::clock::Timestamp;
use crate::machine::Proof;

/// The most PaymentMethods a payer is known by; the least recently used gives way.
pub const KNOWN_METHODS_MAX: usize = 16;
/// The most further credentials that a payer has at one time.
pub const CREDENTIALS_MAX: usize = 64;
/// The most reasons for which a payer is frozen at one time.
pub const FREEZES_MAX: usize = 64;

/// The part of a book that every command reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Counts the changes of the book.
    pub seq: u64,
    /// The time of the last change. It never goes back.
    pub last: Timestamp,
    /// Credentials of an earlier generation are revoked.
    pub generation: u32,
    /// The payer that owns the card which this book is named after; set once, by whoever sees
    /// the card first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PayerId>,
    /// The payer's Customer at Stripe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// PaymentMethods that may spend without a credential, least recently used first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<PaymentMethodId>,
    /// Why the payer is frozen; while a reason remains, it can neither spend nor pay.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub frozen: BTreeSet<FreezeReason>,
    /// Further credentials, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<u16, IssuedCredential>,
    /// The highest number of a credential that was ever issued.
    #[serde(default)]
    pub issued: u16,
    /// Money, by currency. Amounts of two currencies never meet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accounts: BTreeMap<Currency, Account>,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            seq: 0,
            last: Timestamp::default(),
            generation: 1,
            owner: None,
            customer: None,
            known: Vec::new(),
            frozen: BTreeSet::new(),
            credentials: BTreeMap::new(),
            issued: 0,
            accounts: BTreeMap::new(),
        }
    }
}

impl Head {
    /// The account in `currency`; an empty one if nothing was ever paid into it.
    pub fn account(&self, currency: Currency) -> Account {
        self.accounts.get(&currency).copied().unwrap_or_default()
    }

    /// Whether `method` may spend without a credential.
    pub fn knows(&self, method: &PaymentMethodId) -> bool {
        self.known.contains(method)
    }

    /// Whether whoever brings `proof` may spend.
    pub fn accepts(&self, proof: &Proof) -> bool {
        match proof {
            Proof::Credential { generation, number } => {
                let stands = number.is_none_or(|number| self.credentials.contains_key(&number));
                *generation == self.generation && stands
            }
            Proof::Method(method) => self.knows(method),
        }
    }

    /// Makes `method` known, as the most recently used one.
    pub(crate) fn learn(&mut self, method: &PaymentMethodId) {
        if self.known.last() == Some(method) {
            return;
        }
        self.known.retain(|known| known != method);
        if self.known.len() == KNOWN_METHODS_MAX {
            self.known.remove(0);
        }
        self.known.push(method.clone());
    }

    /// Returns what is reserved, to accounts and to the limits of credentials. Reservations are
    /// not written to disk: after a crash their requests are gone, and so is their claim on money.
    pub(crate) fn release_reservations(&mut self) {
        for account in self.accounts.values_mut() {
            // Both are parts of one account, so their sum is in range.
            account.available =
                account.available.checked_add(account.reserved).unwrap_or(account.available);
            account.reserved = Micros::ZERO;
        }
        for credential in self.credentials.values_mut() {
            credential.reserved = Micros::ZERO;
        }
    }
}

/// A credential that was issued beside the payer's own, one per agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCredential {
    /// What its holder calls it.
    pub label: Label,
    /// When it was issued.
    pub issued: Timestamp,
    /// The most it may ever spend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// What it spent of its limit. Without a limit, micros of all its currencies together.
    #[serde(default)]
    pub spent: Micros,
    /// What its requests in flight have set aside of its limit.
    #[serde(default)]
    pub reserved: Micros,
    /// The day on which it was used last, in days since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<u32>,
}

impl IssuedCredential {
    /// What it may still reserve in `currency`; `None`: it has no limit.
    pub fn left(&self, currency: Currency) -> Option<Micros> {
        let limit = self.limit?;
        if limit.currency != currency {
            return Some(Micros::ZERO);
        }
        let used = self.spent.checked_add(self.reserved).unwrap_or(limit.amount);
        Some(limit.amount.checked_sub(used).unwrap_or_default())
    }
}

/// An amount in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The only currency that is spent.
    pub currency: Currency,
    /// How much.
    pub amount: Micros,
}

/// A payer's money in one currency. Always:
/// `available + reserved + refunding + spent = received - refunded - withdrawn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What can be spent. Below zero only after money was taken back.
    pub available: Micros,
    /// What requests in flight have set aside.
    pub reserved: Micros,
    /// What open refunds have set aside.
    #[serde(default)]
    pub refunding: Micros,
    /// What was spent, ever.
    pub spent: Micros,
    /// What cards paid, ever, as Stripe says.
    pub received: Micros,
    /// What was refunded to cards, ever.
    pub refunded: Micros,
    /// What disputes took, less what they gave back.
    pub withdrawn: Micros,
    /// The number of the open top-up. At most one is open.
    pub open: Option<u64>,
    /// How many top-ups have ended. The next one has the number after it.
    pub ended: u64,
}

impl Account {
    /// Whether there is a top-up of this number, open or ended.
    pub(crate) fn has_top_up(&self, number: u64) -> bool {
        number <= self.ended || self.open == Some(number)
    }

    /// Whether the account holds what was paid into it (invariant I1 of `spec/ledger.md`).
    pub fn is_conserved(&self) -> bool {
        let (reserved, refunding) = (self.reserved.get(), self.refunding.get());
        let held = self.available.get() + reserved + refunding + self.spent.get();
        held == self.received.get() - self.refunded.get() - self.withdrawn.get()
    }

    /// Whether nothing but money taken back overdraws it (invariant I2).
    pub fn is_within_bounds(&self) -> bool {
        let taken = self.refunded.get() + self.withdrawn.get().max(0);
        let none_negative =
            [self.reserved, self.refunding, self.spent, self.received, self.refunded]
                .iter()
                .all(|sum| *sum >= Micros::ZERO);
        none_negative && self.available.get() >= -taken
    }
}
