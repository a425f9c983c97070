//! A ledger in Redis, and what happens to its connections and to its server.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::conformance::{Model, agrees};
use farebox_ledger::{Command, EntryId, Ledger, Outcome, Proof, Store as _, Then};
use farebox_middleware::usd;
use farebox_protocol::{Currency, ErrorCode, Micros};
use futures_util::future::join_all;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::redis_load::{
    CREDENTIAL, PRICE, Spenders, Told, checked, cluster_url, new_id, payer, reserve, settle,
};
use crate::redis_stores::ledger;
use crate::support::{Cluster, Cut, Persistence, Redis, Setup, eventually, whole_machine};

fn micros(amount: i64) -> Micros {
    Micros::new(amount).unwrap()
}

fn open_top_up(number: u64) -> Command {
    let (card, call) = (payer(9), "call".to_owned());
    let (needed, method) = (Some(Micros::MAX), "pm_1".parse().unwrap());
    Command::OpenTopUp { currency: Currency::USD, number, needed, method, card, call }
}

fn observe(number: u64, seen_version: u64, received: i64, refunded: i64) -> Command {
    let totals = farebox_ledger::Totals {
        received: micros(received),
        refunded: micros(refunded),
        withdrawn: micros(0),
    };
    let intent = format!("pi_{number}");
    Command::Observe { currency: Currency::USD, number, intent, seen_version, totals }
}

/// Commands of every kind, each of which changes the book.
fn history() -> Vec<Command> {
    let currency = Currency::USD;
    let (one, two, three, kept) = (new_id(), new_id(), new_id(), new_id());
    let key = farebox_ledger::book::ClaimKey::from_bytes([1; 32]);
    let fingerprint = farebox_ledger::book::Fingerprint::from_bytes([2; 32]);
    let claim = Some(farebox_ledger::machine::ClaimOf { key, fingerprint });
    let with_claim = |command| match command {
        Command::Reserve { id, currency, amount, ttl, proof, .. } => {
            Command::Reserve { id, currency, amount, ttl, proof, claim }
        }
        Command::Settle { id, lines, then, .. } => {
            Command::Settle { id, claim: Some(key), lines, then }
        }
        other => other,
    };
    let keep = |command| match command {
        Command::Settle { id, claim, lines, .. } => {
            Command::Settle { id, claim, lines, then: Then::Keep }
        }
        other => other,
    };
    let soon = |command| match command {
        Command::Reserve { id, currency, amount, proof, claim, .. } => {
            Command::Reserve { id, currency, amount, ttl: 0, proof, claim }
        }
        other => other,
    };
    let refund = Command::OpenRefund {
        currency,
        number: 1,
        refund: 1,
        amount: micros(10_000),
        call: "refund".to_owned(),
    };
    let Command::Observe { totals, .. } = observe(1, 1, 5_000_000, 10_000) else { unreachable!() };
    let closed = Command::CloseRefund { currency, number: 1, refund: 1, seen_version: 1, totals };
    let issue = Command::IssueCredential {
        number: 1,
        label: "agent".parse().unwrap(),
        limit: Some(farebox_ledger::book::Limit { currency, amount: micros(1_000) }),
    };
    let issued = Proof::Credential { generation: 1, number: Some(1) };
    let reason: farebox_ledger::book::FreezeReason = "operator".parse().unwrap();
    vec![
        Command::OwnCard { owner: payer(1) },
        Command::SetCustomer { customer: "cus_1".to_owned(), replaces: None },
        open_top_up(1),
        observe(1, 0, 5_000_000, 0),
        reserve(one, 500, CREDENTIAL),
        settle(one, 400),
        with_claim(reserve(two, 500, CREDENTIAL)),
        with_claim(settle(two, 300)),
        issue,
        reserve(three, 500, issued),
        settle(three, 500),
        reserve(kept, 500, CREDENTIAL),
        keep(settle(kept, 100)),
        settle(kept, 200),
        soon(reserve(one, 70, CREDENTIAL)),
        Command::Expire { id: EntryId::Reservation(one) },
        Command::Freeze { reason: reason.clone() },
        Command::Unfreeze { reason },
        Command::LinkCard { method: "pm_2".parse().unwrap() },
        refund,
        closed,
        open_top_up(2),
        Command::FailTopUp { currency, number: 2, code: ErrorCode::CardDeclined },
        Command::RevokeCredential { number: 1 },
        Command::RevokeCredentials,
    ]
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_takes_effect_once() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let cut = Cut::before(&redis).await;
    let ledger = ledger(&cut.url("shop")).await;
    for command in history() {
        ledger.apply(&payer(0), &command).await.unwrap(); // the server learns the scripts
    }
    let write = redis::Script::new(include_str!("../../../ledger/src/store/redis/write.lua"));
    let (mut cuts, mut commands, mut longest) = (0, 0, Duration::ZERO);
    for (n, word) in [(1, "EVALSHA"), (2, write.get_hash())] {
        let (payer, mut model) = (payer(n), Model::default());
        for command in history() {
            cut.arm(word);
            let started = Instant::now();
            let applied = ledger.apply(&payer, &command).await.unwrap();
            longest = longest.max(started.elapsed());
            let expected = model.step(&command, applied.at).unwrap();
            assert_eq!((&applied.outcome, applied.seq), (&expected, model.book().head.seq));
            (cuts, commands) = (cuts + usize::from(cut.is_done()), commands + 1);
        }
        agrees(&ledger, &payer, &model).await.unwrap();
    }
    println!(
        "{commands} commands, {cuts} answers lost, each took effect once, {longest:?} at most"
    );
    assert!(cuts > 35, "{cuts}");
}

