//! What a book holds: a small head, entries found by id, and usage rows.
//!
//! A command reads and writes the head and at most one entry, and adds to usage rows, so its cost
//! does not grow with the book. [`Book`] is all of it, as a store shows it to whoever audits it.
//!
//! ```
//! use farebox_ledger::{Applied, Book, Command, EntryId, Outcome, Timestamp};
//!
//! let mut book = Book::default();
//! let nothing = |_: &EntryId, _: Option<&_>| {};
//! let Applied { outcome, seq, .. } =
//!     book.apply(&Command::RevokeCredentials, Timestamp::from_millis(1), nothing);
//! assert_eq!((outcome, seq), (Outcome::Revoked { generation: 2 }, 1));
//! assert!(book.check().is_ok());
//! ```

mod entry;
mod head;
mod names;

use std::collections::HashMap;

use farebox_protocol::{Currency, Micros};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::machine::{Applied, Command, Outcome, Transition, transition};

pub use entry::{
    Claim, ClaimState, Entry, EntryId, HISTORY_MAX, Line, Observation, Refund, Reservation, TopUp,
    TopUpState, Totals,
};
pub use head::{
    Account, CREDENTIALS_MAX, FREEZES_MAX, Head, IssuedCredential, KNOWN_METHODS_MAX, Limit,
};
pub use names::{ClaimKey, Fingerprint, FreezeReason, Label, NameError, ReservationId, Route};

/// What was spent in one account, at one route, in one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UsageKey {
    /// Hours since the Unix epoch.
    pub hour: u32,
    /// The account.
    pub currency: Currency,
    /// The route.
    pub route: Route,
}

/// For how many hours a usage row is kept: 13 weeks.
pub const USAGE_HOURS: u32 = 13 * 7 * 24;

/// A whole book. Stores that keep books in memory keep them as this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Rows", into = "Rows")]
pub struct Book {
    /// What every command reads.
    pub head: Head,
    /// Rows found by id.
    pub entries: HashMap<EntryId, Entry>,
    /// What was spent where, by the hour.
    pub usage: HashMap<UsageKey, Micros>,
}

/// A book as text: JSON has no keys but strings.
#[derive(Serialize, Deserialize)]
struct Rows {
    head: Head,
    entries: Vec<(EntryId, Entry)>,
    usage: Vec<(UsageKey, Micros)>,
}

impl From<Rows> for Book {
    fn from(Rows { head, entries, usage }: Rows) -> Self {
        Book { head, entries: entries.into_iter().collect(), usage: usage.into_iter().collect() }
    }
}

impl From<Book> for Rows {
    fn from(Book { head, entries, usage }: Book) -> Self {
        let mut rows = Rows {
            head,
            entries: entries.into_iter().collect(),
            usage: usage.into_iter().collect(),
        };
        // The same book is the same text.
        rows.entries.sort_unstable_by_key(|(id, _)| *id);
        rows.usage.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        rows
    }
}

impl Book {
    /// Applies `command` at `at`, or at the time of the book's last change if that is later.
    ///
    /// What is due and stands in the way has expired first: the claim that the command names, and
    /// every due reservation if money is short. `changed` hears of every entry that was written;
    /// `None` means that it is gone.
    pub fn apply(
        &mut self,
        command: &Command,
        at: Timestamp,
        mut changed: impl FnMut(&EntryId, Option<&Entry>),
    ) -> Applied {
        let at = at.max(self.head.last);
        if let Some(id @ EntryId::Claim(_)) = command.entry()
            && !matches!(command, Command::Expire { .. })
        {
            self.expire(id, at, &mut changed);
        }
        let mut outcome = self.step(command, at, &mut changed);
        if matches!(outcome, Outcome::Insufficient { .. } | Outcome::LimitReached { .. })
            && self.expire_due(at, &mut changed)
        {
            outcome = self.step(command, at, &mut changed);
        }
        Applied { outcome, at, seq: self.head.seq }
    }

    /// The reservations that are due, and the claims that are over, at `at`.
    pub fn due(&self, at: Timestamp) -> impl Iterator<Item = EntryId> {
        let due = move |(id, entry): (&EntryId, &Entry)| entry.is_due(at).then_some(*id);
        self.entries.iter().filter_map(due)
    }

