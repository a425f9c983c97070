//! Whoever steals cards learns little here about which of them are alive, and keeps nobody who
//! pays from Stripe.

mod attack;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farebox_middleware::{Admission, Builder, ClientIp, ManualClock, Payments, Timestamp, usd};
use farebox_protocol::ErrorCode::{
    AuthenticationRequired, CardDeclined, InvalidPayment, LedgerUnavailable, RateLimited,
};
use farebox_protocol::{ErrorCode, Payment};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::redis_load::cluster_url;
use crate::support::{
    Answer, Bank, Cluster, Fault, Gate, Persistence, Provider, Redis, Setup, by_card,
    by_credential, card, dead_card, eventually, whole_machine,
};

/// A provider behind one proxy.
async fn provider(
    bank: &Bank,
    ledger: &str,
    admission: Admission,
    set: impl FnOnce(Builder) -> Builder,
) -> Provider {
    let builder = Payments::builder(bank.stripe()).ledger(ledger).secret(&[7; 32]);
    let builder = builder.admission(admission).client_ip(ClientIp::Forwarded { hops: 1 });
    Provider::of(set(builder).open().await.unwrap(), tempfile::tempdir().unwrap()).await
}

impl Provider {
    /// GET, as it arrives from a client through the proxy.
    async fn from(&self, address: &str, path: &str, payment: &Payment) -> Answer {
        let request = self.http.get(self.at(path)).header("x-forwarded-for", address);
        let response = request.header("payment", payment.encode()).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    async fn joke_from(&self, address: &str, payment: &Payment) -> Answer {
        self.from(address, "/api/joke", payment).await
    }

    /// What a client that shows a card is told; `None`: it is served.
    async fn code(&self, bank: &Bank, address: &str, number: String) -> Option<ErrorCode> {
        let payment = by_card(&bank.method(&number).await);
        self.joke_from(address, &payment).await.code()
    }
}

/// Everything that a client sees of an answer. How long it is to wait says when there is room.
fn seen(answer: &Answer) -> String {
    let headers =
        answer.headers.iter().filter(|(name, _)| !["date", "retry-after"].contains(&name.as_str()));
    let headers: BTreeSet<String> =
        headers.map(|(name, value)| format!("{name}: {value:?}")).collect();
    format!("{} {headers:?} {}", answer.status, answer.body)
}

fn of_one_client(n: usize) -> String {
    format!("198.51.{}.{}", n / 250, n % 250 + 1)
}

/// What Stripe's page "Testing" has of cards that are declined: without reason, without money,
/// lost, stolen, used too often, expired, with a wrong code, in error, blocked, and when charged.
const DECLINED: [&str; 10] = [
    "4000000000000002",
    "4000000000009995",
    "4000000000009987",
    "4000000000009979",
    "4000000000006975",
    "4000000000000069",
    "4000000000000127",
    "4000000000000119",
    "4100000000000019",
    "4000000000000341",
];
const AUTHENTICATED: [&str; 3] = ["4000002760003184", "4000002500003155", "4000000000003220"];

#[tokio::test]
async fn every_card_that_is_declined_is_refused_in_the_same_words() {
    let bank = Bank::open().await;
    let provider = provider(&bank, "memory:", Admission::unlimited(), |set| set).await;
    let (mut declined, mut unauthenticated) = (BTreeSet::new(), BTreeSet::new());
    let mut asked = 0;
    for round in 0..3 {
        for number in DECLINED.into_iter().chain(AUTHENTICATED) {
            for with_code in [true, false] {
                let method = match with_code {
                    true => bank.method(number).await,
                    false => bank.method_without_code(number).await,
                };
                let answer = provider.joke_from("198.51.100.1", &by_card(&method)).await;
                let (answers, code) = match DECLINED.contains(&number) {
                    true => (&mut declined, CardDeclined),
                    false => (&mut unauthenticated, AuthenticationRequired),
                };
                assert_eq!(
                    (answer.status, answer.code()),
                    (402, Some(code)),
                    "{number}: {answer:?}"
                );
                answers.insert(seen(&answer));
                asked += 1;
            }
        }
        // From now on others have credit.
        let payment = by_card(&bank.method(&card(round)).await);
        assert!(provider.joke_from("198.51.100.2", &payment).await.is_served());
    }
    println!("{asked} refusals of {} cards: {} answers to declines", 13, declined.len());
    assert_eq!(
        (declined.len(), unauthenticated.len()),
        (1, 1),
        "{declined:#?} {unauthenticated:#?}"
    );
}

#[tokio::test]
async fn a_client_that_tries_too_often_waits_whatever_it_claims_to_be_and_credit_is_still_spent() {
    let bank = Bank::open().await;
    let limits = Admission { client_per_minute: 1, client_burst: 6, ..Admission::default() };
    let provider = provider(&bank, "memory:", limits, |set| set).await;
    let first = provider.joke_from("10.1.1.1", &by_card(&bank.method(&card(1)).await)).await;
    let credential = by_credential(&first.credential());
    for n in 0..2 {
        let payment = by_card(&bank.method(&card(10 + n)).await);
        assert!(provider.joke_from(&format!("1.2.3.{n}, 10.1.1.1"), &payment).await.is_served());
    }
    let calls = (bank.look_ups(), bank.charge_calls());
    for n in 0..20 {
        let payment = by_card(&bank.method(&card(20 + n)).await);
        let waits = provider.joke_from(&format!("9.9.9.{n}, 10.1.1.1"), &payment).await;
        assert_eq!((waits.status, waits.code()), (429, Some(RateLimited)), "{waits:?}");
        let seconds: u64 = waits.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=61).contains(&seconds), "{seconds}");
        assert!(provider.joke_from("10.1.1.1", &credential).await.is_served());
    }
    assert_eq!((bank.look_ups(), bank.charge_calls()), calls);
    // Another address has room of its own.
    assert!(
        provider.joke_from("10.1.1.2", &by_card(&bank.method(&card(50)).await)).await.is_served()
    );
}

