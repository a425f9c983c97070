//! What `recorded-api` wrote down, and the machine that judges it.

use std::collections::HashMap;
use std::path::Path;

use farebox_ledger::book::{Book, Entry, UsageKey};
use farebox_ledger::conformance::Model;
use farebox_ledger::{Applied, Command, Outcome, Timestamp};
use farebox_protocol::{Currency, PayerId};
use serde::Deserialize;

/// A line of the record, see `recorded-api`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    Book(PayerId, Book),
    Begin(u64, PayerId, Command),
    End(u64, Applied, i64),
    Unknown(#[expect(dead_code, reason = "it is as if it was never answered")] u64),
    Left(PayerId, Book),
}

/// A command that was answered.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) command: Command,
    pub(crate) applied: Applied,
    /// When it was answered, in milliseconds: it was written by then.
    pub(crate) answered: i64,
}

/// One payer in one life of the program.
#[derive(Default)]
pub(crate) struct Part {
    /// The book that the life began with.
    pub(crate) found: Book,
    /// What was answered, in the order of the book.
    pub(crate) done: Vec<Done>,
    /// What was never answered: perhaps done, perhaps not.
    pub(crate) unfinished: Vec<Command>,
    /// The book at the end, if the program ended by itself.
    pub(crate) left: Option<Book>,
}

impl Part {
    /// The generation that the life is at.
    pub(crate) fn generation(&self) -> u32 {
        let generation = |done: &Done| match done.applied.outcome {
            Outcome::Revoked { generation } => Some(generation),
            _ => None,
        };
        self.done.iter().filter_map(generation).fold(self.found.head.generation, u32::max)
    }
}

/// One life of the program.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) parts: HashMap<PayerId, Part>,
}

impl Life {
    /// Reads a record. A kill may have cut its last line.
    pub(crate) fn read(record: &Path) -> Life {
        let text = std::fs::read_to_string(record).unwrap_or_default();
        let mut life = Life::default();
        let mut begun = HashMap::new();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match serde_json::from_str(line).unwrap() {
                Row::Book(payer, book) => life.part(payer).found = book,
                Row::Begin(number, payer, command) => {
                    begun.insert(number, (payer, command));
                }
                Row::End(number, applied, answered) => {
                    let (payer, command) = begun.remove(&number).unwrap();
                    life.part(payer).done.push(Done { command, applied, answered });
                }
                Row::Unknown(_) => {}
                Row::Left(payer, book) => life.part(payer).left = Some(book),
            }
        }
        for part in life.parts.values_mut() {
            part.done.sort_by_key(|done| done.applied.seq);
        }
        for (payer, command) in begun.into_values() {
            life.part(payer).unfinished.push(command);
        }
        life
    }

    fn part(&mut self, payer: PayerId) -> &mut Part {
        self.parts.entry(payer).or_default()
    }
}

/// What a record comes to.
pub(crate) struct Replay {
    /// The book after the change that was asked for, or after the last one.
    pub(crate) model: Model,
    /// What could be spent in dollars after every change.
    pub(crate) available: Vec<Balance>,
}

/// What could be spent after a change.
#[derive(Clone, Copy)]
pub(crate) struct Balance {
    pub(crate) micros: i64,
    /// When the change was decided. It was not written earlier.
    pub(crate) decided: Timestamp,
    /// When it was answered, in milliseconds, if it was. It was not written later.
    pub(crate) answered: Option<i64>,
}

/// Why the machine cannot have answered as the record says.
#[derive(Debug)]
pub(crate) struct Unreplayable(pub(crate) String);

/// Replays what was answered, each at its place in the book's order. Where a change is missing, a
/// command that was not answered must have made it. Goes on after `until`, but answers the book
/// of that moment; `None`: the last one.
pub(crate) fn replay(
    from: &Model,
    part: &Part,
    until: Option<u64>,
) -> Result<Replay, Unreplayable> {
    let groups: Vec<&[Done]> = part.done.chunk_by(|a, b| a.applied.seq == b.applied.seq).collect();
    let mut replayer = Replayer { groups, part, until, error: (0, String::new()) };
    let path = Walked { model: from.clone(), ..Walked::default() };
    match replayer.walk(path) {
        Some(path) => {
            Ok(Replay { model: path.kept.unwrap_or(path.model), available: path.available })
        }
        None => Err(Unreplayable(replayer.error.1)),
    }
}

struct Replayer<'a> {
    groups: Vec<&'a [Done]>,
    part: &'a Part,
    until: Option<u64>,
    /// The furthest group that was reached, and what was wrong with it.
    error: (usize, String),
}

/// How far a replay is.
#[derive(Clone, Default)]
struct Walked {
    model: Model,
    kept: Option<Model>,
    group: usize,
    used: Vec<usize>,
    available: Vec<Balance>,
}

