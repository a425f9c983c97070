//! Stores: where books are kept. A store decides nothing; [`transition`](crate::transition)
//! does.
//!
//! ```
//! use farebox_ledger::{FirstRecord, Ledger, Store as _};
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("embedded:{}", folder.path().join("farebox.redb").display());
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let first = FirstRecord::new("check", "sandbox", None);
//! let ledger = Ledger::open(&url, &first).await?; // embedded:PATH or memory:
//! assert!(ledger.due().await?.is_empty());
//!
//! // A ledger belongs to one identity key, one mode and one Stripe account.
//! drop(ledger);
//! let other = FirstRecord::new("another key", "sandbox", None);
//! assert!(Ledger::open(&url, &other).await.is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

#[cfg(feature = "test-util")]
use farebox_protocol::Money;
use farebox_protocol::{PayerId, TopUpId};
use serde::{Deserialize, Serialize};

#[cfg(feature = "test-util")]
use crate::book::Totals;
use crate::book::{Head, TopUp};
use crate::clock::{Clock, SystemClock};
use crate::machine::{Applied, Command};

mod books;
mod embedded;
mod memory;

pub use embedded::Embedded;
pub use memory::Memory;

/// Keeps books.
///
/// For each book, commands take effect one after the other, each wholly or not at all, as
/// [`transition`](crate::transition) says. What [`Command::is_durable`] names has reached the
/// disk before `apply` answers, in a store that has one.
///
/// An error means that the outcome is unknown: the command may have taken effect. An honest
/// caller repeats it, and by then it is either refused as a repeat or done now.
pub trait Store: Send + Sync {
    /// Applies a command to the payer's book.
    fn apply(
        &self,
        payer: &PayerId,
        command: &Command,
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// The head of the payer's book; an empty one if there is none.
    fn load(&self, payer: &PayerId) -> impl Future<Output = Result<Head, StoreError>> + Send;

    /// A top-up.
    fn top_up(
        &self,
        id: &TopUpId,
    ) -> impl Future<Output = Result<Option<TopUp>, StoreError>> + Send;

    /// The open top-ups of all books.
    fn due(&self) -> impl Future<Output = Result<Vec<TopUpId>, StoreError>> + Send;
}

/// The store did not answer. Whether the command took effect is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger is unavailable: {0}")]
pub struct StoreError(Arc<str>);

impl StoreError {
    pub(crate) fn new(reason: impl std::fmt::Display) -> StoreError {
        StoreError(reason.to_string().into())
    }
}

/// What a ledger was made for. It is written when the ledger is new and compared at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRecord {
    schema: u32,
    identity_check: String,
    mode: String,
    account: Option<String>,
}

/// The layout of the records that this version writes.
const SCHEMA: u32 = 1;

impl FirstRecord {
    /// A check value of the identity key (not the key), the mode, and Stripe's account id if it
    /// is known: some stand-ins for Stripe have none, and Stripe may be out of reach.
    pub fn new(identity_check: &str, mode: &str, account: Option<&str>) -> FirstRecord {
        FirstRecord {
            schema: SCHEMA,
            identity_check: identity_check.to_owned(),
            mode: mode.to_owned(),
            account: account.map(str::to_owned),
        }
    }

    /// The record to keep, if a ledger made for `self` may be opened for `now`.
    pub(crate) fn accept(&self, now: &FirstRecord) -> Result<FirstRecord, OpenError> {
        if self.schema != now.schema {
            return Err(OpenError::Schema { found: self.schema, expected: now.schema });
        }
        if self.mode != now.mode {
            return Err(OpenError::Mode { found: self.mode.clone(), expected: now.mode.clone() });
        }
        if self.identity_check != now.identity_check {
            return Err(OpenError::IdentityKey);
        }
        if let (Some(found), Some(expected)) = (&self.account, &now.account)
            && found != expected
        {
            return Err(OpenError::Account { found: found.clone(), expected: expected.clone() });
        }
        Ok(FirstRecord { account: now.account.clone().or(self.account.clone()), ..now.clone() })
    }
}

