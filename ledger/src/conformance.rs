//! The suite that every store must pass: random histories of all commands, answered exactly as
//! [`Book::apply`] answers them when they are replayed at the store's own times.
//!
//! ```
//! use farebox_ledger::conformance::replay;
//! use farebox_ledger::{Command, store::Memory};
//! use farebox_protocol::PayerId;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let history = [Command::RevokeCredentials, Command::RevokeCredentials];
//! let model = replay(&Memory::default(), &PayerId::from_bytes([1; 32]), &history).await?;
//! assert_eq!(model.book().head.generation, 3);
//! # Ok::<(), String>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId, TopUpId};
use proptest::prelude::*;

use crate::book::{
    Book, ClaimKey, ClaimState, Entry, EntryId, Fingerprint, Head, Limit, Line, Route, Totals,
};
use crate::clock::Timestamp;
use crate::machine::{Applied, ClaimOf, Command, Outcome, Proof, Then};
use crate::store::{Due, Store};

/// A book driven by [`Book::apply`] alone, which checks the invariants after every step.
#[derive(Clone, Debug, Default)]
pub struct Model(Book);

impl Model {
    /// The book as it is now.
    pub fn book(&self) -> &Book {
        &self.0
    }

    /// The book after a restart of a store that keeps reservations in memory only: they are
    /// released, and a claim that was partly spent is done.
    pub fn restarted(&self) -> Model {
        let Book { mut head, mut entries, usage } = self.0.clone();
        head.release_reservations();
        entries.retain(|_, entry| {
            entry
                .reservation()
                .is_none_or(|open| matches!(entry, Entry::Claim(_)) && open.total() > Micros::ZERO)
        });
        for entry in entries.values_mut() {
            if let (Some(open), Entry::Claim(claim)) = (entry.reservation().cloned(), &mut *entry) {
                let until = open.until.after(crate::machine::CLAIM_KEPT_MILLIS);
                let charged = open.total();
                claim.state = ClaimState::Done { currency: open.currency, charged, until };
            }
        }
        Model(Book { head, entries, usage })
    }

    /// Applies a command.
    ///
    /// # Errors
    ///
    /// The invariant that does not hold after it.
    pub fn step(&mut self, command: &Command, at: Timestamp) -> Result<Outcome, String> {
        let before = self.0.clone();
        let mut written = 0;
        let Applied { outcome, seq, .. } = self.0.apply(command, at, |_, _| written += 1);
        self.check(&before, seq, written)
            .map_err(|broken| format!("{broken} after {command:?}"))?;
        Ok(outcome)
    }

    fn check(&self, before: &Book, seq: u64, written: usize) -> Result<(), String> {
        let Head { seq: seq_before, last, .. } = before.head;
        let head = Head { seq: seq_before, last, ..self.0.head.clone() };
        let unchanged = head == before.head && self.0.entries == before.entries && written == 0;
        if unchanged != (seq == seq_before) || seq != self.0.head.seq {
            return Err("seq does not count the changes".into());
        }
        if self.0.head.last < last {
            return Err("I18: time went back".into());
        }
        for (currency, account) in &before.head.accounts {
            let now = self.0.head.account(*currency);
            if now.spent < account.spent || now.received < account.received {
                return Err(format!("what was spent or received became less: {now:?}"));
            }
        }
        self.check_usage()?;
        self.0.check().map_err(|broken| broken.to_string())
    }