impl Walked {
    fn seq(&self) -> u64 {
        self.model.book().head.seq
    }

    fn moved(&mut self, model: Model, decided: Timestamp, answered: Option<i64>) {
        let micros = model.book().head.account(Currency::USD).available.get();
        self.model = model;
        self.available.push(Balance { micros, decided, answered });
    }
}

impl Replayer<'_> {
    fn walk(&mut self, mut path: Walked) -> Option<Walked> {
        loop {
            if self.until == Some(path.seq()) {
                path.kept = Some(path.model.clone());
            }
            let Some(group) = self.groups.get(path.group) else {
                let arrived = self.until.is_none() || path.kept.is_some();
                return if arrived { Some(path) } else { self.fill(&path, u64::MAX) };
            };
            let seq = group[0].applied.seq;
            if !self.enter(&mut path, seq) {
                return self.fill(&path, seq);
            }
            path.group += 1;
        }
    }

    /// Takes one of the group's commands as the change, and the others as changing nothing.
    fn enter(&mut self, path: &mut Walked, seq: u64) -> bool {
        let group = self.groups[path.group];
        let mut changer = None;
        if seq > path.seq() {
            for (at, done) in group.iter().enumerate() {
                match step(&path.model, done) {
                    Ok(model) if model.book().head.seq == seq => {
                        path.moved(model, done.applied.at, Some(done.answered));
                        changer = Some(at);
                        break;
                    }
                    Ok(model) => {
                        let reached = model.book().head.seq;
                        self.fail(path, &format!("{done:?} leads to {reached}, not to {seq}"));
                    }
                    Err(error) => self.fail(path, &error),
                }
            }
            if changer.is_none() {
                return false;
            }
        }
        let others = group.iter().enumerate().filter(|(at, _)| Some(*at) != changer);
        for (_, done) in others {
            match step(&path.model, done) {
                Ok(model) if model.book().head.seq == seq => {}
                Ok(_) => {
                    self.fail(path, &format!("{done:?} changes a book that it left as it was"));
                    return false;
                }
                Err(error) => {
                    self.fail(path, &error);
                    return false;
                }
            }
        }
        true
    }

    /// A change up to `seq` that nobody was told of.
    fn fill(&mut self, path: &Walked, seq: u64) -> Option<Walked> {
        let next = self.groups.get(path.group).map(|group| group[0].applied.at);
        let last = self.part.done.last().map(|done| done.applied.at);
        // It was some time between the change before it and the next one: early, but not so early
        // that a reservation would be over.
        let at = next.or(last).unwrap_or_default().after(-30_000).max(path.model.book().head.last);
        for (number, command) in self.part.unfinished.iter().enumerate() {
            let mut path = path.clone();
            let mut model = path.model.clone();
            if path.used.contains(&number) || model.step(command, at).is_err() {
                continue;
            }
            let reached = model.book().head.seq;
            if reached > path.seq() && reached <= seq {
                path.moved(model, at, None);
                path.used.push(number);
                if let Some(path) = self.walk(path) {
                    return Some(path);
                }
            }
        }
        self.fail(path, &format!("nothing leads from {} to {seq}", path.seq()));
        None
    }

    fn fail(&mut self, path: &Walked, error: &str) {
        if path.group >= self.error.0 {
            let told = (path.group == self.error.0).then(|| std::mem::take(&mut self.error.1));
            self.error = (path.group, told.unwrap_or_default() + error + "\n");
        }
    }
}

/// The book after the command, if it comes to what was answered.
fn step(model: &Model, done: &Done) -> Result<Model, String> {
    let mut model = model.clone();
    let outcome: Outcome = model.step(&done.command, done.applied.at)?;
    match outcome == done.applied.outcome {
        true => Ok(model),
        false => Err(format!("{done:?}: the machine answers {outcome:?}")),
    }
}

/// A book without its times, which are not known of commands that were not answered.
pub(crate) fn timeless(book: &Book) -> Book {
    let Book { mut head, mut entries, usage: hours } = book.clone();
    head.last = Timestamp::default();
    for entry in entries.values_mut() {
        if let Entry::Reservation(open) = entry {
            open.until = Timestamp::default();
        }
        if let Entry::TopUp(top_up) = entry {
            top_up.opened = Timestamp::default();
            for observation in &mut top_up.history {
                observation.at = Timestamp::default();
            }
        }
    }
    let mut usage = HashMap::new();
    for (key, micros) in hours {
        let row =
            usage.entry(UsageKey { hour: 0, ..key }).or_insert(farebox_protocol::Micros::ZERO);
        *row = row.checked_add(micros).unwrap();
    }
    Book { head, entries, usage }
}
