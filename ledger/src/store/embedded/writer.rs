//! The writer: one thread that commits for everybody who waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farebox_protocol::{Micros, PayerId};
use redb::{ReadableDatabase as _, ReadableTable as _, Table};
use tokio::sync::oneshot;

use super::file::File;
use super::rows::{self, DUE, ENTRIES, HEADS};
use super::{Fault, caught};
use crate::book::{Book, Entry, EntryId, UsageKey};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::books::{Books, Snapshot};

/// What the writer is asked for.
pub(super) enum Job {
    /// To write a book. Without `done` nobody waits, and it may be a little later.
    Write { payer: PayerId, done: Option<oneshot::Sender<()>> },
    /// To write everything that it was asked to write up to now.
    Flush { done: oneshot::Sender<()> },
    /// To read a whole book, from memory and the file.
    Read { payer: PayerId, done: oneshot::Sender<Result<Book, StoreError>> },
    /// To put a book of a backup in its place.
    Restore { payer: PayerId, book: Box<Book>, done: oneshot::Sender<()> },
}

/// Where jobs are handed in.
pub(super) struct Queue(Sender<Job>);

impl Queue {
    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        self.0.send(job).map_err(|_| StoreError::new("the writer has stopped"))
    }
}

/// The most jobs that share a commit.
const BATCH_MAX: usize = 4_096;
/// How long what nobody waits for may wait, if no charge is among it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Charges that were answered before they are on disk: how long they have waited.
#[derive(Default)]
pub(super) struct Late(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// The oldest charge that no commit has taken.
    next: Option<Instant>,
    /// The oldest charge of the commit that runs.
    committing: Option<Instant>,
}

impl Late {
    /// Counts one charge. For how long the oldest has waited.
    pub(super) fn add(&self) -> Duration {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *waiting.next.get_or_insert_with(Instant::now);
        waiting.committing.unwrap_or(next).elapsed()
    }

    fn begin(&self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.committing = waiting.next.take();
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).committing = None;
    }
}

/// Writes books. It runs on a thread of its own, because a commit waits for the disk.
pub(super) struct Writer {
    books: Arc<Books>,
    db: Arc<File>,
    jobs: Receiver<Job>,
    failed: Arc<AtomicBool>,
    late: Arc<Late>,
    /// How long a job that nobody waits for may wait for others.
    patience: Duration,
}

/// Jobs that share a commit.
#[derive(Default)]
struct Batch {
    payers: Vec<PayerId>,
    restored: Vec<(PayerId, Box<Book>)>,
    /// Who waits for the commit.
    waiting: Vec<oneshot::Sender<()>>,
    reads: Vec<(PayerId, oneshot::Sender<Result<Book, StoreError>>)>,
    /// When it is committed at the latest, if nobody waits.
    deadline: Option<Instant>,
}

impl Batch {
    fn add(&mut self, job: Job, patience: Duration) {
        match job {
            Job::Write { payer, done } => {
                self.payers.push(payer);
                match done {
                    Some(done) => self.waiting.push(done),
                    None => {
                        self.deadline.get_or_insert_with(|| Instant::now() + patience);
                    }
                }
            }
            Job::Flush { done } => self.waiting.push(done),
            Job::Read { payer, done } => self.reads.push((payer, done)),
            Job::Restore { payer, book, done } => {
                self.restored.push((payer, book));
                self.waiting.push(done);
            }
        }
    }

    /// How long more jobs may be waited for; `None`: it is time.
    fn patience(&self) -> Option<Duration> {
        if !self.waiting.is_empty() || !self.reads.is_empty() || self.payers.len() >= BATCH_MAX {
            return None;
        }
        self.deadline?.checked_duration_since(Instant::now())
    }
}

impl Writer {
    /// A writer, and where it is handed its jobs. Half of `settle_within` is for waiting, the other
    /// half for the disk.
    pub(super) fn new(
        books: &Arc<Books>,
        db: &Arc<File>,
        failed: &Arc<AtomicBool>,
        late: &Arc<Late>,
        settle_within: Option<Duration>,
    ) -> (Writer, Queue) {
        let (queue, jobs) = channel();
        let patience = settle_within.map_or(PATIENCE, |bound| bound / 2);
        let (books, db) = (books.clone(), db.clone());
        let (failed, late) = (failed.clone(), late.clone());
        (Writer { books, db, jobs, failed, late, patience }, Queue(queue))
    }

