//! The payer's book: a pure machine, and the stores that keep books.
//!
//! A payer's money at one provider lives in one book. A book changes only by a [`Command`], and
//! what a command does is decided by one pure function, [`transition`]. Stores keep books; they
//! decide nothing. `spec/ledger.md` at the root of the repository says the same in words.
//!
//! # Layout
//!
//! - [`book`]: what a book holds: its [`Head`], [`Entry`] rows found by id, and usage
//! - [`machine`]: [`Command`], [`Outcome`] and [`transition`]
//! - [`statement`]: what a payer's money did, newest first
//! - [`audit`]: every balance recomputed, and the totals a bookkeeper asks for
//! - [`backup`]: a ledger as lines of text, to keep or to move
//! - [`store`]: the [`Store`] contract, and [`Ledger`], the store chosen at run time
//! - [`clock`]: time, injected
//! - [`counters`]: how often something happened lately, in one process or many
//! - `conformance` (feature of that name): the suite that every store must pass
//!
//! # Example
//!
//! Reserve before the work, settle after it:
//!
//! ```
//! use farebox_ledger::book::{Line, Route};
//! use farebox_ledger::{Command, Outcome, Proof, Store, Then, store::Memory};
//! use farebox_protocol::{Currency, IdentityKey, usd};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let ledger = Memory::default();
//! let payer = IdentityKey::new(&[7; 32]).payer("fingerprint");
//! farebox_ledger::store::fund(&ledger, &payer, usd!("5")).await?;
//!
//! let (id, amount, ttl) = (1.into(), usd!("0.01").micros(), 60_000);
//! let proof = Proof::Credential { generation: 1, number: None };
//! let reserve =
//!     Command::Reserve { id, currency: Currency::USD, amount, ttl, proof, claim: None };
//! let reserved = ledger.apply(&payer, &reserve).await?.outcome;
//! assert_eq!(reserved, Outcome::Reserved { available: usd!("4.99").micros() });
//!
//! let lines = vec![Line { route: Route::new("/joke"), spent: amount }];
//! let settle = Command::Settle { id, claim: None, lines, then: Then::Close };
//! let settled = ledger.apply(&payer, &settle).await?.outcome;
//! assert_eq!(settled, Outcome::Settled { available: usd!("4.99").micros() });
//! # Ok::<(), farebox_ledger::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
pub mod backup;
pub mod book;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod counters;
pub mod machine;
pub mod statement;
pub mod store;

pub use book::{
    Account, Book, Entry, EntryId, Head, Reservation, ReservationId, TopUp, TopUpState, Totals,
};
pub use clock::{Clock, Timestamp};
pub use machine::{Applied, Command, Durability, Outcome, Proof, Then, Transition, transition};
pub use store::{Due, FirstRecord, Ledger, OpenError, Options, Store, StoreError};
