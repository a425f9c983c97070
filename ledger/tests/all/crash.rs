//! What a crash, a loss of power or a broken disk leaves of the embedded store.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::clock::ManualClock;
use farebox_ledger::conformance::{Model, agrees, timed_histories};
use farebox_ledger::store::{Embedded, fund};
use farebox_ledger::{
    Clock as _, Command, Durability, FirstRecord, Ledger, Options, Outcome, Store as _,
};
use farebox_protocol::{Currency, PayerId, usd};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Dice, Disk, Failure, Op, apply};
use crate::machine::{reserve, settle};
use crate::stores::{clock, options};

const IMAGES: usize = 500;
const SECTOR: usize = 512;
const PAYERS: u8 = 3;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = env("FAREBOX_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("FAREBOX_SEED={seed}");
    seed
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn first() -> FirstRecord {
    FirstRecord::new("check", "sandbox", None)
}

fn open(disk: &Disk, options: Options) -> Result<Ledger, String> {
    disk.wait();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Embedded::open_in(disk.storage(), &first(), options).map(Ledger::Embedded)
    }));
    opened.map_err(|_| "it panicked".to_owned())?.map_err(|error| error.to_string())
}

/// An empty database: a ledger's file has its name only once it is one.
fn blank() -> Disk {
    let disk = Disk::default();
    drop(redb::Database::builder().create_with_backend(disk.storage()).unwrap());
    disk
}

/// Everything that happened to one payer's book.
struct Told {
    payer: PayerId,
    /// The book after each command.
    states: Vec<Model>,
    /// How much of the disk's log there was when a durable command was answered, and which state
    /// it came to.
    lasting: Vec<(usize, usize)>,
}

/// A history of several payers on one disk, and what was answered.
struct Run {
    before: Vec<u8>,
    log: Vec<Op>,
    told: Vec<Told>,
}

/// Runs histories on a disk, and records. `late`: charges without a key are answered at once.
fn run(seed: u64, commands: usize, late: bool) -> Run {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let disk = blank();
    disk.wait();
    let before = disk.bytes();
    disk.record();
    let clock = clock();
    let bound = late.then_some(Duration::from_millis(20));
    let options = Options { settle_within: bound, ..options(&clock) };
    let ledger = open(&disk, options).unwrap();
    let mut told = Vec::new();
    let mut work = Vec::new();
    for payer in 0..PAYERS {
        let mut history = timed_histories(commands).new_tree(&mut runner).unwrap().current();
        while history.len() < commands {
            history.extend(timed_histories(commands).new_tree(&mut runner).unwrap().current());
        }
        history.truncate(commands);
        work.push(history);
        let payer = PayerId::from_bytes([payer; 32]);
        told.push(Told { payer, states: vec![Model::default()], lasting: Vec::new() });
    }
    block_on(async {
        for step in 0..commands {
            for (history, told) in work.iter().zip(&mut told) {
                let (millis, command) = &history[step];
                clock.set(clock.now().after(*millis));
                let applied = ledger.apply(&told.payer, command).await.unwrap();
                let mut model = told.states.last().unwrap().clone();
                assert_eq!(model.step(command, applied.at), Ok(applied.outcome));
                told.states.push(model);
                let lasts = match command.durability() {
                    Durability::Memory => false,
                    Durability::Spent => !late,
                    Durability::Disk => true,
                };
                if lasts {
                    told.lasting.push((disk.recorded(), told.states.len() - 1));
                }
            }
        }
        ledger.flush().await.unwrap();
    });
    let log = disk.log();
    drop(ledger);
    disk.wait();
    Run { before, log, told }
}

/// What a loss of power after `kept` operations leaves: everything up to the last sync, and of
/// the rest some sectors, in some order.
fn image(run: &Run, kept: usize, lost: Option<&mut Dice>) -> Vec<u8> {
    let mut bytes = run.before.clone();
    let Some(dice) = lost else {
        run.log[..kept].iter().for_each(|op| apply(&mut bytes, op));
        return bytes;
    };
    let synced = run.log[..kept].iter().rposition(|op| matches!(op, Op::Sync)).unwrap_or(0);
    run.log[..synced].iter().for_each(|op| apply(&mut bytes, op));
    let mut loose = Vec::new();
    for op in &run.log[synced..kept] {
        match op {
            Op::Write(offset, data) => {
                let mut at = 0;
                while at < data.len() {
                    // Sectors stand at multiples of their size.
                    let start = usize::try_from(*offset).unwrap() + at;
                    let len = (SECTOR - start % SECTOR).min(data.len() - at);
                    loose.push(Op::Write(start as u64, data[at..at + len].to_vec()));
                    at += len;
                }
            }
            // A length is a matter of the file system's journal; it may come late, or not.
            Op::SetLen(_) => loose.push(op.clone()),
            Op::Sync => {}
        }
    }
    let share = [10, 50, 90][dice.below(3)];
    loose.retain(|_| dice.below(100) < share);
    for at in (1..loose.len()).rev() {
        loose.swap(at, dice.below(at + 1));
    }
    // What is written beyond the end of a file makes it longer.
    loose.iter().for_each(|op| apply(&mut bytes, op));
    bytes
}

