//! What the Redis servers of the tests do when something is done to them.

use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{AsyncTypedCommands as _, Client, RedisResult, Script, cmd};
use tokio::time::{Instant, timeout};

use crate::support::{Cluster, Cut, Persistence, Redis, Sentinel, Setup};

/// The slot of the key `a`.
const SLOT_OF_A: u16 = 15495;
const NOTHING: Option<String> = None;

async fn get(redis: &Redis, key: &str) -> RedisResult<Option<String>> {
    redis.command(&format!("GET {key}")).await
}

async fn set(redis: &Redis, key: &str) {
    let () = redis.command(&format!("SET {key} 1")).await.unwrap();
}

#[tokio::test]
async fn a_killed_server_has_what_it_appended_and_an_emptied_one_has_nothing() {
    for persistence in [Persistence::None, Persistence::Always] {
        let redis = Redis::start(Setup::persistent(persistence)).await;
        let address = redis.address();
        set(&redis, "a").await;
        redis.kill().await;
        assert!(get(&redis, "a").await.is_err(), "it is down");
        redis.restart().await;
        let kept = (persistence == Persistence::Always).then(|| "1".to_owned());
        assert_eq!(get(&redis, "a").await.unwrap(), kept, "{persistence:?}");
        redis.restart_empty().await;
        assert_eq!(get(&redis, "a").await.unwrap(), NOTHING, "{persistence:?}");
        assert_eq!(redis.address(), address);
    }
}

#[tokio::test]
async fn a_server_is_as_it_was_asked_to_be() {
    for (persistence, appends, flushes) in [
        (Persistence::None, "no", "no"),
        (Persistence::EverySecond, "yes", "everysec"),
        (Persistence::Always, "yes", "always"),
    ] {
        let redis = Redis::start(Setup::persistent(persistence)).await;
        for (name, wanted) in [
            ("appendonly", appends),
            ("appendfsync", flushes),
            ("save", ""),
            ("maxmemory-policy", "noeviction"),
            ("bind", "127.0.0.1"),
        ] {
            let is: (String, String) = redis.command(&format!("CONFIG GET {name}")).await.unwrap();
            assert_eq!(is, (name.to_owned(), wanted.to_owned()), "{persistence:?}");
        }
    }
}