#[tokio::test]
async fn a_paying_client_cannot_test_other_cards_beside_its_credential() {
    let bank = Bank::open().await;
    let provider = provider(&bank, "memory:", Admission::default(), |set| set).await;
    let first = provider.joke_from("10.1.1.1", &by_card(&bank.method(&card(1)).await)).await;
    let credential = first.credential();
    let charges = bank.charge_calls();
    for n in 0..8 {
        let method = bank.method(&dead_card(n)).await;
        let payment = Payment { client_id: credential.parse().ok(), ..by_card(&method) };
        // More than its credit.
        let answer = provider.from("10.1.1.1", "/api/big", &payment).await;
        let code = if n < 5 { CardDeclined } else { RateLimited };
        assert_eq!(answer.code(), Some(code), "{n}: {answer:?}");
    }
    assert_eq!(bank.charge_calls() - charges, 5);
}

#[tokio::test]
async fn a_new_card_is_charged_so_much_in_a_day_and_an_old_one_more() {
    const DAY: i64 = 24 * 3_600 * 1_000;
    let bank = Bank::open().await;
    let clock = ManualClock::default();
    let day = |n: i64| clock.set(Timestamp::from_millis(1_790_000_000_000 + n * DAY));
    day(0);
    let provider = provider(&bank, "memory:", Admission::default(), |set| {
        set.new_card_per_day(usd!("10")).clock(Arc::new(clock.clone()))
    });
    let provider = provider.await;
    let payment = by_card(&bank.method(&card(1)).await);
    let report = async || provider.from("10.1.1.1", "/api/big", &payment).await;
    for (on, served) in [(0, 2), (3, 2), (8, 4)] {
        day(on);
        for n in 0..served {
            assert!(report().await.is_served(), "day {on}, charge {n}");
        }
        if on < 7 {
            let answer = report().await;
            assert_eq!((answer.status, answer.code()), (429, Some(RateLimited)), "{answer:?}");
        }
    }
    // What a card did not pay does not count.
    for _ in 0..4 {
        let dead = by_card(&bank.method(&dead_card(1)).await);
        let answer = provider.from("10.1.1.2", "/api/big", &dead).await;
        assert_eq!(answer.code(), Some(CardDeclined));
    }
    assert_eq!(bank.charged(), 8 * 50_000);
}

