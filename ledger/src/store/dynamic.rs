//! A store of somebody else's, chosen at run time.
//!
//! ```
//! use farebox_ledger::store::{Memory, dynamic};
//! use farebox_ledger::{Ledger, Store as _};
//! use farebox_protocol::PayerId;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let theirs: Box<dyn dynamic::DynStore> = Box::new(Memory::default());
//! let ledger = Ledger::Custom(theirs);
//! assert_eq!(ledger.load(&PayerId::from_bytes([1; 32])).await?.seq, 0);
//! # Ok::<(), farebox_ledger::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::pin::Pin;

use farebox_protocol::{PayerId, TopUpId};

use super::{Due, Store, StoreError};
use crate::book::{Book, Head, TopUp};
use crate::machine::{Applied, Command};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`Store`] as an object: every [`Store`] is one.
pub trait DynStore: Send + Sync {
    /// [`Store::apply`].
    fn apply<'a>(&'a self, payer: &'a PayerId, command: &'a Command) -> Answer<'a, Applied>;
    /// [`Store::load`].
    fn load<'a>(&'a self, payer: &'a PayerId) -> Answer<'a, Head>;
    /// [`Store::top_up`].
    fn top_up<'a>(&'a self, id: &'a TopUpId) -> Answer<'a, Option<TopUp>>;
    /// [`Store::book`].
    fn book<'a>(&'a self, payer: &'a PayerId) -> Answer<'a, Book>;
    /// [`Store::payers`].
    fn payers(&self) -> Answer<'_, Vec<PayerId>>;
    /// [`Store::due`].
    fn due(&self) -> Answer<'_, Vec<Due>>;
}

impl<S: Store> DynStore for S {
    fn apply<'a>(&'a self, payer: &'a PayerId, command: &'a Command) -> Answer<'a, Applied> {
        Box::pin(Store::apply(self, payer, command))
    }

    fn load<'a>(&'a self, payer: &'a PayerId) -> Answer<'a, Head> {
        Box::pin(Store::load(self, payer))
    }

    fn top_up<'a>(&'a self, id: &'a TopUpId) -> Answer<'a, Option<TopUp>> {
        Box::pin(Store::top_up(self, id))
    }

    fn book<'a>(&'a self, payer: &'a PayerId) -> Answer<'a, Book> {
        Box::pin(Store::book(self, payer))
    }

    fn payers(&self) -> Answer<'_, Vec<PayerId>> {
        Box::pin(Store::payers(self))
    }

    fn due(&self) -> Answer<'_, Vec<Due>> {
        Box::pin(Store::due(self))
    }
}

impl Store for Box<dyn DynStore> {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        DynStore::apply(&**self, payer, command).await
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        DynStore::load(&**self, payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        DynStore::top_up(&**self, id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        DynStore::book(&**self, payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        DynStore::payers(&**self).await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        DynStore::due(&**self).await
    }
}
