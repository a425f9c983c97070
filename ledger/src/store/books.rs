//! Books in memory: what the memory store is, and what the embedded store keeps over its file.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use dashmap::mapref::entry::Entry as Slot;
use dashmap::{DashMap, DashSet};
use farebox_protocol::{PayerId, TopUpId};

use super::StoreError;
use crate::book::{Entry, EntryId, Head, TopUp, TopUpState};
use crate::clock::Clock;
use crate::machine::{Applied, Command, transition};

/// One payer's book.
#[derive(Default)]
struct Book {
    head: Head,
    entries: HashMap<EntryId, Entry>,
    /// Top-ups that changed since [`Books::snapshot`]. A head and its changed top-ups are always
    /// written together: a crash must never leave a credited head beside an open top-up.
    dirty: BTreeSet<EntryId>,
}

/// What [`Books::snapshot`] takes of a book.
pub(super) struct Snapshot {
    pub(super) head: Head,
    pub(super) top_ups: Vec<(TopUpId, TopUp)>,
}

/// All books of a process, and the clock that commands are timed by.
pub(super) struct Books {
    books: DashMap<PayerId, Book>,
    open: DashSet<TopUpId>,
    clock: Arc<dyn Clock>,
}

impl Books {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Books {
        Books { books: DashMap::new(), open: DashSet::new(), clock }
    }

    /// Puts a book that was read from disk in its place.
    pub(super) fn insert(&self, payer: PayerId, head: Head) {
        for (&currency, account) in &head.accounts {
            if let Some(number) = account.open {
                self.open.insert(TopUpId { payer, currency, number });
            }
        }
        self.books.insert(payer, Book { head, ..Book::default() });
    }

    /// Applies a command under the book's lock. `shelf` finds a top-up that is not in memory.
    ///
    /// A book is made only by a command that changes it: asking for payers that do not exist
    /// leaves nothing behind.
    pub(super) fn apply(
        &self,
        payer: &PayerId,
        command: &Command,
        shelf: impl Fn(&TopUpId) -> Result<Option<TopUp>, StoreError>,
    ) -> Result<Applied, StoreError> {
        match self.books.entry(*payer) {
            Slot::Occupied(mut slot) => self.apply_to(slot.get_mut(), payer, command, shelf),
            Slot::Vacant(slot) => {
                let mut book = Book::default();
                let applied = self.apply_to(&mut book, payer, command, shelf)?;
                if book.head != Head::default() {
                    slot.insert(book);
                }
                Ok(applied)
            }
        }
    }

    fn apply_to(
        &self,
        book: &mut Book,
        payer: &PayerId,
        command: &Command,
        shelf: impl Fn(&TopUpId) -> Result<Option<TopUp>, StoreError>,
    ) -> Result<Applied, StoreError> {
        let at = self.clock.now().max(book.head.last);
        let id = command.entry();
        let entry = match id.and_then(|id| book.entries.get(&id)) {
            Some(entry) => Some(entry.clone()),
            None => match id {
                Some(EntryId::TopUp(currency, number))
                    if book.head.account(currency).has_top_up(number) =>
                {
                    shelf(&TopUpId { payer: *payer, currency, number })?.map(Entry::TopUp)
                }
                _ => None,
            },
        };
        let seq = book.head.seq;
        let (entry, outcome) = transition(&mut book.head, entry, command, at);
        if let Some(id) = id
            && book.head.seq != seq
        {
            self.keep(book, payer, id, entry);
        }
        Ok(Applied { outcome, at })
    }

    fn keep(&self, book: &mut Book, payer: &PayerId, id: EntryId, entry: Option<Entry>) {
        let Some(entry) = entry else {
            book.entries.remove(&id);
            return;
        };
        if let (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) = (id, &entry) {
            let top_up_id = TopUpId { payer: *payer, currency, number };
            match top_up.state {
                TopUpState::Open { .. } => self.open.insert(top_up_id),
                _ => self.open.remove(&top_up_id).is_some(),
            };
            book.dirty.insert(id);
        }
        book.entries.insert(id, entry);
    }

    pub(super) fn head(&self, payer: &PayerId) -> Head {
        self.books.get(payer).map(|book| book.head.clone()).unwrap_or_default()
    }

    /// A top-up, if it is in memory.
    pub(super) fn top_up(&self, id: &TopUpId) -> Option<TopUp> {
        let book = self.books.get(&id.payer)?;
        match book.entries.get(&EntryId::TopUp(id.currency, id.number))? {
            Entry::TopUp(top_up) => Some(top_up.clone()),
            Entry::Reservation { .. } => None,
        }
    }

    pub(super) fn open(&self) -> Vec<TopUpId> {
        self.open.iter().map(|id| *id).collect()
    }

    /// The head, and the top-ups that changed since the last snapshot, of one moment.
    pub(super) fn snapshot(&self, payer: &PayerId) -> Option<Snapshot> {
        let mut guard = self.books.get_mut(payer)?;
        let book = &mut *guard;
        let mut top_ups = Vec::with_capacity(book.dirty.len());
        for id in std::mem::take(&mut book.dirty) {
            if let (EntryId::TopUp(currency, number), Some(Entry::TopUp(top_up))) =
                (id, book.entries.get(&id))
            {
                top_ups.push((TopUpId { payer: *payer, currency, number }, top_up.clone()));
            }
        }
        Some(Snapshot { head: book.head.clone(), top_ups })
    }

    /// Drops a top-up that has ended and is on disk as it is here.
    pub(super) fn shelve(&self, id: &TopUpId) {
        let Some(mut book) = self.books.get_mut(&id.payer) else { return };
        let entry_id = EntryId::TopUp(id.currency, id.number);
        if !book.dirty.contains(&entry_id) && !self.open.contains(id) {
            book.entries.remove(&entry_id);
        }
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").field("books", &self.books.len()).finish_non_exhaustive()
    }
}