    /// Usage adds up to what was spent, and no credential spent more than its limit.
    fn check_usage(&self) -> Result<(), String> {
        for (currency, account) in &self.0.head.accounts {
            let rows = self.0.usage.iter().filter(|(key, _)| key.currency == *currency);
            let sum: i64 = rows.map(|(_, micros)| micros.get()).sum();
            if sum != account.spent.get() {
                return Err(format!("usage is {sum}: {account:?}"));
            }
        }
        for (number, issued) in &self.0.head.credentials {
            let used = issued.spent.get() + issued.reserved.get();
            let in_flight: i64 = self
                .0
                .entries
                .values()
                .filter_map(Entry::reservation)
                .filter(|open| open.number == Some(*number))
                .map(|open| open.left().get())
                .sum();
            let over = issued.limit.is_some_and(|limit| used > limit.amount.get());
            if over || in_flight != issued.reserved.get() {
                return Err(format!("credential {number} has {in_flight} in flight: {issued:?}"));
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
        if (&applied.outcome, applied.seq) != (&expected, model.0.head.seq) {
            let seq = model.0.head.seq;
            return Err(format!("{command:?}: {applied:?}, not {expected:?} at seq {seq}"));
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
    let text = |error: crate::StoreError| error.to_string();
    let head = store.load(payer).await.map_err(text)?;
    if head != model.0.head {
        return Err(format!("head is {head:?}, not {:?}", model.0.head));
    }
    let book = store.book(payer).await.map_err(text)?;
    if book != model.0 {
        return Err(format!("the book is {book:?}, not {:?}", model.0));
    }
    let mut open = Vec::new();
    for (id, entry) in &model.0.entries {
        let (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) = (*id, entry) else {
            continue;
        };
        let id = TopUpId { payer: *payer, currency, number };
        let stored = store.top_up(&id).await.map_err(text)?;
        if stored.as_ref() != Some(&**top_up) {
            return Err(format!("{id} is {stored:?}, not {top_up:?}"));
        }
        if top_up.is_open() {
            open.push(id);
        }
    }
    let mut due: Vec<TopUpId> = Vec::new();
    for found in store.due().await.map_err(text)? {
        match found {
            Due::TopUp(id) if id.payer == *payer => due.push(id),
            Due::Entry(whose, id) if whose == *payer && !model.0.entries.contains_key(&id) => {
                return Err(format!("{id:?} is due and does not exist"));
            }
            _ => {}
        }
    }
    open.sort_unstable();
    due.sort_unstable();
    if open == due { Ok(()) } else { Err(format!("{due:?} are due, not {open:?}")) }
}

/// Histories of all commands over few ids and small amounts, so that they meet.
pub fn histories(commands: usize) -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_command(), 1..=commands)
}

/// A command of any kind.
pub fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => reserve(),
        10 => settle(),
        2 => expire(),
        6 => open_top_up(),
        6 => observe(),
        2 => (currency(), number()).prop_map(|(currency, number)| {
            let code = ErrorCode::CardDeclined;
            Command::FailTopUp { currency, number, code }
        }),
        3 => refunds(),
        5 => identity(),
    ]
}

fn id() -> impl Strategy<Value = crate::ReservationId> {
    (0_u128..6).prop_map(Into::into)
}

fn key() -> impl Strategy<Value = ClaimKey> {
    (0_u8..3).prop_map(|n| ClaimKey::from_bytes([n; 32]))
}

fn reserve() -> impl Strategy<Value = Command> {
    let claim = (key(), 0_u8..2).prop_map(|(key, print)| {
        let fingerprint = Fingerprint::from_bytes([print; 32]);
        ClaimOf { key, fingerprint }
    });
    // Some are due at once.
    let ttl = prop_oneof![1 => Just(0_u32), 4 => Just(60_000)];
    (id(), currency(), amount(), ttl, proof(), prop::option::weighted(0.3, claim)).prop_map(
        |(id, currency, amount, ttl, proof, claim)| Command::Reserve {
            id,
            currency,
            amount,
            ttl,
            proof,
            claim,
        },
    )
}

fn settle() -> impl Strategy<Value = Command> {
    let line = || {
        (0_u8..3, small_amount())
            .prop_map(|(route, spent)| Line { route: Route::new(&format!("/{route}")), spent })
    };
    let lines = prop_oneof![
        2 => Just(Vec::new()),
        6 => line().prop_map(|line| vec![line]),
        1 => prop::collection::vec(line(), 2..4),
    ];
    let then = prop_oneof![3 => Just(Then::Close), 1 => Just(Then::Keep)];
    (id(), prop::option::weighted(0.3, key()), lines, then)
        .prop_map(|(id, claim, lines, then)| Command::Settle { id, claim, lines, then })
}

