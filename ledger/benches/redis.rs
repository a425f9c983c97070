//! How much of Redis a paid request takes: processor time of a real `redis-server`, in
//! microseconds, for one `Reserve` and one `Settle`.
//!
//! ```text
//! cargo bench -p farebox-ledger --bench redis
//! ```
//!
//! Processor time, not requests a second: those depend on what else the machine does. The ratio to
//! scripts that do nothing says what the ledger adds to the two calls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]
#![allow(clippy::float_arithmetic, reason = "microseconds for a person")]

use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farebox_ledger::book::{Line, Route};
use farebox_ledger::store::fund;
use farebox_ledger::{Command, FirstRecord, Ledger, Options, Outcome, Proof, Store as _, Then};
use farebox_protocol::{Currency, PayerId, usd};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

const TASKS: u64 = 64;
const REQUESTS: u64 = 100_000;

/// A server of our own, which ends with the benchmark.
struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(appends: &str) -> Server {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let child = Process::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", appends, "--appendfsync", "everysec", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    Server { child, port, _folder: folder }
}

async fn connect(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    loop {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn info(connection: &mut MultiplexedConnection, fields: &[&str]) -> f64 {
    let info: String = redis::cmd("INFO").query_async(connection).await.unwrap();
    let number = |field: &&str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(*field)?.strip_prefix(':'));
        line.unwrap().trim().parse().unwrap()
    };
    fields.iter().map(number).sum()
}

async fn processor_time(connection: &mut MultiplexedConnection) -> Duration {
    Duration::from_secs_f64(info(connection, &["used_cpu_user", "used_cpu_sys"]).await)
}

async fn memory(connection: &mut MultiplexedConnection) -> f64 {
    info(connection, &["used_memory"]).await
}

fn payer(number: u64) -> PayerId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    PayerId::from_bytes(id)
}

async fn pay(ledger: &Ledger, payer: &PayerId, number: u64, route: &Route) {
    let (id, amount) = (u128::from(number).into(), usd!("0.0001").micros());
    let proof = Proof::Credential { generation: 1, number: None };
    let (currency, ttl) = (Currency::USD, 60_000);
    let reserve = Command::Reserve { id, currency, amount, ttl, proof, claim: None };
    let reserved = ledger.apply(payer, &reserve).await.unwrap().outcome;
    assert!(matches!(reserved, Outcome::Reserved { .. }), "{reserved:?}");
    let lines = vec![Line { route: route.clone(), spent: amount }];
    let settle = Command::Settle { id, claim: None, lines, then: Then::Close };
    let settled = ledger.apply(payer, &settle).await.unwrap().outcome;
    assert!(matches!(settled, Outcome::Settled { .. }), "{settled:?}");
}

/// Two calls with as many keys and arguments, which do nothing.
async fn nothing(connection: &mut MultiplexedConnection, script: &redis::Script) {
    for keys in [3, 4] {
        let mut call = script.prepare_invoke();
        for key in 0..keys {
            call.key(format!("{{farebox.1}}:x:{key}"));
        }
        for argument in 0..7 {
            call.arg(argument);
        }
        let () = call.invoke_async(connection).await.unwrap();
    }
}

/// Microseconds of Redis for each of the requests that `tasks` make together.
async fn measure(
    server: &Server,
    tasks: impl Fn(u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
) -> (f64, f64) {
    let mut connection = connect(server).await;
    let (before, started) = (processor_time(&mut connection).await, Instant::now());
    let mut running = JoinSet::new();
    (0..TASKS).for_each(|task| drop(running.spawn(tasks(task))));
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let (elapsed, used) = (started.elapsed(), processor_time(&mut connection).await - before);
    (used.as_secs_f64() * 1e6 / REQUESTS as f64, REQUESTS as f64 / elapsed.as_secs_f64())
}

/// What is kept for a while after a request, for repeats of it, is gone after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(75);

async fn round(appends: &str, payers: u64, waits: bool) {
    let server = start(appends);
    let mut connection = connect(&server).await;
    let script = Arc::new(redis::Script::new("#!lua\nreturn nil"));
    let nothing_at_all = measure(&server, |_| {
        let (mut connection, script) = (connection.clone(), script.clone());
        Box::pin(async move {
            for _ in 0..REQUESTS / TASKS {
                nothing(&mut connection, &script).await;
            }
        })
    });
    let (floor, _) = nothing_at_all.await;
    let url = format!("redis://127.0.0.1:{}?volatile=1", server.port);
    let first = FirstRecord::new("check", "test", None);
    let ledger = Arc::new(Ledger::open(&url, &first, Options::default()).await.unwrap());
    let empty = memory(&mut connection).await;
    for number in 0..payers {
        fund(&*ledger, &payer(number), usd!("1000000")).await.unwrap();
    }
    let funded = memory(&mut connection).await;
    let (paid, rate) = measure(&server, |task| {
        let ledger = ledger.clone();
        Box::pin(async move {
            let route = Route::new("/joke");
            for at in 0..REQUESTS / TASKS {
                let number = at * TASKS + task;
                pay(&ledger, &payer(number % payers), number, &route).await;
            }
        })
    })
    .await;
    println!(
        "{:>6} {payers:>7} {floor:>12.1} {paid:>12.1} {:>8.2} {rate:>12.0}",
        appends,
        paid / floor
    );
    if waits {
        let at_once = memory(&mut connection).await - funded;
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        let later = memory(&mut connection).await - funded;
        println!(
            "bytes per payer, with what repeats of its top-up find: {:.0}",
            (funded - empty) / payers as f64
        );
        println!(
            "bytes of {REQUESTS} requests: {at_once:.0} at once, {later:.0} after {FORGOTTEN_AFTER:?}"
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("microseconds of Redis, {TASKS} tasks on one connection, {REQUESTS} requests a row");
    println!(
        "{:>6} {:>7} {:>12} {:>12} {:>8} {:>12}",
        "append", "payers", "empty calls", "paid", "ratio", "requests/s"
    );
    for (appends, payers) in [("no", 1), ("no", 1_000), ("yes", 1), ("yes", 1_000)] {
        runtime.block_on(round(appends, payers, (appends, payers) == ("yes", 1_000)));
    }
}
