//! Books in memory: what the memory store is, and what the embedded store keeps over its file.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use dashmap::mapref::entry::Entry as Slot;
use dashmap::{DashMap, DashSet};
use farebox_protocol::{Micros, PayerId, TopUpId};

use super::{Due, StoreError};
use crate::book::{Book, ClaimState, Entry, EntryId, Head, TopUp, UsageKey};
use crate::clock::Clock;
use crate::machine::{Applied, Command};

/// One payer's book, or the part of it that is in memory.
#[derive(Default)]
struct Kept {
    book: Book,
    /// Entries that changed since [`Books::snapshot`]. A head and its changed entries are always
    /// written together: a crash must never leave a credited head beside an open top-up.
    dirty: BTreeSet<EntryId>,
    /// Entries of the last snapshot, until it is on disk: the file has older ones.
    writing: BTreeSet<EntryId>,
    /// Whether the writer was told of a change since the last snapshot.
    queued: bool,
}

/// What [`Books::snapshot`] takes of a book.
pub(super) struct Snapshot {
    pub(super) head: Head,
    /// `None`: the entry is gone.
    pub(super) entries: Vec<(EntryId, Option<Entry>)>,
    /// What is added to usage rows.
    pub(super) usage: Vec<(UsageKey, Micros)>,
}

/// Whether books are all there is, or the part of a file that is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Books hold everything.
    Whole,
    /// Books hold heads, open entries, and what is not on disk yet.
    OverFile,
}

/// All books of a process, and the clock that commands are timed by.
pub(super) struct Books {
    books: DashMap<PayerId, Kept>,
    open: DashSet<TopUpId>,
    clock: Arc<dyn Clock>,
    extent: Extent,
}