    pub(super) fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let mut batch = Batch::default();
            batch.add(job, self.patience);
            self.collect(&mut batch);
            self.late.begin();
            if let Err(error) = caught(|| self.commit(&batch)) {
                // Set before anyone waiting learns of it: their senders are dropped with the batch.
                self.failed.store(true, Ordering::Release);
                tracing::error!(%error, "the ledger could not be written; it answers no more");
                return;
            }
            self.late.end();
            for done in batch.waiting {
                let _ = done.send(()); // the caller may have gone
            }
            for (payer, done) in batch.reads {
                let _ = done.send(caught(|| self.read(&payer)).map_err(StoreError::new));
            }
        }
    }

    /// Takes what else is there, and waits for more if nobody waits for the batch.
    fn collect(&self, batch: &mut Batch) {
        loop {
            while batch.payers.len() < BATCH_MAX
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.add(job, self.patience);
            }
            let Some(patience) = batch.patience() else { return };
            match self.jobs.recv_timeout(patience) {
                Ok(job) => batch.add(job, self.patience),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit(&self, batch: &Batch) -> Result<(), Fault> {
        // A book that is waited for ten times is written once.
        let mut payers = batch.payers.clone();
        payers.sort_unstable();
        payers.dedup();
        if payers.is_empty() && batch.restored.is_empty() {
            return Ok(());
        }
        let now = self.books.clock().now();
        let transaction = self.db.begin_write()?;
        {
            let mut tables = Tables {
                heads: transaction.open_table(HEADS)?,
                entries: transaction.open_table(ENTRIES)?,
                due: transaction.open_table(DUE)?,
            };
            for payer in &payers {
                let Some(snapshot) = self.books.snapshot(payer) else { continue };
                tables.write(payer, &snapshot, now)?;
            }
            for (payer, book) in &batch.restored {
                let head = book.head.clone();
                let entries = book.entries.iter().map(|(id, entry)| (*id, Some(entry.clone())));
                let usage = book.usage.iter().map(|(key, micros)| (key.clone(), *micros));
                let (entries, usage) = (entries.collect(), usage.collect());
                tables.write(payer, &Snapshot { head, entries, usage }, now)?;
            }
        }
        transaction.commit()?;
        for payer in &payers {
            self.books.shelve(payer);
        }
        for (payer, book) in &batch.restored {
            let Book { head, mut entries, .. } = Book::clone(book);
            entries.retain(|_, entry| entry.is_open_top_up());
            self.books.insert(*payer, Book { head, entries, ..Book::default() });
        }
        Ok(())
    }

    fn read(&self, payer: &PayerId) -> Result<Book, Fault> {
        self.books.book(payer, |book| {
            let table = self.db.begin_read()?.open_table(ENTRIES)?;
            let range = rows::of_payer(payer);
            for row in table.range::<&[u8]>(range.start().as_slice()..=range.end().as_slice())? {
                let (key, value) = row?;
                rows::add_row(book, key.value(), value.value())?;
            }
            Ok(())
        })
    }
}

struct Tables<'a> {
    heads: Table<'a, &'static [u8], &'static [u8]>,
    entries: Table<'a, &'static [u8], &'static [u8]>,
    due: Table<'a, &'static [u8], &'static [u8]>,
}

impl Tables<'_> {
    fn write(&mut self, payer: &PayerId, book: &Snapshot, now: Timestamp) -> Result<(), Fault> {
        let head = serde_json::to_vec(&book.head)?;
        self.heads.insert(payer.as_bytes().as_slice(), head.as_slice())?;
        for (id, entry) in &book.entries {
            self.write_entry(payer, *id, entry.as_ref())?;
        }
        let mut new_rows = false;
        for (key, micros) in &book.usage {
            new_rows |= self.add_usage(payer, key, *micros)?;
        }
        if new_rows {
            let old = rows::forgotten_usage(payer, now);
            self.entries
                .retain_in::<&[u8], _>(old.start.as_slice()..old.end.as_slice(), |_, _| false)?;
        }
        Ok(())
    }

    fn write_entry(
        &mut self,
        payer: &PayerId,
        id: EntryId,
        entry: Option<&Entry>,
    ) -> Result<(), Fault> {
        let Some(key) = rows::entry_key(payer, id) else { return Ok(()) };
        let old = match entry {
            Some(entry) => self.entries.insert(key.as_slice(), &*serde_json::to_vec(entry)?)?,
            None => self.entries.remove(key.as_slice())?,
        };
        let old = old.map(|old| serde_json::from_slice::<Entry>(old.value())).transpose()?;
        if let Some(due) = old.and_then(|old| rows::due_key(payer, id, &old)) {
            self.due.remove(due.as_slice())?;
        }
        if let Some(due) = entry.and_then(|entry| rows::due_key(payer, id, entry)) {
            self.due.insert(due.as_slice(), [].as_slice())?;
        }
        Ok(())
    }

    /// Adds to a usage row; whether it is a new one.
    fn add_usage(
        &mut self,
        payer: &PayerId,
        key: &UsageKey,
        micros: Micros,
    ) -> Result<bool, Fault> {
        let key = rows::usage_key(payer, key);
        let known: Option<Micros> = match self.entries.get(key.as_slice())? {
            Some(row) => Some(serde_json::from_slice(row.value())?),
            None => None,
        };
        let sum = known.unwrap_or_default().checked_add(micros);
        let sum = sum.ok_or("a usage row is out of range")?;
        self.entries.insert(key.as_slice(), &*serde_json::to_vec(&sum)?)?;
        Ok(known.is_none())
    }
}
