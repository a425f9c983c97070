//! The rows of a book: reservations, claims and top-ups.

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId};
use serde::{Deserialize, Serialize};

use super::names::{ClaimKey, Fingerprint, ReservationId, Route};
use crate::clock::Timestamp;
use crate::machine::CLAIM_KEPT_MILLIS;

/// Names an entry of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryId {
    /// Money set aside for a request without a key.
    Reservation(ReservationId),
    /// A keyed request, and the money set aside for it.
    Claim(ClaimKey),
    /// The account and the number of a top-up.
    TopUp(Currency, u64),
}

/// A row of a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Money set aside for a request in flight; gone once it is settled.
    Reservation(Reservation),
    /// A keyed request: in flight, or charged.
    Claim(Claim),
    /// A card charge that becomes credit; kept for ever.
    TopUp(Box<TopUp>),
}

impl From<TopUp> for Entry {
    fn from(top_up: TopUp) -> Self {
        Entry::TopUp(Box::new(top_up))
    }
}

impl Entry {
    /// The money that the entry sets aside for a request in flight.
    pub fn reservation(&self) -> Option<&Reservation> {
        match self {
            Entry::Reservation(open) => Some(open),
            Entry::Claim(Claim { state: ClaimState::InFlight(open), .. }) => Some(open),
            _ => None,
        }
    }

    /// What a crash leaves of the entry, because the request of an open reservation is gone then:
    /// of money that is only set aside, nothing; of a claim that was partly spent, that it was
    /// charged.
    pub(crate) fn lasting(&self) -> Option<Entry> {
        let lasting = match self {
            Entry::Reservation(_) => return None,
            Entry::Claim(Claim { state: ClaimState::InFlight(open), id, fingerprint }) => {
                let charged = Some(open.total()).filter(|total| *total > Micros::ZERO)?;
                let until = open.until.after(CLAIM_KEPT_MILLIS);
                let state = ClaimState::Done { currency: open.currency, charged, until };
                Entry::Claim(Claim { id: *id, fingerprint: *fingerprint, state })
            }
            other => other.clone(),
        };
        Some(lasting)
    }

    /// Whether a crash leaves anything of the entry.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Entry::Reservation(_) => false,
            entry => entry.reservation().is_none_or(|open| open.total() > Micros::ZERO),
        }
    }

    /// Whether it is a top-up about which Stripe is to be asked.
    pub fn is_open_top_up(&self) -> bool {
        matches!(self, Entry::TopUp(top_up) if top_up.is_open())
    }

    /// Whether the entry has outlived its time at `at`.
    pub fn is_due(&self, at: Timestamp) -> bool {
        match self {
            Entry::Reservation(open) => at >= open.until,
            Entry::Claim(claim) => at >= claim.until(),
            Entry::TopUp(_) => false,
        }
    }
}

/// Money set aside for a request in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The account.
    pub currency: Currency,
    /// How much, in all.
    pub amount: Micros,
    /// When it expires, unless it is renewed.
    pub until: Timestamp,
    /// How long each renewal lasts, in milliseconds.
    pub ttl: u32,
    /// The issued credential that it counts against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// What is spent already, by route: absolute totals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Line>,
}

impl Reservation {
    /// What is spent already.
    pub fn total(&self) -> Micros {
        // At most `amount`: checked when it was settled.
        Line::total(&self.spent).unwrap_or(self.amount)
    }

    /// What is still set aside.
    pub fn left(&self) -> Micros {
        self.amount.checked_sub(self.total()).unwrap_or_default()
    }
}

/// What was spent at one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where.
    pub route: Route,
    /// How much: an absolute total.
    pub spent: Micros,
}

impl Line {
    /// The sum of `lines`, unless it is out of range.
    pub fn total(lines: &[Line]) -> Option<Micros> {
        lines.iter().try_fold(Micros::ZERO, |sum, line| sum.checked_add(line.spent))
    }
}

/// A keyed request: it is charged once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The reservation that made it.
    pub id: ReservationId,
    /// What the request is.
    pub fingerprint: Fingerprint,
    /// How it stands.
    pub state: ClaimState,
}

impl Claim {
    /// Until when the claim keeps others from the key.
    pub fn until(&self) -> Timestamp {
        match &self.state {
            ClaimState::InFlight(open) => open.until,
            ClaimState::Done { until, .. } => *until,
        }
    }
}

/// How a claim stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// The request is being served.
    InFlight(Reservation),
    /// It was served and charged.
    Done {
        /// The account.
        currency: Currency,
        /// What was charged.
        charged: Micros,
        /// Until when the key is remembered.
        until: Timestamp,
    },
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
    /// What was observed, and when: the last is `totals`. At most [`HISTORY_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Observation>,
    /// The open refund. At most one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// How many refunds of ours have ended. The next one has the number after it.
    #[serde(default)]
    pub refunds: u64,
}

/// The most observations that a top-up remembers; of more, the second oldest is forgotten.
pub const HISTORY_MAX: usize = 32;

impl TopUp {
    pub(crate) fn record(&mut self, at: Timestamp, totals: Totals) {
        self.totals = totals;
        self.version += 1;
        if self.history.len() == HISTORY_MAX {
            self.history.remove(1);
        }
        self.history.push(Observation { at, totals });
    }

    /// Whether Stripe is to be asked about it: its charge, or a refund of it, may be under way.
    pub fn is_open(&self) -> bool {
        matches!(self.state, TopUpState::Open { .. }) || self.refund.is_some()
    }
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

/// Totals as they were read at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When they were booked.
    pub at: Timestamp,
    /// What Stripe said.
    pub totals: Totals,
}

/// A refund that Stripe was or will be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// Its number among the refunds of the top-up.
    pub number: u64,
    /// What is still set aside for it.
    pub left: Micros,
    /// When it was opened: Stripe forgets keys, so an old request must not be sent again.
    #[serde(default)]
    pub opened: Timestamp,
    /// The encoded request to Stripe.
    pub call: String,
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