impl Books {
    pub(super) fn new(clock: Arc<dyn Clock>, extent: Extent) -> Books {
        Books { books: DashMap::new(), open: DashSet::new(), clock, extent }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Puts a book in its place: one that was read from a file, or from a backup.
    pub(super) fn insert(&self, payer: PayerId, book: Book) {
        for (id, entry) in &book.entries {
            if let (EntryId::TopUp(currency, number), true) = (*id, entry.is_open_top_up()) {
                self.insert_open(TopUpId { payer, currency, number });
            }
        }
        self.books.insert(payer, Kept { book, ..Kept::default() });
    }

    /// Says that a top-up is open which is not in memory.
    pub(super) fn insert_open(&self, id: TopUpId) {
        self.open.insert(id);
    }

    /// Applies a command under the book's lock. `shelf` finds an entry that is not in memory.
    ///
    /// A book is made only by a command that changes it: asking for payers that do not exist
    /// leaves nothing behind.
    pub(super) fn apply(
        &self,
        payer: &PayerId,
        command: &Command,
        shelf: impl Fn(&PayerId, EntryId) -> Result<Option<Entry>, StoreError>,
    ) -> Result<Applied, StoreError> {
        match self.books.entry(*payer) {
            Slot::Occupied(mut slot) => self.apply_to(slot.get_mut(), payer, command, shelf),
            Slot::Vacant(slot) => {
                let mut kept = Kept::default();
                let applied = self.apply_to(&mut kept, payer, command, shelf)?;
                if kept.book.head.seq > 0 {
                    slot.insert(kept);
                }
                Ok(applied)
            }
        }
    }

    fn apply_to(
        &self,
        kept: &mut Kept,
        payer: &PayerId,
        command: &Command,
        shelf: impl Fn(&PayerId, EntryId) -> Result<Option<Entry>, StoreError>,
    ) -> Result<Applied, StoreError> {
        let Kept { book, dirty, writing, .. } = kept;
        let named = command.entry();
        let mut from_shelf = false;
        if let Some(id) = named
            && !book.entries.contains_key(&id)
            && !dirty.contains(&id)
            && !writing.contains(&id)
            && may_be_shelved(&book.head, id)
            && let Some(entry) = shelf(payer, id)?
        {
            book.entries.insert(id, entry);
            from_shelf = true;
        }
        let over_file = self.extent == Extent::OverFile;
        let in_file = named.filter(|id| book.entries.get(id).is_some_and(Entry::is_lasting));
        let applied = book.apply(command, self.clock.now(), |id, entry| {
            if let EntryId::TopUp(currency, number) = *id {
                let top_up = TopUpId { payer: *payer, currency, number };
                match entry.is_some_and(Entry::is_open_top_up) {
                    true => self.open.insert(top_up),
                    false => self.open.remove(&top_up).is_some(),
                };
            }
            // What only sets money aside is not written: a crash ends its request. Of what is gone,
            // only the entry that the command names can be in the file.
            let is_written = match entry {
                Some(entry) => entry.is_lasting(),
                None => in_file == Some(*id),
            };
            if over_file && is_written {
                dirty.insert(*id);
            }
        });
        if from_shelf
            && let Some(id) = named
            && !dirty.contains(&id)
        {
            book.entries.remove(&id); // it is as it is in the file
        }
        Ok(applied)
    }

    /// Whether an entry is to be written, and the writer has yet to be told. It is told once.
    pub(super) fn queue_entry(&self, payer: &PayerId, id: EntryId) -> bool {
        let kept = self.books.get_mut(payer);
        kept.is_some_and(|mut kept| {
            kept.dirty.contains(&id) && !std::mem::replace(&mut kept.queued, true)
        })
    }

    /// Whether the file has an entry as it is in memory.
    pub(super) fn is_on_disk(&self, payer: &PayerId, id: EntryId) -> bool {
        let kept = self.books.get(payer);
        kept.is_none_or(|kept| !kept.dirty.contains(&id) && !kept.writing.contains(&id))
    }

    /// Whether the writer has yet to be told that the book changed. It is told once.
    pub(super) fn queue(&self, payer: &PayerId) -> bool {
        let kept = self.books.get_mut(payer);
        kept.is_some_and(|mut kept| !std::mem::replace(&mut kept.queued, true))
    }

    pub(super) fn head(&self, payer: &PayerId) -> Head {
        self.books.get(payer).map(|kept| kept.book.head.clone()).unwrap_or_default()
    }

    /// A top-up, if it is in memory.
    pub(super) fn top_up(&self, id: &TopUpId) -> Option<TopUp> {
        let kept = self.books.get(&id.payer)?;
        match kept.book.entries.get(&EntryId::TopUp(id.currency, id.number))? {
            Entry::TopUp(top_up) => Some(TopUp::clone(top_up)),
            _ => None,
        }
    }

    /// What of the book is in memory. `rest` adds what is not, while nothing else can change it.
    pub(super) fn book<E>(
        &self,
        payer: &PayerId,
        rest: impl FnOnce(&mut Book) -> Result<(), E>,
    ) -> Result<Book, E> {
        let Some(kept) = self.books.get(payer) else { return Ok(Book::default()) };
        let mut book = kept.book.clone();
        rest(&mut book)?;
        // What was forgotten here may still stand in the file.
        for gone in kept.dirty.iter().filter(|id| !kept.book.entries.contains_key(id)) {
            book.entries.remove(gone);
        }
        Ok(book)
    }

    pub(super) fn payers(&self) -> Vec<PayerId> {
        self.books.iter().map(|kept| *kept.key()).collect()
    }

    /// Open top-ups, and what is due of what is in memory.
    pub(super) fn due(&self) -> Vec<Due> {
        let now = self.clock.now();
        let mut due: Vec<Due> = self.open.iter().map(|id| Due::TopUp(*id)).collect();
        if self.extent == Extent::Whole {
            self.books.alter_all(|_, mut kept| {
                kept.book.forget_usage(now);
                kept
            });
        }
        for kept in &self.books {
            due.extend(kept.book.due(now).map(|id| Due::Entry(*kept.key(), id)));
        }
        due
    }

    /// The head, and what changed since the last snapshot, of one moment.
    pub(super) fn snapshot(&self, payer: &PayerId) -> Option<Snapshot> {
        let mut kept = self.books.get_mut(payer)?;
        let Kept { book, dirty, writing, queued } = &mut *kept;
        *queued = false;
        *writing = std::mem::take(dirty);
        let lasting = |id| book.entries.get(id).and_then(Entry::lasting);
        let entries = writing.iter().map(|id| (*id, lasting(id))).collect();
        let usage = book.usage.drain().collect();
        Some(Snapshot { head: book.head.clone(), entries, usage })
    }

    /// The last snapshot is on disk. Drops those of its entries from memory that are over.
    pub(super) fn shelve(&self, payer: &PayerId) {
        let Some(mut kept) = self.books.get_mut(payer) else { return };
        let Kept { book, dirty, writing, .. } = &mut *kept;
        for id in std::mem::take(writing) {
            let is_over = match book.entries.get(&id) {
                Some(Entry::TopUp(top_up)) => !top_up.is_open(),
                Some(Entry::Claim(claim)) => matches!(claim.state, ClaimState::Done { .. }),
                _ => false,
            };
            if is_over && !dirty.contains(&id) {
                book.entries.remove(&id);
            }
        }
    }
}

/// Whether an entry that is not in memory can be on disk.
fn may_be_shelved(head: &Head, id: EntryId) -> bool {
    match id {
        EntryId::TopUp(currency, number) => head.account(currency).has_top_up(number),
        EntryId::Claim(_) => head.seq > 0,
        EntryId::Reservation(_) => false,
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").field("books", &self.books.len()).finish_non_exhaustive()
    }
}