/// Counts at both of two processes.
async fn shared(name: &str, ledger: &str) {
    let bank = Bank::open().await;
    let limits = Admission { breaker_charges_min: 12, ..Admission::default() };
    let same = |set| set;
    let both = [
        provider(&bank, ledger, limits.clone(), same).await,
        provider(&bank, ledger, limits, same).await,
    ];
    let known = both[0].joke_from("10.1.1.1", &by_card(&bank.method(&card(1)).await)).await;
    let method = bank.method(&card(1)).await;
    let known = Payment { client_id: known.credential().parse().ok(), ..by_card(&method) };

    let dead = async || by_card(&bank.method(&dead_card(1)).await);
    for n in 0..5 {
        let answer = both[n % 2].joke_from(&of_one_client(n), &dead().await).await;
        assert_eq!(answer.code(), Some(CardDeclined), "{name} {n}: {answer:?}");
    }
    for (n, process) in both.iter().enumerate() {
        let answer = process.joke_from(&of_one_client(10 + n), &dead().await).await;
        assert_eq!(answer.code(), Some(RateLimited), "{name}, a card that was tried: {answer:?}");
    }
    let charges = bank.charge_calls();
    assert_eq!(charges, 6);

    // One has the declines, and strangers wait at the other as well.
    for n in 0..6 {
        let payment = by_card(&bank.method(&dead_card(10 + u32::try_from(n).unwrap())).await);
        let answer = both[0].joke_from(&of_one_client(20 + n), &payment).await;
        assert_eq!(answer.code(), Some(CardDeclined), "{name} {n}: {answer:?}");
    }
    let mut answers = BTreeMap::new();
    for n in 0..10 {
        let number = if n % 2 == 0 { dead_card(30 + n) } else { card(30 + n) };
        let payment = by_card(&bank.method(&number).await);
        let answer = both[1].joke_from(&of_one_client(30), &payment).await;
        if answer.status == 429 {
            answers.entry(seen(&answer)).or_insert_with(BTreeSet::new).insert(n % 2);
        }
        // And whoever is known pays.
        let report = both[1].from("10.1.1.1", "/api/big", &known).await;
        assert!(report.is_served(), "{name}: {report:?}");
    }
    let tried = bank.charge_calls() - charges - 6 - 10;
    assert_eq!(tried, 1, "{name}: a client is tried once while the breaker is open");
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [BTreeSet::from([0, 1])]);
    let newcomer = by_card(&bank.method(&card(50)).await);
    assert!(both[1].joke_from(&of_one_client(40), &newcomer).await.is_served(), "{name}");
}

#[tokio::test]
async fn two_processes_count_together_in_redis() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    shared("Redis", &redis.url("shop")).await;
}

#[tokio::test]
async fn two_processes_count_together_in_a_cluster() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(Setup::persistent(Persistence::EverySecond)).await;
    shared("Redis Cluster", &cluster_url(&cluster, "shop")).await;
}

#[tokio::test]
async fn without_counters_strangers_wait_and_known_payers_go_on() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let bank = Bank::open().await;
    let provider = provider(&bank, &redis.url("shop"), Admission::default(), |set| set).await;
    let method = bank.method(&card(1)).await;
    let first = provider.joke_from("10.1.1.1", &by_card(&method)).await;
    // Every counter that there is becomes one that cannot be read.
    let counters: Vec<String> = redis.command("KEYS *:n:*").await.unwrap();
    assert!(counters.len() >= 3, "{counters:?}");
    for key in &counters {
        let ttl: i64 = redis.command(&format!("TTL {key}")).await.unwrap();
        assert!(ttl > 0, "{key} stays for ever");
        let () = redis.command(&format!("SET {key} nonsense")).await.unwrap();
    }
    let charges = bank.charge_calls();
    let stranger = by_card(&bank.method(&card(2)).await);
    let answer = provider.joke_from("10.1.1.2", &stranger).await;
    assert_eq!((answer.status, answer.code()), (503, Some(LedgerUnavailable)), "{answer:?}");
    assert_eq!(bank.charge_calls(), charges);
    let known = Payment { client_id: first.credential().parse().ok(), ..by_card(&method) };
    assert!(provider.from("10.1.1.1", "/api/big", &known).await.is_served());
    assert!(provider.joke_from("10.1.1.1", &by_credential(&first.credential())).await.is_served());
}

