//! Books in Redis: one server, a cluster, or a primary that sentinels watch.
//!
//! The two commands of every paid request, [`Command::Reserve`] and [`Command::Settle`], are
//! scripts that know the machine's rules for the common case. Everything else is decided here, by
//! [`Book::apply`], on what one script reads, and written by another if it is still so. Every
//! write carries an operation id, so that a repeat of it, ours or the client library's, finds the
//! answer instead of doing it again. The conformance suite holds both ways against the machine.

mod address;
mod counters;
mod decide;
mod hot;
mod keys;
mod link;
mod open;
mod rows;
mod script;
mod settles;
mod turns;
mod unknown;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farebox_protocol::{PayerId, TopUpId};
use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Due, FirstRecord, OpenError, Store, StoreError};
use crate::book::{Book, Entry, EntryId, Head, TopUp};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::machine::{Applied, Command, Outcome};

use address::Address;
pub use counters::RedisCounters;
use hot::Hot;
use keys::Keys;
use link::Link;
use script::Script;
use settles::Settles;
use turns::Turns;
use unknown::Unknown;

/// Any failure of what is in Redis.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How long card money waits for a replica, in milliseconds.
const WAIT_MILLIS: u32 = 1_000;
/// How long a command is repeated while the outcome is unknown.
const REPEAT_FOR: Duration = Duration::from_secs(5);

/// Books in Redis. What a failure may lose depends on how Redis is set up: `docs/ledger.md`.
pub struct Redis {
    core: Arc<Core>,
    settles: Settles,
    unknown: Unknown,
}

/// What calls share.
struct Core {
    keys: Keys,
    /// What every bucket of this ledger holds, for as long as it has lost nothing.
    epoch: String,
    link: Link,
    /// A connection of its own for card money: `WAIT` holds up whoever else is on it.
    careful: Mutex<Link>,
    /// Whether card money waits for a replica.
    waits: bool,
    is_cluster: bool,
    scripts: Scripts,
    turns: Turns,
    /// Makes operation ids: random, and a counter.
    process: u64,
    next: AtomicU64,
}

struct Scripts {
    reserve: Script,
    settle: Script,
    load: Script,
    write: Script,
    due: Script,
    book: Script,
    count: Script,
}

const WRITE: &str = include_str!("write.lua");

impl Scripts {
    fn new() -> Scripts {
        Scripts {
            reserve: Script::new(include_str!("reserve.lua")),
            settle: Script::new(include_str!("settle.lua")),
            load: Script::new(include_str!("load.lua")),
            write: Script::new(WRITE),
            due: Script::new(include_str!("due.lua")),
            book: Script::new(include_str!("book.lua")),
            count: Script::new(include_str!("count.lua")),
        }
    }
}

/// Why a call has no answer yet.
#[derive(Debug)]
enum Failure {
    /// It may be repeated: whatever was done is found by its operation id.
    Again(String),
    /// It never helps to repeat it.
    Final(StoreError),
    /// The bucket has lost its records.
    Lost,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::Parse
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Server(ServerErrorKind::NoPerm) => Failure::Final(StoreError::new(error)),
            _ => Failure::Again(error.to_string()),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Final(StoreError::new(fault))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Lost => StoreError::new(LOST),
            Failure::Again(reason) => StoreError::new(reason),
        }
    }
}

const LOST: &str =
    "it has lost records; restore them, or accept the loss with `farebox ledger adopt`";

/// Repeats a call until its time is over, each time after a longer pause.
struct Tries {
    until: Instant,
    pause: Duration,
    /// Below how many microseconds a random pause stays.
    spread: u64,
}

const STALE_SPREAD_MAX: u64 = 8_000;

impl Tries {
    fn new() -> Tries {
        Tries { until: Instant::now() + REPEAT_FOR, pause: Duration::from_millis(10), spread: 250 }
    }

    /// Somebody in another process was faster. Whoever was not waits for a time of its own.
    async fn stale(&mut self) -> Result<(), StoreError> {
        tracing::debug!("a decision is stale");
        if Instant::now() >= self.until {
            return Err(StoreError::new("the book keeps changing"));
        }
        let random = getrandom::u64().unwrap_or_default() % self.spread;
        self.spread = (self.spread * 2).min(STALE_SPREAD_MAX);
        tokio::time::sleep(Duration::from_micros(random)).await;
        Ok(())
    }