/// Why a ledger could not be opened; the operator acts. The text is one sentence for them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names no store.
    #[error("`{0}` is not a ledger: use `embedded:PATH` or `memory:`")]
    Url(String),
    /// Another process has the file.
    #[error("the ledger {0} is open in another process: stop it, or use another file")]
    Locked(String),
    /// The file could not be read or written.
    #[error("the ledger {path} cannot be opened: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the operating system or the database says.
        reason: String,
    },
    /// The ledger was written by another version.
    #[error("the ledger has schema {found}, this version of farebox writes {expected}")]
    Schema {
        /// The ledger's.
        found: u32,
        /// This version's.
        expected: u32,
    },
    /// The identity key is not the one the ledger was made with.
    #[error("the ledger was made with another secret: its payers would not be found")]
    IdentityKey,
    /// Test and live money must not meet.
    #[error("the ledger is for mode {found}, the Stripe keys are for mode {expected}")]
    Mode {
        /// The ledger's.
        found: String,
        /// The keys'.
        expected: String,
    },
    /// The Stripe keys are another account's.
    #[error("the ledger belongs to Stripe account {found}, the keys to {expected}")]
    Account {
        /// The ledger's.
        found: String,
        /// The keys'.
        expected: String,
    },
}

/// The store that was chosen at run time.
#[derive(Debug)]
pub enum Ledger {
    /// Books in memory, gone with the process.
    Memory(Memory),
    /// Books in a file.
    Embedded(Embedded),
}

impl Ledger {
    /// Opens the ledger at `url`: `embedded:PATH` or `memory:`.
    ///
    /// # Errors
    ///
    /// [`OpenError`], in words for the operator. A file that another process has open is waited
    /// for, 10 seconds at most.
    pub async fn open(url: &str, first: &FirstRecord) -> Result<Ledger, OpenError> {
        Ledger::open_with_clock(url, first, Arc::new(SystemClock)).await
    }

    /// Opens the ledger at `url` with a clock of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub async fn open_with_clock(
        url: &str,
        first: &FirstRecord,
        clock: Arc<dyn Clock>,
    ) -> Result<Ledger, OpenError> {
        match url.split_once(':') {
            Some(("memory", "")) => Ok(Ledger::Memory(Memory::new(clock))),
            Some(("embedded", path)) if !path.is_empty() => {
                Embedded::open(path.as_ref(), first, clock).await.map(Ledger::Embedded)
            }
            _ => Err(OpenError::Url(url.to_owned())),
        }
    }
}

macro_rules! each_store {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Ledger::Memory($store) => $call.await,
            Ledger::Embedded($store) => $call.await,
        }
    };
}

impl Store for Ledger {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        each_store!(self, store => store.apply(payer, command))
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        each_store!(self, store => store.load(payer))
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        each_store!(self, store => store.top_up(id))
    }

    async fn due(&self) -> Result<Vec<TopUpId>, StoreError> {
        each_store!(self, store => store.due())
    }
}

/// Makes the name of a new file as lasting as what is in it: without this, a loss of power can
/// leave the folder without the file.
///
/// # Errors
///
/// The operating system's.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Credits `payer` with `money` as a top-up does, without a card: for tests of programs that
/// spend.
///
/// # Errors
///
/// The store's.
#[cfg(feature = "test-util")]
pub async fn fund<S: Store>(store: &S, payer: &PayerId, money: Money) -> Result<(), StoreError> {
    let currency = money.currency();
    let head = store.load(payer).await?;
    let number = head.account(currency).ended + 1;
    let method = "pm_test".parse().map_err(StoreError::new)?;
    let call = String::new();
    let open = Command::OpenTopUp { currency, number, needed: None, method, card: *payer, call };
    store.apply(payer, &open).await?;
    let totals = Totals { received: money.micros(), ..Totals::default() };
    let intent = format!("pi_test_{number}");
    let observe = Command::Observe { currency, number, intent, seen_version: 0, totals };
    store.apply(payer, &observe).await.map(|_| ())
}
