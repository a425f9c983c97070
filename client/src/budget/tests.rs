//! Long runs: `FAREBOX_ROUNDS` is how often a crowd spends a budget, `FAREBOX_KILLS` how often a
//! process that pays is killed.

#[cfg(feature = "redis")]
mod redis;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farebox_policy::Rule;
use farebox_protocol::{Currency, Micros, usd};
use tempfile::TempDir;

use super::sheet::OPEN_MAX;
use super::*;
use crate::file::decode;
use crate::processes::{Process, errand, say};

const NOW: i64 = 1_700_000_000;
const PROCESSES: usize = 4;
const TASKS: usize = 64;

fn policy(per_day: Money) -> Policy {
    Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5")).per_day(per_day)
}

fn asked(top_up: Money) -> Asked {
    let host = "api.example.com".to_owned();
    Asked { host, port: 443, price: usd!("0"), top_up: Some(top_up), approved: false }
}

fn cents(cents: u32) -> Money {
    Money::new(Micros::new(i64::from(cents) * 10_000).unwrap(), Currency::USD)
}

fn hold_id() -> HoldId {
    HoldId::random().unwrap()
}

fn below(bound: u32) -> u32 {
    getrandom::u32().unwrap() % bound
}

/// A number from the environment, for long runs.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

async fn held(budget: &Budget) -> Money {
    budget.usage().await.unwrap().held(Currency::USD, NOW)
}

async fn open_holds(budget: &Budget) -> BTreeMap<HoldId, Hold> {
    budget.read().await.unwrap().holds().clone()
}

