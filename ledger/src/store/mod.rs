//! Stores: where books are kept. A store decides nothing; [`transition`](crate::transition)
//! does.
//!
//! ```
//! use farebox_ledger::{FirstRecord, Ledger, Options, Store as _};
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("embedded:{}", folder.path().join("farebox.redb").display());
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let first = FirstRecord::new("check", "sandbox", None);
//! let ledger = Ledger::open(&url, &first, Options::default()).await?; // or memory:, redis://..
//! assert!(ledger.due().await?.is_empty());
//!
//! // A ledger belongs to one identity key, one mode and one Stripe account.
//! drop(ledger);
//! let other = FirstRecord::new("another key", "sandbox", None);
//! assert!(Ledger::open(&url, &other, Options::default()).await.is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

#[cfg(feature = "test-util")]
use farebox_protocol::Money;
use farebox_protocol::{PayerId, TopUpId};

#[cfg(feature = "test-util")]
use crate::book::Totals;
use crate::book::{Book, EntryId, Head, TopUp};
use crate::clock::{Clock, SystemClock};
use crate::machine::{Applied, Command};

mod books;
pub mod dynamic;
mod embedded;
mod first;
mod memory;
#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisCounters};
pub use embedded::Embedded;
pub(crate) use first::SCHEMA;
pub use first::{FirstRecord, OpenError};
pub use memory::Memory;

/// Keeps books.
///
/// For each book, commands take effect one after the other, each wholly or not at all, as
/// [`Book::apply`] says. What [`Command::durability`] names has reached the disk before `apply`
/// answers, in a store that has one.
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

    /// A top-up. If it is open, it is as lasting as when it was opened.
    fn top_up(
        &self,
        id: &TopUpId,
    ) -> impl Future<Output = Result<Option<TopUp>, StoreError>> + Send;

    /// The payer's whole book, as it is in one moment: for statements and audits.
    fn book(&self, payer: &PayerId) -> impl Future<Output = Result<Book, StoreError>> + Send;

    /// Everybody who has a book.
    fn payers(&self) -> impl Future<Output = Result<Vec<PayerId>, StoreError>> + Send;

    /// What waits in all books: top-ups about which Stripe is to be asked, and entries whose time
    /// is over.
    fn due(&self) -> impl Future<Output = Result<Vec<Due>, StoreError>> + Send;
}

/// Something that waits to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The charge of a top-up, or a refund of it, is open: Stripe is to be asked.
    TopUp(TopUpId),
    /// A reservation or a claim is over: [`Command::Expire`] ends it.
    Entry(PayerId, EntryId),
}

/// The store did not answer. Whether the command took effect is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger is unavailable: {0}")]
pub struct StoreError(Arc<str>);

impl StoreError {
    /// For a store of your own: `reason` is for the operator's log, and no client sees it.
    pub fn new(reason: impl fmt::Display) -> StoreError {
        StoreError(reason.to_string().into())
    }
}

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// Where an in-process store takes the time from. Redis has its own.
    pub clock: Arc<dyn Clock>,
    /// Within which time a charge for a request without a key is on disk, in the embedded store.
    /// `None`: before it is answered. A crash costs the provider what was answered within it; a
    /// disk that is slower holds charges up.
    pub settle_within: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options { clock: Arc::new(SystemClock), settle_within: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settle_within = &self.settle_within;
        f.debug_struct("Options").field("settle_within", settle_within).finish_non_exhaustive()
    }
}

/// Opening a ledger in Redis, as an object: the type of the future is too deep for programs.
#[cfg(feature = "redis")]
type Opening<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<(Redis, FirstRecord), OpenError>> + Send + 'a>>;

/// The store that was chosen at run time.
pub enum Ledger {
    /// Books in memory, gone with the process.
    Memory(Memory),
    /// Books in a file.
    Embedded(Embedded),
    /// Books in Redis.
    #[cfg(feature = "redis")]
    Redis(Redis),
    /// A store of somebody else's.
    Custom(Box<dyn dynamic::DynStore>),
}

impl Ledger {
    /// Opens the ledger at `url`, or makes it.
    ///
    /// # Errors
    ///
    /// [`OpenError`], in words for the operator. A file that another process has open is waited
    /// for, 10 seconds at most.
    pub async fn open(
        url: &str,
        first: &FirstRecord,
        options: Options,
    ) -> Result<Ledger, OpenError> {
        Ledger::at(url, Some(first), options).await.map(|(ledger, _)| ledger)
    }

