//! Every store answers every command like the machine.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use farebox_ledger::clock::ManualClock;
use farebox_ledger::conformance::{Model, agrees, step, timed_histories};
use farebox_ledger::store::{Embedded, Memory};
use farebox_ledger::{
    Applied, Book, Command, FirstRecord, Ledger, Options, Outcome, Store, Timestamp,
};
use farebox_protocol::{Currency, ErrorCode, PayerId};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

use crate::disk::Disk;

/// What the random histories must reach; the rest of what a command answers is in `machine.rs`.
const REACHED: &[(&str, &str)] = &[
    (
        "Reserve",
        "Reserved Insufficient LimitReached Unauthorized Frozen InFlight Done Conflict OutOfRange",
    ),
    ("Settle", "Settled Expired Conflict OutOfRange TooMany"),
    ("Expire", "Expired NotDue NotFound"),
    ("OpenTopUp", "Opened Joined NotNeeded Stale Frozen"),
    ("Observe", "Observed NotFound Conflict OutOfRange"),
    ("FailTopUp", "Failed Succeeded NotFound"),
    ("OpenRefund", "Opened Joined Stale NotFound Conflict Insufficient OutOfRange"),
    ("CloseRefund", "Closed NotFound Conflict OutOfRange"),
    ("Freeze", "Frozen"),
    ("Unfreeze", "Frozen Unfrozen"),
    ("IssueCredential", "Issued Stale OutOfRange"),
    ("RevokeCredential", "Revoked"),
    ("RevokeCredentials", "Revoked"),
    ("OwnCard", "Owner"),
    ("LinkCard", "Linked"),
    ("SetCustomer", "Customer"),
];

const COMMANDS: usize = 200;
const HISTORIES: usize = 512;
/// How many histories run at one time over one store.
const TOGETHER: usize = 64;
const START: i64 = 1_700_000_000_000;

type History = Vec<(i64, Command)>;

fn histories_wanted() -> usize {
    std::env::var("FAREBOX_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(HISTORIES)
}

pub(crate) fn runner() -> TestRunner {
    let seed = std::env::var("FAREBOX_SEED").ok().and_then(|n| n.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.unwrap().subsec_nanos())
    });
    println!("FAREBOX_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = proptest::test_runner::TestRng::from_seed(
        proptest::test_runner::RngAlgorithm::ChaCha,
        &bytes,
    );
    TestRunner::new_with_rng(ProptestConfig::default(), rng)
}

/// What histories did.
#[derive(Default)]
struct Tally {
    histories: usize,
    commands: u64,
    changes: u64,
    reached: BTreeMap<(String, String), u64>,
}

