//! A ledger in Redis that cannot be opened says why, in one sentence and without a password.

use std::time::Duration;

use farebox_ledger::{FirstRecord, Ledger, Options, Store as _};
use farebox_protocol::{Payment, Units};
use tokio::time::{Instant, timeout};

use crate::redis_load::{cluster_url, payer};
use crate::redis_stores::ledger;
use crate::support::{
    Bank, Cluster, Persistence, Program, Redis, Setup, balance, by_card, by_credential, card,
    eventually, get, refusal,
};

const SAFE: Setup = Setup { persistence: Persistence::EverySecond, password: None, tls: false };

async fn refused_with(url: &str, first: &FirstRecord) -> String {
    let opened = timeout(Duration::from_secs(15), Ledger::open(url, first, Options::default()));
    let refusal = opened.await.expect("it does not hang").expect_err("it is refused").to_string();
    println!("{refusal}");
    assert!(!refusal.contains('\n') && !refusal.contains("swordfish"), "{refusal}");
    refusal
}

async fn refused(url: &str) -> String {
    refused_with(url, &FirstRecord::new("check", "test", Some("acct_1"))).await
}

#[tokio::test]
async fn a_server_that_is_not_safe_for_money_is_refused() {
    let forgets = Redis::start(Setup::default()).await;
    assert!(refused(&forgets.url("shop")).await.contains("set appendonly yes"));
    ledger(&format!("{}&volatile=1", forgets.url("shop"))).await;
    let redis = Redis::start(SAFE).await;
    let () = redis.command("CONFIG SET maxmemory-policy allkeys-lru").await.unwrap();
    assert!(refused(&redis.url("shop")).await.contains("set maxmemory-policy noeviction"));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_does_not_know_us_is_named() {
    let guarded = Redis::start(Setup { password: Some("swordfish"), ..SAFE }).await;
    ledger(&guarded.url("shop")).await;
    for url in [
        guarded.url("shop").replace(":swordfish@", ""),
        guarded.url("shop").replace("swordfish", "marlin"),
    ] {
        let refusal = refused(&url).await;
        assert!(refusal.contains(&guarded.address()) && !refusal.contains("marlin"), "{refusal}");
        assert!(refusal.to_lowercase().contains("password"), "{refusal}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [
        format!("redis://:swordfish@{nobody}"),
        format!("redis+cluster://:swordfish@{nobody}"),
        format!("redis+sentinel://:swordfish@{nobody}/main"),
    ] {
        let asked = Instant::now();
        assert!(refused(&url).await.contains(&nobody.to_string()));
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
    assert!(!refused("redis://:swordfish@a:b").await.contains("swordfish"));
}

#[tokio::test]
async fn the_wrong_kind_of_url_is_named() {
    let redis = Redis::start(SAFE).await;
    let url = format!("redis+cluster://{}?ledger=shop", redis.address());
    assert!(refused(&url).await.contains("use a redis URL"));
    let cluster = Cluster::start(SAFE).await;
    let url = format!("redis://{}/0?ledger=shop", cluster.addresses()[0]);
    assert!(refused(&url).await.contains("use a redis+cluster URL"));
    ledger(&cluster_url(&cluster, "shop")).await;
    let url = format!("redis+sentinel://{}/main", redis.address());
    assert!(refused(&url).await.contains(&redis.address()));
    let replica = redis.with_replica().await;
    assert!(refused(&replica.url("shop")).await.contains("replica"));
}

#[tokio::test]
async fn a_ledger_belongs_to_one_secret_one_mode_and_one_account() {
    let redis = Redis::start(SAFE).await;
    let shop = ledger(&redis.url("shop")).await;
    for (first, word) in [
        (FirstRecord::new("other", "test", Some("acct_1")), "another secret"),
        (FirstRecord::new("check", "live", Some("acct_1")), "mode"),
        (FirstRecord::new("check", "test", Some("acct_2")), "acct_2"),
    ] {
        assert!(refused_with(&redis.url("shop"), &first).await.contains(word));
    }
    // Another ledger in the same server is another one.
    let live = FirstRecord::new("other", "live", Some("acct_2"));
    let other = Ledger::open(&redis.url("other"), &live, Options::default()).await.unwrap();
    other.apply(&payer(1), &farebox_ledger::Command::RevokeCredentials).await.unwrap();
    assert_eq!(shop.load(&payer(1)).await.unwrap().seq, 0);
    assert_eq!((shop.payers().await.unwrap().len(), other.payers().await.unwrap().len()), (0, 1));
}

fn environment(bank: &Bank, redis: &Redis) -> Vec<(&'static str, String)> {
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", redis.url("shop")));
    environment.push(("FAREBOX_SECRET", "a secret of thirty-two bytes ...".to_owned()));
    environment.push(("SSL_CERT_FILE", redis.certificate().display().to_string()));
    environment
}

#[tokio::test]
async fn a_server_with_tls_and_a_password_is_trusted_by_its_certificate() {
    let setup = Setup { tls: true, password: Some("swordfish"), ..SAFE };
    let redis = Redis::start(setup).await;
    let bank = Bank::open().await;
    let mut environment = environment(&bank, &redis);
    let program = Program::start("paid-api", &environment).await;
    let http = reqwest::Client::new();
    let pay = by_card(&bank.method(&card(1)).await);
    let served = get(&http, &format!("{}/api/joke", program.url), &pay).await.unwrap();
    assert_eq!((served.status, served.remaining()), (200, 49_900));
    environment.pop();
    let refused = refusal(&environment).await;
    println!("{refused}");
    assert!(refused.contains(&redis.address()) && !refused.contains("swordfish"), "{refused}");
}

#[tokio::test]
async fn two_processes_share_credentials_credit_and_top_ups() {
    let redis = Redis::start(SAFE).await;
    let bank = Bank::open().await;
    let mut environment = environment(&bank, &redis);
    environment.pop();
    let one = Program::start("paid-api", &environment).await;
    let two = Program::start("paid-api", &environment).await;
    let http = reqwest::Client::new();
    let pay = by_card(&bank.method(&card(1)).await);
    let served = get(&http, &format!("{}/api/joke", one.url), &pay).await.unwrap();
    let credential = by_credential(&served.credential());
    for n in 0..10 {
        let url = [&one.url, &two.url][n % 2];
        let served = get(&http, &format!("{url}/api/joke"), &credential).await.unwrap();
        assert_eq!(served.remaining(), 49_800 - 100 * i64::try_from(n).unwrap());
    }
    // One is killed while it tops up; the other goes on with it.
    let more = Payment { min_credit: Units::new(60_000), ..pay };
    let more = Payment { client_id: credential.client_id.clone(), ..more };
    let request = {
        let (http, url, more) = (http.clone(), format!("{}/api/joke", one.url), more.clone());
        tokio::spawn(async move { get(&http, &url, &more).await })
    };
    eventually(Duration::from_secs(10), async || bank.charges().len(), |n| *n == 2).await;
    one.kill().await;
    let _ = request.await.unwrap();
    let url = format!("{}/api/joke", two.url);
    let again = async || get(&http, &url, &more).await.unwrap();
    eventually(Duration::from_secs(20), again, |answer| answer.is_served()).await;
    let url = format!("{}/account/balance", two.url);
    let left = balance(&get(&http, &url, &credential).await.unwrap());
    println!("two processes: {} charges, {left} left", bank.charges().len());
    assert_eq!(bank.charges().len(), 2);
    assert!((98_700..=98_900).contains(&left), "{left}");
}