fn expire() -> impl Strategy<Value = Command> {
    prop_oneof![id().prop_map(EntryId::Reservation), key().prop_map(EntryId::Claim)]
        .prop_map(|id| Command::Expire { id })
}

fn open_top_up() -> impl Strategy<Value = Command> {
    (currency(), number(), prop::option::of(amount()), method()).prop_map(
        |(currency, number, needed, method)| {
            let (card, call) = (PayerId::from_bytes([9; 32]), format!("call {number}"));
            Command::OpenTopUp { currency, number, needed, method, card, call }
        },
    )
}

fn totals() -> impl Strategy<Value = Totals> {
    (0_i64..900, -3_i64..300, -3_i64..300).prop_map(|(received, refunded, withdrawn)| {
        let micros = |units: i64| Micros::new(units * 100).unwrap_or_default();
        Totals {
            received: micros(received),
            refunded: micros(refunded),
            withdrawn: micros(withdrawn),
        }
    })
}

fn observe() -> impl Strategy<Value = Command> {
    (currency(), number(), 0_u64..4, totals()).prop_map(
        |(currency, number, seen_version, totals)| {
            let intent = format!("pi_{number}");
            Command::Observe { currency, number, intent, seen_version, totals }
        },
    )
}

fn refunds() -> impl Strategy<Value = Command> {
    let open = (currency(), number(), 1_u64..4, amount()).prop_map(
        |(currency, number, refund, amount)| {
            let call = format!("refund {refund}");
            Command::OpenRefund { currency, number, refund, amount, call }
        },
    );
    let close = (currency(), number(), 1_u64..4, 0_u64..4, totals()).prop_map(
        |(currency, number, refund, seen_version, totals)| Command::CloseRefund {
            currency,
            number,
            refund,
            seen_version,
            totals,
        },
    );
    prop_oneof![open, close]
}

#[expect(clippy::expect_used, reason = "literals of the alphabet of names")]
fn identity() -> impl Strategy<Value = Command> {
    let customer = (0..3, prop::option::of(0..3)).prop_map(|(customer, replaces)| {
        let name = |n| format!("cus_{n}");
        Command::SetCustomer { customer: name(customer), replaces: replaces.map(name) }
    });
    let reason = || prop_oneof!["operator", "dp_1"].prop_map(|r| r.parse().expect("a reason"));
    let limit = prop::option::of((currency(), small_amount()))
        .prop_map(|limit| limit.map(|(currency, amount)| Limit { currency, amount }));
    let issue = (1_u16..5, limit).prop_map(|(number, limit)| {
        let label = "agent".parse().expect("a label");
        Command::IssueCredential { number, label, limit }
    });
    prop_oneof![
        1 => any::<[u8; 32]>().prop_map(|b| Command::OwnCard { owner: PayerId::from_bytes(b) }),
        2 => method().prop_map(|method| Command::LinkCard { method }),
        1 => customer,
        1 => reason().prop_map(|reason| Command::Freeze { reason }),
        3 => reason().prop_map(|reason| Command::Unfreeze { reason }),
        3 => issue,
        1 => (1_u16..5).prop_map(|number| Command::RevokeCredential { number }),
        1 => Just(Command::RevokeCredentials),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    1_u64..5
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![4 => Just("usd"), 1 => Just("jpy")]
        .prop_map(|code| code.parse().unwrap_or(Currency::USD))
}

fn small_amount() -> impl Strategy<Value = Micros> {
    prop_oneof![1 => Just(0), 9 => -50_i64..40_000]
        .prop_map(|micros| Micros::new(micros).unwrap_or_default())
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
    let number = prop::option::weighted(0.2, 1_u16..4);
    prop_oneof![
        8 => (1_u32..3, number)
            .prop_map(|(generation, number)| Proof::Credential { generation, number }),
        2 => method().prop_map(Proof::Method),
    ]
}