    /// Forgets usage rows that are older than [`USAGE_HOURS`] at `at`.
    pub fn forget_usage(&mut self, at: Timestamp) {
        let first = at.hour().saturating_sub(USAGE_HOURS);
        self.usage.retain(|key, _| key.hour >= first);
    }

    /// The book after a crash of a store that keeps reservations in memory only.
    #[must_use]
    pub fn interrupted(mut self) -> Book {
        self.head.release_reservations();
        let entries = self.entries.into_iter();
        self.entries = entries.filter_map(|(id, entry)| Some((id, entry.lasting()?))).collect();
        self
    }

    fn expire_due(
        &mut self,
        at: Timestamp,
        changed: &mut impl FnMut(&EntryId, Option<&Entry>),
    ) -> bool {
        // Only what holds money: a store need not have the other claims at hand.
        let holds = |id: &EntryId| self.entries[id].reservation().is_some();
        let mut due: Vec<_> = self.due(at).filter(holds).collect();
        due.sort_unstable();
        for &id in &due {
            self.expire(id, at, changed);
        }
        !due.is_empty()
    }

    fn expire(
        &mut self,
        id: EntryId,
        at: Timestamp,
        changed: &mut impl FnMut(&EntryId, Option<&Entry>),
    ) {
        if self.entries.get(&id).is_some_and(|entry| entry.is_due(at)) {
            self.step(&Command::Expire { id }, at, changed);
        }
    }

    fn step(
        &mut self,
        command: &Command,
        at: Timestamp,
        changed: &mut impl FnMut(&EntryId, Option<&Entry>),
    ) -> Outcome {
        let id = command.entry();
        let entry = id.and_then(|id| self.entries.get(&id));
        match transition(&mut self.head, entry, command, at) {
            (Transition::Unchanged, outcome) => outcome,
            (Transition::Changed { entry, usage }, outcome) => {
                for (key, micros) in usage {
                    let row = self.usage.entry(key).or_default();
                    // A row is part of `spent`, which is in range.
                    *row = row.checked_add(micros).unwrap_or(*row);
                }
                if let Some(id) = id {
                    changed(&id, entry.as_ref());
                    match entry {
                        Some(entry) => self.entries.insert(id, entry),
                        None => self.entries.remove(&id),
                    };
                }
                outcome
            }
        }
    }

    /// Whether the book is consistent: the invariants of `spec/ledger.md` that one state shows.
    ///
    /// # Errors
    ///
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        for (&currency, account) in &self.head.accounts {
            if !account.is_conserved() {
                return Err(Broken::new("I1: money was made or lost", currency, account));
            }
            if !account.is_within_bounds() {
                return Err(Broken::new("I2: overdrawn", currency, account));
            }
            if Sums::of(self, currency) != Sums::told(account) {
                return Err(Broken::new("head and entries disagree", currency, account));
            }
        }
        Ok(())
    }
}

/// What an account's entries add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    reserved: i64,
    refunding: i64,
    net: i64,
    open: Vec<u64>,
}

impl Sums {
    fn of(book: &Book, currency: Currency) -> Sums {
        let mut sums = Sums::default();
        for (id, entry) in &book.entries {
            match (id, entry) {
                (EntryId::TopUp(c, number), Entry::TopUp(top_up)) if *c == currency => {
                    sums.net += top_up.totals.net().map_or(0, Micros::get);
                    sums.refunding += top_up.refund.as_ref().map_or(0, |refund| refund.left.get());
                    if matches!(top_up.state, TopUpState::Open { .. }) {
                        sums.open.push(*number);
                    }
                }
                (_, entry) => {
                    let ours = entry.reservation().filter(|open| open.currency == currency);
                    sums.reserved += ours.map_or(0, |open| open.left().get());
                }
            }
        }
        sums
    }

    fn told(account: &Account) -> Sums {
        let net = account.received.get() - account.refunded.get() - account.withdrawn.get();
        let (reserved, refunding) = (account.reserved.get(), account.refunding.get());
        Sums { reserved, refunding, net, open: account.open.into_iter().collect() }
    }
}

/// A book that contradicts itself: a bug, or a damaged store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {account}")]
pub struct Broken {
    what: &'static str,
    account: String,
}

impl Broken {
    fn new(what: &'static str, currency: Currency, account: &Account) -> Broken {
        Broken { what, account: format!("{currency} {account:?}") }
    }
}