/// Reserves `amount` within `limit`; `None` if that is refused.
async fn reserve(budget: &Budget, amount: Money, limit: Money) -> Option<HoldId> {
    let id = hold_id();
    match budget.reserve(id, &policy(limit), asked(amount), NOW).await.unwrap() {
        (Decision::Allow, Some(_)) => Some(id),
        (Decision::Refuse(refusal), None) => {
            assert_eq!(refusal.rule(), Rule::PerDay);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn in_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.json");
    (folder, path)
}

#[cfg(not(feature = "redis"))]
async fn open(place: &str) -> Budget {
    Budget::file(place).unwrap()
}

#[cfg(feature = "redis")]
async fn open(place: &str) -> Budget {
    match place.rsplit_once('#') {
        Some((url, name)) => Budget::redis(url, name).await.unwrap(),
        None => Budget::file(place).unwrap(),
    }
}

const CROWD_LIMIT: u32 = 20_000;

async fn take_all(budget: Budget) {
    loop {
        let amount = 1 + below(500);
        match reserve(&budget, cents(amount), cents(CROWD_LIMIT)).await {
            Some(_) => say(&amount.to_string()),
            None => break,
        }
    }
}

/// One process of a crowd: every task reserves until it is refused, and says what it got.
fn crowd_member(errand: &str) {
    let (place, start) = errand.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let budget = open(place).await;
        say("ready");
        while !Path::new(start).exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(take_all(budget.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Lets a crowd at `place`, which is new, and answers how much it got, in cents.
fn crowd(test: &str, place: &str) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let start = folder.path().join("start");
    let errand = format!("{place} {}", start.display());
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::send(test, &errand)).collect();
    for process in &mut processes {
        assert_eq!(process.hear().as_deref(), Some("ready"));
    }
    fs::write(start, "").unwrap();
    // Nobody's pipe may fill up while another one is read.
    let readers = processes.into_iter().map(|process| std::thread::spawn(|| process.end()));
    let readers: Vec<_> = readers.collect();
    let said = readers.into_iter().flat_map(|reader| reader.join().unwrap());
    said.map(|amount| amount.parse::<u32>().unwrap()).sum()
}

#[tokio::test]
async fn tasks_and_processes_never_overshoot_a_file() {
    if let Some(errand) = errand() {
        return std::thread::spawn(move || crowd_member(&errand)).join().unwrap();
    }
    let (started, rounds) = (Instant::now(), number("FAREBOX_ROUNDS", 5));
    let mut least = CROWD_LIMIT;
    for _ in 0..rounds {
        let (_folder, path) = in_folder();
        let test = "budget::tests::tasks_and_processes_never_overshoot_a_file";
        let granted = crowd(test, path.to_str().unwrap());
        assert!(granted <= CROWD_LIMIT, "{granted} cents of {CROWD_LIMIT}");
        assert_eq!(held(&Budget::file(&path).unwrap()).await, cents(granted));
        least = least.min(granted);
    }
    assert!(least > CROWD_LIMIT - 500, "they stopped early, at {least}");
    println!(
        "{rounds} rounds of {PROCESSES} x {TASKS}: overshoot 0, least granted {least} of \
         {CROWD_LIMIT} cents, {:?}",
        started.elapsed()
    );
}

/// Reserves, closes and releases; says what it is about to do and what is done.
async fn pay_for_ever(budget: Budget) {
    loop {
        let amount = 1 + below(500);
        let id = reserve(&budget, cents(amount), usd!("1000000000")).await.unwrap();
        say(&format!("reserved {id} {amount}"));
        match below(3) {
            0 => budget.close(id).await.unwrap(),
            1 => {
                say(&format!("releasing {id} {amount}"));
                budget.release(id).await.unwrap();
                say(&format!("released {id} {amount}"));
            }
            _ => {}
        }
    }
}

/// A process that pays until it is killed.
fn victim(place: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let budget = open(place).await;
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(pay_for_ever(budget.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_is_counted_after_a_kill() {
    if let Some(errand) = errand() {
        return std::thread::spawn(move || victim(&errand)).join().unwrap();
    }
    let (_folder, path) = in_folder();
    let test = "budget::tests::what_was_acknowledged_is_counted_after_a_kill";
    let (mut counted, mut acknowledged, mut abandoned) = (0, 0, 0);
    let kills = number("FAREBOX_KILLS", 15);
    for _ in 0..kills {
        let mut process = Process::send(test, path.to_str().unwrap());
        // It dies in the middle of something, at a line that nobody knows beforehand.
        let mut said: Vec<String> = (0..below(60)).map_while(|_| process.hear()).collect();
        std::thread::sleep(Duration::from_micros(u64::from(below(5_000))));
        process.kill();
        said.extend(std::iter::from_fn(|| process.hear()));

        let mut of = BTreeMap::<&str, BTreeMap<HoldId, u32>>::new();
        for line in &said {
            let [verb, id, amount] = line.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            of.entry(verb).or_default().insert(id.parse().unwrap(), amount.parse().unwrap());
        }
        let mut of = |verb: &str| of.remove(verb).unwrap_or_default();
        let (reserved, releasing, released) = (of("reserved"), of("releasing"), of("released"));
        let budget = Budget::file(&path).unwrap();
        let open = open_holds(&budget).await;
        assert!(released.keys().all(|id| !open.contains_key(id)), "released, and open");
        for (id, amount) in &reserved {
            if !releasing.contains_key(id) || open.contains_key(id) {
                counted += amount;
            }
        }
        let silent: BTreeSet<_> = open.keys().filter(|id| !reserved.contains_key(id)).collect();
        let unsaid = silent.iter().map(|id| open[id].amount().micros().get() / 10_000);
        counted += u32::try_from(unsaid.sum::<i64>()).unwrap();
        assert_eq!(held(&budget).await, cents(counted), "{said:?}");

        // What its journal has no entry of was never sent.
        for id in &silent {
            budget.release(**id).await.unwrap();
            counted -= u32::try_from(open[id].amount().micros().get() / 10_000).unwrap();
        }
        assert_eq!(held(&budget).await, cents(counted));
        for id in open.keys() {
            budget.close(*id).await.unwrap();
        }
        assert!(open_holds(&budget).await.is_empty());
        (acknowledged, abandoned) = (acknowledged + reserved.len(), abandoned + silent.len());
    }
    println!("{kills} kills: {acknowledged} holds acknowledged, {abandoned} not; all counted");
    assert!(acknowledged > kills);
}

/// This binary, where no file may be longer than 512 bytes.
#[cfg(unix)]
fn where_files_are_short() -> std::process::Command {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]);
    shell.arg(std::env::current_exe().unwrap());
    shell
}

#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_is_an_error_and_grants_nothing() {
    let attempt = async |budget: &Budget| {
        let asked = asked(usd!("1"));
        budget.reserve(hold_id(), &policy(usd!("100")), asked, NOW).await
    };
    if let Some(path) = errand() {
        let budget = Budget::file(path).unwrap();
        for _ in 0..20 {
            match attempt(&budget).await {
                Ok((Decision::Allow, Some(_))) => say("granted"),
                Err(BudgetError::File(StateError::Io { .. })) => say("failed"),
                other => panic!("{other:?}"),
            }
            assert_eq!(
                held(&budget).await,
                budget.with_last_usage(|usage| usage.held(Currency::USD, NOW))
            );
        }
        return;
    }
    let (folder, path) = in_folder();
    let test = "budget::tests::a_full_disk_is_an_error_and_grants_nothing";
    let process = Process::run(where_files_are_short(), test, path.to_str().unwrap());
    let said = process.end();
    let granted = said.iter().filter(|said| *said == "granted").count();
    assert!((1..20).contains(&granted) && said.len() == 20, "{said:?}");
    let budget = Budget::file(&path).unwrap();
    assert_eq!(held(&budget).await, cents(u32::try_from(granted).unwrap() * 100));
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "the file and its lock, and no half of a file");
    assert!(attempt(&budget).await.is_ok(), "the disk has space again");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_an_error_and_grants_nothing() {
    let (folder, path) = in_folder();
    let budget = Budget::file(&path).unwrap();
    assert!(reserve(&budget, usd!("1"), usd!("5")).await.is_some());
    // In the way of the new file, for every user.
    fs::create_dir(folder.path().join("budget.json.tmp")).unwrap();
    let result = budget.reserve(hold_id(), &policy(usd!("5")), asked(usd!("1")), NOW).await;
    let error = result.unwrap_err();
    assert!(matches!(error, BudgetError::File(StateError::Io { .. })), "{error:?}");
    assert_eq!(error.actor(), Actor::Owner);
    let now = budget.with_last_usage(|usage| usage.held(Currency::USD, NOW));
    assert_eq!((held(&budget).await, now), (usd!("1"), usd!("1")));
}

#[tokio::test]
async fn a_hold_goes_back_once_and_a_closed_one_never() {
    let (_folder, path) = in_folder();
    for budget in [Budget::in_memory(), Budget::file(path).unwrap()] {
        let other = reserve(&budget, usd!("5"), usd!("20")).await.unwrap();
        let id = reserve(&budget, usd!("5"), usd!("20")).await.unwrap();
        for _ in 0..3 {
            budget.release(id).await.unwrap();
            assert_eq!(held(&budget).await, usd!("5"));
        }
        budget.close(other).await.unwrap();
        budget.release(other).await.unwrap();
        budget.close(id).await.unwrap();
        assert_eq!(held(&budget).await, usd!("5"));
        assert!(open_holds(&budget).await.is_empty());
    }
}

#[tokio::test]
async fn a_repeated_reservation_is_counted_once() {
    let (budget, policy) = (Budget::in_memory(), policy(usd!("5")));
    let id = hold_id();
    let first = budget.reserve(id, &policy, asked(usd!("5")), NOW).await.unwrap();
    let again = budget.reserve(id, &policy, asked(usd!("5")), NOW + 1).await.unwrap();
    assert_eq!(first, again);
    assert_eq!((again.0, held(&budget).await), (Decision::Allow, usd!("5")));
    assert_eq!(open_holds(&budget).await, BTreeMap::from([(id, again.1.unwrap())]));
}

#[tokio::test]
async fn a_payment_from_credit_holds_nothing() {
    let budget = Budget::in_memory();
    let from_credit = Asked { top_up: None, ..asked(usd!("1")) };
    let id = hold_id();
    let answer = budget.reserve(id, &policy(usd!("5")), from_credit, NOW).await.unwrap();
    assert_eq!(answer, (Decision::Allow, None));
    assert_eq!(
        (budget.usage().await.unwrap(), budget.with_last_usage(Usage::clone)),
        (Usage::new(), Usage::new())
    );
}

#[tokio::test]
async fn open_holds_are_bounded_and_the_oldest_one_stays_counted() {
    let (budget, limit) = (Budget::in_memory(), usd!("1000000"));
    let reserve_at = async |now: i64| {
        let id = hold_id();
        let held = budget.reserve(id, &policy(limit), asked(usd!("1")), now).await.unwrap();
        assert!(held.1.is_some());
        id
    };
    reserve_at(NOW + 1).await;
    let mut oldest = reserve_at(NOW).await;
    for _ in 2..OPEN_MAX {
        reserve_at(NOW + 2).await;
    }
    for now in [NOW - 1, NOW + 2] {
        let last = reserve_at(now).await;
        let before = held(&budget).await;
        budget.release(oldest).await.unwrap();
        assert_eq!(held(&budget).await, before, "nothing goes back");
        let open = open_holds(&budget).await;
        assert!(open.len() == OPEN_MAX && open.contains_key(&last));
        oldest = last;
    }
}

#[tokio::test]
async fn two_budgets_do_not_mix_and_two_names_of_one_do() {
    let (folder, path) = in_folder();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let (first, second) = (Budget::file(&one).unwrap(), Budget::file(&two).unwrap());
    reserve(&first, usd!("5"), usd!("5")).await.unwrap();
    assert_eq!((held(&first).await, held(&second).await), (usd!("5"), usd!("0")));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&one, &path).unwrap();
        let linked = Budget::file(&path).unwrap();
        assert!(reserve(&linked, usd!("1"), usd!("5")).await.is_none());
        assert!(reserve(&linked, usd!("1"), usd!("6")).await.is_some());
        assert_eq!(held(&first).await, usd!("6"));
        assert!(path.is_symlink());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_can_read_a_budget() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, path) = in_folder();
    // Left behind by a crash, or laid out for us.
    let temporary = folder.path().join("budget.json.tmp");
    fs::write(&temporary, "{}").unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
    let budget = Budget::file(&path).unwrap();
    reserve(&budget, usd!("5"), usd!("5")).await.unwrap();
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let modes = names.map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes.collect::<Vec<_>>(), [0o600, 0o600]);
}

