//! The other way: a script reads, [`Book::apply`] decides, and a script writes if what was read is
//! still so.

use farebox_protocol::{Currency, Micros, PayerId};
use redis::{FromRedisValue as _, Value};
use serde::Serialize;
use tokio::sync::MutexGuard;

use super::link::Link;
use super::rows::{self, HeadChange, Stored};
use super::{Core, Failure, Fault, REPEAT_FOR, Tries, WAIT_MILLIS, WRITE, hot, keys};
use crate::book::{Book, Entry, EntryId};
use crate::clock::Timestamp;
use crate::machine::{Applied, Command, Durability, Outcome};
use crate::store::StoreError;

/// What a command is decided on.
pub(super) enum Loaded {
    Found {
        now: Timestamp,
        stored: Box<Stored>,
        text: String,
        entry: Option<Entry>,
    },
    /// This operation was written before.
    Done(Applied),
}

/// What a write came to.
enum Written {
    Done(Applied),
    /// It was written before, by a call whose answer was lost.
    Found(Applied),
    /// What was read is not so any more.
    Stale,
}

/// The script's argument. Integers are text: JSON numbers of Lua are not exact.
#[derive(Serialize)]
struct Document<'a> {
    epoch: &'a str,
    payer: String,
    version: &'a str,
    at: String,
    steps: String,
    bump: bool,
    money: Vec<(String, String)>,
    guards: Vec<Guard>,
    set: Vec<(String, String)>,
    unset: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryChange>,
    due: Vec<(String, String)>,
    usage: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'static str>,
    answer: String,
}

/// Between what a sum of fields must be after the write.
#[derive(Serialize)]
struct Guard {
    fields: Vec<String>,
    min: String,
    max: String,
}

#[derive(Serialize)]
struct EntryChange {
    home: &'static str,
    field: String,
    old: String,
    new: String,
}

/// What [`Book::apply`] made of what was read.
struct Decision {
    before: Stored,
    text: String,
    entry: Option<Entry>,
    book: Book,
    /// Of each change of the named entry, the last.
    change: Option<Option<Entry>>,
    applied: Applied,
}

