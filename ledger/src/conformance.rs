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

mod aim;

use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId, TopUpId};
use proptest::prelude::*;

use crate::book::{
    Account, Book, Claim, ClaimKey, ClaimState, Entry, EntryId, Fingerprint, Head, Limit, Line,
    Route, Totals,
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
        Model(self.0.clone().interrupted())
    }

    /// Applies a command.
    ///
    /// # Errors
    ///
    /// The invariant that does not hold after it.
    pub fn step(&mut self, command: &Command, at: Timestamp) -> Result<Outcome, String> {
        let before = self.0.clone();
        let mut written = 0;
        let Applied { outcome, seq, at } = self.0.apply(command, at, |_, _| written += 1);
        let open = command.entry().and_then(|id| before.entries.get(&id)?.reservation());
        if let (Command::Settle { .. }, Outcome::Settled { .. }, Some(open)) =
            (command, &outcome, open)
            && at >= open.until
            // What was charged before its time was over may be told again.
            && self.0.head.account(open.currency).spent
                != before.head.account(open.currency).spent
        {
            return Err(format!("L2: settled at {at:?}, after its time: {open:?}"));
        }
        self.check(&before, seq, written)
            .and_then(|()| self.check_currencies(&before, command))
            .and_then(
                |()| if seq > before.head.seq { self.repeat(command, &outcome) } else { Ok(()) },
            )
            .map_err(|broken| format!("{broken} after {command:?}"))?;
        Ok(outcome)
    }

    /// I10: the same command once more.
    fn repeat(&self, command: &Command, outcome: &Outcome) -> Result<(), String> {
        let mut book = self.0.clone();
        let again = book.apply(command, self.0.head.last, |_, _| ()).outcome;
        let stands = book.head.seq == self.0.head.seq;
        let as_before = stands && again == *outcome;
        let as_said = match (command, &again) {
            // A renewal of no time at all; and each of these raises the generation.
            (Command::Settle { then: Then::Keep, .. } | Command::RevokeCredentials, _) => true,
            (Command::Reserve { ttl: 0, .. }, _) => true,
            // What was spent without a key is forgotten.
            (Command::Settle { .. } | Command::Expire { .. }, Outcome::Expired) => stands,
            (Command::Expire { .. }, Outcome::NotFound | Outcome::NotDue) => stands,
            (Command::OpenTopUp { number, .. }, Outcome::Joined { number: joined }) => {
                stands && number == joined
            }
            (Command::OpenRefund { refund, .. }, Outcome::Joined { number }) => {
                stands && refund == number
            }
            (Command::Observe { .. }, Outcome::Observed { difference }) => {
                stands && *difference == Micros::ZERO
            }
            // The command itself was refused; what stood in its way has expired.
            _ => as_before,
        };
        if as_said { Ok(()) } else { Err(format!("I10: repeated, it is {again:?}")) }
    }

    /// I13: what a command says of one account changes no other one. Only what was due may end.
    fn check_currencies(&self, before: &Book, command: &Command) -> Result<(), String> {
        let named = match command {
            Command::OpenTopUp { currency, .. }
            | Command::Observe { currency, .. }
            | Command::FailTopUp { currency, .. }
            | Command::OpenRefund { currency, .. }
            | Command::CloseRefund { currency, .. }
            | Command::Reserve { currency, .. } => Some(*currency),
            Command::Settle { .. } | Command::Expire { .. } => {
                let entry = command.entry().and_then(|id| before.entries.get(&id));
                entry.and_then(Entry::reservation).map(|open| open.currency)
            }
            _ => None,
        };
        for (currency, account) in &self.0.head.accounts {
            let old = before.head.account(*currency);
            let Account { available, reserved, .. } = old;
            if Some(*currency) != named
                && (Account { available, reserved, ..*account } != old
                    || account.reserved > reserved)
            {
                return Err(format!("I13: {currency} changed from {old:?} to {account:?}"));
            }
            let mut sums = [0; 3];
            for (id, entry) in &self.0.entries {
                if let (EntryId::TopUp(c, _), Entry::TopUp(top_up)) = (id, entry)
                    && c == currency
                {
                    let Totals { received, refunded, withdrawn } = top_up.totals;
                    let totals = [received, refunded, withdrawn];
                    (0..3).for_each(|i| sums[i] += totals[i].get());
                }
            }
            let Account { received, refunded, withdrawn, .. } = *account;
            if sums != [received, refunded, withdrawn].map(Micros::get) {
                return Err(format!("I4: top-ups sum up to {sums:?}: {account:?}"));
            }
        }
        match command {
            // I14, and nothing that costs overdraws.
            Command::Reserve { amount, .. } | Command::OpenRefund { amount, .. }
                if *amount > Micros::ZERO && self.0.head.seq > before.head.seq =>
            {
                let account = named.map(|currency| self.0.head.account(currency));
                let old = named.map(|currency| before.head.account(currency));
                let set =
                    |a: Option<Account>| a.map_or(0, |a| a.reserved.get() + a.refunding.get());
                let below = account.is_some_and(|account| account.available < Micros::ZERO);
                if below && set(account) > set(old) {
                    return Err(format!("I14: {account:?}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
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
        let nothing = |entry: &&Entry| match entry {
            Entry::Claim(Claim { state: ClaimState::Done { charged, .. }, .. }) => {
                *charged <= Micros::ZERO
            }
            _ => false,
        };
        if let Some(claim) = self.0.entries.values().find(nothing) {
            return Err(format!("I8: a key is kept that was charged nothing: {claim:?}"));
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
        step(store, payer, &mut model, command).await?;
    }
    agrees(store, payer, &model).await?;
    Ok(model)
}

/// Applies one command to the payer's book in `store`, and to a [`Model`] of it.
///
/// # Errors
///
/// As [`replay`].
pub async fn step<S: Store>(
    store: &S,
    payer: &PayerId,
    model: &mut Model,
    command: &Command,
) -> Result<Applied, String> {
    let applied = store.apply(payer, command).await.map_err(|error| error.to_string())?;
    let expected = model.step(command, applied.at)?;
    if (&applied.outcome, applied.seq) != (&expected, model.0.head.seq) {
        let seq = model.0.head.seq;
        return Err(format!("{command:?}: {applied:?}, not {expected:?} at seq {seq}"));
    }
    Ok(applied)
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
    let timed = timed_histories(commands);
    timed.prop_map(|history| history.into_iter().map(|(_, command)| command).collect())
}

/// The same, and by how many milliseconds the clock moves before each command: often not at all,
/// sometimes beyond what is kept for a time, and sometimes back.
pub fn timed_histories(commands: usize) -> impl Strategy<Value = Vec<(i64, Command)>> {
    let millis = prop_oneof![
        20 => Just(0_i64),
        20 => 1_i64..2_000,
        4 => 10_000_i64..90_000,
        2 => -100_000_i64..0,
        1 => 3_600_000_i64..8_000_000,
        1 => 80_000_000_i64..90_000_000,
    ];
    let drawn = (any_command(), millis, prop::bool::weighted(0.75), prop::bool::weighted(0.08));
    let funded = prop::bool::weighted(0.8);
    (prop::collection::vec(drawn, 1..=commands), funded).prop_map(|(drawn, funded)| {
        let mut aim = aim::Aim::default();
        let mut history = Vec::new();
        for command in if funded { aim::funded() } else { Vec::new() } {
            aim.step(&command, 0);
            history.push((0, command));
        }
        for (command, millis, aimed, again) in drawn {
            let last =
                history.last().filter(|_| again).map(|(_, last): &(i64, _)| Command::clone(last));
            let command = match last {
                Some(last) => last,
                None if aimed => aim.at(command),
                None => command,
            };
            aim.step(&command, millis);
            history.push((millis, command));
        }
        history
    })
}

/// A command of any kind.
pub fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        16 => reserve(),
        12 => settle(),
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
    let ttl = prop_oneof![1 => Just(0_u32), 2 => Just(1_500), 4 => Just(60_000)];
    (id(), currency(), amount(), ttl, proof(), prop::option::weighted(0.4, claim)).prop_map(
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
        (0_u8..10, small_amount())
            .prop_map(|(route, spent)| Line { route: Route::new(&format!("/{route}")), spent })
    };
    let lines = prop_oneof![
        2 => Just(Vec::new()),
        6 => line().prop_map(|line| vec![line]),
        2 => prop::collection::vec(line(), 2..4),
        1 => prop::collection::vec(line(), 12..20),
    ];
    let then = prop_oneof![2 => Just(Then::Close), 1 => Just(Then::Keep)];
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
    let taken = || prop_oneof![1 => -3_i64..0, 15 => 0_i64..300];
    (0_i64..900, taken(), taken()).prop_map(|(received, refunded, withdrawn)| {
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
    let most = prop_oneof![1 => Just(-1_i64), 9 => 0_i64..40_000]
        .prop_map(|micros| Micros::new(micros).unwrap_or_default());
    let limit = prop::option::of((currency(), most))
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
