//! The pure machine: what each command does to a book.
//!
//! [`transition`] is the specification of the ledger. It reads no clock, knows no store and
//! cannot fail: every answer, also "no", is an [`Outcome`]. A command that is refused changes
//! nothing.
//!
//! ```
//! use farebox_ledger::{Command, Head, Outcome, Timestamp, transition};
//! use farebox_protocol::{Currency, PayerId, PaymentMethodId, usd};
//!
//! let method: PaymentMethodId = "pm_1".parse()?;
//! let (card, call) = (PayerId::from_bytes([1; 32]), "POST ..".to_owned());
//! let open =
//!     Command::OpenTopUp { currency: Currency::USD, number: 1, needed: None, method, card, call };
//! let mut head = Head::default();
//! let (entry, outcome) = transition(&mut head, None, &open, Timestamp::from_millis(1));
//! assert_eq!(outcome, Outcome::Opened);
//! assert!(entry.is_some());
//! // At most one is open: whoever comes second joins it.
//! let (_, outcome) = transition(&mut head, entry, &open, Timestamp::from_millis(2));
//! assert_eq!(outcome, Outcome::Joined { number: 1 });
//! # Ok::<(), farebox_protocol::id::IdError>(())
//! ```

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId};

use crate::book::{Account, Entry, EntryId, Head, ReservationId, TopUp, TopUpState, Totals};
use crate::clock::Timestamp;

/// What can be done to a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets money aside for a request, before its handler runs.
    Reserve {
        /// Random, made by the caller; a repeat with the same id reserves once.
        id: ReservationId,
        /// The account.
        currency: Currency,
        /// How much; 0 only proves who asks.
        amount: Micros,
        /// Why the caller may spend.
        proof: Proof,
    },
    /// Ends a reservation: `spent` is spent, the rest returns. At 0 it is a release.
    Settle {
        /// The reservation.
        id: ReservationId,
        /// The absolute total; at most what was reserved.
        spent: Micros,
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
    /// Asks whose card this book is named after, and makes it `owner`'s if it is nobody's.
    ClaimCard {
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
    /// Raises the generation and forgets the known PaymentMethods.
    RevokeCredentials,
}

/// Why a caller may spend from a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A credential whose secret was checked, issued at this generation.
    Credential {
        /// The generation it was issued at.
        generation: u32,
    },
    /// A PaymentMethod, if the payer knows it.
    Method(PaymentMethodId),
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The credential was revoked, or the PaymentMethod is not known.
    Unauthorized,
    /// The reservation is settled.
    Settled {
        /// What can still be spent.
        available: Micros,
    },
    /// No such reservation is open; nothing was debited.
    Expired,
    /// The top-up is open, and the caller drives it.
    Opened,
    /// Another top-up of the account is open already.
    Joined {
        /// Its number.
        number: u64,
    },
    /// There is enough money.
    NotNeeded,
    /// Another top-up ended since the caller looked; the next number is this one.
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
    /// Whose card it is.
    Owner(PayerId),
    /// The PaymentMethod is known.
    Linked,
    /// The payer's Customer, which may be one that was set before.
    Customer(String),
    /// Credentials of earlier generations are revoked.
    Revoked {
        /// The generation from now on.
        generation: u32,
    },
    /// The entry that the command names does not exist.
    NotFound,
    /// The command contradicts the entry that it names.
    Conflict,
    /// An amount is negative, or a sum would be out of range.
    OutOfRange,
}

/// A command's outcome, and the store's time at which it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The outcome.
    pub outcome: Outcome,
    /// The later of the store's clock and the book's last change.
    pub at: Timestamp,
}

impl Command {
    /// The entry that the command reads and may write.
    pub fn entry(&self) -> Option<EntryId> {
        match *self {
            Command::Reserve { id, .. } | Command::Settle { id, .. } => {
                Some(EntryId::Reservation(id))
            }
            Command::OpenTopUp { currency, number, .. }
            | Command::Observe { currency, number, .. }
            | Command::FailTopUp { currency, number, .. } => Some(EntryId::TopUp(currency, number)),
            _ => None,
        }
    }

    /// Whether the command must be on disk before it is answered. A reservation and its release
    /// need not: a crash releases it too.
    pub fn is_durable(&self) -> bool {
        !matches!(self, Command::Reserve { .. } | Command::Settle { spent: Micros::ZERO, .. })
    }
}