#[tokio::test]
async fn a_paused_server_answers_when_it_is_resumed() {
    let redis = Redis::start(Setup::default()).await;
    let mut connection = redis.connect().await.unwrap();
    redis.pause().await;
    let ping = tokio::spawn(async move { connection.ping().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ping.is_finished(), "it answered");
    redis.resume().await;
    assert_eq!(ping.await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn a_paused_replica_does_not_acknowledge() {
    let redis = Redis::start(Setup::default()).await;
    let replica = redis.with_replica().await;
    let mut connection = redis.connect().await.unwrap();
    for (acknowledged, is_paused) in [(1, false), (0, true), (1, false)] {
        match is_paused {
            true => replica.pause().await,
            false => replica.resume().await,
        }
        connection.set("a", "1").await.unwrap();
        let wait = cmd("WAIT").arg(1).arg(300).query_async(&mut connection).await;
        assert_eq!(wait, Ok(acknowledged), "paused: {is_paused}");
    }
    assert_eq!(get(&replica, "a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_server_with_a_password_wants_it() {
    let redis = Redis::start(Setup { password: Some("swordfish"), ..Setup::default() }).await;
    let replica = redis.with_replica().await;
    assert_eq!(replica.info("role").await.unwrap(), "slave");
    assert!(redis.url("books").contains(":swordfish@"));
    let with = Client::open(redis.url("books")).unwrap();
    let without = Client::open(format!("redis://{}", redis.address())).unwrap();
    let ping = async |client: Client| client.get_multiplexed_async_connection().await?.ping().await;
    assert_eq!(ping(with).await.unwrap(), "PONG");
    assert_eq!(ping(without).await.unwrap_err().code(), Some("NOAUTH"));
}

#[tokio::test]
async fn a_server_with_tls_has_a_certificate_of_its_own() {
    let redis = Redis::start(Setup { tls: true, ..Setup::default() }).await;
    assert!(redis.url("books").starts_with("rediss://"));
    assert!(redis.certificate().exists());
    set(&redis, "a").await;
    assert_eq!(get(&redis, "a").await.unwrap().as_deref(), Some("1"));
    let trusting_nobody_new = Client::open(redis.url("books")).unwrap();
    assert!(trusting_nobody_new.get_multiplexed_async_connection().await.is_err());
    let plain = Client::open(format!("redis://{}", redis.address())).unwrap();
    assert!(plain.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn processor_time_is_counted() {
    let redis = Redis::start(Setup::default()).await;
    let before = redis.cpu_time().await;
    let busy = Script::new("local n = 0 for i = 1, 20000000 do n = n + i end return n");
    let _: u64 = busy.invoke_async(&mut redis.connect().await.unwrap()).await.unwrap();
    let used = redis.cpu_time().await - before;
    assert!(used > Duration::from_millis(10), "{used:?}");
}

#[tokio::test]
async fn a_cut_loses_the_answer_and_not_the_command() {
    let redis = Redis::start(Setup::default()).await;
    let cut = Cut::before(&redis).await;
    let client = Client::open(cut.url("books")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let count = script.key("count").invoke_async(&mut connection).await;
    assert_eq!(count, Ok(1));
    cut.arm("EVALSHA");
    connection.ping().await.unwrap();
    assert!(!cut.is_done(), "a PING is no EVALSHA");
    let lost: RedisResult<u32> = script.key("count").invoke_async(&mut connection).await;
    assert!(lost.as_ref().is_err_and(redis::RedisError::is_io_error), "{lost:?}");
    assert!(cut.is_done());
    assert_eq!(get(&redis, "count").await.unwrap().as_deref(), Some("2"));
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let count = script.key("count").invoke_async(&mut connection).await;
    assert_eq!(count, Ok(3), "it is whole again");
}

#[tokio::test]
async fn a_cluster_fails_over_to_a_replica_without_loss() {
    let started = Instant::now();
    let cluster = Cluster::start(Setup::persistent(Persistence::Always)).await;
    println!("a cluster is up after {:?}", started.elapsed());
    let client = ClusterClient::new(nodes(&cluster.addresses())).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    connection.set("a", "1").await.unwrap();
    let before = cluster.primary_of(SLOT_OF_A).await.address();
    let replica = cluster.replica_of(SLOT_OF_A).await.address();
    let started = Instant::now();
    cluster.failover(SLOT_OF_A).await;
    println!("asked to fail over, it has after {:?}", started.elapsed());
    assert_eq!(cluster.primary_of(SLOT_OF_A).await.address(), replica);
    assert_eq!(cluster.replica_of(SLOT_OF_A).await.address(), before);
    assert_eq!(connection.get("a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_shard_is_emptied_and_the_others_are_not() {
    let cluster = Cluster::start(Setup::default()).await;
    let client = ClusterClient::new(nodes(&cluster.addresses())).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    let keys = ["a", "b", "c"];
    let slots = keys.map(|key| format!("CLUSTER KEYSLOT {key}"));
    let slots = slots.each_ref().map(|slot| cluster_slot(&cluster, slot));
    assert_eq!(join_all(slots).await, [SLOT_OF_A, 3300, 7365], "one in each shard");
    for key in keys {
        connection.set(key, "1").await.unwrap();
    }
    cluster.empty_shard(SLOT_OF_A).await;
    for server in [cluster.primary_of(SLOT_OF_A).await, cluster.replica_of(SLOT_OF_A).await] {
        assert_eq!(server.command("DBSIZE").await, Ok(0), "{}", server.address());
    }
    let left = [None, Some("1".to_owned()), Some("1".to_owned())];
    assert_eq!(connection.mget(&keys).await.unwrap(), left);
}

async fn cluster_slot(cluster: &Cluster, question: &str) -> u16 {
    cluster.primary_of(0).await.command(question).await.unwrap()
}

fn nodes(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| format!("redis://{address}")).collect()
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let cluster = Cluster::start(Setup::default()).await;
    let (killed, replica) =
        (cluster.primary_of(SLOT_OF_A).await, cluster.replica_of(SLOT_OF_A).await);
    set(killed, "a").await;
    let started = Instant::now();
    cluster.kill_primary(SLOT_OF_A).await;
    let promoted = cluster.primary_of(SLOT_OF_A).await;
    println!("another is primary after {:?}", started.elapsed());
    assert_eq!(promoted.address(), replica.address());
    killed.restart().await;
    assert_eq!(cluster.replica_of(SLOT_OF_A).await.address(), killed.address());
    assert_eq!(cluster.primary_of(SLOT_OF_A).await.address(), promoted.address());
}

#[tokio::test]
async fn sentinels_promote_the_replica_and_say_so() {
    let started = Instant::now();
    let sentinel = Sentinel::start(Setup::default()).await;
    println!("sentinels are in step after {:?}", started.elapsed());
    let before = sentinel.primary().await.address();
    set(sentinel.primary().await, "a").await;
    let started = Instant::now();
    sentinel.kill_primary().await;
    let promoted = sentinel.primary().await;
    println!("the replica is primary after {:?}", started.elapsed());
    assert_ne!(promoted.address(), before);
    let sentinels = nodes(&sentinel.addresses());
    let service = Sentinel::SERVICE.to_owned();
    let client = SentinelClient::build(sentinels, service, None, SentinelServerType::Master);
    let connection = client.unwrap().get_async_connection().await;
    let stored = timeout(Duration::from_secs(5), connection.unwrap().get("a")).await.unwrap();
    assert_eq!(stored.unwrap().as_deref(), Some("1"));
    set(promoted, "b").await;
}

#[tokio::test]
async fn servers_end_with_their_test() {
    let address = tokio::spawn(async {
        let redis = Redis::start(Setup::default()).await;
        redis.pause().await;
        std::panic::panic_any(redis.address());
    });
    let address = *address.await.unwrap_err().into_panic().downcast::<String>().unwrap();
    let ended = Instant::now();
    while std::net::TcpListener::bind(&address).is_err() {
        assert!(ended.elapsed() < Duration::from_secs(5), "{address} is in use");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
