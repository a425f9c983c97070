//! Card money waits for a replica; spending does not.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::{Ledger, Outcome, Store as _};
use farebox_middleware::{Admission, Payments, usd};
use farebox_protocol::Payment;
use tokio::time::{Instant, sleep};

use crate::redis_load::{CREDENTIAL, PRICE, checked, new_id, payer, reserve, settle};
use crate::redis_stores::ledger;
use crate::support::{
    Bank, Persistence, Provider, Redis, Setup, by_card, by_credential, card, eventually,
    whole_machine,
};

async fn provider(bank: &Bank, url: &str) -> Arc<Provider> {
    let payments = Payments::builder(bank.stripe()).ledger(url).secret(&[7; 32]);
    let payments = payments.admission(Admission::unlimited());
    Arc::new(Provider::of(payments.open().await.unwrap(), tempfile::tempdir().unwrap()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_is_not_called_for_a_top_up_that_no_replica_has() {
    let _machine = whole_machine().await;
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let replica = redis.with_replica().await;
    let bank = Bank::open().await;
    let provider = provider(&bank, &redis.url("shop")).await;
    let pay = by_card(&bank.method(&card(1)).await);
    let first = provider.joke(&pay).await;
    assert!(first.is_served(), "{first:?}");
    let client_id = by_credential(&first.credential()).client_id;
    let more = Payment { client_id, ..pay }; // a report costs more than what is left

    replica.pause().await;
    let spending = {
        let (provider, credential) = (provider.clone(), first.credential());
        tokio::spawn(async move {
            let (mut served, mut longest) = (0, Duration::ZERO);
            let until = Instant::now() + Duration::from_millis(1_500);
            while Instant::now() < until {
                let asked = Instant::now();
                let answer = provider.joke(&by_credential(&credential)).await;
                assert!(answer.is_served(), "{answer:?}");
                (served, longest) = (served + 1, longest.max(asked.elapsed()));
                sleep(Duration::from_millis(5)).await;
            }
            (served, longest)
        })
    };
    let asked = Instant::now();
    let refused = provider.get("/api/big", &more).await;
    let took = asked.elapsed();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(bank.charge_calls(), 1, "only the first payment's");
    // A new card, whose owner has no book yet.
    let other = by_card(&bank.method(&card(2)).await);
    assert_eq!((provider.joke(&other).await.status, bank.charge_calls()), (503, 1));
    let (served, longest) = spending.await.unwrap();
    replica.resume().await;
    let again = eventually(
        Duration::from_secs(20),
        async || provider.get("/api/big", &more).await,
        |answer| {
            assert!(matches!(answer.status, 200 | 429 | 503), "{answer:?}");
            answer.is_served()
        },
    );
    let again = again.await;
    println!(
        "no replica: 503 after {took:?}, 0 calls to Stripe, {served} requests served meanwhile, \
         {longest:?} at most; then {} charges, {} left",
        bank.charges().len(),
        again.remaining()
    );
    assert_eq!(bank.charges().len(), 2);
    assert_eq!(again.remaining(), 100_000 - 50_000 - (served + 1) * 100);
    assert!(served > 50 && longest < Duration::from_millis(900), "spending waits for nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_is_booked_again_until_a_replica_has_it() {
    let _machine = whole_machine().await;
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let replica = redis.with_replica().await;
    let bank = Bank::slow(Duration::from_secs(1)).await;
    let provider = provider(&bank, &redis.url("shop")).await;
    let pay = by_card(&bank.method(&card(1)).await);
    let request = {
        let (provider, pay) = (provider.clone(), pay.clone());
        tokio::spawn(async move { provider.joke(&pay).await })
    };
    eventually(Duration::from_secs(20), async || bank.charges().len(), |n| *n == 1).await;
    replica.pause().await;
    sleep(Duration::from_secs(4)).await;
    let early = provider.joke(&pay).await;
    replica.resume().await;
    let resumed = Instant::now();
    let served =
        eventually(Duration::from_secs(20), async || provider.joke(&pay).await, |a| a.is_served());
    let left = served.await.remaining();
    let first = request.await.unwrap();
    println!(
        "a credit without a replica: {} meanwhile, served {:?} after there is one, first answer {}, \
         {} charge",
        early.status,
        resumed.elapsed(),
        first.status,
        bank.charges().len()
    );
    let requests = i64::from(first.is_served()) + i64::from(early.is_served()) + 1;
    assert_eq!((bank.charges().len(), left), (1, 50_000 - requests * 100));
}

/// While nobody copies, those who wait for it do not wait in a queue without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_top_ups_without_a_replica_are_all_refused_soon() {
    let _machine = whole_machine().await;
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let replica = redis.with_replica().await;
    let ledger = Arc::new(ledger(&redis.url("shop")).await);
    farebox_ledger::store::fund(&*ledger, &payer(0), usd!("5")).await.unwrap();
    replica.pause().await;
    let asked = Instant::now();
    let tasks: Vec<_> = (1..=100)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let answer = farebox_ledger::store::fund(&*ledger, &payer(n), usd!("5")).await;
                (answer.is_err(), asked.elapsed())
            })
        })
        .collect();
    let id = new_id();
    let reserved = ledger.apply(&payer(0), &reserve(id, PRICE, CREDENTIAL)).await.unwrap();
    assert!(matches!(reserved.outcome, Outcome::Reserved { .. }));
    ledger.apply(&payer(0), &settle(id, PRICE)).await.unwrap();
    let spent = asked.elapsed();
    let mut longest = Duration::ZERO;
    for task in tasks {
        let (refused, took) = task.await.unwrap();
        assert!(refused);
        longest = longest.max(took);
    }
    println!("100 top-ups without a replica: refused within {longest:?}; spending took {spent:?}");
    assert!(longest < Duration::from_secs(20) && spent < Duration::from_millis(500));
    replica.resume().await;
    let look: &Ledger = &ledger;
    for n in 0..=100 {
        checked(look, &payer(n)).await;
    }
}