fn name(of: &impl Debug) -> String {
    let text = format!("{of:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

impl Tally {
    fn count(&mut self, command: &Command, outcome: &Outcome, changed: bool) {
        self.commands += 1;
        self.changes += u64::from(changed);
        *self.reached.entry((name(command), name(outcome))).or_default() += 1;
    }

    fn add(&mut self, other: Tally) {
        self.histories += other.histories;
        self.commands += other.commands;
        self.changes += other.changes;
        for (pair, times) in other.reached {
            *self.reached.entry(pair).or_default() += times;
        }
    }

    fn print(&self, store: &str) {
        let Tally { histories, commands, changes, reached } = self;
        println!(
            "{store}: {histories} histories of up to {COMMANDS} commands ({commands} in all), \
             {changes} changed the book, 0 violations"
        );
        for ((command, outcome), times) in reached {
            println!("  {command:18} {outcome:12} {times}");
        }
    }

    /// A suite that never comes to an outcome shows nothing about it.
    fn assert_all_reached(&self) {
        let missing: Vec<_> = REACHED
            .iter()
            .flat_map(|(command, outcomes)| outcomes.split(' ').map(move |o| (*command, o)))
            .filter(|(c, o)| !self.reached.contains_key(&((*c).to_owned(), (*o).to_owned())))
            .collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
    }
}

/// Drives one payer's book from `model` on.
async fn drive<S: Store>(
    store: &S,
    clock: &ManualClock,
    payer: PayerId,
    model: &mut Model,
    history: &[(i64, Command)],
    turns_clock: bool,
) -> Result<Tally, String> {
    use farebox_ledger::Clock as _;
    let mut tally = Tally::default();
    for (millis, command) in history {
        if turns_clock {
            clock.set(clock.now().after(*millis));
        }
        let before = model.book().head.seq;
        let applied = step(store, &payer, model, command).await?;
        tally.count(command, &applied.outcome, applied.seq > before);
    }
    Ok(tally)
}

pub(crate) fn clock() -> ManualClock {
    let clock = ManualClock::default();
    clock.set(Timestamp::from_millis(START));
    clock
}

pub(crate) fn options(clock: &ManualClock) -> Options {
    Options { clock: Arc::new(clock.clone()), ..Options::default() }
}

/// Runs `check` on one history, and on smaller ones until the smallest that fails.
fn shrink(
    tree: &mut impl proptest::strategy::ValueTree<Value = History>,
    check: impl Fn(&History) -> Result<Tally, String>,
) -> Tally {
    let mut failed = match check(&tree.current()) {
        Ok(tally) => return tally,
        Err(error) => error,
    };
    let mut smallest = tree.current();
    for _ in 0..20_000 {
        match check(&tree.current()) {
            Err(error) => {
                (failed, smallest) = (error, tree.current());
                if !tree.simplify() {
                    break;
                }
            }
            Ok(_) if !tree.complicate() => break,
            Ok(_) => {}
        }
    }
    panic!("{failed}\nafter {smallest:#?}");
}

#[test]
fn memory_answers_like_the_machine() {
    let mut runner = runner();
    let histories = timed_histories(COMMANDS);
    let mut all = Tally::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..histories_wanted() {
        let mut tree = histories.new_tree(&mut runner).unwrap();
        let tally = shrink(&mut tree, |history| {
            let (clock, payer) = (clock(), PayerId::from_bytes([7; 32]));
            let store = Memory::new(Arc::new(clock.clone()));
            let mut model = Model::default();
            runtime.block_on(async {
                let tally = drive(&store, &clock, payer, &mut model, history, true).await?;
                agrees(&store, &payer, &model).await?;
                Ok(tally)
            })
        });
        all.add(tally);
        all.histories += 1;
    }
    all.print("memory");
    all.assert_all_reached();
}

/// Opens the ledger on `disk`.
fn open(disk: &Disk, clock: &ManualClock) -> Arc<Ledger> {
    disk.wait();
    let first = FirstRecord::new("check", "sandbox", None);
    Arc::new(Ledger::Embedded(Embedded::open_in(disk.storage(), &first, options(clock)).unwrap()))
}

/// Runs all histories at one time, each for a payer of its own, and compares each with its model,
/// also after a restart; a half of each comes before the restart, the rest after it.
async fn together(disk: Disk, histories: Vec<(PayerId, History)>) -> Result<Tally, String> {
    let clock = clock();
    let mut books: Vec<_> = histories.into_iter().map(|(p, h)| (p, Model::default(), h)).collect();
    let mut all = Tally::default();
    for half in 0..2 {
        let store = open(&disk, &clock);
        let mut running = JoinSet::new();
        for (n, (payer, mut model, history)) in books.into_iter().enumerate() {
            let turns_clock = n == half;
            let (store, clock) = (store.clone(), clock.clone());
            running.spawn(async move {
                let (first, rest) = history.split_at(history.len() / 2);
                let part = if half == 0 { first } else { rest };
                let tally = drive(&*store, &clock, payer, &mut model, part, turns_clock).await?;
                // Everything up to here is on disk once a durable command is answered.
                step(&*store, &payer, &mut model, &barrier()).await?;
                agrees(&*store, &payer, &model).await?;
                Ok::<_, String>((tally, payer, model, history))
            });
        }
        books = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (tally, payer, model, history) = ended.map_err(|error| error.to_string())??;
            all.add(tally);
            books.push((payer, model.restarted(), history));
        }
        drop(store);
        let store = open(&disk, &clock);
        for (payer, model, _) in &books {
            agrees(&*store, payer, model).await.map_err(|error| format!("reopened: {error}"))?;
        }
    }
    all.histories = books.len();
    Ok(all)
}

fn barrier() -> Command {
    Command::FailTopUp { currency: Currency::USD, number: 99, code: ErrorCode::CardDeclined }
}

#[test]
fn embedded_answers_like_the_machine_and_keeps_it() {
    let mut runner = runner();
    let one = timed_histories(COMMANDS);
    let mut all = Tally::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let disk = Disk::default();
    while all.histories < histories_wanted() {
        let from = all.histories;
        let histories: Vec<_> = (from..from + TOGETHER)
            .map(|n| {
                let mut payer = [0; 32];
                payer[..8].copy_from_slice(&(n as u64).to_be_bytes());
                (PayerId::from_bytes(payer), one.new_tree(&mut runner).unwrap().current())
            })
            .collect();
        all.add(runtime.block_on(together(disk.clone(), histories)).unwrap());
    }
    println!("{} commits and openings wrote {} bytes", disk.syncs(), disk.bytes().len());
    all.print("embedded");
    all.assert_all_reached();
}

#[test]
fn a_file_answers_like_the_machine_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("ledger.redb").display());
    let first = FirstRecord::new("check", "sandbox", None);
    let (mut runner, clock) = (runner(), clock());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut books: Vec<(PayerId, Model)> = Vec::new();
    for n in 0..8 {
        let history = timed_histories(60).new_tree(&mut runner).unwrap().current();
        let payer = PayerId::from_bytes([n; 32]);
        runtime.block_on(async {
            let store = Ledger::open(&url, &first, options(&clock)).await.unwrap();
            for (payer, model) in &books {
                agrees(&store, payer, model).await.unwrap();
            }
            let mut model = Model::default();
            drive(&store, &clock, payer, &mut model, &history, true).await.unwrap();
            step(&store, &payer, &mut model, &barrier()).await.unwrap();
            books.push((payer, model.restarted()));
        });
    }
}