/// Opens what a crash left, and compares it with what was answered before operation `kept`.
fn check(told: &[Told], bytes: Vec<u8>, kept: usize) -> Result<(), String> {
    let disk = Disk::with(bytes);
    let ledger = open(&disk, options(&clock()))?;
    block_on(async {
        for Told { payer, states, lasting } in told {
            let least = lasting.iter().filter(|(at, _)| *at <= kept).map(|(_, n)| *n).max();
            let found = ledger.book(payer).await.map_err(|error| error.to_string())?;
            found.check().map_err(|error| error.to_string())?;
            let seq = found.head.seq;
            let is_it = |state: &&Model| state.book().head.seq == seq;
            let Some(state) = states[least.unwrap_or(0)..].iter().find(is_it) else {
                return Err(format!(
                    "{payer} is at seq {seq}, and seq {:?} was answered",
                    least.map(|n| states[n].book().head.seq)
                ));
            };
            agrees(&ledger, payer, &state.restarted()).await?;
        }
        Ok(())
    })
}

fn images(late: bool) {
    let wanted = usize::try_from(env("FAREBOX_IMAGES").unwrap_or(IMAGES as u64)).unwrap();
    let mut dice = Dice(seed());
    let (mut images, mut runs, mut acknowledged) = (0, 0, 0);
    while images < wanted {
        let run = run(dice.next(), 24, late);
        runs += 1;
        acknowledged += run.told.iter().map(|told| told.lasting.len()).sum::<usize>();
        let mut see = |bytes, kept: usize, what: &str| {
            images += 1;
            check(&run.told, bytes, kept).unwrap_or_else(|error| {
                panic!("{error}: run {runs}, {what} {kept} of {} operations", run.log.len())
            });
        };
        // Of the first run, every moment.
        let moments = if runs == 1 { run.log.len() + 1 } else { 0 };
        for kept in 0..moments {
            see(image(&run, kept, None), kept, "the first");
        }
        for _ in 0..100 {
            let kept = dice.below(run.log.len() + 1);
            see(image(&run, kept, Some(&mut dice)), kept, "some sectors of the first");
        }
    }
    println!(
        "{images} images of {runs} runs, all open, every one of {acknowledged} acknowledged \
         entries present"
    );
}

#[test]
fn an_answered_command_survives_a_loss_of_power() {
    images(false);
}

#[test]
fn charges_that_settle_late_are_lost_whole_or_not_at_all() {
    images(true);
}

/// A short history of one payer: durable commands, and one that is not.
async fn work(ledger: &Ledger, payer: &PayerId) -> (usize, usize) {
    let cent = usd!("0.01").micros();
    let mut commands =
        vec![crate::machine::open(1, None), crate::machine::observe(1, 0, usd!("5").micros())];
    for id in 0..3 {
        commands.extend([reserve(id, cent), settle(id, cent)]);
    }
    commands.extend([Command::RevokeCredentials, crate::machine::open(2, None)]);
    let (mut answered, mut refused) = (0, 0);
    for command in &commands {
        match ledger.apply(payer, command).await {
            Ok(_) if refused > 0 => panic!("{command:?} was answered after a failure"),
            Ok(_) => answered += 1,
            Err(_) => refused += 1,
        }
    }
    (answered, refused)
}

