//! The suite that every store must pass: random histories of all commands, answered exactly as
//! [`transition`] answers them when it is replayed at the store's own times.
//!
//! ```
//! use farebox_ledger::conformance::{Model, replay};
//! use farebox_ledger::{Command, store::Memory};
//! use farebox_protocol::PayerId;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let history = [Command::RevokeCredentials, Command::RevokeCredentials];
//! let model = replay(&Memory::default(), &PayerId::from_bytes([1; 32]), &history).await?;
//! assert_eq!(model.head().generation, 3);
//! # Ok::<(), String>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId, TopUpId};
use proptest::prelude::*;

use crate::book::{Entry, EntryId, Head, TopUpState, Totals};
use crate::clock::Timestamp;
use crate::machine::{Command, Outcome, Proof, transition};
use crate::store::Store;

/// A book driven by [`transition`] alone, which checks the invariants after every step.
#[derive(Clone, Debug, Default)]
pub struct Model {
    head: Head,
    entries: HashMap<EntryId, Entry>,
}

impl Model {
    /// The head as it is now.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The book after a restart of a store that keeps reservations in memory only: they are
    /// released.
    pub fn restarted(&self) -> Model {
        let mut model = self.clone();
        model.head.release_reservations();
        model.entries.retain(|id, _| matches!(id, EntryId::TopUp(..)));
        model
    }

    /// Applies a command.
    ///
    /// # Errors
    ///
    /// The invariant that does not hold after it.
    pub fn step(&mut self, command: &Command, at: Timestamp) -> Result<Outcome, String> {
        let before = self.clone();
        let id = command.entry();
        let entry = id.and_then(|id| self.entries.remove(&id));
        let (entry, outcome) = transition(&mut self.head, entry, command, at);
        if let (Some(id), Some(entry)) = (id, entry) {
            self.entries.insert(id, entry);
        }
        self.check(&before).map_err(|broken| format!("{broken} after {command:?}"))?;
        Ok(outcome)
    }

    fn check(&self, before: &Model) -> Result<(), String> {
        let (seq, last) = (before.head.seq, before.head.last);
        let unchanged = Head { seq, last, ..self.head.clone() } == before.head
            && self.entries == before.entries;
        if unchanged != (self.head.seq == seq) {
            return Err("seq does not count the changes".into());
        }
        if self.head.last < last {
            return Err("I18: time went back".into());
        }
        for (&currency, account) in &self.head.accounts {
            let (mut reserved, mut net, mut open) = (0, 0, None);
            for (id, entry) in &self.entries {
                match (id, entry) {
                    (_, Entry::Reservation { currency: c, amount }) if *c == currency => {
                        reserved += amount.get();
                    }
                    (EntryId::TopUp(c, number), Entry::TopUp(top_up)) if *c == currency => {
                        net += top_up.totals.net().map_or(0, Micros::get);
                        if matches!(top_up.state, TopUpState::Open { .. })
                            && open.replace(*number).is_some()
                        {
                            return Err("I5: two top-ups are open".into());
                        }
                    }
                    _ => {}
                }
            }
            let paid = account.received.get() - account.refunded.get() - account.withdrawn.get();
            let taken = account.refunded.get() + account.withdrawn.get();
            if !account.is_conserved() {
                return Err(format!("I1: money was made or lost: {account:?}"));
            }
            if account.available.get() < -taken {
                return Err(format!("I2: overdrawn: {account:?}"));
            }
            if account.reserved.get() != reserved || paid != net || account.open != open {
                return Err(format!("head and entries disagree: {account:?}"));
            }
        }
        Ok(())
    }
}

/// Applies `history` to the payer's book in `store`, which must be new, and to a [`Model`] at the
/// store's own times.
///
/// # Errors
///
/// The first difference between the two, or the first broken invariant.
pub async fn replay<S: Store>(
    store: &S,
    payer: &PayerId,
    history: &[Command],
) -> Result<Model, String> {
    let mut model = Model::default();
    for command in history {
        let applied = store.apply(payer, command).await.map_err(|error| error.to_string())?;
        let expected = model.step(command, applied.at)?;
        if applied.outcome != expected {
            return Err(format!("{command:?}: {:?}, not {expected:?}", applied.outcome));
        }
    }
    agrees(store, payer, &model).await?;
    Ok(model)
}