/// The caller gave up on a settle; when it asks again, it must hear what the first one did.
#[tokio::test]
async fn a_settle_that_was_given_up_is_answered_when_it_is_repeated() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let cut = Cut::before(&redis).await;
    let ledger = ledger(&cut.url("shop")).await;
    let payer = payer(1);
    farebox_ledger::store::fund(&ledger, &payer, usd!("5")).await.unwrap();
    let two_routes = |id| {
        let Command::Settle { mut lines, .. } = settle(id, 40) else { unreachable!() };
        lines.push(farebox_ledger::book::Line {
            route: farebox_ledger::book::Route::new("/b"),
            ..lines[0].clone()
        });
        Command::Settle { id, claim: None, lines, then: Then::Close }
    };
    let settles: [fn(_) -> _; 2] = [|id| settle(id, PRICE), two_routes];
    for (n, command) in settles.iter().enumerate() {
        for round in 0..2 {
            let id = new_id();
            ledger.apply(&payer, &reserve(id, PRICE, CREDENTIAL)).await.unwrap();
            if round == 0 {
                ledger.apply(&payer, &command(id)).await.unwrap(); // the server learns the script
                continue;
            }
            let write = include_str!("../../../ledger/src/store/redis/write.lua");
            let word = [include_str!("../../../ledger/src/store/redis/settle.lua"), write][n];
            cut.arm(redis::Script::new(word).get_hash());
            let command = command(id);
            let settling = ledger.apply(&payer, &command);
            // Its answer is lost, and so is the answer to each repeat, until it gives up.
            let losing = async {
                loop {
                    if cut.is_done() {
                        cut.arm("EVALSHA");
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            };
            let error = tokio::select! {
                settled = settling => settled.unwrap_err(),
                () = losing => unreachable!(),
            };
            cut.arm("nothing that is sent");
            let again = ledger.apply(&payer, &command).await.unwrap().outcome;
            assert!(matches!(again, Outcome::Settled { .. }), "{again:?} after {error}");
            let third = ledger.apply(&payer, &command).await.unwrap().outcome;
            assert_eq!(third, Outcome::Expired, "another settle finds nothing");
        }
    }
    let spent = checked(&ledger, &payer).await.head.account(Currency::USD).spent;
    assert_eq!(spent.get(), 2 * PRICE + 2 * 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_cluster_that_are_cut_all_the_time_charge_nobody_twice() {
    let _machine = whole_machine().await;
    let cluster = Cluster::start(Setup::persistent(Persistence::EverySecond)).await;
    let ledger = Arc::new(ledger(&cluster_url(&cluster, "shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    let started = Instant::now();
    let mut killed = 0;
    while started.elapsed() < Duration::from_secs(4) {
        for slot in [0, 6_000, 12_000] {
            let node = cluster.primary_of(slot).await;
            killed += node.command::<i64>("CLIENT KILL TYPE normal").await.unwrap_or_default();
        }
        sleep(Duration::from_millis(20)).await;
    }
    let (told, lost) = spenders.audit().await;
    println!("{killed} connections of a cluster cut: {told:?}, {lost} forgotten");
    assert!(killed > 50 && told.charged > 100, "{told:?}");
    assert_eq!((lost, told.expired), (0, 0), "nothing was lost, and every repeat found its answer");
}

async fn killed_under_load(persistence: Persistence) -> (Told, i64, Duration) {
    let _machine = whole_machine().await;
    let redis = Redis::start(Setup::persistent(persistence)).await;
    let ledger = Arc::new(ledger(&redis.url("shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    sleep(Duration::from_millis(1_500)).await;
    let killed = Instant::now();
    redis.restart().await;
    let served = eventually(
        Duration::from_secs(10),
        async || ledger.load(&payer(0)).await.is_ok(),
        |up| *up,
    );
    served.await;
    let recovery = killed.elapsed();
    sleep(Duration::from_millis(300)).await;
    let (told, lost) = spenders.audit().await;
    println!(
        "{persistence:?}, kill -9 under 32 spenders: {told:?}, {lost} charges forgotten, answers \
         again after {recovery:?}"
    );
    (told, lost, recovery)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_flushes_always_forgets_nothing() {
    let (told, lost, _) = killed_under_load(Persistence::Always).await;
    assert!(told.charged > 100);
    assert_eq!((lost, told.expired), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_flushes_each_second_forgets_two_seconds_at_most() {
    let (told, lost, _) = killed_under_load(Persistence::EverySecond).await;
    assert!(told.charged > 100 && lost < told.charged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_three_seconds_does_nothing_twice() {
    let _machine = whole_machine().await;
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let ledger = Arc::new(ledger(&redis.url("shop")).await);
    let spenders = Spenders::start(&ledger, 16, 2).await;
    sleep(Duration::from_millis(300)).await;
    redis.pause().await;
    sleep(Duration::from_secs(3)).await;
    redis.resume().await;
    let resumed = Instant::now();
    eventually(Duration::from_secs(5), async || ledger.load(&payer(0)).await.is_ok(), |up| *up)
        .await;
    let recovery = resumed.elapsed();
    sleep(Duration::from_millis(300)).await;
    let (told, lost) = spenders.audit().await;
    println!("3 s of silence: {told:?}, {lost} forgotten, answers again after {recovery:?}");
    assert!(told.longest < Duration::from_secs(12), "{told:?}");
    assert_eq!((lost, told.expired), (0, 0));
}

/// A wire whose first connections go silent without being closed, as when a machine is gone.
async fn hole(server: String) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (dig, is_hole) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            let mut silent = is_hole.clone();
            tokio::spawn(async move {
                if *silent.borrow_and_update() {
                    let _ = copy_bidirectional(&mut client, &mut server).await; // a new one
                    return;
                }
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = silent.changed() => std::future::pending().await,
                }
            });
        }
    });
    (address, dig)
}

#[tokio::test]
async fn a_connection_that_goes_silent_is_replaced() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let (address, dig) = hole(redis.address()).await;
    let ledger = ledger(&format!("redis://{address}/0?ledger=shop")).await;
    let load = async || ledger.load(&payer(0)).await;
    load().await.unwrap();
    dig.send_replace(true);
    let silent = Instant::now();
    let _found = eventually(Duration::from_secs(10), load, Result::is_ok).await;
    println!("a connection that went silent was replaced after {:?}", silent.elapsed());
}

#[tokio::test]
async fn an_emptied_server_treats_nobody_as_new_until_the_loss_is_adopted() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let url = redis.url("shop");
    let running = ledger(&url).await;
    let payer = payer(1);
    farebox_ledger::store::fund(&running, &payer, usd!("5")).await.unwrap();
    redis.restart_empty().await;
    for command in history() {
        let error = running.apply(&payer, &command).await.unwrap_err().to_string();
        assert!(error.contains("farebox ledger adopt"), "{command:?}: {error}");
    }
    let refused = [
        running.load(&payer).await.map(drop),
        running.book(&payer).await.map(drop),
        running.payers().await.map(drop),
        running.due().await.map(drop),
    ];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    // Nothing was written meanwhile: no script made a book.
    assert_eq!(redis.command::<i64>("DBSIZE").await.unwrap(), 0);
    Ledger::adopt(&url).await.unwrap();
    let again = ledger(&url).await;
    assert_eq!(again.load(&payer).await.unwrap().seq, 0);
    assert!(running.load(&payer).await.is_err(), "a process that knew the old ledger restarts");
    farebox_ledger::store::fund(&again, &payer, usd!("5")).await.unwrap();
}

#[tokio::test]
async fn a_ledger_of_which_parts_are_lost_serves_the_others() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let url = redis.url("shop");
    let running = ledger(&url).await;
    for n in [1, 2] {
        farebox_ledger::store::fund(&running, &payer(n), usd!("5")).await.unwrap();
    }
    let keys: Vec<String> = redis.command("KEYS {shop.1}:*").await.unwrap();
    let _: i64 = redis.command(&format!("DEL {}", keys.join(" "))).await.unwrap();
    for process in [&running, &ledger(&url).await] {
        assert!(process.load(&payer(1)).await.unwrap_err().to_string().contains("adopt"));
        assert!(process.apply(&payer(1), &Command::RevokeCredentials).await.is_err());
        assert_eq!(process.load(&payer(2)).await.unwrap().seq, 2);
        // A server starts, and its sweep goes on, without the part that is lost.
        assert_eq!(process.due().await.unwrap(), []);
    }
    // All parts lost, and what it was made for is there: a start is refused.
    let keys: Vec<String> = redis.command("KEYS {shop.*}:r").await.unwrap();
    let _: i64 = redis.command(&format!("DEL {}", keys.join(" "))).await.unwrap();
    let first = farebox_ledger::FirstRecord::new("check", "test", Some("acct_1"));
    let refused = Ledger::open(&url, &first, farebox_ledger::Options::default()).await.unwrap_err();
    assert!(matches!(refused, farebox_ledger::OpenError::Lost { .. }), "{refused}");
    println!("{refused}");
    Ledger::adopt(&url).await.unwrap();
    // Adopted, the running process serves without a restart; the book that was there is there.
    assert_eq!(running.load(&payer(2)).await.unwrap().seq, 2);
    assert_eq!(running.load(&payer(1)).await.unwrap().seq, 0);
}

#[tokio::test]
async fn what_a_killed_process_had_set_aside_returns() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let (killed, other) = (ledger(&redis.url("shop")).await, ledger(&redis.url("shop")).await);
    let payer = payer(1);
    farebox_ledger::store::fund(&killed, &payer, usd!("5")).await.unwrap();
    let reserves = (0..50).map(|n| {
        let Command::Reserve { id, currency, amount, proof, claim, .. } =
            reserve(new_id(), PRICE, CREDENTIAL)
        else {
            unreachable!()
        };
        Command::Reserve { id, currency, amount, ttl: 300 + n, proof, claim }
    });
    for command in reserves {
        killed.apply(&payer, &command).await.unwrap();
    }
    drop(killed);
    assert!(other.due().await.unwrap().is_empty(), "it is not their time yet");
    sleep(Duration::from_millis(400)).await;
    let due = other.due().await.unwrap();
    assert_eq!(due.len(), 50);
    let ends = due.iter().map(async |due| {
        let farebox_ledger::Due::Entry(payer, id) = *due else { unreachable!() };
        other.apply(&payer, &Command::Expire { id }).await.unwrap().outcome
    });
    assert_eq!(join_all(ends).await, vec![Outcome::Expired; 50]);
    let account = checked(&other, &payer).await.head.account(Currency::USD);
    assert_eq!((account.available.get(), account.reserved.get()), (5_000_000, 0));
    assert!(other.due().await.unwrap().is_empty());
}

/// A claim that was partly spent, and whose time is over, ends when its money is needed: at the
/// very time of the request that needs it, though the two are written one after the other.
#[tokio::test]
async fn what_expires_for_a_request_expires_when_it_is_made() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let ledger = ledger(&redis.url("shop")).await;
    let fingerprint = farebox_ledger::book::Fingerprint::from_bytes([2; 32]);
    for n in 0..40 {
        let key = farebox_ledger::book::ClaimKey::from_bytes([n; 32]);
        let (id, mut model) = (new_id(), Model::default());
        let mut claimed = reserve(id, 60, CREDENTIAL);
        if let Command::Reserve { ttl, claim, .. } = &mut claimed {
            (*ttl, *claim) = (5, Some(farebox_ledger::machine::ClaimOf { key, fingerprint }));
        }
        let mut kept = settle(id, 10);
        if let Command::Settle { claim, then, .. } = &mut kept {
            (*claim, *then) = (Some(key), Then::Keep);
        }
        let needing = reserve(new_id(), 80, CREDENTIAL);
        for command in [open_top_up(1), observe(1, 0, 100, 0), claimed, kept, needing] {
            if matches!(command, Command::Reserve { claim: None, .. }) {
                sleep(Duration::from_millis(7)).await;
            }
            let applied = ledger.apply(&payer(n), &command).await.unwrap();
            let expected = model.step(&command, applied.at).unwrap();
            assert_eq!((&applied.outcome, applied.seq), (&expected, model.book().head.seq));
        }
        agrees(&ledger, &payer(n), &model).await.unwrap();
    }
}

/// Somebody else's value where a key of ours should be: refused, and nothing done by half.
#[tokio::test]
async fn a_value_of_the_wrong_type_does_nothing_by_half() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let ledger = ledger(&redis.url("shop")).await;
    let payer = payer(1);
    farebox_ledger::store::fund(&ledger, &payer, usd!("5")).await.unwrap();
    let id = new_id();
    ledger.apply(&payer, &reserve(id, PRICE, CREDENTIAL)).await.unwrap();
    let before = ledger.book(&payer).await.unwrap();
    let week = before.head.last.millis() / 604_800_000;
    for key in [format!("{{shop.1}}:u:{payer}:{week}"), "{shop.1}:due".to_owned()] {
        let () = redis.command(&format!("RENAME {key} kept")).await.unwrap_or_default();
        let () = redis.command(&format!("SET {key} hostile")).await.unwrap();
        let command = if key.contains(":u:") { settle(id, PRICE) } else { open_top_up(2) };
        ledger.apply(&payer, &command).await.unwrap_err();
        let _: i64 = redis.command(&format!("DEL {key}")).await.unwrap();
        let () = redis.command(&format!("RENAME kept {key}")).await.unwrap_or_default();
        assert_eq!(ledger.book(&payer).await.unwrap(), before, "{key}");
    }
    let outcome = ledger.apply(&payer, &settle(id, PRICE)).await.unwrap().outcome;
    assert!(matches!(outcome, Outcome::Settled { .. }), "{outcome:?}");
    checked(&ledger, &payer).await;
}

#[tokio::test]
async fn a_server_without_memory_left_refuses_and_goes_on_where_it_was() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let ledger = ledger(&redis.url("shop")).await;
    let payer = payer(1);
    farebox_ledger::store::fund(&ledger, &payer, usd!("5")).await.unwrap();
    let id = new_id();
    ledger.apply(&payer, &reserve(id, PRICE, CREDENTIAL)).await.unwrap();
    let () = redis.command("CONFIG SET maxmemory 1").await.unwrap();
    for command in [settle(id, PRICE), open_top_up(2), reserve(new_id(), PRICE, CREDENTIAL)] {
        let error = ledger.apply(&payer, &command).await.unwrap_err().to_string();
        assert!(error.contains("OOM"), "{error}");
    }
    let () = redis.command("CONFIG SET maxmemory 0").await.unwrap();
    let outcome = ledger.apply(&payer, &settle(id, PRICE)).await.unwrap().outcome;
    assert!(matches!(outcome, Outcome::Settled { .. }), "{outcome:?}");
    let account = checked(&ledger, &payer).await.head.account(Currency::USD);
    assert_eq!((account.spent.get(), account.reserved.get(), account.open), (PRICE, 0, None));
}
