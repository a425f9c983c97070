//! Many processes and many connections on one ledger in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use farebox_ledger::book::{ClaimKey, Fingerprint, Limit};
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::{Command, Ledger, Outcome, Proof, Store as _};
use farebox_middleware::{Admission, Payments, usd};
use farebox_protocol::{Currency, Micros, PayerId, Payment};
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, sleep};

use crate::redis_load::{
    CREDENTIAL, PRICE, Told, checked, cluster_url, new_id, payer, reserve, settle,
};
use crate::redis_stores::ledger;
use crate::support::{
    Answer, Bank, Cluster, Crowd, Persistence, Provider, Redis, Setup, by_card, by_credential,
    card, get, whole_machine,
};

const SAFE: Setup = Setup { persistence: Persistence::EverySecond, password: None, tls: false };
const CROWD: usize = 500;
/// Connections, and the tasks on each.
const LEDGERS: usize = 16;
const TASKS: usize = 4;

async fn provider(bank: &Bank, url: &str) -> Provider {
    let payments = Payments::builder(bank.stripe()).ledger(url).secret(&[7; 32]);
    let payments = payments.admission(Admission::unlimited());
    Provider::of(payments.open().await.unwrap(), tempfile::tempdir().unwrap()).await
}

async fn until_served(http: reqwest::Client, url: String, payment: Payment) -> (Answer, usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for repeated in 0.. {
        let answer = get(&http, &url, &payment).await.unwrap();
        if answer.is_served() {
            return (answer, repeated);
        }
        assert!(matches!(answer.status, 429 | 503), "{answer:?}");
        assert!(Instant::now() < deadline, "still refused: {answer:?}");
        sleep(Duration::from_millis(200)).await;
    }
    unreachable!()
}

