use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use super::*;
use crate::redis_server::Server;

/// The clock of this machine, and so of its Redis.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

async fn held(budget: &Budget) -> Money {
    budget.usage().await.unwrap().held(Currency::USD, now())
}

/// Runs `round` until it falls within one day.
async fn within_a_day<T>(mut round: impl AsyncFnMut() -> T) -> T {
    loop {
        let day = now() / 86_400;
        let result = round().await;
        if now() / 86_400 == day {
            return result;
        }
    }
}

#[tokio::test]
async fn machines_never_overshoot_one_redis() {
    if let Some(errand) = errand() {
        return thread::spawn(move || crowd_member(&errand)).join().unwrap();
    }
    let server = Server::start();
    let (started, stop) = (Instant::now(), AtomicBool::new(false));
    let rounds = number("FAREBOX_ROUNDS", 2);
    let round = |n: usize| {
        let (server, stop) = (&server, &stop);
        thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let mut killed = 0;
                while !stop.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(50));
                    let count = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
                    killed += count.trim().parse::<u32>().unwrap();
                }
                killed
            });
            let test = "budget::tests::redis::machines_never_overshoot_one_redis";
            let place = format!("{}#{n}-{}", server.url(), below(u32::MAX));
            let granted = crowd(test, &place);
            stop.store(true, Ordering::SeqCst);
            (place, granted, killer.join().unwrap())
        })
    };
    let mut cut = 0;
    for n in 0..rounds {
        within_a_day(async || {
            stop.store(false, Ordering::SeqCst);
            let (place, granted, killed) = round(n);
            assert!(granted <= CROWD_LIMIT, "{granted} cents of {CROWD_LIMIT}");
            assert!(granted > CROWD_LIMIT - 500, "they stopped early, at {granted}");
            assert_eq!(held(&open(&place).await).await, cents(granted));
            cut += killed;
        })
        .await;
    }
    assert!(cut > 0, "no connection was killed");
    println!(
        "{rounds} rounds of {PROCESSES} x {TASKS} on Redis, {cut} connections killed: overshoot \
         0, {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_clock_of_redis_decides_which_day_it_is() {
    let server = Server::start();
    within_a_day(async || {
        let budget = Budget::redis(&server.url(), &below(u32::MAX).to_string()).await.unwrap();
        reserve(&budget, usd!("5"), usd!("5")).await.unwrap();
        let day = |now: i64| now.div_euclid(86_400);
        let open = open_holds(&budget).await.into_values().map(|hold| day(hold.at()));
        assert_eq!(open.collect::<Vec<_>>(), [day(now())], "not that of {NOW}");
        assert_eq!(budget.with_last_usage(|usage| usage.held(Currency::USD, now())), usd!("5"));
        assert_eq!(held(&budget).await, usd!("5"));
    })
    .await;
}

#[tokio::test]
async fn holds_are_kept_and_returned_as_in_a_file() {
    let server = Server::start();
    within_a_day(async || {
        let name = below(u32::MAX).to_string();
        let one = Budget::redis(&server.url(), &name).await.unwrap();
        let other = Budget::redis(&server.url(), &name).await.unwrap();
        let third = Budget::redis(&server.url(), "another").await.unwrap();
        let limit = usd!("15");
        let kept = reserve(&one, usd!("5"), limit).await.unwrap();
        let returned = reserve(&other, usd!("5"), limit).await.unwrap();
        let open: BTreeSet<HoldId> = open_holds(&one).await.into_keys().collect();
        assert_eq!(open, BTreeSet::from([kept, returned]));
        one.close(kept).await.unwrap();
        for budget in [&one, &other, &one] {
            budget.release(returned).await.unwrap();
            budget.release(kept).await.unwrap();
            assert_eq!((held(&one).await, held(&other).await), (usd!("5"), usd!("5")));
        }
        let again = asked(usd!("5"));
        let id = hold_id();
        let first = one.reserve(id, &policy(limit), again.clone(), NOW).await.unwrap();
        let second = other.reserve(id, &policy(limit), again, NOW).await.unwrap();
        assert_eq!((first, held(&one).await), (second, usd!("10")));
        assert_eq!(held(&third).await, usd!("0"));
    })
    .await;
}

#[tokio::test]
async fn without_redis_nothing_is_granted_and_an_emptied_one_is_noticed() {
    let mut server = Server::start();
    let budget = Budget::redis(&server.url(), "agents").await.unwrap();
    reserve(&budget, usd!("5"), usd!("9")).await.unwrap();
    let attempt = async || {
        let policy = policy(usd!("100"));
        budget.reserve(hold_id(), &policy, asked(usd!("1")), NOW).await.unwrap_err()
    };
    server.command(&["FLUSHALL"]);
    let error = attempt().await;
    assert!(matches!(error, BudgetError::Lost(_)), "{error:?}");
    assert!(!server.command(&["KEYS", "*"]).contains("agents"), "and it stays lost");
    server.kill();
    let started = Instant::now();
    let (error, other) = tokio::join!(attempt(), attempt());
    assert!(matches!(error, BudgetError::Unavailable(_)), "{error:?}");
    assert_eq!(error.actor(), Actor::Owner);
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(18), "they wait together: {waited:?}, {other:?}");
}

#[tokio::test]
async fn what_is_not_a_budget_in_redis_is_refused_and_left_alone() {
    let server = Server::start();
    for (n, (version, sheet)) in
        [("1", "{}"), ("x", r#"{"schema":1,"usage":{"rows":[]},"holds":{}}"#), ("1", "")]
            .into_iter()
            .enumerate()
    {
        let (name, key) = (n.to_string(), format!("{{{n}}}.budget"));
        server.command(&["HSET", &key, "version", version, "sheet", sheet]);
        let before = server.command(&["HGETALL", &key]);
        let refused = Budget::redis(&server.url(), &name).await;
        assert!(matches!(refused, Err(BudgetError::Malformed(_))), "{refused:?}");
        assert_eq!(server.command(&["HGETALL", &key]), before);
    }
    server.command(&["HSET", "{half}.budget", "version", "1"]);
    let refused = Budget::redis(&server.url(), "half").await;
    assert!(matches!(refused, Err(BudgetError::Malformed(_))), "{refused:?}");
}
