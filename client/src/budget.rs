//! What has left the card, shared by every task, process and machine that pays with it.
//!
//! A [`Budget`] keeps a policy's [`Usage`] and the holds that are open. The check and the
//! reservation are one atomic step, and the reservation is durable before anything is sent: two
//! agents never spend the same dollar, and money in flight counts. What a policy allows is the
//! policy's; agents that share a budget and have different policies count against the same usage.
//!
//! # The order that makes a crash safe
//!
//! Every agent has a journal: its state. Of each origin it says which hold is on its way into the
//! budget or out of it, and which payment may have been sent.
//!
//! - To pay: write down that the hold is on its way, reserve it, write the payment down in its
//!   place, send.
//! - The server took the money, or it must be counted: close the hold, then remove the payment.
//! - The server took nothing, or nothing was sent: write in the payment's place that the hold is on
//!   its way back, release it, then remove that.
//! - The outcome is unknown: the payment and its hold stay.
//!
//! One at a time does this at an origin, and begins with what it finds. A hold that was on its way
//! when a process died paid for nothing, and is released. A payment that was written down goes on,
//! under its hold; if that is closed already, the money is counted and stays counted. No crash
//! leaves a charge uncounted.
//!
//! Only an agent that forgets its journal leaves a hold open: one with its state in memory that is
//! killed. The hold counts as money that was spent. A budget keeps the latest 4,096 open holds and
//! closes those before them.
//!
//! ```
//! use farebox_client::{Budget, Usage};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("budget.json");
//! let budget = Budget::file(&path)?; // every process of this machine opens the same file
//! assert_eq!(budget.usage().await?, Usage::new()); // nothing has left the card
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "redis")]
mod redis;
mod sheet;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use farebox_policy::{Decision, Hold, Policy, Request, Usage};
use farebox_protocol::Money;

use crate::error::{Actor, StateError};
use crate::file::SharedFile;
pub(crate) use sheet::HoldId;
use sheet::Sheet;

const SCHEMA: u32 = 1;

/// What has left the card, and what is about to. Its clones are the same budget.
#[derive(Clone)]
pub struct Budget(Store);

#[derive(Clone)]
enum Store {
    File(Arc<SharedFile<Sheet>>),
    #[cfg(feature = "redis")]
    Redis(Arc<redis::Shared>),
}

/// Why a budget cannot say whether there is money left. Nothing was paid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The budget's file. The owner must look at it, unless it is locked: then ask again later.
    #[error(transparent)]
    File(#[from] StateError),
    /// Redis does not answer, or not with what it was asked for. Its operator must look at it.
    #[error("the budget's Redis is unavailable: {0}")]
    Unavailable(String),
    /// Others change the budget all the time, or wait for it in vain. Ask again later.
    #[error("the budget is busy")]
    Busy,
    /// What stands in Redis is not a budget of this version. It is never overwritten.
    #[error("{0} in Redis is not a budget that this version can read")]
    Malformed(String),
    /// Redis had a later version of this budget before: it was flushed, or a failover lost it.
    /// The owner must find out what was spent, and start the agents again.
    #[error("{0} in Redis has lost what it knew")]
    Lost(String),
}

impl BudgetError {
    /// Who must act before the budget can be used.
    pub fn actor(&self) -> Actor {
        match self {
            BudgetError::Busy | BudgetError::File(StateError::Locked(_)) => Actor::Nobody,
            _ => Actor::Owner,
        }
    }
}

/// What an agent is about to pay, of its own: a [`Request`] that can go to another thread.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) price: Money,
    pub(crate) top_up: Option<Money>,
    /// The owner said yes.
    pub(crate) approved: bool,
}

impl Asked {
    pub(crate) fn request(&self) -> Request<'_> {
        let request = Request::new(&self.host, self.port, self.price);
        let request = match self.top_up {
            Some(amount) => request.top_up(amount),
            None => request,
        };
        if self.approved { request.approved() } else { request }
    }
}

impl Budget {
    /// A budget that only this process knows, and that ends with it.
    pub fn in_memory() -> Budget {
        Budget(Store::File(Arc::new(SharedFile::in_memory())))
    }

