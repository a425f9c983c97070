//! Books in a file: the memory store's books over redb, with group commit.
//!
//! Commands are decided in memory. One that must be durable hands its payer to the writer, a
//! thread that takes everybody who is waiting, writes each changed head once, commits, and then
//! answers all of them. What only sets money aside for a request is never written: after a crash
//! its request is gone, and opening the file releases it.
//!
//! A file is read from end to end before it is opened, and left alone if it is damaged: its
//! checksums cover every row. What they cannot tell is a change that was answered from one that
//! was not, if the process was killed and the last commit was damaged after it.
//!
//! redb's one-phase commit is enough here. Its two-phase commit protects a file whose contents an
//! attacker chooses from a forged checksum. Every byte in this file is ours, is an id that Stripe
//! made, or is hashed, but for the labels of credentials: 64 characters of a small alphabet.

mod draft;
mod file;
mod rows;
mod writer;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_protocol::{PayerId, TopUpId};
use redb::{ReadableDatabase as _, ReadableTable as _};
use tokio::sync::oneshot;

use super::books::{Books, Extent};
use super::{Due, FirstRecord, OpenError, Options, Store, StoreError};
use crate::book::{Book, Entry, EntryId, Head, TopUp};
use crate::machine::{Applied, Command, Durability};

use file::File;
use writer::{Job, Late, Queue, Writer};

/// Any failure of the file or of what is in it.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The database panics on some damage; that is a fault like any other.
fn caught<T>(what: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(what))
        .unwrap_or_else(|_| Err("it is damaged, restore a backup".into()))
}

/// Books in a file. An answered command survives kill -9 and loss of power.
pub struct Embedded {
    books: Arc<Books>,
    db: Arc<File>,
    queue: Queue,
    failed: Arc<AtomicBool>,
    /// Within which time a charge without a key is on disk; `None`: before it is answered.
    settle_within: Option<Duration>,
    late: Arc<Late>,
}

impl Embedded {
    /// Opens the file at `path`, or makes it. `first` is what the ledger must have been made for;
    /// without one, an existing ledger is opened as what it is.
    pub(super) async fn open(
        path: &Path,
        first: Option<&FirstRecord>,
        options: Options,
    ) -> Result<(Embedded, FirstRecord), OpenError> {
        let db = file::lock(path, first.is_some()).await?;
        let (name, first) = (path.display().to_string(), first.cloned());
        let open = move || Embedded::on(db, &name, first.as_ref(), options);
        let opened = tokio::task::spawn_blocking(open).await;
        opened.unwrap_or_else(|error| Err(file::unusable(&path.display().to_string(), &error)))
    }

    /// Opens a ledger in storage of the caller's: for tests of what a crash leaves of it.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`](super::Ledger::open).
    #[cfg(feature = "conformance")]
    pub fn open_in(
        storage: impl redb::StorageBackend,
        first: &FirstRecord,
        options: Options,
    ) -> Result<Embedded, OpenError> {
        let path = "(storage)";
        let open = || Ok(File::new(redb::Database::builder().create_with_backend(storage)?));
        let db = caught(open).map_err(|error| file::unusable(path, &*error))?;
        Embedded::on(db, path, Some(first), options).map(|(embedded, _)| embedded)
    }

    fn on(
        db: File,
        path: &str,
        first: Option<&FirstRecord>,
        options: Options,
    ) -> Result<(Embedded, FirstRecord), OpenError> {
        let db = Arc::new(db);
        let first = file::prepare(&db, path, first)?;
        let unusable = |error: Fault| file::unusable(path, &*error);
        let books = Arc::new(Books::new(options.clock, Extent::OverFile));
        caught(|| read_heads(&db, &books)).map_err(unusable)?;
        let (failed, late) = (Arc::default(), Arc::default());
        let settle_within = options.settle_within;
        let (writer, queue) = Writer::new(&books, &db, &failed, &late, settle_within);
        std::thread::Builder::new()
            .name("farebox-ledger".to_owned())
            .spawn(|| writer.run())
            .map_err(|error| unusable(error.into()))?;
        Ok((Embedded { books, db, queue, failed, settle_within, late }, first))
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            // Memory is ahead of the disk: nothing decided from now on could be trusted.
            return Err(StoreError::new("a write failed; restart the server"));
        }
        Ok(())
    }

    fn shelved(&self, payer: &PayerId, id: EntryId) -> Result<Option<Entry>, StoreError> {
        let Some(key) = rows::entry_key(payer, id) else { return Ok(None) };
        let read = || -> Result<Option<Entry>, Fault> {
            let table = self.db.begin_read()?.open_table(rows::ENTRIES)?;
            let value = table.get(key.as_slice())?;
            Ok(value.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
        };
        caught(read).map_err(StoreError::new)
    }

    /// Waits until everything that was answered up to now is on disk.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.check()?;
        let (done, written) = oneshot::channel();
        self.queue.send(Job::Flush { done })?;
        written.await.map_err(|_| StoreError::new("a write failed"))
    }

    async fn write(&self, payer: &PayerId) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        self.queue.send(Job::Write { payer: *payer, done: Some(done) })?;
        written.await.map_err(|_| StoreError::new("a write failed"))
    }

    /// Puts a book of a backup in its place, and on disk.
    pub(super) async fn restore(&self, payer: PayerId, book: Book) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        self.queue.send(Job::Restore { payer, book: Box::new(book), done })?;
        written.await.map_err(|_| StoreError::new("a write failed"))
    }
}