/// 500 first requests at two processes that need all of the credit of one top-up.
async fn crowd(name: &str, ledger: &str, methods: usize) {
    let bank = Bank::open().await;
    let both = [provider(&bank, ledger).await, provider(&bank, ledger).await];
    let mut shown = Vec::new();
    for _ in 0..methods {
        shown.push(bank.method(&card(1)).await);
    }
    let (shown, urls) = (Arc::new(shown), [both[0].at("/api/joke"), both[1].at("/api/joke")]);
    let started = Instant::now();
    let answers = Crowd::gather()
        .all(CROWD, |http, n| {
            until_served(http, urls[n % 2].clone(), by_card(&shown[n % shown.len()]))
        })
        .await;
    let spent: i64 = answers.iter().map(|(answer, _)| answer.charged()).sum();
    let repeats: usize = answers.iter().map(|(_, repeats)| repeats).sum();
    let credential = answers[0].0.credential();
    let remaining = both[1].balance(&credential).await;
    println!(
        "{name}: {CROWD} first requests at two processes, {methods} PaymentMethods of one card: {} \
         charge, charged {} = remaining {remaining} + spent {spent}, {repeats} repeats, {:?}",
        bank.charges().len(),
        bank.charged(),
        started.elapsed(),
    );
    assert_eq!(bank.charges().len(), 1);
    assert_eq!((bank.charged(), spent, remaining), (50_000, 50_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_at_two_processes_charge_once() {
    let _machine = whole_machine().await;
    let redis = Redis::start(SAFE).await;
    crowd("Redis", &redis.url("one"), 1).await;
    crowd("Redis", &redis.url("many"), CROWD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_at_two_processes_charge_once_on_a_cluster() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SAFE).await;
    crowd("Redis Cluster", &cluster_url(&cluster, "one"), 1).await;
    crowd("Redis Cluster", &cluster_url(&cluster, "many"), CROWD).await;
}

#[tokio::test]
async fn what_one_process_does_to_a_payer_holds_at_the_other_at_once() {
    let redis = Redis::start(SAFE).await;
    let bank = Bank::open().await;
    let url = redis.url("shop");
    let (one, two) = (provider(&bank, &url).await, provider(&bank, &url).await);
    let pay = by_card(&bank.method(&card(1)).await);
    let credential = by_credential(&one.joke(&pay).await.credential());
    assert!(two.joke(&credential).await.is_served());
    let (look, _) = Ledger::open_existing(&url).await.unwrap();
    let payer = look.payers().await.unwrap()[0];
    let reason = "operator".parse().unwrap();
    look.apply(&payer, &Command::Freeze { reason }).await.unwrap();
    let frozen = two.joke(&credential).await;
    assert!(!frozen.is_served() && !one.joke(&credential).await.is_served(), "{frozen:?}");
    let reason = "operator".parse().unwrap();
    look.apply(&payer, &Command::Unfreeze { reason }).await.unwrap();
    assert!(one.joke(&credential).await.is_served());
    one.payments.revoke(&payer).await.unwrap();
    let revoked = two.joke(&credential).await;
    assert!(!revoked.is_served(), "{revoked:?}");
    assert_eq!(bank.charges().len(), 1);
}

/// Ledgers of as many processes.
async fn ledgers(url: &str) -> Vec<Arc<Ledger>> {
    let mut ledgers = Vec::new();
    for _ in 0..LEDGERS {
        ledgers.push(Arc::new(ledger(url).await));
    }
    ledgers
}

/// Counts the calls of a script that name a payer, from now on.
async fn count_calls(redis: &Redis, script: &str, payer: String) -> Arc<AtomicUsize> {
    let hash = redis::Script::new(script).get_hash().to_owned();
    let mut stream = tokio::net::TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(b"MONITOR\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let is_write = line.contains(&hash) || line.contains("\"EVAL\"");
            if is_write && line.contains("EVAL") && line.contains(&payer) {
                counting.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    count
}

async fn busy_payer(name: &str, url: &str, server: &Redis) {
    let ledgers = ledgers(url).await;
    let payer = payer(1);
    farebox_ledger::store::fund(&*ledgers[0], &payer, usd!("1000")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let spenders: Vec<_> = (0..LEDGERS * TASKS)
        .map(|n| {
            let (ledger, stop) = (ledgers[n % LEDGERS].clone(), stop.clone());
            tokio::spawn(async move {
                let mut told = Told::default();
                while !stop.load(Ordering::Relaxed) {
                    told.request(&ledger, &payer).await;
                }
                told
            })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    let write = include_str!("../../../ledger/src/store/redis/write.lua");
    let writes = count_calls(server, write, payer.to_string()).await;
    let started = Instant::now();
    for _ in 0..10 {
        farebox_ledger::store::fund(&*ledgers[0], &payer, usd!("10")).await.unwrap();
    }
    let took = started.elapsed() / 20;
    sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let told = join_all(spenders).await.into_iter().map(Result::unwrap);
    let told = told.fold(Told::default(), Told::and);
    let writes = writes.load(Ordering::Relaxed);
    println!(
        "{name}, 64 tasks spend, 20 commands of card money: {writes} writes, {took:?} each; {told:?}"
    );
    assert!((20..=30).contains(&writes), "ten tries each would be 200, and {writes} is not it");
    let account = checked(&ledgers[0], &payer).await.head.account(Currency::USD);
    assert_eq!(account.spent.get(), told.charged * PRICE);
    assert_eq!(account.received.get(), 1_100_000_000);
    assert_eq!((told.errors, told.expired), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_that_spends_over_many_connections_is_credited_at_once() {
    let _machine = whole_machine().await;
    let redis = Redis::start(SAFE).await;
    busy_payer("Redis", &redis.url("shop"), &redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_that_spends_over_many_connections_is_credited_at_once_on_a_cluster() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SAFE).await;
    let slot: u16 =
        cluster.primary_of(0).await.command("CLUSTER KEYSLOT {shop.1}:r").await.unwrap();
    let server = cluster.primary_of(slot).await;
    busy_payer("Redis Cluster", &cluster_url(&cluster, "shop"), server).await;
}

/// Every task makes this many requests; every one must be answered, and no limit be passed.
const ROUNDS: u8 = 8;
/// How many requests the limit of the issued credential pays for.
const LIMITED: i64 = 300;

/// How requests are made so that they are in each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By PaymentMethods, each of which becomes the last one used.
    Methods,
    /// With keys.
    Claims,
    /// By an issued credential near its limit; every other one with a key, which is decided
    /// elsewhere.
    Limited,
}

impl Way {
    /// The commands of a task's request in a round.
    fn commands(self, task: u8, round: u8) -> (Command, Command) {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&[task, round]);
        let (key, fingerprint) = (ClaimKey::from_bytes(bytes), Fingerprint::from_bytes([1; 32]));
        let claimed = self == Way::Claims || (self == Way::Limited && task % 2 == 1);
        let by = match self {
            Way::Methods => Proof::Method(format!("pm_{}", task % 8).parse().unwrap()),
            Way::Claims => CREDENTIAL,
            Way::Limited => Proof::Credential { generation: 1, number: Some(1) },
        };
        let id = new_id();
        let (mut first, mut second) = (reserve(id, PRICE, by), settle(id, PRICE));
        if let (true, Command::Reserve { claim, .. }) = (claimed, &mut first) {
            *claim = Some(ClaimOf { key, fingerprint });
        }
        if let (true, Command::Settle { claim, .. }) = (claimed, &mut second) {
            *claim = Some(key);
        }
        (first, second)
    }

    /// A task's requests: how many were charged, and how long the slowest took.
    async fn requests(self, ledger: &Ledger, payer: PayerId, task: u8) -> (i64, Duration) {
        let (mut charged, mut longest) = (0, Duration::ZERO);
        for round in 0..ROUNDS {
            let (first, second) = self.commands(task, round);
            let asked = Instant::now();
            match ledger.apply(&payer, &first).await.unwrap().outcome {
                Outcome::Reserved { .. } => {}
                Outcome::LimitReached { .. } if self == Way::Limited => continue,
                other => panic!("{self:?}: {other:?}"),
            }
            let outcome = ledger.apply(&payer, &second).await.unwrap().outcome;
            assert!(matches!(outcome, Outcome::Settled { .. }), "{self:?}: {outcome:?}");
            (charged, longest) = (charged + 1, longest.max(asked.elapsed()));
        }
        (charged, longest)
    }
}

/// Credit, eight PaymentMethods, and a credential with a limit.
async fn equip(ledger: &Ledger, payer: &PayerId) {
    farebox_ledger::store::fund(ledger, payer, usd!("1000")).await.unwrap();
    for n in 0..8 {
        let method = format!("pm_{n}").parse().unwrap();
        ledger.apply(payer, &Command::LinkCard { method }).await.unwrap();
    }
    let (currency, amount) = (Currency::USD, Micros::new(LIMITED * PRICE).unwrap());
    let (label, limit) = ("agent".parse().unwrap(), Some(Limit { currency, amount }));
    ledger.apply(payer, &Command::IssueCredential { number: 1, label, limit }).await.unwrap();
}

async fn contended(name: &str, url: &str) {
    let ledgers = ledgers(url).await;
    let all = i64::try_from(LEDGERS * TASKS).unwrap() * i64::from(ROUNDS);
    for (n, way) in [(1, Way::Methods), (2, Way::Claims), (3, Way::Limited)] {
        let payer = payer(n);
        equip(&ledgers[0], &payer).await;
        let started = Instant::now();
        let tasks = (0..LEDGERS * TASKS).map(|task| {
            let ledger = ledgers[task % LEDGERS].clone();
            let task = u8::try_from(task).unwrap();
            tokio::spawn(async move { way.requests(&ledger, payer, task).await })
        });
        let told: Vec<(i64, Duration)> =
            join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let charged: i64 = told.iter().map(|(charged, _)| charged).sum();
        let longest = told.iter().map(|(_, longest)| *longest).max().unwrap();
        println!(
            "{name}, 64 tasks, {way:?}: {charged} of {all} requests charged, {:?}, the slowest \
             {longest:?}",
            started.elapsed()
        );
        let account = checked(&ledgers[0], &payer).await.head.account(Currency::USD);
        assert_eq!((account.spent.get(), account.reserved.get()), (charged * PRICE, 0));
        assert_eq!(charged, if way == Way::Limited { LIMITED } else { all });
    }
}

/// Each decides on a head that the others change: none of the changes may be written over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_changes_of_one_book_at_one_time_are_all_kept() {
    let _machine = whole_machine().await;
    let redis = Redis::start(SAFE).await;
    let ledgers = ledgers(&redis.url("shop")).await;
    let started = Instant::now();
    let freezes = (0..LEDGERS * TASKS).map(|n| {
        let ledger = ledgers[n % LEDGERS].clone();
        tokio::spawn(async move {
            let reason = format!("dp_{n}").parse().unwrap();
            ledger.apply(&payer(1), &Command::Freeze { reason }).await.unwrap().seq
        })
    });
    let mut places: Vec<u64> = join_all(freezes).await.into_iter().map(Result::unwrap).collect();
    places.sort_unstable();
    let kept = ledgers[0].load(&payer(1)).await.unwrap().frozen.len();
    println!("64 changes of one head over 16 connections: {kept} kept, {:?}", started.elapsed());
    assert_eq!((kept, places), (64, (1..=64).collect()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_with_methods_claims_and_limits_are_all_answered() {
    let _machine = whole_machine().await;
    let redis = Redis::start(SAFE).await;
    contended("Redis", &redis.url("shop")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_with_methods_claims_and_limits_are_all_answered_on_a_cluster() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SAFE).await;
    contended("Redis Cluster", &cluster_url(&cluster, "shop")).await;
}