    /// A budget in a small file, for all processes of one machine. It is made at the first
    /// payment, readable by its owner only; `PATH.lock` beside it is its lock.
    ///
    /// The file must be on a local disk: some network file systems have locks that do not hold.
    ///
    /// # Errors
    ///
    /// The file is not a budget of this version, or cannot be read, or its folder cannot be
    /// written.
    pub fn file(path: impl AsRef<Path>) -> Result<Budget, StateError> {
        Ok(Budget(Store::File(Arc::new(SharedFile::open(path.as_ref(), SCHEMA)?))))
    }

    /// A budget in Redis 7 or later, for several machines, under the key `{NAME}.budget`. Connects
    /// at once. Days begin and end by the clock of Redis, which all machines share.
    ///
    /// When Redis does not answer within ten seconds, nothing is paid. It must not evict keys
    /// (`maxmemory-policy noeviction`) and must write every command before it answers it
    /// (`appendonly yes`, `appendfsync always`). Replicas copy it later: a failover may forget what
    /// was held in the last moments before it, and that money can be spent once more. A process
    /// that sees an earlier version than it saw before refuses to go on.
    ///
    /// # Errors
    ///
    /// The address cannot be read, Redis does not answer, or what it has is not a budget of this
    /// version.
    #[cfg(feature = "redis")]
    pub async fn redis(url: &str, name: &str) -> Result<Budget, BudgetError> {
        let budget = Budget(Store::Redis(Arc::new(redis::Shared::new(url, name)?)));
        budget.usage().await?;
        Ok(budget)
    }

    /// What has left the card, and what may have.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn usage(&self) -> Result<Usage, BudgetError> {
        Ok(self.read().await?.usage().clone())
    }

    /// The same as this process last saw it, without I/O. Good for decisions without a top-up,
    /// which count nothing.
    pub(crate) fn with_last_usage<R>(&self, look: impl FnOnce(&Usage) -> R) -> R {
        match &self.0 {
            Store::File(file) => file.with(|sheet| look(sheet.usage())),
            #[cfg(feature = "redis")]
            Store::Redis(shared) => look(&shared.last_usage()),
        }
    }

    /// Decides against what is left at this moment, and keeps the hold if the decision is to pay
    /// by card. It is durable when this returns.
    ///
    /// `id` is new: reserving again under an open hold changes nothing and gives the same answer,
    /// under a closed or released one it counts again. An error may leave the hold, open, and so
    /// may a future that is dropped; releasing it is always right while nothing was sent.
    pub(crate) async fn reserve(
        &self,
        id: HoldId,
        policy: &Policy,
        asked: Asked,
        now: i64,
    ) -> Result<(Decision, Option<Hold>), BudgetError> {
        let policy = policy.clone();
        let reserve = move |sheet: &mut Sheet, clock: Option<i64>| {
            sheet.reserve(id, &policy, &asked.request(), clock.unwrap_or(now))
        };
        self.change(reserve).await
    }

    /// The money of this hold left the card, or must be counted as if it had.
    pub(crate) async fn close(&self, id: HoldId) -> Result<(), BudgetError> {
        self.change(move |sheet, _| sheet.close(id)).await
    }

    /// The card was definitely not charged for this hold: its money goes back, once. Nothing
    /// happens to a hold that is not open.
    pub(crate) async fn release(&self, id: HoldId) -> Result<(), BudgetError> {
        self.change(move |sheet, _| sheet.release(id)).await
    }

    async fn read(&self) -> Result<Sheet, BudgetError> {
        match &self.0 {
            Store::File(file) => Ok(file.read_async().await?),
            #[cfg(feature = "redis")]
            Store::Redis(shared) => shared.read().await,
        }
    }

    /// Changes the sheet in one step. `change` gets the store's clock, if it has one, and may run
    /// more than once; only its last result counts.
    async fn change<R: Send + 'static>(
        &self,
        change: impl Fn(&mut Sheet, Option<i64>) -> R + Send + Sync + 'static,
    ) -> Result<R, BudgetError> {
        match &self.0 {
            Store::File(file) => {
                Ok(file.update_async(move |sheet: &mut Sheet| change(sheet, None)).await?)
            }
            #[cfg(feature = "redis")]
            Store::Redis(shared) => shared.change(change).await,
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").finish_non_exhaustive()
    }
}
