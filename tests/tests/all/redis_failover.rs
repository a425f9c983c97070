//! Clusters and sentinels: servers change places, and no card's money is lost or taken twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farebox_ledger::{Command, Ledger, Store as _};
use farebox_middleware::{Admission, Payments, Stripe, usd};
use farebox_protocol::{Currency, PayerId};
use tokio::time::{Instant, sleep};

use crate::redis_load::{
    CREDENTIAL, PRICE, Spenders, checked, cluster_url, new_id, payer, reserve,
};
use crate::redis_stores::ledger;
use crate::support::{
    Bank, Cluster, Fault, Gate, Persistence, Provider, Redis, Sentinel, Setup, by_card, card,
    eventually, whole_machine,
};

const SETUP: Setup = Setup { persistence: Persistence::EverySecond, password: None, tls: false };

async fn slot_of(cluster: &Cluster, ledger: &str, payer: &PayerId) -> u16 {
    let question = format!("CLUSTER KEYSLOT {{{ledger}.{}}}:r", payer.as_bytes()[0]);
    cluster.primary_of(0).await.command(&question).await.unwrap()
}

async fn provider(stripe: Stripe, url: &str) -> Provider {
    let payments = Payments::builder(stripe).ledger(url).secret(&[7; 32]);
    let payments = payments.admission(Admission::unlimited());
    Provider::of(payments.open().await.unwrap(), tempfile::tempdir().unwrap()).await
}

/// Funds payers one after the other, while something happens, and answers whom it was told of.
async fn fund_meanwhile(ledger: &Arc<Ledger>, during: impl Future<Output = ()>) -> Vec<PayerId> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ledger = ledger.clone();
    let funding = tokio::spawn(async move {
        let mut funded = Vec::new();
        while !*stopped.borrow() {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut id = [8; 32];
            id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let payer = PayerId::from_bytes(id);
            if farebox_ledger::store::fund(&*ledger, &payer, usd!("5")).await.is_ok() {
                funded.push(payer);
            }
        }
        funded
    });
    during.await;
    stop.send_replace(true);
    funding.await.unwrap()
}

async fn lost_credit(ledger: &Ledger, funded: &[PayerId]) -> usize {
    let mut lost = 0;
    for payer in funded {
        let received = ledger.load(payer).await.unwrap().account(Currency::USD).received;
        lost += usize::from(received.get() != 5_000_000);
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_fails_over_under_load_loses_no_card_money() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SETUP).await;
    let ledger = Arc::new(ledger(&cluster_url(&cluster, "shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    let mut funded = Vec::new();
    for slot in [0, 6_000, 12_000] {
        let asked = Instant::now();
        let during = async {
            sleep(Duration::from_millis(200)).await;
            cluster.failover(slot).await;
        };
        let credited = fund_meanwhile(&ledger, during).await;
        println!("failover {slot}: {:?}, {} credits meanwhile", asked.elapsed(), credited.len());
        let lost = lost_credit(&ledger, &credited).await;
        assert_eq!(lost, 0, "card money");
        funded.extend(credited);
    }
    let (told, lost) = spenders.audit().await;
    println!("3 failovers, {} credits: {told:?}, {lost} charges forgotten", funded.len());
    assert!(told.charged > 100 && told.longest < Duration::from_secs(15), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_primary_dies_or_falls_silent_loses_no_card_money() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SETUP).await;
    let ledger = Arc::new(ledger(&cluster_url(&cluster, "shop")).await);
    for (what, slot) in [("killed", 0), ("silent", 6_000)] {
        let spenders = Spenders::start(&ledger, 16, 2).await;
        let node = cluster.primary_of(slot).await;
        let before = node.address();
        let there = payer(
            (0..=255)
                .find(|n| {
                    let slot_of_bucket = crc16(format!("shop.{n}").as_bytes()) % 16_384;
                    slot_of_bucket / 5_461 == slot / 5_461
                })
                .unwrap(),
        );
        let mut served = Duration::ZERO;
        let during = async {
            sleep(Duration::from_millis(300)).await;
            match what {
                "killed" => node.kill().await,
                _ => node.pause().await,
            }
            let gone = Instant::now();
            let spend =
                async || ledger.apply(&there, &reserve(new_id(), 0, CREDENTIAL)).await.is_ok();
            eventually(Duration::from_secs(30), spend, |served| *served).await;
            served = gone.elapsed();
        };
        let funded = fund_meanwhile(&ledger, during).await;
        let (told, lost) = spenders.audit().await;
        let lost_credits = lost_credit(&ledger, &funded).await;
        println!(
            "a primary is {what}: served again after {served:?}, {told:?}, {lost} charges forgotten, \
             {lost_credits} of {} credits lost",
            funded.len()
        );
        assert_eq!(lost_credits, 0, "card money");
        assert_ne!(cluster.primary_of(slot).await.address(), before);
        match what {
            "killed" => node.restart().await,
            _ => node.resume().await,
        }
        // Card money waits for a replica: until there is one, it is refused.
        let credited = async || {
            let payer = payer(there.as_bytes()[0]);
            let link = Command::LinkCard {
                method: format!("pm_{served:?}").replace('.', "").parse().unwrap(),
            };
            ledger.apply(&payer, &link).await.is_ok()
        };
        eventually(Duration::from_secs(30), credited, |credited| *credited).await;
    }
}

/// The checksum that names a key's slot.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| {
            if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 }
        })
    })
}

