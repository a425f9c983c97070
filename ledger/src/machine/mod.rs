//! The pure machine: what each command does to a book.
//!
//! [`transition`] is the specification of the ledger. It reads no clock, knows no store and
//! cannot fail: every answer, also "no", is an [`Outcome`]. A command that is refused changes
//! nothing.
//!
//! ```
//! use farebox_ledger::{Command, Head, Outcome, Timestamp, Transition, transition};
//! use farebox_protocol::{Currency, PayerId, PaymentMethodId, usd};
//!
//! let method: PaymentMethodId = "pm_1".parse()?;
//! let (card, call) = (PayerId::from_bytes([1; 32]), "POST ..".to_owned());
//! let open =
//!     Command::OpenTopUp { currency: Currency::USD, number: 1, needed: None, method, card, call };
//! let mut head = Head::default();
//! let (opened, outcome) = transition(&mut head, None, &open, Timestamp::from_millis(1));
//! assert_eq!(outcome, Outcome::Opened);
//! let Transition::Changed { entry, .. } = opened else { panic!("it was written") };
//! // At most one is open: whoever comes second joins it.
//! let (_, outcome) = transition(&mut head, entry.as_ref(), &open, Timestamp::from_millis(2));
//! assert_eq!(outcome, Outcome::Joined { number: 1 });
//! # Ok::<(), farebox_protocol::id::IdError>(())
//! ```

mod command;
mod identity;
mod refund;
mod reserve;
mod top_up;

use farebox_protocol::{Currency, Micros};

use crate::book::{Entry, Head, Refund, Route, TopUp, TopUpState, Totals, UsageKey};
use crate::clock::Timestamp;

pub use command::{Applied, ClaimOf, Command, Durability, Outcome, Proof, Then};
pub use reserve::{CLAIM_KEPT_MILLIS, LINES_MAX};

/// What a command did to a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// The head was written.
    Changed {
        /// The entry that the command names, as it is now; `None`: there is none any more.
        entry: Option<Entry>,
        /// What is added to usage rows. No command reads them.
        usage: Vec<(UsageKey, Micros)>,
    },
}

/// What `command` does to a book at `now`, and what it comes to. `entry` is the one that the
/// command names; `None` means that there is none.
///
/// `head.seq` rises by one if, and only if, the book changed.
pub fn transition(
    head: &mut Head,
    entry: Option<&Entry>,
    command: &Command,
    now: Timestamp,
) -> (Transition, Outcome) {
    let step = match command {
        Command::Reserve { .. } => reserve::reserve(head, entry, command, now),
        Command::Settle { id, lines, then, .. } => {
            reserve::settle(head, entry, *id, lines, *then, now)
        }
        Command::Expire { .. } => reserve::expire(head, entry, now),
        Command::OpenTopUp { currency, number, needed, method, card, call } => {
            let top_up = TopUp {
                opened: now,
                method: method.clone(),
                card: *card,
                state: TopUpState::Open { call: call.clone() },
                totals: Totals::default(),
                version: 0,
                history: Vec::new(),
                refund: None,
                refunds: 0,
            };
            top_up::open(head, *currency, *number, *needed, top_up)
        }
        Command::Observe { currency, intent, seen_version, totals, .. } => {
            top_up::observe(head, entry, *currency, intent, *seen_version, *totals, now)
        }
        Command::FailTopUp { currency, code, .. } => top_up::fail(head, entry, *currency, *code),
        Command::OpenRefund { currency, refund, amount, call, .. } => {
            let opened = Refund { number: *refund, left: *amount, opened: now, call: call.clone() };
            refund::open(head, entry, *currency, opened)
        }
        Command::CloseRefund { currency, refund, seen_version, totals, .. } => {
            refund::close(head, entry, *currency, *refund, *seen_version, *totals, now)
        }
        Command::Freeze { reason } => identity::freeze(head, reason),
        Command::Unfreeze { reason } => identity::unfreeze(head, reason),
        Command::IssueCredential { number, label, limit } => {
            identity::issue(head, *number, label, *limit, now)
        }
        Command::RevokeCredential { number } => identity::revoke(head, *number),
        Command::RevokeCredentials => identity::revoke_all(head),
        Command::OwnCard { owner } => identity::own_card(head, *owner),
        Command::LinkCard { method } => identity::link_card(head, method),
        Command::SetCustomer { customer, replaces } => {
            identity::set_customer(head, customer, replaces.as_deref())
        }
    };
    match step {
        Step::Changed(entry, usage, outcome) => {
            head.seq += 1;
            head.last = head.last.max(now);
            debug_assert!(
                head.accounts.values().all(|account| account.is_conserved()),
                "conservation: {command:?} on {head:?}"
            );
            (Transition::Changed { entry, usage }, outcome)
        }
        Step::Unchanged(outcome) => (Transition::Unchanged, outcome),
    }
}

/// What a command's own function decided.
enum Step {
    /// The head was written, the entry is now this, and so much was spent.
    Changed(Option<Entry>, Vec<(UsageKey, Micros)>, Outcome),
    /// Nothing was written.
    Unchanged(Outcome),
}

impl Step {
    /// The head and the entry were written.
    fn changed(entry: Option<Entry>, outcome: Outcome) -> Step {
        Step::Changed(entry, Vec::new(), outcome)
    }
}

fn usage_key(at: Timestamp, currency: Currency, route: &Route) -> UsageKey {
    UsageKey { hour: at.hour(), currency, route: route.clone() }
}
