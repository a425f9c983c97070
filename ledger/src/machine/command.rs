//! What can be done to a book, and what it can come to.

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId};
use serde::{Deserialize, Serialize};

use crate::book::{
    ClaimKey, EntryId, Fingerprint, FreezeReason, Label, Limit, Line, ReservationId, Totals,
};
use crate::clock::Timestamp;

/// What can be done to a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Sets money aside for a request, before its handler runs.
    Reserve {
        /// Random, made by the caller; a repeat with the same id reserves once.
        id: ReservationId,
        /// The account.
        currency: Currency,
        /// How much; 0 only proves who asks.
        amount: Micros,
        /// For how long, in milliseconds, unless it is renewed.
        ttl: u32,
        /// Why the caller may spend.
        proof: Proof,
        /// The request's key, if it is to be charged once.
        claim: Option<ClaimOf>,
    },
    /// Says what a reservation spent, and ends it or renews it.
    Settle {
        /// The reservation.
        id: ReservationId,
        /// The key that it was made with.
        claim: Option<ClaimKey>,
        /// Absolute totals by route, together at most what was reserved. None: a release.
        lines: Vec<Line>,
        /// Whether it ends.
        then: Then,
    },
    /// Ends a reservation whose time is over, or forgets a claim whose time is over.
    Expire {
        /// The reservation or the claim.
        id: EntryId,
    },
    /// Opens a top-up, durably, before any card is charged.
    OpenTopUp {
        /// The account.
        currency: Currency,
        /// Its number: top-ups ended, plus 1.
        number: u64,
        /// Not needed if this much is available. `None`: the charge is also the proof of who pays,
        /// so it is needed unless the payer knows the PaymentMethod.
        needed: Option<Micros>,
        /// What is charged.
        method: PaymentMethodId,
        /// The book that is named after the card.
        card: PayerId,
        /// The encoded request to Stripe.
        call: String,
    },
    /// Sets what Stripe says about a top-up's charge and books the difference. Credit,
    /// claw-back and reinstatement are all this one command.
    Observe {
        /// The account.
        currency: Currency,
        /// The top-up.
        number: u64,
        /// The PaymentIntent that was read.
        intent: String,
        /// The version of the top-up when Stripe was read.
        seen_version: u64,
        /// Absolute totals.
        totals: Totals,
    },
    /// Ends a top-up without money.
    FailTopUp {
        /// The account.
        currency: Currency,
        /// The top-up.
        number: u64,
        /// What its payer is told.
        code: ErrorCode,
    },
    /// Sets money aside for a refund, durably, before Stripe is asked for it.
    OpenRefund {
        /// The account.
        currency: Currency,
        /// The top-up.
        number: u64,
        /// The refund's number: refunds of the top-up that ended, plus 1.
        refund: u64,
        /// How much.
        amount: Micros,
        /// The encoded request to Stripe.
        call: String,
    },
    /// Ends a refund with what Stripe says about the charge after it.
    CloseRefund {
        /// The account.
        currency: Currency,
        /// The top-up.
        number: u64,
        /// The refund.
        refund: u64,
        /// The version of the top-up when Stripe was read.
        seen_version: u64,
        /// Absolute totals. A refund that Stripe refused leaves them as they were.
        totals: Totals,
    },
    /// Freezes the payer for one more reason.
    Freeze {
        /// Why.
        reason: FreezeReason,
    },
    /// Takes one reason away.
    Unfreeze {
        /// Which.
        reason: FreezeReason,
    },
    /// Issues one more credential.
    IssueCredential {
        /// The number after the highest one: a number that is taken, by whomever, is stale.
        number: u16,
        /// What its holder calls it.
        label: Label,
        /// The most it may ever spend.
        limit: Option<Limit>,
    },
    /// Revokes one issued credential.
    RevokeCredential {
        /// Its number.
        number: u16,
    },
    /// Raises the generation: revokes all credentials and forgets the known PaymentMethods.
    RevokeCredentials,
    /// Asks whose card this book is named after, and makes it `owner`'s if it is nobody's.
    OwnCard {
        /// The payer who shows the card.
        owner: PayerId,
    },
    /// Makes a PaymentMethod known: from now on it may spend without a credential.
    LinkCard {
        /// The PaymentMethod.
        method: PaymentMethodId,
    },
    /// Keeps the payer's Customer at Stripe.
    SetCustomer {
        /// The Customer.
        customer: String,
        /// The one it takes the place of; `None` for the first.
        replaces: Option<String>,
    },
}

/// Why a caller may spend from a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A credential whose secret was checked.
    Credential {
        /// The generation it was issued at.
        generation: u32,
        /// Its number, if it is a further one.
        number: Option<u16>,
    },
    /// A PaymentMethod, if the payer knows it.
    Method(PaymentMethodId),
}

