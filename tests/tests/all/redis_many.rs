//! Many processes and many connections on one ledger in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use farebox_ledger::book::{ClaimKey, Fingerprint, Limit};
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::{Command, Ledger, Outcome, Proof, Store as _};
use farebox_middleware::{Payments, usd};
use farebox_protocol::{Currency, Micros, Payment};
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
    farebox_ledger::store::fund(&*ledgers[0], &payer, usd!("1000").into()).await.unwrap();
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
        farebox_ledger::store::fund(&*ledgers[0], &payer, usd!("10").into()).await.unwrap();
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
const ROUNDS: usize = 8;

async fn contended(name: &str, url: &str) {
    let ledgers = ledgers(url).await;
    let currency = Currency::USD;
    let limit = 300 * PRICE;
    let ways: [(&str, i64); 3] = [("methods", 1_000), ("claims", 1_000), ("limited", 300)];
    for (n, (way, most)) in ways.into_iter().enumerate() {
        let payer = payer(n as u8 + 1);
        let ledger = &ledgers[0];
        farebox_ledger::store::fund(&**ledger, &payer, usd!("1000").into()).await.unwrap();
        for n in 0..8 {
            let method = format!("pm_{n}").parse().unwrap();
            ledger.apply(&payer, &Command::LinkCard { method }).await.unwrap();
        }
        let limit = Some(Limit { currency, amount: Micros::new(limit).unwrap() });
        let label = "agent".parse().unwrap();
        let issue = Command::IssueCredential { number: 1, label, limit };
        ledger.apply(&payer, &issue).await.unwrap();
        let started = Instant::now();
        let tasks = (0..LEDGERS * TASKS).map(|task| {
            let ledger = ledgers[task % LEDGERS].clone();
            tokio::spawn(async move {
                let (mut charged, mut longest) = (0, Duration::ZERO);
                for round in 0..ROUNDS {
                    let id = new_id();
                    let (mut first, mut second) =
                        (reserve(id, PRICE, CREDENTIAL), settle(id, PRICE));
                    if let Command::Reserve { proof, claim, .. } = &mut first {
                        let mut key = [0; 32];
                        key[0] = task as u8;
                        key[1] = round as u8;
                        let (key, print) =
                            (ClaimKey::from_bytes(key), Fingerprint::from_bytes([1; 32]));
                        match way {
                            "methods" => {
                                *proof = Proof::Method(format!("pm_{}", task % 8).parse().unwrap())
                            }
                            "claims" => *claim = Some(ClaimOf { key, fingerprint: print }),
                            _ if task % 2 == 0 => {
                                *proof = Proof::Credential { generation: 1, number: Some(1) }
                            }
                            _ => {
                                // The slow way, against the same limit.
                                *proof = Proof::Credential { generation: 1, number: Some(1) };
                                *claim = Some(ClaimOf { key, fingerprint: print });
                            }
                        }
                        if let (Some(of), Command::Settle { claim, .. }) = (claim, &mut second) {
                            *claim = Some(of.key);
                        }
                    }
                    let asked = Instant::now();
                    match ledger.apply(&payer, &first).await.unwrap().outcome {
                        Outcome::Reserved { .. } => {}
                        Outcome::LimitReached { .. } if way == "limited" => continue,
                        other => panic!("{way}: {other:?}"),
                    }
                    let outcome = ledger.apply(&payer, &second).await.unwrap().outcome;
                    assert!(matches!(outcome, Outcome::Settled { .. }), "{way}: {outcome:?}");
                    charged += 1;
                    longest = longest.max(asked.elapsed());
                }
                (charged, longest)
            })
        });
        let told: Vec<(i64, Duration)> =
            join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let charged: i64 = told.iter().map(|(charged, _)| charged).sum();
        let longest = told.iter().map(|(_, longest)| *longest).max().unwrap();
        let book = checked(ledger, &payer).await;
        let account = book.head.account(currency);
        println!(
            "{name}, 64 tasks, {way}: {charged} of {} requests charged, {:?}, the slowest {longest:?}",
            LEDGERS * TASKS * ROUNDS,
            started.elapsed()
        );
        assert_eq!((account.spent.get(), account.reserved.get()), (charged * PRICE, 0));
        match way {
            "limited" => assert_eq!(charged, most),
            _ => assert_eq!(charged, (LEDGERS * TASKS * ROUNDS) as i64),
        }
    }
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