/// The book after each command of [`work`].
fn expected() -> Vec<Model> {
    let payer = PayerId::from_bytes([1; 32]);
    let clock = clock();
    let ledger = Ledger::Memory(farebox_ledger::store::Memory::new(Arc::new(clock)));
    block_on(work(&ledger, &payer));
    let cent = usd!("0.01").micros();
    let mut commands =
        vec![crate::machine::open(1, None), crate::machine::observe(1, 0, usd!("5").micros())];
    for id in 0..3 {
        commands.extend([reserve(id, cent), settle(id, cent)]);
    }
    commands.extend([Command::RevokeCredentials, crate::machine::open(2, None)]);
    let mut states = vec![Model::default()];
    for command in &commands {
        let mut model = states.last().unwrap().clone();
        model.step(command, crate::stores::clock().now()).unwrap();
        states.push(model);
    }
    states
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_answered_and_nothing_lost() {
    let (payer, states) = (PayerId::from_bytes([1; 32]), expected());
    let (mut failures, mut at_open) = (0, 0);
    for error in [ErrorKind::Other, ErrorKind::StorageFull] {
        for stays in [true, false] {
            for at in 1.. {
                let disk = blank();
                disk.wait();
                let at = disk.operations() + at;
                disk.fail(Failure { at, error, stays });
                let Ok(ledger) = open(&disk, options(&clock())) else {
                    at_open += 1;
                    continue;
                };
                let (answered, refused) = block_on(work(&ledger, &payer));
                drop(ledger);
                disk.wait();
                if refused == 0 && disk.operations() < at {
                    break; // the history is over
                }
                failures += usize::from(refused > 0);
                // The same bytes on a healthy disk.
                let ledger = open(&Disk::with(disk.bytes()), options(&clock()));
                let ledger = ledger.unwrap_or_else(|e| panic!("{e}: {error} at {at}, {stays}"));
                block_on(async {
                    let seq = ledger.load(&payer).await.unwrap().seq;
                    let durable = (1..=answered).rev().find(|n| !matches!(n, 3 | 5 | 7));
                    let mut rest = states[durable.unwrap_or(0)..].iter();
                    let state = rest.find(|state| state.book().head.seq == seq);
                    let state = state.unwrap_or_else(|| panic!("seq {seq}, {answered} answered"));
                    agrees(&ledger, &payer, &state.restarted()).await.unwrap();
                });
            }
        }
    }
    assert!(failures > 40, "{failures}");
    println!("{failures} failed operations refused everything after them, {at_open} opens refused");
}

#[test]
fn commands_that_wait_share_a_commit() {
    let (disk, payers) = (blank(), 64_u8);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let ledger = Arc::new(open(&disk, options(&clock())).unwrap());
        disk.slow(Duration::from_millis(5));
        let before = disk.syncs();
        let mut running = tokio::task::JoinSet::new();
        for payer in 0..payers {
            let ledger = ledger.clone();
            running.spawn(async move {
                let payer = PayerId::from_bytes([payer; 32]);
                ledger.apply(&payer, &Command::RevokeCredentials).await.unwrap();
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        let syncs = disk.syncs() - before;
        println!("{payers} durable commands at one time: {syncs} syncs");
        assert!(syncs <= 8, "{syncs}");
    });
}

/// Also on a disk that takes longer for a sync than the bound.
#[test]
fn late_charges_that_a_crash_takes_are_within_the_bound() {
    [30, 250].into_iter().map(Duration::from_millis).for_each(lose_late_charges);
}

fn lose_late_charges(sync: Duration) {
    let (disk, payer) = (blank(), PayerId::from_bytes([1; 32]));
    disk.wait();
    let bound = Duration::from_millis(100);
    let clock = ManualClock::clone(&clock());
    let options_late = Options { settle_within: Some(bound), ..options(&clock) };
    block_on(async {
        let ledger = open(&disk, options_late).unwrap();
        fund(&ledger, &payer, usd!("5")).await.unwrap();
        disk.slow(sync);
        disk.record();
        let (before, started) = (disk.bytes(), std::time::Instant::now());
        let mut answered = Vec::new();
        let cent = usd!("0.001").micros();
        let mut id = 0;
        while started.elapsed() < Duration::from_millis(900) {
            id += 1;
            ledger.apply(&payer, &reserve(id, cent)).await.unwrap();
            let settled = ledger.apply(&payer, &settle(id, cent)).await.unwrap().outcome;
            assert!(matches!(settled, Outcome::Settled { .. }));
            answered.push((started.elapsed(), disk.recorded()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A crash at the moment of each answer: what of the answered is not on disk by then?
        let log = disk.log();
        let mut worst = Duration::ZERO;
        let mut bytes = before;
        let (mut done, mut kept) = (0, 0);
        for (n, (now, recorded)) in answered.iter().enumerate() {
            if *recorded > done {
                log[done..*recorded].iter().for_each(|op| apply(&mut bytes, op));
                done = *recorded;
                let image = open(&Disk::with(bytes.clone()), options(&clock)).unwrap();
                let spent = image.load(&payer).await.unwrap().account(Currency::USD).spent;
                kept = usize::try_from(spent.get() / cent.get()).unwrap();
            }
            if kept <= n {
                worst = worst.max(*now - answered[kept].0);
            }
        }
        println!(
            "{} late charges; a sync of {sync:?}: a crash takes those of {worst:?} at most",
            answered.len()
        );
        assert!(worst < bound + Duration::from_millis(50), "{worst:?}");

        ledger.flush().await.unwrap();
        let image = open(&Disk::with(disk.bytes()), options(&clock)).unwrap();
        let spent = image.load(&payer).await.unwrap().account(Currency::USD).spent;
        assert_eq!(spent.get(), cent.get() * i64::try_from(answered.len()).unwrap());
    });
}
