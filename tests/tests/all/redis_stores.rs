//! The ledger on real Redis servers answers like the machine.

use std::time::Instant;

use farebox_ledger::conformance::{histories, replay};
use farebox_ledger::{Command, FirstRecord, Ledger, Options, Outcome, Store as _};
use farebox_protocol::PayerId;
use futures_util::future::join_all;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::support::{Cluster, Persistence, Redis, Setup, number};

pub(crate) async fn ledger(url: &str) -> Ledger {
    let first = FirstRecord::new("check", "test", Some("acct_1"));
    Ledger::open(url, &first, Options::default()).await.unwrap()
}

/// How many histories are replayed at one time.
const TOGETHER: usize = 16;

/// Replays random histories, each on a payer of its own, and compares every answer and every book.
async fn conforms(name: &str, ledger: &Ledger) {
    let count = usize::try_from(number("FAREBOX_HISTORIES", 512)).unwrap();
    let mut runner = TestRunner::deterministic();
    let started = Instant::now();
    let (mut commands, mut changes) = (0, 0);
    for batch in 0..count.div_ceil(TOGETHER) {
        let replays = (0..TOGETHER.min(count - batch * TOGETHER)).map(|at| {
            let history = histories(200).new_tree(&mut runner).unwrap().current();
            let mut id = [7; 32];
            id[..8].copy_from_slice(
                &((batch * TOGETHER + at) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
            );
            async move {
                let payer = PayerId::from_bytes(id);
                let model = replay(ledger, &payer, &history).await;
                let model = model.unwrap_or_else(|error| panic!("{name}, {payer:?}: {error}"));
                (history.len(), model.book().head.seq)
            }
        });
        for (length, seq) in join_all(replays).await {
            commands += length;
            changes += seq;
        }
    }
    println!(
        "{name}: {count} histories, {commands} commands, {changes} changes, 0 differences, {:?}",
        started.elapsed()
    );
    assert!(changes > 0);
}

#[tokio::test]
async fn one_server_answers_like_the_machine() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    conforms("Redis", &ledger(&redis.url("shop")).await).await;
}

#[tokio::test]
async fn a_cluster_answers_like_the_machine() {
    let cluster = Cluster::start(Setup::persistent(Persistence::EverySecond)).await;
    let url = format!("redis+cluster://{}?ledger=shop", cluster.addresses().join(","));
    conforms("Redis Cluster", &ledger(&url).await).await;
}

#[tokio::test]
async fn a_ledger_is_found_again() {
    let redis = Redis::start(Setup::persistent(Persistence::Always)).await;
    let payer = PayerId::from_bytes([1; 32]);
    let revoke = Command::RevokeCredentials;
    let first = ledger(&redis.url("shop")).await;
    let outcome = first.apply(&payer, &revoke).await.unwrap().outcome;
    assert_eq!(outcome, Outcome::Revoked { generation: 2 });
    let again = ledger(&redis.url("shop")).await;
    assert_eq!(again.load(&payer).await.unwrap().generation, 2);
    let other = ledger(&redis.url("other")).await;
    assert_eq!(other.load(&payer).await.unwrap().generation, 1);
    assert_eq!(again.payers().await.unwrap(), [payer]);
}
