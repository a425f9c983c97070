//! A statement: what a payer's money did, newest first, a page at a time.
//!
//! ```
//! use farebox_ledger::statement::{self, What};
//! use farebox_ledger::{Store, store::{Memory, fund}};
//! use farebox_protocol::{PayerId, usd};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let (ledger, payer) = (Memory::default(), PayerId::from_bytes([1; 32]));
//! fund(&ledger, &payer, usd!("5")).await?;
//! let page = statement::page(&ledger.book(&payer).await?, None, 10);
//! assert_eq!(page.lines.len(), 1);
//! assert_eq!(page.lines[0].what, What::Received { top_up: 1, amount: usd!("5").micros() });
//! assert!(page.next.is_none());
//! # Ok::<(), farebox_ledger::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::str::FromStr;

use farebox_protocol::{Currency, ErrorCode, Micros};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::book::{Book, Entry, EntryId, Route, TopUp, TopUpState, Totals};
use crate::clock::Timestamp;

/// One line of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementLine {
    /// When, in milliseconds since the Unix epoch. Of usage: when its hour began.
    pub at: Timestamp,
    /// The account.
    pub currency: Currency,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What a line tells. Amounts are micros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum What {
    /// So much was spent at a route within an hour.
    Spent {
        /// Where.
        route: Route,
        /// How much.
        amount: Micros,
    },
    /// A charge is under way.
    Opened {
        /// The number of the top-up.
        top_up: u64,
    },
    /// A charge took nothing.
    Failed {
        /// The number of the top-up.
        top_up: u64,
        /// Why.
        code: Code,
    },
    /// A card paid.
    Received {
        /// The number of the top-up.
        top_up: u64,
        /// How much.
        amount: Micros,
    },
    /// A card was refunded; below zero: a refund came back.
    Refunded {
        /// The number of the top-up.
        top_up: u64,
        /// How much.
        amount: Micros,
    },
    /// A dispute took money; below zero: it gave some back.
    Withdrawn {
        /// The number of the top-up.
        top_up: u64,
        /// How much.
        amount: Micros,
    },
}

/// An error code with an order, so that lines have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub ErrorCode);

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Code {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

/// A page of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Newest first.
    pub lines: Vec<StatementLine>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Cursor>,
}

/// A place in a statement: so many lines of one moment come before it. Lines that are added later
/// are newer, so a cursor stays good; a usage line of the hour that runs may still grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    at: Timestamp,
    skip: usize,
}

/// Text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a statement")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.millis(), self.skip)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (at, skip) = text.split_once('-').ok_or(CursorError)?;
        let at = Timestamp::from_millis(at.parse().map_err(|_| CursorError)?);
        Ok(Cursor { at, skip: skip.parse().map_err(|_| CursorError)? })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The page of `book`'s statement that begins at `from`, or the first one; `limit` lines at most.
pub fn page(book: &Book, from: Option<Cursor>, limit: usize) -> Page {
    let mut lines = lines(book);
    let start = from.map_or(0, |from| {
        let newer = lines.partition_point(|line| line.at > from.at);
        newer.saturating_add(from.skip).min(lines.len())
    });
    let end = start.saturating_add(limit.max(1)).min(lines.len());
    let next = lines.get(end).map(|line| {
        let newer = lines.partition_point(|other| other.at > line.at);
        Cursor { at: line.at, skip: end - newer }
    });
    lines.truncate(end);
    Page { lines: lines.split_off(start), next }
}

/// All lines, newest first.
fn lines(book: &Book) -> Vec<StatementLine> {
    let mut lines: Vec<_> = book
        .usage
        .iter()
        .map(|(key, &amount)| {
            let at = Timestamp::from_millis(i64::from(key.hour) * 3_600_000);
            let what = What::Spent { route: key.route.clone(), amount };
            StatementLine { at, currency: key.currency, what }
        })
        .collect();
    for (id, entry) in &book.entries {
        if let (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) = (*id, entry) {
            of_top_up(&mut lines, currency, number, top_up);
        }
    }
    lines.sort_by(|a, b| {
        b.at.cmp(&a.at).then_with(|| a.currency.cmp(&b.currency)).then_with(|| a.what.cmp(&b.what))
    });
    lines
}

fn of_top_up(lines: &mut Vec<StatementLine>, currency: Currency, top_up: u64, row: &TopUp) {
    let mut line = |at, what| lines.push(StatementLine { at, currency, what });
    match &row.state {
        TopUpState::Open { .. } => line(row.opened, What::Opened { top_up }),
        TopUpState::Failed { code } => line(row.opened, What::Failed { top_up, code: Code(*code) }),
        TopUpState::Succeeded { .. } => {}
    }
    let mut before = Totals::default();
    for seen in &row.history {
        // Each is a total within range, and never negative.
        let more = |now: Micros, then: Micros| now.checked_sub(then).unwrap_or_default();
        let Totals { received, refunded, withdrawn } = seen.totals;
        let received = more(received, before.received);
        let refunded = more(refunded, before.refunded);
        let withdrawn = more(withdrawn, before.withdrawn);
        let changes = [
            (received, What::Received { top_up, amount: received }),
            (refunded, What::Refunded { top_up, amount: refunded }),
            (withdrawn, What::Withdrawn { top_up, amount: withdrawn }),
        ];
        for (amount, what) in changes {
            if amount != Micros::ZERO {
                line(seen.at, what);
            }
        }
        before = seen.totals;
    }
}