#[tokio::test]
async fn an_emptied_shard_refuses_its_payers_until_it_is_adopted() {
    let cluster = Cluster::start(SETUP).await;
    let url = cluster_url(&cluster, "shop");
    let ledger = ledger(&url).await;
    let payers: Vec<PayerId> = (0..32).map(|n| payer(n * 8)).collect();
    for payer in &payers {
        farebox_ledger::store::fund(&ledger, payer, usd!("5")).await.unwrap();
    }
    cluster.empty_shard(0).await;
    let (mut refused, mut served) = (0, 0);
    for payer in &payers {
        let is_lost = slot_of(&cluster, "shop", payer).await <= 5_460;
        match ledger.apply(payer, &reserve(new_id(), PRICE, CREDENTIAL)).await {
            Ok(_) => served += 1,
            Err(error) => {
                assert!(error.to_string().contains("farebox ledger adopt"), "{error}");
                refused += 1;
            }
        }
        assert_eq!(ledger.load(payer).await.is_err(), is_lost);
    }
    let adopted = format!("{:?}", Ledger::adopt(&url).await.unwrap());
    for payer in &payers {
        ledger.apply(payer, &Command::RevokeCredentials).await.unwrap();
    }
    println!("a shard emptied: {refused} of 32 payers refused, {served} served; adopted {adopted}");
    assert!(refused > 0 && served > 0);
}

/// What happens to the books between the charge and the credit.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    FailsOver,
    IsEmptied,
    IsKilled,
}