impl Core {
    /// `at`: when, if not now.
    pub(super) async fn decide(
        &self,
        payer: &PayerId,
        command: &Command,
        operation: &str,
        at: Option<Timestamp>,
    ) -> Result<Applied, StoreError> {
        let waits = self.waits && is_card_money(command);
        let mut tries = Tries::new();
        let mut turn = None;
        loop {
            let loaded = self.load(payer, command.entry(), operation).await?;
            let decision = match loaded {
                Loaded::Done(applied) => {
                    // It was written by a call whose answer was lost; whether a replica has it is
                    // not known.
                    if waits {
                        self.replicate(payer).await?;
                    }
                    return Ok(applied);
                }
                Loaded::Found { now, stored, text, entry } => {
                    Decision::make(*stored, text, entry, command, at.unwrap_or(now))
                }
            };
            if decision.applied.seq == decision.before.head.seq {
                if waits {
                    self.replicate(payer).await?; // the answer may rest on what is not replicated
                }
                return Ok(decision.applied);
            }
            let document = decision.document(&self.epoch, payer, command);
            let document = document.map_err(StoreError::new)?;
            let written = self.write(payer, operation, &decision, &document, waits).await;
            match written {
                Ok(Written::Done(applied)) => return Ok(applied),
                Ok(Written::Found(applied)) => {
                    if waits {
                        self.replicate(payer).await?; // that call wrote it on another connection
                    }
                    return Ok(applied);
                }
                Ok(Written::Stale) => {
                    if turn.is_none() {
                        turn = Some(self.turns.wait(payer, tries.until).await?);
                    }
                    tries.stale().await?;
                }
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    /// Reads a head and an entry, or what `operation` came to. Repeated until it is answered.
    pub(super) async fn load(
        &self,
        payer: &PayerId,
        entry: Option<EntryId>,
        operation: &str,
    ) -> Result<Loaded, StoreError> {
        let place = entry.map(|id| keys::place(payer, id)).unwrap_or_default();
        let mut tries = Tries::new();
        loop {
            let mut call = self.scripts.load.call();
            call.key(self.keys.bucket(keys::bucket_of(payer))).key(self.keys.book(payer));
            call.key(self.keys.entries(payer)).key(self.keys.answer(payer, operation));
            call.arg(&self.epoch).arg(place.home).arg(&place.field);
            let answer = call.run(&self.link).await;
            match answer.map_err(Failure::from).and_then(hot::not_lost) {
                Ok(value) => return read_loaded(value).map_err(StoreError::new),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn write(
        &self,
        payer: &PayerId,
        operation: &str,
        decision: &Decision,
        document: &str,
        waits: bool,
    ) -> Result<Written, Failure> {
        let bucket = keys::bucket_of(payer);
        let week = keys::week_of(decision.applied.at);
        let keys = [
            self.keys.bucket(bucket),
            self.keys.book(payer),
            self.keys.entries(payer),
            self.keys.due(bucket),
            self.keys.usage(payer, week),
            self.keys.answer(payer, operation),
            self.keys.payers(bucket),
        ];
        let answer = if waits {
            let mut pipe = redis::pipe();
            pipe.cmd("EVAL").arg(WRITE).arg(keys.len()).arg(&keys).arg(document);
            pipe.cmd("WAIT").arg(1).arg(WAIT_MILLIS);
            let mut link = self.careful().await?;
            let (answer, replicas): (Value, u32) = pipe.query_async(&mut *link).await?;
            let answer = hot::not_lost(answer)?;
            if replicas == 0 && is_ok(&answer) {
                return Err(not_replicated());
            }
            answer
        } else {
            let mut call = self.scripts.write.call();
            keys.into_iter().for_each(|key| {
                call.key(key);
            });
            let answer = call.arg(document).run(&self.link).await?;
            hot::not_lost(answer)?
        };
        read_written(answer, &decision.applied).map_err(Failure::from)
    }

    /// Waits until a replica has everything that was written of the payer's bucket, if card money
    /// waits for one at all.
    pub(super) async fn replicate(&self, payer: &PayerId) -> Result<(), StoreError> {
        if !self.waits {
            return Ok(());
        }
        // `WAIT` is about what its own connection wrote last, so something must be written.
        let mut pipe = redis::pipe();
        let bucket = self.keys.bucket(keys::bucket_of(payer));
        pipe.cmd("HSET").arg(bucket).arg("touched").arg(self.guess_now().millis());
        pipe.cmd("WAIT").arg(1).arg(WAIT_MILLIS);
        let answer = async {
            let mut link = self.careful().await?;
            pipe.query_async::<(Value, u32)>(&mut *link).await.map_err(Failure::from)
        };
        match answer.await {
            Ok((_, 1..)) => Ok(()),
            Ok(_) => Err(StoreError::new(NOT_REPLICATED)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The connection for card money. While replicas do not answer, a queue for it grows; whoever
    /// would wait too long is told so.
    async fn careful(&self) -> Result<MutexGuard<'_, Link>, Failure> {
        let queue = tokio::time::timeout(REPEAT_FOR, self.careful.lock()).await;
        queue.map_err(|_| Failure::Final(StoreError::new(NOT_REPLICATED)))
    }

    pub(super) async fn restore(&self, payer: &PayerId, book: &Book) -> Result<(), StoreError> {
        let mut rows = redis::pipe();
        for (&id, entry) in &book.entries {
            let place = keys::place(payer, id);
            let home = match place.home {
                "r" => self.keys.bucket(keys::bucket_of(payer)),
                _ => self.keys.entries(payer),
            };
            let text = rows::write_entry(entry).map_err(StoreError::new)?;
            rows.cmd("HSET").arg(home).arg(place.field).arg(text).ignore();
            let due = keys::due_member(payer, id).zip(Some(due_at(Some(entry))));
            if let Some((member, at)) = due.filter(|(_, at)| !at.is_empty()) {
                let due = self.keys.due(keys::bucket_of(payer));
                rows.cmd("ZADD").arg(due).arg(at).arg(member).ignore();
            }
        }
        for (row, micros) in &book.usage {
            let week = keys::week_of(Timestamp::from_millis(i64::from(row.hour) * 3_600_000));
            let usage = self.keys.usage(payer, week);
            rows.cmd("HSET").arg(&usage).arg(rows::usage_field(row)).arg(micros.get()).ignore();
            rows.cmd("EXPIRE").arg(usage).arg(keys::USAGE_SECONDS).ignore();
        }
        rows.query_async::<()>(&mut self.link.clone()).await.map_err(StoreError::new)?;
        let (at, seq) = (book.head.last, book.head.seq);
        let decision = Decision {
            before: Stored { version: "0".to_owned(), ..Stored::default() },
            text: String::new(),
            entry: None,
            book: Book { head: book.head.clone(), ..Book::default() },
            change: None,
            applied: Applied { outcome: Outcome::Linked, at, seq },
        };
        let nothing = Command::RevokeCredentials; // it names no entry and has no guard
        let document = decision.document(&self.epoch, payer, &nothing).map_err(StoreError::new)?;
        match self.write(payer, &self.operation(), &decision, &document, self.waits).await {
            Ok(Written::Done(_) | Written::Found(_)) => Ok(()),
            Ok(Written::Stale) => Err(StoreError::new("the payer has a book already")),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The payers of a bucket. One that has lost its records has no payers to tell of.
    pub(super) async fn members(&self, bucket: u8) -> Result<Vec<String>, StoreError> {
        let mut tries = Tries::new();
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("HGET").arg(self.keys.bucket(bucket)).arg("epoch");
            pipe.cmd("SMEMBERS").arg(self.keys.payers(bucket));
            let answer = pipe.query_async(&mut self.link.clone()).await;
            let judge = |(epoch, members): (Option<String>, _)| match epoch {
                Some(epoch) if epoch == self.epoch => Ok(members),
                _ => Err(Failure::Lost),
            };
            match answer.map_err(Failure::from).and_then(judge) {
                Ok(members) => return Ok(members),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }
}

const NOT_REPLICATED: &str = "no replica has what was written";

fn not_replicated() -> Failure {
    Failure::Again(NOT_REPLICATED.to_owned())
}

/// Whether a loss of the command could cost a payer, or charge a card twice.
fn is_card_money(command: &Command) -> bool {
    !matches!(command, Command::Settle { .. }) && command.durability() == Durability::Disk
}

/// Whether the script wrote: `WAIT` is about that alone.
fn is_ok(answer: &Value) -> bool {
    matches!(answer, Value::Array(parts)
        if matches!(parts.first(), Some(Value::BulkString(word)) if word == b"OK"))
}

impl Decision {
    fn make(
        before: Stored,
        text: String,
        entry: Option<Entry>,
        command: &Command,
        now: Timestamp,
    ) -> Decision {
        let mut book = Book { head: before.head.clone(), ..Book::default() };
        if let (Some(id), Some(entry)) = (command.entry(), &entry) {
            book.entries.insert(id, entry.clone());
        }
        let mut change = None;
        let applied = book.apply(command, now, |_, entry| change = Some(entry.cloned()));
        Decision { before, text, entry, book, change, applied }
    }

    fn document(&self, epoch: &str, payer: &PayerId, command: &Command) -> Result<String, Fault> {
        let HeadChange { money, set, unset, bump } =
            rows::change(&self.before.head, &self.book.head)?;
        let (mut entry, mut due) = (None, Vec::new());
        if let (Some(id), Some(new)) = (command.entry(), &self.change) {
            let place = keys::place(payer, id);
            let text = new.as_ref().map(rows::write_entry).transpose()?.unwrap_or_default();
            let (home, field, old) = (place.home, place.field, self.text.clone());
            entry = Some(EntryChange { home, field, old, new: text });
            due.extend(keys::due_member(payer, id).map(|member| (member, due_at(new.as_ref()))));
        }
        let usage = self.book.usage.iter();
        let usage = usage.map(|(key, more)| (rows::usage_field(key), more.get().to_string()));
        let steps = self.book.head.seq - self.before.head.seq;
        let document = Document {
            epoch,
            payer: payer.to_string(),
            version: &self.before.version,
            at: self.applied.at.millis().to_string(),
            steps: steps.to_string(),
            bump,
            money,
            guards: self.guards(command),
            set,
            unset,
            entry,
            due,
            usage: usage.collect(),
            account: self.account(command).map(Currency::code),
            answer: serde_json::to_string(&self.applied.outcome)?,
        };
        Ok(serde_json::to_string(&document)?)
    }

    /// What the decision rests on and others may have changed meanwhile, without a new version.
    fn guards(&self, command: &Command) -> Vec<Guard> {
        let guard = |fields: Vec<String>, min: i64, max: i64| Guard {
            fields,
            min: min.to_string(),
            max: max.to_string(),
        };
        let most = Micros::MAX.get();
        let mut guards = Vec::new();
        match (command, &self.applied.outcome) {
            (Command::Reserve { currency, amount, proof, .. }, Outcome::Reserved { .. })
                if *amount > Micros::ZERO =>
            {
                guards.push(guard(vec![format!("{currency}.a")], 0, most));
                if let crate::Proof::Credential { number: Some(number), .. } = proof
                    && let Some(issued) = self.book.head.credentials.get(number)
                    && let Some(limit) = issued.limit
                {
                    let fields = ["r", "s"].map(|sum| format!("c{number}.{sum}"));
                    guards.push(guard(fields.to_vec(), -most, limit.amount.get()));
                }
            }
            (Command::OpenRefund { currency, .. }, Outcome::Opened) => {
                guards.push(guard(vec![format!("{currency}.a")], 0, most));
            }
            (Command::OpenTopUp { currency, needed: Some(needed), .. }, Outcome::Opened) => {
                guards.push(guard(vec![format!("{currency}.a")], -most, needed.get() - 1));
            }
            _ => {}
        }
        guards
    }

    /// The account whose available money the outcome tells.
    fn account(&self, command: &Command) -> Option<Currency> {
        match (&self.applied.outcome, command) {
            (Outcome::Reserved { .. }, Command::Reserve { currency, .. }) => Some(*currency),
            (Outcome::Settled { .. }, _) => Some(self.entry.as_ref()?.reservation()?.currency),
            _ => None,
        }
    }
}

/// When an entry is due, as a score; none if it never is.
fn due_at(entry: Option<&Entry>) -> String {
    match entry {
        Some(Entry::TopUp(top_up)) if top_up.is_open() => "0".to_owned(),
        Some(Entry::Claim(claim)) => claim.until().millis().to_string(),
        _ => String::new(),
    }
}

fn read_loaded(value: Value) -> Result<Loaded, Fault> {
    let parts = Vec::<Value>::from_redis_value(value)?;
    let mut parts = parts.into_iter();
    let mut part = || parts.next().unwrap_or(Value::Nil);
    if String::from_redis_value(part())? == "DONE" {
        return Ok(Loaded::Done(read_answer(&String::from_redis_value(part())?)?));
    }
    let now = Timestamp::from_millis(i64::from_redis_value(part())?);
    let stored = rows::read_head(Vec::from_redis_value(part())?)?;
    let text = String::from_redis_value(part())?;
    let entry = if text.is_empty() { None } else { Some(rows::read_entry(&text)?) };
    Ok(Loaded::Found { now, stored: Box::new(stored), text, entry })
}

fn read_written(value: Value, decided: &Applied) -> Result<Written, Fault> {
    let parts = Vec::<Value>::from_redis_value(value)?;
    let mut parts = parts.into_iter();
    let mut part = || parts.next().unwrap_or(Value::Nil);
    match String::from_redis_value(part())?.as_str() {
        "RETRY" => Ok(Written::Stale),
        "DONE" => Ok(Written::Found(read_answer(&String::from_redis_value(part())?)?)),
        "OK" => {
            let seq = u64::from_redis_value(part())?;
            let available = String::from_redis_value(part())?;
            let outcome = with_available(decided.outcome.clone(), &available)?;
            Ok(Written::Done(Applied { outcome, at: decided.at, seq }))
        }
        _ => Err("a script answers a word that is not known".into()),
    }
}

/// An answer that was kept for repeats: outcome, at, seq, available.
fn read_answer(text: &str) -> Result<Applied, Fault> {
    let parts: Vec<&str> = text.split('\n').collect();
    let [outcome, at, seq, available] = parts[..] else {
        return Err("the answer of an operation cannot be read".into());
    };
    let outcome = with_available(serde_json::from_str(outcome)?, available)?;
    Ok(Applied { outcome, at: Timestamp::from_millis(at.parse()?), seq: seq.parse()? })
}

/// The outcome with what is available now: more or less than when it was decided.
fn with_available(outcome: Outcome, available: &str) -> Result<Outcome, Fault> {
    if available.is_empty() {
        return Ok(outcome);
    }
    let available = Micros::new(available.parse()?).ok_or("an amount is out of range")?;
    Ok(match outcome {
        Outcome::Reserved { .. } => Outcome::Reserved { available },
        Outcome::Settled { .. } => Outcome::Settled { available },
        other => other,
    })
}