/// A provider whose breaker the dead cards of so many clients have opened.
async fn under_attack(bank: &Bank, limits: Admission, clients: usize) -> Provider {
    let limits = Admission { breaker_charges_min: u32::try_from(clients).unwrap(), ..limits };
    let provider = provider(bank, "memory:", limits, |set| set).await;
    for n in 0..clients {
        let code = provider.code(bank, &of_one_client(n), dead_card(number_of(n))).await;
        assert_eq!(code, Some(CardDeclined), "{n}");
    }
    provider
}

fn number_of(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

#[tokio::test]
async fn while_cards_are_tested_whoever_was_declined_waits_and_newcomers_are_served() {
    let (bank, clock) = (Bank::open().await, ManualClock::default());
    let minute = |n: i64| clock.set(Timestamp::from_millis(1_790_000_000_000 + n * 60_000));
    minute(0);
    let limits = Admission { breaker_newcomers_burst: 6, ..Admission::default() };
    let provider = provider(&bank, "memory:", limits, |set| set.clock(Arc::new(clock.clone())));
    let provider = provider.await;
    let code =
        async |client: usize, number| provider.code(&bank, &of_one_client(client), number).await;
    for n in 0..20 {
        assert_eq!(code(n, dead_card(number_of(n))).await, Some(CardDeclined), "{n}");
    }
    let calls = (bank.look_ups(), bank.charge_calls());
    for n in 0..20 {
        for number in [card(1), dead_card(30)] {
            assert_eq!(code(n, number).await, Some(RateLimited), "{n}");
        }
    }
    assert_eq!((bank.look_ups(), bank.charge_calls()), calls, "Stripe is not asked for suspects");
    // So many newcomers are tried, and then they wait as well.
    for n in 100..106 {
        assert_eq!(code(n, card(number_of(n))).await, None, "{n}");
    }
    assert_eq!(code(106, card(106)).await, Some(RateLimited));
    minute(12);
    for n in 0..20 {
        assert_eq!(code(n, card(200 + number_of(n))).await, None, "{n}");
    }
}

#[tokio::test]
async fn whoever_tries_many_cards_at_once_has_one_try() {
    let bank = Bank::open().await;
    let provider = under_attack(&bank, Admission::default(), 5).await;
    let charges = bank.charge_calls();
    let tries = (100..120).map(|n| provider.code(&bank, "10.1.1.1", dead_card(n)));
    let codes = join_all(tries).await;
    let count = |code| codes.iter().filter(|other| **other == Some(code)).count();
    assert_eq!((count(CardDeclined), count(RateLimited)), (1, 19));
    assert_eq!(bank.charge_calls() - charges, 1);
    // A card that pays leaves nothing behind.
    for n in 100..103 {
        assert_eq!(provider.code(&bank, "10.1.1.2", card(n)).await, None);
    }
}

#[tokio::test]
async fn a_client_that_is_declined_too_often_waits_and_one_decline_is_forgotten_in_time() {
    let bank = Bank::open().await;
    let provider = provider(&bank, "memory:", Admission::default(), |set| set).await;
    for n in 0..5 {
        assert_eq!(provider.code(&bank, "10.1.1.1", dead_card(n)).await, Some(CardDeclined));
    }
    for number in [dead_card(5), card(5)] {
        assert_eq!(provider.code(&bank, "10.1.1.1", number).await, Some(RateLimited));
    }
    assert_eq!(provider.code(&bank, "10.1.1.2", card(6)).await, None, "others do not");

    // Twelve in a minute.
    let bank = Bank::open().await;
    let limits = Admission { client_declines_per_hour: 720, ..Admission::default() };
    let provider = under_attack(&bank, limits, 5).await;
    let last = of_one_client(4);
    assert_eq!(provider.code(&bank, &last, dead_card(11)).await, Some(RateLimited));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(provider.code(&bank, &last, dead_card(11)).await, Some(CardDeclined));
    assert_eq!(provider.code(&bank, &last, dead_card(11)).await, Some(RateLimited));
}

#[tokio::test]
async fn ids_that_stripe_does_not_know_count_like_declined_cards() {
    let bank = Bank::open().await;
    let invented = |n: u32| by_card(&format!("pm_invented{n}"));
    let calm = provider(&bank, "memory:", Admission::default(), |set| set).await;
    for n in 0..10 {
        let answer = calm.joke_from("10.1.1.1", &invented(n)).await;
        let code = if n < 5 { InvalidPayment } else { RateLimited };
        assert_eq!(answer.code(), Some(code), "{n}");
    }
    let busy = under_attack(&bank, Admission::default(), 5).await;
    let look_ups = bank.look_ups();
    for n in 0..10 {
        let answer = busy.joke_from("10.1.1.1", &invented(n)).await;
        let code = if n == 0 { InvalidPayment } else { RateLimited };
        assert_eq!(answer.code(), Some(code), "{n}");
    }
    assert_eq!(bank.look_ups() - look_ups, 1);
}

#[tokio::test]
async fn who_is_looked_up_and_not_charged_had_its_try_and_a_known_card_is_not_tried() {
    let bank = Bank::open().await;
    let provider = under_attack(&bank, Admission::default(), 5).await;
    let first = by_card(&bank.method(&card(1)).await);
    let served = provider.joke_from("10.1.1.1", &first).await;
    for _ in 0..3 {
        assert!(provider.joke_from("10.1.1.1", &first).await.is_served());
    }
    let top_up_id = served.receipt().top_up_id;
    assert!(top_up_id.is_some());
    let other = Payment { top_up_id, ..by_card(&bank.method(&card(2)).await) };
    for code in [InvalidPayment, RateLimited] {
        assert_eq!(provider.joke_from("10.1.1.2", &other).await.code(), Some(code));
    }
    // Nor is a card that was tried too often a way to have more look-ups.
    for n in 20..25 {
        let code = provider.code(&bank, &of_one_client(n), dead_card(9)).await;
        assert_eq!(code, Some(CardDeclined));
    }
    let look_ups = bank.look_ups();
    for _ in 0..3 {
        let code = provider.code(&bank, "10.1.1.3", dead_card(9)).await;
        assert_eq!(code, Some(RateLimited));
    }
    assert_eq!(bank.look_ups() - look_ups, 1);
}

#[tokio::test]
async fn a_decline_is_remembered_of_a_client_that_hung_up() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let builder = Payments::builder(bank.stripe_at(&gate.url)).ledger("memory:").secret(&[7; 32]);
    let builder = builder.client_ip(ClientIp::Forwarded { hops: 1 });
    let limits = Admission { breaker_charges_min: 4, ..Admission::default() };
    let payments = builder.admission(limits).open().await.unwrap();
    let provider = Arc::new(Provider::of(payments, tempfile::tempdir().unwrap()).await);
    for n in 0..4 {
        provider.code(&bank, &of_one_client(n), dead_card(number_of(n))).await;
    }
    gate.set(Fault::HoldAnswer);
    let payment = by_card(&bank.method(&dead_card(9)).await);
    let (hangs_up, sent) = (provider.clone(), gate.charge_keys().len());
    let request = tokio::spawn(async move { hangs_up.joke_from("10.1.1.1", &payment).await });
    let under_way = async || gate.charge_keys().len();
    eventually(Duration::from_secs(5), under_way, |count| *count == sent + 1).await;
    request.abort();
    gate.set(Fault::None);
    let calls = (bank.look_ups(), bank.charge_calls());
    for _ in 0..10 {
        assert_eq!(provider.code(&bank, "10.1.1.1", card(2)).await, Some(RateLimited));
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((bank.look_ups(), bank.charge_calls()), calls);
    assert_eq!(provider.code(&bank, "10.1.1.2", card(2)).await, None);
}

#[tokio::test]
async fn five_thousand_addresses_are_held_to_what_newcomers_have_together() {
    let _machine = whole_machine().await;
    let bank = Bank::open().await;
    let limits = Admission {
        breaker_newcomers_burst: 20,
        stripe_per_second: 1_000,
        clients_max: 2_000,
        ..Admission::default()
    };
    let provider = under_attack(&bank, limits.clone(), 10).await;
    let mut dead = Vec::new();
    for n in 100..300 {
        dead.push(by_card(&bank.method(&dead_card(n)).await));
    }
    let (look_ups, charges) = (bank.look_ups(), bank.charge_calls());
    let started = Instant::now();
    let mut codes = BTreeMap::new();
    for first in (0..5_000).step_by(20) {
        let tries = (first..first + 20).map(async |n| {
            let address = format!("100.64.{}.{}", n / 250, n % 250);
            provider.joke_from(&address, &dead[n % dead.len()]).await.status
        });
        for status in join_all(tries).await {
            *codes.entry(status).or_insert(0) += 1;
        }
    }
    let elapsed = started.elapsed();
    let (look_ups, charges) = (bank.look_ups() - look_ups, bank.charge_calls() - charges);
    println!("5,000 addresses in {elapsed:?}: {codes:?}, {look_ups} look-ups, {charges} charges");
    let most = usize::try_from(limits.breaker_newcomers_burst).unwrap()
        + newcomers_within(&limits, elapsed);
    assert!((20..=most).contains(&look_ups) && charges <= look_ups, "{most} are allowed");
}

/// How many newcomers are tried in so long a time in the long run.
fn newcomers_within(limits: &Admission, elapsed: Duration) -> usize {
    let in_millis = u128::from(limits.breaker_newcomers_per_minute) * elapsed.as_millis();
    usize::try_from(in_millis / 60_000).unwrap() + 1
}

#[tokio::test]
async fn while_stripe_is_silent_strangers_wait_and_known_payers_are_driven() {
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let limits = Admission { charges_open_max: 3, ..Admission::default() };
    let builder = Payments::builder(bank.stripe_at(&gate.url)).ledger("memory:").secret(&[7; 32]);
    let payments = builder.admission(limits).open().await.unwrap();
    let provider = Arc::new(Provider::of(payments, tempfile::tempdir().unwrap()).await);
    let method = bank.method(&card(1)).await;
    let first = provider.joke(&by_card(&method)).await;
    let known = Payment { client_id: first.credential().parse().ok(), ..by_card(&method) };
    gate.set(Fault::HoldAnswer);
    let mut held = Vec::new();
    for n in 2..5 {
        let (provider, payment) = (provider.clone(), by_card(&bank.method(&card(n)).await));
        held.push(tokio::spawn(async move { provider.joke(&payment).await }));
    }
    let under_way = async || gate.charge_keys().len();
    eventually(Duration::from_secs(5), under_way, |count| *count == 4).await;
    let stranger = provider.joke(&by_card(&bank.method(&card(9)).await)).await;
    assert_eq!((stranger.status, stranger.code()), (429, Some(RateLimited)), "{stranger:?}");
    let report = provider.clone();
    held.push(tokio::spawn(async move { report.get("/api/big", &known).await }));
    eventually(Duration::from_secs(5), under_way, |count| *count == 5).await;
    gate.set(Fault::None);
    for answer in join_all(held).await {
        assert!(answer.as_ref().unwrap().is_served(), "{answer:?}");
    }
    assert!(provider.joke(&by_card(&bank.method(&card(9)).await)).await.is_served());
}