    async fn after(&mut self, failure: Failure) -> Result<(), StoreError> {
        match failure {
            Failure::Again(reason) if Instant::now() + self.pause < self.until => {
                tracing::warn!(reason, "a call to the ledger is repeated");
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(Duration::from_millis(500));
                Ok(())
            }
            given_up => Err(given_up.into()),
        }
    }
}

impl Core {
    fn operation(&self) -> String {
        format!("{:016x}{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// This machine's idea of the time, which decides nothing but names of keys.
    fn guess_now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// Ends what is due of a payer, and answers when, if there was something.
    async fn expire_due(&self, payer: &PayerId) -> Result<Option<Timestamp>, StoreError> {
        let mut found = None;
        let Some((now, due)) = self.due_in(keys::bucket_of(payer)).await? else {
            return Ok(None);
        };
        let mut due: Vec<EntryId> = due
            .into_iter()
            .filter_map(|due| match due {
                Due::Entry(whose, id) if whose == *payer => Some(id),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        for id in due {
            let expired =
                self.decide(payer, &Command::Expire { id }, &self.operation(), Some(now)).await?;
            if expired.outcome == Outcome::Expired {
                found = Some(now);
            }
        }
        Ok(found)
    }

    /// What is due in a bucket, and at what time of the store's; `None`: it has lost its records.
    async fn due_in(&self, bucket: u8) -> Result<Option<(Timestamp, Vec<Due>)>, StoreError> {
        type Answer = (String, i64, Vec<(String, String)>, Vec<String>);
        let mut tries = Tries::new();
        loop {
            let mut call = self.scripts.due.call();
            call.key(self.keys.bucket(bucket)).key(self.keys.due(bucket)).arg(&self.epoch);
            let answer = call.run(&self.link).await;
            let answer = answer.map_err(Failure::from).and_then(hot::not_lost);
            let (_, now, reservations, members) = match answer {
                Ok(value) => redis::from_redis_value::<Answer>(value).map_err(StoreError::new)?,
                Err(Failure::Lost) => return Ok(None),
                Err(failure) => {
                    tries.after(failure).await?;
                    continue;
                }
            };
            let now = Timestamp::from_millis(now);
            let mut due: Vec<Due> = members.iter().filter_map(|m| keys::read_due(m)).collect();
            for (field, text) in reservations {
                let Some((payer, id)) = keys::read_reservation(&field) else { continue };
                if rows::read_entry(&text).map_err(StoreError::new)?.is_due(now) {
                    due.push(Due::Entry(payer, id));
                }
            }
            return Ok(Some((now, due)));
        }
    }

    async fn read_book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        let mut tries = Tries::new();
        loop {
            let mut call = self.scripts.book.call();
            call.key(self.keys.bucket(keys::bucket_of(payer)));
            call.key(self.keys.book(payer)).key(self.keys.entries(payer)).arg(&self.epoch);
            for usage in self.keys.all_usage(payer, self.guess_now()) {
                call.key(usage);
            }
            let answer = call.run(&self.link).await;
            match answer.map_err(Failure::from).and_then(hot::not_lost) {
                Ok(value) => return whole_book(payer, value).map_err(StoreError::new),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }
}

type Fields = Vec<(String, String)>;

fn whole_book(payer: &PayerId, value: redis::Value) -> Result<Book, Fault> {
    let (_, head, entries, reservations, usage): (String, Fields, Fields, Fields, Fields) =
        redis::from_redis_value(value)?;
    let mut book = Book { head: rows::read_head(head)?.head, ..Book::default() };
    let of_entries = entries.iter().map(|(field, text)| Ok((read_entry_id(field)?, text)));
    let of_bucket = reservations.iter().filter_map(|(field, text)| {
        let (whose, id) = keys::read_reservation(field)?;
        (whose == *payer).then_some(Ok((id, text)))
    });
    for row in of_entries.chain(of_bucket) {
        let (id, text): (EntryId, &String) = row.map_err(|fault: Fault| fault)?;
        book.entries.insert(id, rows::read_entry(text)?);
    }
    book.usage = HashMap::from_iter(rows::read_usage(usage)?);
    Ok(book)
}

fn read_entry_id(field: &str) -> Result<EntryId, Fault> {
    keys::read_entry(field).ok_or_else(|| "a row of a kind that this version does not know".into())
}

impl Redis {
    /// Opens the ledger at a `redis` URL, or makes it; without `first`, opens what is there.
    pub(super) async fn open(
        url: &str,
        first: Option<&FirstRecord>,
    ) -> Result<(Redis, FirstRecord), OpenError> {
        let address = Address::parse(url)?;
        let (core, first) = open::open(&address, first).await?;
        let core = Arc::new(core);
        let (settles, unknown) = (Settles::start(core.clone()), Unknown::default());
        Ok((Redis { core, settles, unknown }, first))
    }

    /// Makes buckets that lost their records new, and answers how many there were.
    pub(super) async fn adopt(url: &str) -> Result<usize, OpenError> {
        open::adopt(&Address::parse(url)?).await
    }

    /// Puts a book of a backup in its place, its head last: until then there is no book.
    pub(super) async fn restore(&self, payer: PayerId, book: Book) -> Result<(), StoreError> {
        self.core.restore(&payer, &book).await
    }

    /// Applies a command, the fast way if there is one.
    async fn once(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        let known = self.unknown.operation(payer, command);
        let operation = known.unwrap_or_else(|| self.core.operation());
        let applied = self.by(&operation, payer, command).await;
        self.unknown.learn(payer, command, operation, applied.is_err());
        applied
    }

    async fn by(
        &self,
        operation: &str,
        payer: &PayerId,
        command: &Command,
    ) -> Result<Applied, StoreError> {
        let hot = match hot::of(payer, command, operation) {
            hot::Way::Reserve(reserve) => self.core.reserve(&reserve).await?,
            hot::Way::Settle(settle) => self.settles.settle(settle).await?,
            hot::Way::Decide => Hot::Slow,
        };
        match hot.applied() {
            Some(applied) => Ok(applied),
            None => self.core.decide(payer, command, operation, None).await,
        }
    }
}

impl Store for Redis {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        let applied = self.once(payer, command).await?;
        let is_short =
            matches!(applied.outcome, Outcome::Insufficient { .. } | Outcome::LimitReached { .. });
        if is_short && let Some(at) = self.core.expire_due(payer).await? {
            // At the same time as what has expired for it: as the machine does it, in one step.
            let operation = self.core.operation();
            return self.core.decide(payer, command, &operation, Some(at)).await;
        }
        Ok(applied)
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.core.load(payer, None, "").await.map(|loaded| match loaded {
            decide::Loaded::Found { stored, .. } => stored.head,
            decide::Loaded::Done(_) => Head::default(), // never: no operation was named
        })
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        let entry = EntryId::TopUp(id.currency, id.number);
        let loaded = self.core.load(&id.payer, Some(entry), "").await?;
        let decide::Loaded::Found { entry: Some(Entry::TopUp(top_up)), .. } = loaded else {
            return Ok(None);
        };
        if top_up.is_open() {
            // Whoever reads it is about to ask Stripe for money.
            self.core.replicate(&id.payer).await?;
        }
        Ok(Some(*top_up))
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.core.read_book(payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        let mut payers = Vec::new();
        for bucket in keys::BUCKETS {
            for payer in self.core.members(bucket).await? {
                payers.push(payer.parse().map_err(StoreError::new)?);
            }
        }
        Ok(payers)
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        let (mut due, mut lost) = (Vec::new(), 0);
        for bucket in keys::BUCKETS {
            match self.core.due_in(bucket).await? {
                Some((_, found)) => due.extend(found),
                None => lost += 1,
            }
        }
        match lost {
            0 => {}
            _ if lost == keys::BUCKETS.count() => return Err(Failure::Lost.into()),
            // The others go on: their reservations expire, and their top-ups are driven.
            _ => tracing::error!(lost, "parts of the ledger are left out: {LOST}"),
        }
        Ok(due)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("keys", &self.core.keys).finish_non_exhaustive()
    }
}