/// What `command` does to a book at `now`: the entry it names as it is after it, and the
/// outcome. `entry` is that entry as it was; `None` means that there is none.
///
/// `head.seq` rises by one if, and only if, the book changed.
pub fn transition(
    head: &mut Head,
    entry: Option<Entry>,
    command: &Command,
    now: Timestamp,
) -> (Option<Entry>, Outcome) {
    let before = entry.clone();
    let step = match command {
        Command::Reserve { currency, amount, proof, .. } => {
            reserve(head, entry, *currency, *amount, proof)
        }
        Command::Settle { spent, .. } => settle(head, entry.as_ref(), *spent),
        Command::OpenTopUp { currency, number, needed, method, card, call } => {
            let top_up = TopUp {
                opened: now,
                method: method.clone(),
                card: *card,
                state: TopUpState::Open { call: call.clone() },
                totals: Totals::default(),
                version: 0,
            };
            open_top_up(head, *currency, *number, *needed, top_up)
        }
        Command::Observe { currency, intent, seen_version, totals, .. } => {
            observe(head, entry, *currency, intent, *seen_version, *totals)
        }
        Command::FailTopUp { currency, code, .. } => fail_top_up(head, entry, *currency, *code),
        Command::ClaimCard { owner } => claim_card(head, *owner),
        Command::LinkCard { method } => link_card(head, method),
        Command::SetCustomer { customer, replaces } => {
            set_customer(head, customer, replaces.as_deref())
        }
        Command::RevokeCredentials => revoke_credentials(head),
    };
    match step {
        Step::Changed(entry, outcome) => {
            head.seq += 1;
            head.last = head.last.max(now);
            debug_assert!(head.is_conserved(), "conservation: {command:?} on {head:?}");
            (entry, outcome)
        }
        Step::Unchanged(outcome) => (before, outcome),
    }
}

/// What a command's own function decided.
enum Step {
    /// The head was written, and the entry is now this.
    Changed(Option<Entry>, Outcome),
    /// Nothing was written.
    Unchanged(Outcome),
}

use Step::{Changed, Unchanged};

fn reserve(
    head: &mut Head,
    entry: Option<Entry>,
    currency: Currency,
    amount: Micros,
    proof: &Proof,
) -> Step {
    if !head.accepts(proof) {
        return Unchanged(Outcome::Unauthorized);
    }
    let account = head.account(currency);
    let reservation = Entry::Reservation { currency, amount };
    if let Some(entry) = entry {
        let repeat = entry == reservation;
        let available = account.available;
        return Unchanged(if repeat { Outcome::Reserved { available } } else { Outcome::Conflict });
    }
    if amount < Micros::ZERO {
        return Unchanged(Outcome::OutOfRange);
    }
    let (Some(available), Some(reserved)) =
        (account.available.checked_sub(amount), account.reserved.checked_add(amount))
    else {
        return Unchanged(Outcome::OutOfRange);
    };
    if available < Micros::ZERO && amount > Micros::ZERO {
        // In range: both are within 2^53, and missing is at most their distance.
        let missing = Micros::new(-available.get()).unwrap_or(Micros::MAX);
        return Unchanged(Outcome::Insufficient { missing });
    }
    head.accounts.insert(currency, Account { available, reserved, ..account });
    if let Proof::Method(method) = proof {
        head.learn(method);
    }
    Changed(Some(reservation), Outcome::Reserved { available })
}

fn settle(head: &mut Head, entry: Option<&Entry>, spent: Micros) -> Step {
    let Some(&Entry::Reservation { currency, amount }) = entry else {
        return Unchanged(Outcome::Expired);
    };
    if spent < Micros::ZERO || spent > amount {
        return Unchanged(Outcome::OutOfRange);
    }
    let account = head.account(currency);
    let settled = (|| {
        Some(Account {
            reserved: account.reserved.checked_sub(amount)?,
            spent: account.spent.checked_add(spent)?,
            available: account.available.checked_add(amount.checked_sub(spent)?)?,
            ..account
        })
    })();
    let Some(settled) = settled else { return Unchanged(Outcome::OutOfRange) };
    head.accounts.insert(currency, settled);
    Changed(None, Outcome::Settled { available: settled.available })
}