/// Compares the payer's book in `store` with a model.
///
/// # Errors
///
/// The first difference.
pub async fn agrees<S: Store>(store: &S, payer: &PayerId, model: &Model) -> Result<(), String> {
    let head = store.load(payer).await.map_err(|error| error.to_string())?;
    if head != model.head {
        return Err(format!("head is {head:?}, not {:?}", model.head));
    }
    let mut due = Vec::new();
    for (id, entry) in &model.entries {
        let (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) = (*id, entry) else {
            continue;
        };
        let id = TopUpId { payer: *payer, currency, number };
        let stored = store.top_up(&id).await.map_err(|error| error.to_string())?;
        if stored.as_ref() != Some(top_up) {
            return Err(format!("{id} is {stored:?}, not {top_up:?}"));
        }
        if matches!(top_up.state, TopUpState::Open { .. }) {
            due.push(id);
        }
    }
    let mut open = store.due().await.map_err(|error| error.to_string())?;
    open.retain(|id| id.payer == *payer);
    open.sort_unstable();
    due.sort_unstable();
    if open == due { Ok(()) } else { Err(format!("{open:?} are due, not {due:?}")) }
}

/// Histories of all commands over few ids and small amounts, so that they meet.
pub fn histories(commands: usize) -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_command(), 1..=commands)
}

fn any_command() -> impl Strategy<Value = Command> {
    let id = || (0_u128..6).prop_map(Into::into);
    let number = || 1_u64..5;
    let totals =
        (0_i64..900, 0_i64..300, 0_i64..300).prop_map(|(received, refunded, withdrawn)| {
            let micros = |units: i64| Micros::new(units * 100).unwrap_or_default();
            Totals {
                received: micros(received),
                refunded: micros(refunded),
                withdrawn: micros(withdrawn),
            }
        });
    let reserve = (id(), currency(), amount(), proof())
        .prop_map(|(id, currency, amount, proof)| Command::Reserve { id, currency, amount, proof });
    let settle = (id(), amount()).prop_map(|(id, spent)| Command::Settle { id, spent });
    let open = (currency(), number(), prop::option::of(amount()), method()).prop_map(
        |(currency, number, needed, method)| {
            let (card, call) = (PayerId::from_bytes([9; 32]), format!("call {number}"));
            Command::OpenTopUp { currency, number, needed, method, card, call }
        },
    );
    let observe = (currency(), number(), 0_u64..4, totals).prop_map(
        |(currency, number, seen_version, totals)| {
            let intent = format!("pi_{number}");
            Command::Observe { currency, number, intent, seen_version, totals }
        },
    );
    let fail = (currency(), number()).prop_map(|(currency, number)| Command::FailTopUp {
        currency,
        number,
        code: ErrorCode::CardDeclined,
    });
    let customer = (0..3, prop::option::of(0..3)).prop_map(|(customer, replaces)| {
        let name = |n| format!("cus_{n}");
        Command::SetCustomer { customer: name(customer), replaces: replaces.map(name) }
    });
    prop_oneof![
        8 => reserve,
        8 => settle,
        6 => open,
        6 => observe,
        2 => fail,
        1 => any::<[u8; 32]>().prop_map(|b| Command::ClaimCard { owner: PayerId::from_bytes(b) }),
        2 => method().prop_map(|method| Command::LinkCard { method }),
        1 => customer,
        1 => Just(Command::RevokeCredentials),
    ]
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![4 => Just("usd"), 1 => Just("jpy")]
        .prop_map(|code| code.parse().unwrap_or(Currency::USD))
}

fn amount() -> impl Strategy<Value = Micros> {
    prop_oneof![
        20 => (0_i64..40_000).prop_map(|micros| Micros::new(micros).unwrap_or_default()),
        1 => Just(Micros::MAX),
        1 => (-40_000_i64..0).prop_map(|micros| Micros::new(micros).unwrap_or_default()),
    ]
}

#[expect(clippy::expect_used, reason = "a literal of the id alphabet")]
fn method() -> impl Strategy<Value = PaymentMethodId> {
    (0..20).prop_map(|n| format!("pm_{n}").parse().expect("an id"))
}

fn proof() -> impl Strategy<Value = Proof> {
    prop_oneof![
        6 => (1_u32..3).prop_map(|generation| Proof::Credential { generation }),
        2 => method().prop_map(Proof::Method),
    ]
}