/// What several tasks did to one book, in an order that `seq` allows and that ends in `end`.
/// `answers` are sorted by `seq`.
fn replay_in_order(
    model: &Model,
    answers: &[(Command, Applied)],
    end: &Book,
) -> Result<Model, String> {
    let Some((_, Applied { seq, .. })) = answers.first() else {
        // Two tasks may have been told the same, and only the end shows who was first.
        let is_end = model.book() == end;
        return if is_end { Ok(model.clone()) } else { Err(format!("{model:?} is not {end:?}")) };
    };
    let (group, rest) = answers.split_at(answers.partition_point(|(_, a)| a.seq <= *seq));
    let answered = |model: &Model, (command, applied): &(Command, Applied)| {
        let mut model = model.clone();
        let outcome = model.step(command, applied.at)?;
        let is_so = outcome == applied.outcome && model.book().head.seq == applied.seq;
        if is_so { Ok(model) } else { Err(format!("{command:?}: {outcome:?}, not {applied:?}")) }
    };
    let mut refused = Ok(());
    // One made this seq, and the others changed nothing after it; which one it was may be open.
    let all_after = |model: &Model, maker: Option<usize>| {
        let mut others = group.iter().enumerate().filter(|(n, _)| Some(*n) != maker);
        others.try_for_each(|(_, answer)| answered(model, answer).map(|_| ()))
    };
    if model.book().head.seq == *seq {
        all_after(model, None)?;
        return replay_in_order(model, rest, end);
    }
    for (n, maker) in group.iter().enumerate() {
        let found = answered(model, maker).and_then(|model| {
            all_after(&model, Some(n))?;
            replay_in_order(&model, rest, end)
        });
        match found {
            Ok(found) => return Ok(found),
            Err(error) => refused = Err(error),
        }
    }
    refused.map(|()| model.clone())
}

#[test]
fn commands_of_many_tasks_on_one_book_have_one_order() {
    const TASKS: usize = 8;
    let mut runner = runner();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let (disk, one) = (Disk::default(), timed_histories(40));
    let (mut books, mut commands) = (0, 0);
    for book in 0..24_u8 {
        let histories: Vec<_> =
            (0..TASKS).map(|_| one.new_tree(&mut runner).unwrap().current()).collect();
        let (clock, payer) = (clock(), PayerId::from_bytes([book; 32]));
        let ledger = open(&disk, &clock);
        let mut answers = runtime.block_on(async {
            let mut running = JoinSet::new();
            for (task, history) in histories.into_iter().enumerate() {
                let (ledger, clock) = (ledger.clone(), clock.clone());
                running.spawn(async move {
                    let mut answers = Vec::new();
                    for (millis, command) in history {
                        if task == 0 {
                            clock.set(farebox_ledger::Clock::now(&clock).after(millis));
                        }
                        let applied = ledger.apply(&payer, &command).await.unwrap();
                        answers.push((command, applied));
                    }
                    answers
                });
            }
            running.join_all().await.concat()
        });
        (books, commands) = (books + 1, commands + answers.len());
        answers.sort_by_key(|(_, applied)| applied.seq);
        let end = runtime.block_on(ledger.book(&payer)).unwrap();
        let mut model = replay_in_order(&Model::default(), &answers, &end).unwrap();
        runtime.block_on(async {
            step(&*ledger, &payer, &mut model, &barrier()).await.unwrap();
            agrees(&*ledger, &payer, &model).await.unwrap();
        });
        drop(ledger);
        let ledger = open(&disk, &clock);
        runtime.block_on(agrees(&*ledger, &payer, &model.restarted())).unwrap();
    }
    println!("{books} books, {commands} commands of {TASKS} tasks each, one order each");
}