fn open_top_up(
    head: &mut Head,
    currency: Currency,
    number: u64,
    needed: Option<Micros>,
    top_up: TopUp,
) -> Step {
    let account = head.account(currency);
    if let Some(open) = account.open {
        return Unchanged(Outcome::Joined { number: open });
    }
    let needless = match needed {
        Some(needed) => account.available >= needed,
        None => head.knows(&top_up.method),
    };
    if needless {
        return Unchanged(Outcome::NotNeeded);
    }
    if number != account.ended + 1 {
        return Unchanged(Outcome::Stale { number: account.ended + 1 });
    }
    head.accounts.insert(currency, Account { open: Some(number), ..account });
    Changed(Some(Entry::TopUp(top_up)), Outcome::Opened)
}

fn observe(
    head: &mut Head,
    entry: Option<Entry>,
    currency: Currency,
    intent: &str,
    seen_version: u64,
    totals: Totals,
) -> Step {
    let Some(Entry::TopUp(mut top_up)) = entry else { return Unchanged(Outcome::NotFound) };
    if let TopUpState::Succeeded { intent: known } = &top_up.state {
        if known != intent {
            return Unchanged(Outcome::Conflict);
        }
        if top_up.totals == totals {
            return Unchanged(Outcome::Observed { difference: Micros::ZERO });
        }
    }
    // What a card paid never becomes less; money goes back as a refund or a dispute.
    if seen_version != top_up.version || totals.received < top_up.totals.received {
        return Unchanged(Outcome::Conflict);
    }
    let account = head.account(currency);
    let booked = (|| {
        let difference = totals.net()?.checked_sub(top_up.totals.net()?)?;
        let sum =
            |total: Micros, new: Micros, old: Micros| total.checked_add(new)?.checked_sub(old);
        let account = Account {
            available: account.available.checked_add(difference)?,
            received: sum(account.received, totals.received, top_up.totals.received)?,
            refunded: sum(account.refunded, totals.refunded, top_up.totals.refunded)?,
            withdrawn: sum(account.withdrawn, totals.withdrawn, top_up.totals.withdrawn)?,
            ..account
        };
        Some((account, difference))
    })();
    let Some((mut account, difference)) = booked else { return Unchanged(Outcome::OutOfRange) };
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
    top_up.totals = totals;
    top_up.version += 1;
    Changed(Some(Entry::TopUp(top_up)), Outcome::Observed { difference })
}

fn fail_top_up(head: &mut Head, entry: Option<Entry>, currency: Currency, code: ErrorCode) -> Step {
    let Some(Entry::TopUp(top_up)) = entry else { return Unchanged(Outcome::NotFound) };
    match top_up.state {
        TopUpState::Succeeded { .. } => Unchanged(Outcome::Succeeded),
        TopUpState::Failed { .. } => Unchanged(Outcome::Failed),
        TopUpState::Open { .. } => {
            let account = head.account(currency);
            let ended = account.ended + 1;
            head.accounts.insert(currency, Account { open: None, ended, ..account });
            let failed = TopUp { state: TopUpState::Failed { code }, ..top_up };
            Changed(Some(Entry::TopUp(failed)), Outcome::Failed)
        }
    }
}

fn claim_card(head: &mut Head, owner: PayerId) -> Step {
    match head.owner {
        Some(owner) => Unchanged(Outcome::Owner(owner)),
        None => {
            head.owner = Some(owner);
            Changed(None, Outcome::Owner(owner))
        }
    }
}

fn link_card(head: &mut Head, method: &PaymentMethodId) -> Step {
    if head.known.last() == Some(method) {
        return Unchanged(Outcome::Linked);
    }
    head.learn(method);
    Changed(None, Outcome::Linked)
}

fn set_customer(head: &mut Head, customer: &str, replaces: Option<&str>) -> Step {
    match &head.customer {
        Some(known) if known == customer || replaces != Some(known) => {
            Unchanged(Outcome::Customer(known.clone()))
        }
        _ => {
            head.customer = Some(customer.to_owned());
            Changed(None, Outcome::Customer(customer.to_owned()))
        }
    }
}

fn revoke_credentials(head: &mut Head) -> Step {
    let Some(generation) = head.generation.checked_add(1) else {
        return Unchanged(Outcome::OutOfRange);
    };
    head.generation = generation;
    head.known.clear();
    Changed(None, Outcome::Revoked { generation })
}
