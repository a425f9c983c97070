//! What a ledger was made for, and why one cannot be opened.

use serde::{Deserialize, Serialize};

/// What a ledger was made for. It is written when the ledger is new and compared at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRecord {
    schema: u32,
    identity_check: String,
    mode: String,
    account: Option<String>,
}

/// The layout of the records that this version writes.
pub(crate) const SCHEMA: u32 = 2;

impl FirstRecord {
    /// A check value of the identity key (not the key), the mode, and Stripe's account id if it
    /// is known: some stand-ins for Stripe have none, and Stripe may be out of reach.
    pub fn new(identity_check: &str, mode: &str, account: Option<&str>) -> FirstRecord {
        FirstRecord {
            schema: SCHEMA,
            identity_check: identity_check.to_owned(),
            mode: mode.to_owned(),
            account: account.map(str::to_owned),
        }
    }

    pub(crate) fn schema(&self) -> u32 {
        self.schema
    }

    /// The record to keep, if a ledger made for `self` may be opened for `now`; without `now`, as
    /// what it is.
    pub(crate) fn accept(&self, now: Option<&FirstRecord>) -> Result<FirstRecord, OpenError> {
        if self.schema > SCHEMA {
            return Err(OpenError::Newer { found: self.schema, known: SCHEMA });
        }
        let Some(now) = now else { return Ok(FirstRecord { schema: SCHEMA, ..self.clone() }) };
        if self.mode != now.mode {
            return Err(OpenError::Mode { found: self.mode.clone(), expected: now.mode.clone() });
        }
        if self.identity_check != now.identity_check {
            return Err(OpenError::IdentityKey);
        }
        if let (Some(found), Some(expected)) = (&self.account, &now.account)
            && found != expected
        {
            return Err(OpenError::Account { found: found.clone(), expected: expected.clone() });
        }
        Ok(FirstRecord { account: now.account.clone().or(self.account.clone()), ..now.clone() })
    }
}

/// Why a ledger could not be opened; the operator acts. The text is one sentence for them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names no store.
    #[error("`{0}` is not a ledger: use `embedded:PATH`, `memory:`, or a `redis` URL")]
    Url(String),
    /// Another process has the file.
    #[error("the ledger {0} is open in another process: stop it, or use another file")]
    Locked(String),
    /// The file could not be read or written.
    #[error("the ledger {path} cannot be opened: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the operating system or the database says.
        reason: String,
    },
    /// The ledger was written by a newer version.
    #[error(
        "the ledger has schema {found}, newer than the {known} of this version: update farebox"
    )]
    Newer {
        /// The ledger's.
        found: u32,
        /// The newest that this version knows.
        known: u32,
    },
    /// The identity key is not the one the ledger was made with.
    #[error("the ledger was made with another secret: its payers would not be found")]
    IdentityKey,
    /// Test and live money must not meet.
    #[error("the ledger is for mode {found}, the Stripe keys are for mode {expected}")]
    Mode {
        /// The ledger's.
        found: String,
        /// The keys'.
        expected: String,
    },
    /// The Stripe keys are another account's.
    #[error("the ledger belongs to Stripe account {found}, the keys to {expected}")]
    Account {
        /// The ledger's.
        found: String,
        /// The keys'.
        expected: String,
    },
    /// The store cannot be reached, or did not answer.
    #[error("the ledger at {address} does not answer: {reason}")]
    Unreachable {
        /// Where it is, without a password.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The store is set up so that it would lose money.
    #[error("the ledger at {address} is not safe for money: {reason}")]
    Unsafe {
        /// Where it is, without a password.
        address: String,
        /// What to change.
        reason: String,
    },
    /// Only a ledger that can lose some records and keep others is adopted.
    #[error(
        "`{0}` cannot lose records and go on, so there is nothing to adopt: if it is damaged, `farebox restore` a backup into a new ledger"
    )]
    NothingToAdopt(String),
    /// Records that were there are gone.
    #[error(
        "the ledger at {address} has lost records: restore them, or accept the loss with `farebox ledger adopt`"
    )]
    Lost {
        /// Where it is, without a password.
        address: String,
    },
}