fn hostile() -> Vec<String> {
    let id = "0".repeat(32);
    let hold = r#"{"at":1,"host":"example.com","port":443,"amount":"1.00 usd"}"#;
    let sheet =
        |usage: &str, holds: &str| format!(r#"{{"schema":1,"usage":{usage},"holds":{holds}}}"#);
    let open = |id: &str, hold: &str| format!(r#"{{"{id}":{hold}}}"#);
    let (none, row) = (r#"{"rows":[]}"#, |sum: &str| {
        let host = r#""host":"example.com","port":443,"currency":"usd""#;
        format!(r#"{{{host},"older":0,"sums":[[1,{sum},1]]}}"#)
    });
    let usage = |rows: &str| sheet(&format!(r#"{{"latest":1,"rows":[{rows}]}}"#), "{}");
    for good in [sheet(none, &open(&id, hold)), usage(&row("1"))] {
        assert!(decode::<Sheet>(SCHEMA, good.as_bytes()).is_some(), "{good}");
    }
    let many: Vec<String> = (0..=OPEN_MAX).map(|n| format!(r#""{n:032x}":{hold}"#)).collect();
    vec![
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "\0".repeat(100),
        "[".repeat(100_000),
        r#"{"schema":1}"#.to_owned(),
        sheet(none, "{}").replace("\"schema\":1", "\"schema\":2"),
        sheet(none, "{}").replace('}', ""),
        sheet(none, "{}") + "{}",
        usage(&row("-1")),
        usage(&format!("{},{}", row("1"), row("1"))),
        usage(&row("1.5")),
        sheet(none, &open(&id, &hold.replace("1.00", "0.00"))),
        sheet(none, &open(&id, &hold.replace("1.00", "-1.00"))),
        sheet(none, &open(&id, &hold.replace("1.00", "99999999999999999999"))),
        sheet(none, &open(&"A".repeat(32), hold)),
        sheet(none, &open("+0000000000000000000000000000000", hold)),
        sheet(none, &open("1", hold)),
        sheet(none, &format!("{{{}}}", many.join(","))),
    ]
}

#[tokio::test]
async fn what_is_not_a_budget_is_refused_and_left_alone() {
    let (_folder, path) = in_folder();
    for text in hostile() {
        fs::write(&path, &text).unwrap();
        let shown = &text[..text.len().min(200)];
        let refused = Budget::file(&path);
        assert!(matches!(refused, Err(StateError::Malformed(_))), "{shown}: {refused:?}");
        assert!(fs::read_to_string(&path).unwrap() == text, "{shown}");
    }
}

#[tokio::test]
async fn a_budget_that_is_spoilt_or_removed_while_it_is_used_grants_nothing() {
    let (_folder, path) = in_folder();
    let budget = Budget::file(&path).unwrap();
    reserve(&budget, usd!("4"), usd!("5")).await.unwrap();
    let policy = policy(usd!("5"));
    let attempt = || budget.reserve(hold_id(), &policy, asked(usd!("1")), NOW);
    let good = fs::read(&path).unwrap();
    for text in hostile() {
        fs::write(&path, &text).unwrap();
        let refused = attempt().await;
        assert!(matches!(refused, Err(BudgetError::File(StateError::Malformed(_)))));
        assert!(fs::read_to_string(&path).unwrap() == text);
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(attempt().await, Err(BudgetError::File(StateError::Io { .. }))));
    assert!(!path.exists());
    fs::write(&path, &good).unwrap();
    assert!(attempt().await.unwrap().1.is_some());
    assert_eq!(held(&budget).await, usd!("5"));
}

#[cfg(unix)]
#[test]
fn a_folder_or_a_pipe_is_not_a_budget() {
    let (folder, path) = in_folder();
    assert!(matches!(Budget::file(folder.path()), Err(StateError::Malformed(_))));
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(matches!(Budget::file(&path), Err(StateError::Malformed(_))), "and nobody waits");
}

#[test]
fn ids_are_what_they_print() {
    let id = hold_id();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(id.to_string().len(), 32);
    for text in ["", "0", &"g".repeat(32), &"0".repeat(33), &"A".repeat(32), &format!("+{:031}", 1)]
    {
        assert!(text.parse::<HoldId>().is_err(), "{text}");
    }
}
