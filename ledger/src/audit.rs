//! An audit: every balance recomputed from its entries, and the totals a bookkeeper asks for.
//!
//! ```
//! use farebox_ledger::audit::{Audit, audit};
//! use farebox_ledger::store::{Memory, fund};
//! use farebox_protocol::{Currency, PayerId, usd};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let (ledger, payer) = (Memory::default(), PayerId::from_bytes([1; 32]));
//! fund(&ledger, &payer, usd!("5")).await?;
//! let Audit { books, broken, totals, .. } = audit(&ledger, |_, _| ()).await?;
//! assert_eq!((books, broken.len()), (1, 0));
//! assert_eq!(totals[&Currency::USD].unspent, i128::from(usd!("5").micros().get()));
//! # Ok::<(), farebox_ledger::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;

use farebox_protocol::{Currency, PayerId};
use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::store::{Store, StoreError};

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// How many books there are.
    pub books: usize,
    /// How many top-ups, or refunds of one, are open.
    pub open: usize,
    /// How many payers are frozen.
    pub frozen: usize,
    /// Sums of all books, by currency.
    pub totals: BTreeMap<Currency, Sums>,
    /// Books that contradict themselves. At most 100 are named.
    pub broken: Vec<BrokenBook>,
}

/// Sums of all accounts in one currency, in micros. Always:
/// `received - refunded - withdrawn = income + unspent + reserved + refunding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// What was spent: the provider's.
    pub income: i128,
    /// What can be spent: owed to payers.
    pub unspent: i128,
    /// What requests in flight have set aside.
    pub reserved: i128,
    /// What open refunds have set aside.
    pub refunding: i128,
    /// What cards paid.
    pub received: i128,
    /// What was refunded to them.
    pub refunded: i128,
    /// What disputes took.
    pub withdrawn: i128,
}

/// A book that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenBook {
    /// Whose.
    pub payer: PayerId,
    /// What does not hold.
    pub broken: String,
}

/// The most broken books that are named.
const BROKEN_MAX: usize = 100;

impl Audit {
    /// Adds one book.
    pub fn add(&mut self, payer: PayerId, book: &Book) {
        self.books += 1;
        self.open += book.entries.values().filter(|entry| entry.is_open_top_up()).count();
        self.frozen += usize::from(!book.head.frozen.is_empty());
        for (&currency, account) in &book.head.accounts {
            let sums = self.totals.entry(currency).or_default();
            sums.income += i128::from(account.spent.get());
            sums.unspent += i128::from(account.available.get());
            sums.reserved += i128::from(account.reserved.get());
            sums.refunding += i128::from(account.refunding.get());
            sums.received += i128::from(account.received.get());
            sums.refunded += i128::from(account.refunded.get());
            sums.withdrawn += i128::from(account.withdrawn.get());
        }
        if let Err(broken) = book.check()
            && self.broken.len() < BROKEN_MAX
        {
            self.broken.push(BrokenBook { payer, broken: broken.to_string() });
        }
    }

    /// Whether nothing contradicts itself.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Audits every book of `store`. Each is read in one moment; together they are not, so sums move
/// while money does. `progress` hears how many of how many books were read.
///
/// # Errors
///
/// The store's.
pub async fn audit<S: Store>(
    store: &S,
    mut progress: impl FnMut(usize, usize),
) -> Result<Audit, StoreError> {
    let payers = store.payers().await?;
    let mut audit = Audit::default();
    for (read, payer) in payers.iter().enumerate() {
        audit.add(*payer, &store.book(payer).await?);
        progress(read + 1, payers.len());
    }
    Ok(audit)
}