async fn between_charge_and_credit(mishap: Mishap) {
    let cluster = Cluster::start(SETUP).await;
    let url = cluster_url(&cluster, "shop");
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Arc::new(provider(bank.stripe_at(&gate.url), &url).await);
    let pay = by_card(&bank.method(&card(1)).await);
    gate.set(Fault::HoldAnswer);
    let request = {
        let (provider, pay) = (provider.clone(), pay.clone());
        tokio::spawn(async move { provider.joke(&pay).await })
    };
    eventually(Duration::from_secs(20), async || bank.charges().len(), |n| *n == 1).await;
    let (look, _) = Ledger::open_existing(&url).await.unwrap();
    let payer = look.payers().await.unwrap()[0];
    let slot = slot_of(&cluster, "shop", &payer).await;
    match mishap {
        Mishap::FailsOver => cluster.failover(slot).await,
        Mishap::IsKilled => cluster.kill_primary(slot).await,
        Mishap::IsEmptied => cluster.empty_shard(slot).await,
    }
    gate.set(Fault::None);
    match mishap {
        Mishap::FailsOver => {}
        Mishap::IsKilled => {
            // Card money waits for a replica, which is primary now; the killed one becomes its
            // replica.
            let _ = cluster.primary_of(slot).await;
            for node in cluster.nodes() {
                if node.info("role").await.is_err() {
                    node.restart().await;
                }
            }
        }
        Mishap::IsEmptied => {
            assert_eq!(provider.joke(&pay).await.status, 503, "nobody is new");
            Ledger::adopt(&url).await.unwrap();
        }
    }
    let answer = request.await.unwrap();
    let first = answer.status;
    let mut served = i64::from(answer.is_served());
    let started = Instant::now();
    let again = eventually(
        Duration::from_secs(60),
        async || provider.joke(&pay).await,
        |a| {
            assert!(matches!(a.status, 200 | 429 | 503), "{a:?}");
            a.is_served()
        },
    );
    let again = again.await;
    served += 1;
    println!(
        "{mishap:?} between charge and credit: first answer {first}, served {:?} later, {} charge of \
         {} calls, {} left",
        started.elapsed(),
        bank.charges().len(),
        bank.charge_calls(),
        again.remaining()
    );
    assert_eq!(bank.charges().len(), 1);
    assert_eq!(again.remaining(), 50_000 - served * 100);
    checked(&look, &payer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_between_charge_and_credit_charges_once() {
    let _machine = whole_machine().await;
    between_charge_and_credit(Mishap::FailsOver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_emptied_between_charge_and_credit_charges_once() {
    let _machine = whole_machine().await;
    between_charge_and_credit(Mishap::IsEmptied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_between_charge_and_credit_charges_once() {
    let _machine = whole_machine().await;
    between_charge_and_credit(Mishap::IsKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_resumes_on_the_server_that_sentinels_promote() {
    let _machine = whole_machine().await;
    let sentinel = Sentinel::start(SETUP).await;
    let place = format!("{}/{}", sentinel.addresses().join(","), Sentinel::SERVICE);
    let ledger = Arc::new(ledger(&format!("redis+sentinel://{place}?ledger=shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    sleep(Duration::from_millis(500)).await;
    sentinel.kill_primary().await;
    let killed = Instant::now();
    let spend = async || ledger.apply(&payer(0), &reserve(new_id(), 0, CREDENTIAL)).await.is_ok();
    eventually(Duration::from_secs(30), spend, |served| *served).await;
    let recovery = killed.elapsed();
    sleep(Duration::from_millis(300)).await;
    let (told, lost) = spenders.audit().await;
    println!("sentinels: served again after {recovery:?}, {told:?}, {lost} charges forgotten");
    assert!(told.charged > 100);
    let link = Command::LinkCard { method: "pm_1".parse().unwrap() };
    let alone = ledger.apply(&payer(0), &link).await.unwrap_err().to_string();
    assert!(alone.contains("no replica"), "card money waits for a replica: {alone}");
}

/// Slots move while their payers spend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_moves_to_another_shard_loses_nothing() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(SETUP).await;
    let ledger = Arc::new(ledger(&cluster_url(&cluster, "shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let mut moved = 0;
    for n in (0..16).map(|n| n * 16) {
        let slot = slot_of(&cluster, "shop", &payer(n)).await;
        if slot <= 5_460 {
            let (from, to) = (cluster.primary_of(slot).await, cluster.primary_of(16_383).await);
            moved += move_slot(slot, from, to).await;
        }
    }
    let took = started.elapsed();
    sleep(Duration::from_millis(300)).await;
    let (told, lost) = spenders.audit().await;
    println!("{moved} keys moved to another shard in {took:?}: {told:?}, {lost} charges forgotten");
    assert!(moved > 5 && told.charged > 100, "{told:?}");
    assert_eq!((lost, told.expired), (0, 0));
}

async fn move_slot(slot: u16, from: &Redis, to: &Redis) -> usize {
    let (source, target): (String, String) =
        (from.command("CLUSTER MYID").await.unwrap(), to.command("CLUSTER MYID").await.unwrap());
    let () = to.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await.unwrap();
    let () = from.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await.unwrap();
    let mut moved = 0;
    loop {
        let keys: Vec<String> =
            from.command(&format!("CLUSTER GETKEYSINSLOT {slot} 50")).await.unwrap();
        if keys.is_empty() {
            break;
        }
        moved += keys.len();
        let address = to.address();
        let (host, port) = address.split_once(':').unwrap();
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(host).arg(port).arg("").arg(0).arg(2_000).arg("KEYS").arg(keys);
        let () = migrate.query_async(&mut from.connect().await.unwrap()).await.unwrap();
        sleep(Duration::from_millis(5)).await; // requests come in between
    }
    for node in [to, from] {
        let () = node.command(&format!("CLUSTER SETSLOT {slot} NODE {target}")).await.unwrap();
    }
    moved
}