/// The key of a request, and what the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimOf {
    /// The key.
    pub key: ClaimKey,
    /// What the request is.
    pub fingerprint: Fingerprint,
}

/// Whether a settled reservation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// What was not spent returns.
    Close,
    /// What was not spent stays set aside, for another of its ttls.
    Keep,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The money is set aside.
    Reserved {
        /// What can still be spent.
        available: Micros,
    },
    /// Too little is available.
    Insufficient {
        /// How much is missing.
        missing: Micros,
    },
    /// The issued credential may not spend so much.
    LimitReached {
        /// What it may still spend.
        left: Micros,
    },
    /// The credential was revoked, or the PaymentMethod is not known.
    Unauthorized,
    /// The payer is frozen.
    Frozen,
    /// The payer is not frozen any more.
    Unfrozen,
    /// A request with this key is being served.
    InFlight,
    /// The request with this key was charged.
    Done {
        /// How much.
        charged: Micros,
    },
    /// The reservation is settled.
    Settled {
        /// What can still be spent.
        available: Micros,
    },
    /// No such reservation is open any more; nothing was debited.
    Expired,
    /// It is not over yet.
    NotDue,
    /// The top-up, or the refund, is open, and the caller drives it.
    Opened,
    /// Another one is open already.
    Joined {
        /// Its number.
        number: u64,
    },
    /// There is enough money.
    NotNeeded,
    /// Another one ended since the caller looked; the next number is this one.
    Stale {
        /// The number to open.
        number: u64,
    },
    /// The totals are booked.
    Observed {
        /// What was added to the account, or taken from it; 0 for a repeat.
        difference: Micros,
    },
    /// The top-up has ended without money.
    Failed,
    /// The top-up had ended with money before; it stays so.
    Succeeded,
    /// The refund has ended.
    Closed,
    /// The credential is issued.
    Issued {
        /// Its generation.
        generation: u32,
    },
    /// Credentials of earlier generations, or this one, are revoked.
    Revoked {
        /// The generation from now on.
        generation: u32,
    },
    /// Whose card it is.
    Owner(PayerId),
    /// The PaymentMethod is known.
    Linked,
    /// The payer's Customer, which may be one that was set before.
    Customer(String),
    /// There are as many as a book holds.
    TooMany,
    /// The entry that the command names does not exist.
    NotFound,
    /// The command contradicts the entry that it names.
    Conflict,
    /// An amount is negative, or a sum would be out of range.
    OutOfRange,
}

/// A command's outcome, and where in the book's history it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The outcome.
    pub outcome: Outcome,
    /// The later of the store's clock and the book's last change. In Redis, of a command that the
    /// process decides, it is when the book was read: changes of others may go in between.
    pub at: Timestamp,
    /// The book's `seq` after the command: its own place in the order of changes, or, if it
    /// changed nothing, the place of the change it came after.
    pub seq: u64,
}

impl Command {
    /// The entry that the command reads and may write.
    pub fn entry(&self) -> Option<EntryId> {
        match *self {
            Command::Reserve { id, claim, .. } => Some(match claim {
                Some(claim) => EntryId::Claim(claim.key),
                None => EntryId::Reservation(id),
            }),
            Command::Settle { id, claim, .. } => Some(match claim {
                Some(key) => EntryId::Claim(key),
                None => EntryId::Reservation(id),
            }),
            Command::Expire { id } => Some(id),
            Command::OpenTopUp { currency, number, .. }
            | Command::Observe { currency, number, .. }
            | Command::FailTopUp { currency, number, .. }
            | Command::OpenRefund { currency, number, .. }
            | Command::CloseRefund { currency, number, .. } => {
                Some(EntryId::TopUp(currency, number))
            }
            _ => None,
        }
    }

    /// How lasting the command's effect is before it is answered.
    pub fn durability(&self) -> Durability {
        match self {
            Command::Reserve { .. } | Command::Expire { .. } => Durability::Memory,
            Command::Settle { lines, claim, .. } => {
                match (lines.iter().all(|line| line.spent == Micros::ZERO), claim) {
                    (true, _) => Durability::Memory,
                    (false, None) => Durability::Spent,
                    (false, Some(_)) => Durability::Disk,
                }
            }
            _ => Durability::Disk,
        }
    }
}

/// How lasting a command's effect is before it is answered, in a store that has a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Not at all: a crash ends the request, and so releases what it reserved.
    Memory,
    /// On disk, or within the bound that the provider named: a crash costs the provider so much.
    Spent,
    /// On disk.
    Disk,
}