impl Store for Embedded {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        self.check()?;
        let applied = self.books.apply(payer, command, |payer, id| self.shelved(payer, id))?;
        match (command.durability(), self.settle_within) {
            (Durability::Memory, _) => {
                // A claim that is forgotten is forgotten in the file too, but nobody waits for it.
                if let Command::Expire { id } = *command
                    && self.books.queue_entry(payer, id)
                {
                    self.queue.send(Job::Write { payer: *payer, done: None })?;
                }
            }
            // A disk that is slower than the bound holds charges up, so that no more is at stake.
            (Durability::Spent, Some(bound)) if self.late.add() < bound => {
                if self.books.queue(payer) {
                    self.queue.send(Job::Write { payer: *payer, done: None })?;
                }
            }
            // Also when nothing changed: the answer may rest on a command that is not on disk yet.
            (Durability::Spent | Durability::Disk, _) => self.write(payer).await?,
        }
        Ok(applied)
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.check()?;
        Ok(self.books.head(payer))
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.check()?;
        let entry = EntryId::TopUp(id.currency, id.number);
        if let Some(top_up) = self.books.top_up(id) {
            // Whoever reads it may ask Stripe to charge: it must be there after a crash.
            if top_up.is_open() && !self.books.is_on_disk(&id.payer, entry) {
                self.write(&id.payer).await?;
            }
            return Ok(Some(top_up));
        }
        match self.shelved(&id.payer, entry)? {
            Some(Entry::TopUp(top_up)) => Ok(Some(*top_up)),
            _ => Ok(None),
        }
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.check()?;
        // The writer reads it, because only the writer moves rows from memory to the file.
        let (done, read) = oneshot::channel();
        self.queue.send(Job::Read { payer: *payer, done })?;
        read.await.map_err(|_| StoreError::new("the writer has stopped"))?
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        self.check()?;
        Ok(self.books.payers())
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        self.check()?;
        let mut due = self.books.due();
        let shelved = || -> Result<Vec<Due>, Fault> {
            let table = self.db.begin_read()?.open_table(rows::DUE)?;
            let due = rows::due_claims(self.books.clock().now());
            let rows = table.range::<&[u8]>(due.start.as_slice()..due.end.as_slice())?;
            rows.map(|row| rows::read_due(row?.0.value())).collect()
        };
        due.extend(caught(shelved).map_err(StoreError::new)?);
        due.sort_unstable();
        due.dedup();
        Ok(due)
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("books", &self.books).finish_non_exhaustive()
    }
}

fn read_heads(db: &File, books: &Books) -> Result<(), Fault> {
    let transaction = db.begin_read()?;
    for row in transaction.open_table(rows::HEADS)?.iter()? {
        let (payer, head) = row?;
        let payer = PayerId::from_bytes(payer.value().try_into()?);
        let mut head: Head = serde_json::from_slice(head.value())?;
        head.release_reservations();
        books.insert(payer, Book { head, ..Book::default() });
    }
    let open = rows::open_top_ups();
    let due = transaction.open_table(rows::DUE)?;
    for row in due.range::<&[u8]>(open.start.as_slice()..open.end.as_slice())? {
        if let Due::TopUp(id) = rows::read_due(row?.0.value())? {
            books.insert_open(id);
        }
    }
    Ok(())
}
