//! Books in a file: the memory store's books over redb, with group commit.
//!
//! Commands are decided in memory. One that must be durable hands its payer to the writer, a
//! thread that takes everybody who is waiting, writes each changed head once, commits, and then
//! answers all of them. A reservation is never written: after a crash its request is gone, and
//! opening the file releases it.
//!
//! redb's one-phase commit is enough here. Its two-phase commit protects a file whose contents
//! an attacker chooses from a forged checksum; every byte in this file is ours, or an id that
//! Stripe made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_protocol::{PayerId, TopUpId};
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::books::Books;
use super::{FirstRecord, OpenError, Store, StoreError};
use crate::book::{Head, TopUp};
use crate::clock::Clock;
use crate::machine::{Applied, Command};

const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
const TOP_UPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("top_ups");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FIRST: &str = "first";

/// How long a start waits for another process to let go of the file.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The most commands that share a commit.
const BATCH_MAX: usize = 4_096;

/// Books in a file. An answered command survives kill -9 and loss of power.
pub struct Embedded {
    books: Arc<Books>,
    db: Arc<Database>,
    jobs: mpsc::UnboundedSender<Job>,
    failed: Arc<AtomicBool>,
}

/// A command that waits for its book to be on disk.
struct Job {
    payer: PayerId,
    done: oneshot::Sender<()>,
}

impl Embedded {
    /// Opens the file at `path`, or makes it.
    pub(super) async fn open(
        path: &Path,
        first: &FirstRecord,
        clock: Arc<dyn Clock>,
    ) -> Result<Embedded, OpenError> {
        let db = Arc::new(lock(path).await?);
        let file = |error: Fault| OpenError::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        if let Some(found) = prepare(&db).map_err(file)? {
            write_first(&db, &found.accept(first)?).map_err(file)?;
        } else {
            write_first(&db, first).map_err(file)?;
        }
        let books = Arc::new(Books::new(clock));
        read_heads(&db, &books).map_err(file)?;
        let failed = Arc::new(AtomicBool::new(false));
        let (jobs, queue) = mpsc::unbounded_channel();
        let writer = Writer { books: books.clone(), db: db.clone(), queue, failed: failed.clone() };
        std::thread::Builder::new()
            .name("farebox-ledger".to_owned())
            .spawn(|| writer.run())
            .map_err(|error| file(error.into()))?;
        Ok(Embedded { books, db, jobs, failed })
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            // Memory is ahead of the disk: nothing decided from now on could be trusted.
            return Err(StoreError::new("a write failed; restart the server"));
        }
        Ok(())
    }

    fn shelved(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        let read = || -> Result<Option<TopUp>, Fault> {
            let table = self.db.begin_read()?.open_table(TOP_UPS)?;
            let value = table.get(id.to_string().as_str())?;
            Ok(value.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
        };
        read().map_err(StoreError::new)
    }
}

impl Store for Embedded {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        self.check()?;
        let applied = self.books.apply(payer, command, |id| self.shelved(id))?;
        if command.is_durable() {
            // Also when nothing changed: the answer may rest on a command that is not on disk yet.
            let (done, written) = oneshot::channel();
            let job = Job { payer: *payer, done };
            self.jobs.send(job).map_err(|_| StoreError::new("the writer has stopped"))?;
            written.await.map_err(|_| StoreError::new("a write failed"))?;
        }
        Ok(applied)
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.check()?;
        Ok(self.books.head(payer))
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.check()?;
        match self.books.top_up(id) {
            Some(top_up) => Ok(Some(top_up)),
            None => self.shelved(id),
        }
    }

    async fn due(&self) -> Result<Vec<TopUpId>, StoreError> {
        self.check()?;
        Ok(self.books.open())
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("books", &self.books).finish_non_exhaustive()
    }
}

/// Writes books. It runs on a thread of its own, because a commit waits for the disk.
struct Writer {
    books: Arc<Books>,
    db: Arc<Database>,
    queue: mpsc::UnboundedReceiver<Job>,
    failed: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(job) = self.queue.blocking_recv() {
            batch.push(job);
            while batch.len() < BATCH_MAX
                && let Ok(job) = self.queue.try_recv()
            {
                batch.push(job);
            }
            if let Err(error) = self.commit(&batch) {
                // Set before anyone waiting learns of it: their senders are dropped with `self`.
                self.failed.store(true, Ordering::Release);
                tracing::error!(%error, "the ledger could not be written; it answers no more");
                return;
            }
            for job in batch.drain(..) {
                let _ = job.done.send(()); // the caller may have gone
            }
        }
    }

    fn commit(&self, batch: &[Job]) -> Result<(), Fault> {
        // A book that is waited for ten times is written once.
        let mut payers: Vec<_> = batch.iter().map(|job| job.payer).collect();
        payers.sort_unstable();
        payers.dedup();
        let mut written = Vec::new();
        let transaction = self.db.begin_write()?;
        {
            let mut heads = transaction.open_table(HEADS)?;
            let mut top_ups = transaction.open_table(TOP_UPS)?;
            for payer in payers {
                let Some(snapshot) = self.books.snapshot(&payer) else { continue };
                let head = serde_json::to_vec(&snapshot.head)?;
                heads.insert(payer.as_bytes().as_slice(), head.as_slice())?;
                for (id, top_up) in snapshot.top_ups {
                    let row = serde_json::to_vec(&top_up)?;
                    top_ups.insert(id.to_string().as_str(), row.as_slice())?;
                    written.push(id);
                }
            }
        }
        transaction.commit()?;
        for id in written {
            self.books.shelve(&id);
        }
        Ok(())
    }
}

/// Any failure of the file or of what is in it.
type Fault = Box<dyn std::error::Error + Send + Sync>;

async fn lock(path: &Path) -> Result<Database, OpenError> {
    let mut waited = Duration::ZERO;
    loop {
        let owned: PathBuf = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || create(&owned)).await;
        let reason = match opened {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) if waited < LOCK_WAIT => {
                tokio::time::sleep(LOCK_POLL).await;
                waited += LOCK_POLL;
                continue;
            }
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(OpenError::Locked(path.display().to_string()));
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        return Err(OpenError::File { path: path.display().to_string(), reason });
    }
}

/// Opens the file, or makes one that only its owner can read: the PaymentMethods in it can spend.
fn create(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path).map_err(redb::StorageError::Io)?);
    let db = Database::create(path)?;
    super::sync_folder(path).map_err(redb::StorageError::Io)?;
    Ok(db)
}

/// Makes the tables, and reads the first record if there is one.
fn prepare(db: &Database) -> Result<Option<FirstRecord>, Fault> {
    let transaction = db.begin_write()?;
    let first = {
        transaction.open_table(HEADS)?;
        transaction.open_table(TOP_UPS)?;
        let meta = transaction.open_table(META)?;
        let value = meta.get(FIRST)?;
        value.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?
    };
    transaction.commit()?;
    Ok(first)
}

fn write_first(db: &Database, first: &FirstRecord) -> Result<(), Fault> {
    let transaction = db.begin_write()?;
    transaction.open_table(META)?.insert(FIRST, serde_json::to_vec(first)?.as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn read_heads(db: &Database, books: &Books) -> Result<(), Fault> {
    for row in db.begin_read()?.open_table(HEADS)?.iter()? {
        let (payer, head) = row?;
        let payer = PayerId::from_bytes(payer.value().try_into()?);
        let mut head: Head = serde_json::from_slice(head.value())?;
        head.release_reservations();
        books.insert(payer, head);
    }
    Ok(())
}
