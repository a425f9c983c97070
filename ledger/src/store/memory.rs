//! Books in memory, gone with the process.

use std::convert::Infallible;
use std::sync::Arc;

use farebox_protocol::{PayerId, TopUpId};

use super::books::{Books, Extent};
use super::{Due, Store, StoreError};
use crate::book::{Book, Head, TopUp};
use crate::clock::{Clock, SystemClock};
use crate::machine::{Applied, Command};

/// Books in memory: for tests, and for trying things out.
#[derive(Debug)]
pub struct Memory(Books);

impl Memory {
    /// An empty ledger.
    pub fn new(clock: Arc<dyn Clock>) -> Memory {
        Memory(Books::new(clock, Extent::Whole))
    }

    pub(super) fn restore(&self, payer: PayerId, book: Book) {
        self.0.insert(payer, book);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new(Arc::new(SystemClock))
    }
}

impl Store for Memory {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        self.0.apply(payer, command, |_, _| Ok(None))
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        Ok(self.0.head(payer))
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        Ok(self.0.top_up(id))
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        let Ok(book) = self.0.book(payer, |_| Ok::<(), Infallible>(()));
        Ok(book)
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        Ok(self.0.payers())
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        Ok(self.0.due())
    }
}
