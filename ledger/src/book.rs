//! What a book holds: a small head, and entries found by id.
//!
//! A command reads and writes the head and at most one entry, so its cost does not grow with
//! the book.
//!
//! ```
//! use farebox_ledger::Head;
//! use farebox_protocol::Currency;
//!
//! let head = Head::default();
//! assert_eq!(head.account(Currency::USD).available.get(), 0);
//! assert!(head.is_conserved());
//! ```

use std::collections::BTreeMap;

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::machine::Proof;

/// The most PaymentMethods a payer is known by; the least recently used gives way.
pub const KNOWN_METHODS_MAX: usize = 16;

/// The part of a book that every command reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Counts the commands that changed the book.
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
            Proof::Credential { generation } => *generation == self.generation,
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

    /// Whether every account holds what was paid into it (invariant I1 of `spec/ledger.md`).
    pub fn is_conserved(&self) -> bool {
        self.accounts.values().all(|account| account.is_conserved())
    }

    /// Returns what is reserved. Reservations without a key are not written to disk: after a
    /// crash their requests are gone, and so is their claim on the money.
    pub(crate) fn release_reservations(&mut self) {
        for account in self.accounts.values_mut() {
            // Both are parts of one account, so their sum is in range.
            account.available =
                account.available.checked_add(account.reserved).unwrap_or(account.available);
            account.reserved = Micros::ZERO;
        }
    }
}

/// A payer's money in one currency. Always:
/// `available + reserved + spent = received - refunded - withdrawn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What can be spent. Below zero only after money was taken back.
    pub available: Micros,
    /// What requests in flight have set aside.
    pub reserved: Micros,
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

    /// Whether the account holds what was paid into it.
    pub fn is_conserved(&self) -> bool {
        let held = self.available.get() + self.reserved.get() + self.spent.get();
        held == self.received.get() - self.refunded.get() - self.withdrawn.get()
    }
}

/// Names a reservation. Random, and never derived from what a caller sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReservationId(u128);

impl From<u128> for ReservationId {
    fn from(id: u128) -> Self {
        ReservationId(id)
    }
}

/// Names an entry of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryId {
    /// Money set aside.
    Reservation(ReservationId),
    /// The account and the number of a top-up.
    TopUp(Currency, u64),
}

/// A row of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Money set aside for a request in flight; gone once it is settled.
    Reservation {
        /// The account.
        currency: Currency,
        /// How much.
        amount: Micros,
    },
    /// A card charge that becomes credit; kept for ever.
    TopUp(TopUp),
}

/// A card charge that becomes credit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUp {
    /// When it was opened.
    pub opened: Timestamp,
    /// What is charged.
    pub method: PaymentMethodId,
    /// The book that is named after the card. Once the charge succeeded, the card is the payer's.
    pub card: PayerId,
    /// How it stands.
    pub state: TopUpState,
    /// What Stripe says about its charge: absolute totals.
    pub totals: Totals,
    /// Counts the observations, so that an older one is never taken for a newer one.
    pub version: u64,
}

/// How a top-up stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopUpState {
    /// The charge may run at any time, or may have run. `call` is the encoded request to
    /// Stripe, which whoever drives the top-up sends byte for byte.
    Open {
        /// The encoded request; opaque to the ledger.
        call: String,
    },
    /// Stripe says that money was received.
    Succeeded {
        /// The PaymentIntent.
        intent: String,
    },
    /// It ended without money.
    Failed {
        /// What its payer is told.
        code: ErrorCode,
    },
}

/// Absolute totals of a charge, as read from Stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// What the card paid.
    pub received: Micros,
    /// What was refunded to it.
    pub refunded: Micros,
    /// What disputes took, less what they gave back.
    pub withdrawn: Micros,
}

impl Totals {
    /// What the charge is worth to its account.
    pub fn net(self) -> Option<Micros> {
        self.received.checked_sub(self.refunded)?.checked_sub(self.withdrawn)
    }
}