    /// Opens the ledger at `url` as what it is, to look after it; it must exist.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub async fn open_existing(url: &str) -> Result<(Ledger, FirstRecord), OpenError> {
        Ledger::at(url, None, Options::default()).await
    }

    async fn at(
        url: &str,
        first: Option<&FirstRecord>,
        options: Options,
    ) -> Result<(Ledger, FirstRecord), OpenError> {
        match (url.split_once(':'), first) {
            (Some(("memory", "")), Some(first)) => {
                Ok((Ledger::Memory(Memory::new(options.clock)), first.clone()))
            }
            (Some(("embedded", path)), first) if !path.is_empty() => {
                let (embedded, first) = Embedded::open(path.as_ref(), first, options).await?;
                Ok((Ledger::Embedded(embedded), first))
            }
            #[cfg(feature = "redis")]
            (Some((scheme, _)), first) if scheme.starts_with("redis") => {
                let open: Opening<'_> = Box::pin(Redis::open(url, first));
                let (redis, first) = open.await?;
                Ok((Ledger::Redis(redis), first))
            }
            _ => Err(OpenError::Url(url.to_owned())),
        }
    }

    /// Accepts that parts of a ledger in Redis have lost their records: they begin anew, empty.
    /// Answers how many parts there were.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; [`OpenError::NothingToAdopt`] of a store that cannot lose a part and keep
    /// the rest.
    pub async fn adopt(url: &str) -> Result<usize, OpenError> {
        match url.split_once(':') {
            #[cfg(feature = "redis")]
            Some((scheme, _)) if scheme.starts_with("redis") => Redis::adopt(url).await,
            Some(("memory", "")) => Err(OpenError::NothingToAdopt(url.to_owned())),
            Some(("embedded", path)) if !path.is_empty() => {
                Err(OpenError::NothingToAdopt(url.to_owned()))
            }
            _ => Err(OpenError::Url(url.to_owned())),
        }
    }

    /// Waits until everything that was answered up to now is on disk, in the embedded store.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn flush(&self) -> Result<(), StoreError> {
        match self {
            Ledger::Embedded(store) => store.flush().await,
            _ => Ok(()),
        }
    }

    /// Puts a book of a backup in its place. Requests that were in flight have ended.
    ///
    /// # Errors
    ///
    /// The store's. A payer that has a book already keeps it: restore into a new ledger.
    pub async fn restore(&self, payer: PayerId, book: Book) -> Result<(), StoreError> {
        if self.load(&payer).await?.seq > 0 {
            return Err(StoreError::new("the payer has a book already"));
        }
        // The requests that were in flight when it was read are over.
        let book = book.interrupted();
        match self {
            Ledger::Memory(store) => {
                store.restore(payer, book);
                Ok(())
            }
            Ledger::Embedded(store) => store.restore(payer, book).await,
            #[cfg(feature = "redis")]
            Ledger::Redis(store) => store.restore(payer, book).await,
            Ledger::Custom(_) => Err(StoreError::new("this store cannot be restored into")),
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ledger::Memory(store) => store.fmt(f),
            Ledger::Embedded(store) => store.fmt(f),
            #[cfg(feature = "redis")]
            Ledger::Redis(store) => store.fmt(f),
            Ledger::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}

/// Calls a method of the store that was chosen.
macro_rules! each_store {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Ledger::Memory(store) => Store::$method(store, $($argument),*).await,
            Ledger::Embedded(store) => Store::$method(store, $($argument),*).await,
            // As an object: the types of its futures are too deep for programs that nest them.
            #[cfg(feature = "redis")]
            Ledger::Redis(store) => dynamic::DynStore::$method(store, $($argument),*).await,
            Ledger::Custom(store) => Store::$method(store, $($argument),*).await,
        }
    };
}

impl Store for Ledger {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        each_store!(self.apply(payer, command))
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        each_store!(self.load(payer))
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        each_store!(self.top_up(id))
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        each_store!(self.book(payer))
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        each_store!(self.payers())
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        each_store!(self.due())
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
    let needed = Some(farebox_protocol::Micros::MAX);
    let (card, call) = (*payer, String::new());
    let open = Command::OpenTopUp { currency, number, needed, method, card, call };
    store.apply(payer, &open).await?;
    let totals = Totals { received: money.micros(), ..Totals::default() };
    let intent = format!("pi_test_{number}");
    let observe = Command::Observe { currency, number, intent, seen_version: 0, totals };
    store.apply(payer, &observe).await.map(|_| ())
}
