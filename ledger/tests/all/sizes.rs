//! How much a ledger takes, on disk and in memory.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::book::{Line, Route};
use farebox_ledger::store::{Embedded, fund};
use farebox_ledger::{
    Clock as _, Command, FirstRecord, Ledger, Options, Outcome, Store as _, Then,
};
use farebox_protocol::{PayerId, usd};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};

use crate::disk::Disk;
use crate::machine::reserve;
use crate::stores::{clock, options};

const ROUTES: [&str; 3] = ["/joke", "/story/{id}", "/v1/complete"];
const PAYERS: usize = 10;
const HOURS: usize = 24;

fn payer(n: usize) -> PayerId {
    let mut bytes = [0; 32];
    // Spread, as hashes are.
    bytes[..8].copy_from_slice(&crate::disk::Dice(n as u64).next().to_be_bytes());
    bytes[8..16].copy_from_slice(&(n as u64).to_be_bytes());
    PayerId::from_bytes(bytes)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

/// The rows in a closed ledger, the bytes in them, and the length of its file.
fn stored(disk: &Disk) -> (u64, usize, usize) {
    disk.wait();
    let db = Database::builder().create_with_backend(disk.storage()).unwrap();
    let read = db.begin_read().unwrap();
    let (mut rows, mut bytes) = (0, 0);
    for name in ["heads", "entries", "due"] {
        let table = TableDefinition::<&[u8], &[u8]>::new(name);
        let table = read.open_table(table).unwrap();
        rows += table.len().unwrap();
        for row in table.iter().unwrap() {
            let (key, value) = row.unwrap();
            bytes += key.value().len() + value.value().len();
        }
    }
    (rows, bytes, disk.bytes().len())
}

fn open(disk: &Disk, options: Options) -> Arc<Ledger> {
    disk.wait();
    let first = FirstRecord::new("check", "sandbox", None);
    Arc::new(Ledger::Embedded(Embedded::open_in(disk.storage(), &first, options).unwrap()))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn fund_all(ledger: &Arc<Ledger>, payers: usize) {
    let mut running = tokio::task::JoinSet::new();
    for n in 0..payers {
        let ledger = ledger.clone();
        running.spawn(async move { fund(&*ledger, &payer(n), usd!("50")).await.unwrap() });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[test]
fn a_payer_takes_about_a_kilobyte() {
    const MANY: usize = 10_000;
    let disk = Disk::default();
    let before = resident();
    let ledger = open(&disk, options(&clock()));
    block_on(fund_all(&ledger, MANY));
    let memory = (resident().saturating_sub(before)).saturating_sub(disk.bytes().len());
    drop(ledger);
    let (rows, bytes, file) = stored(&disk);
    println!(
        "{MANY} payers with one top-up each: {rows} rows of {} bytes a payer, a file of {} bytes \
         a payer, about {} bytes of memory a payer",
        bytes / MANY,
        file / MANY,
        memory / MANY
    );
    assert_eq!(rows, 2 * MANY as u64);
    assert!(bytes / MANY < 1_100 && file / MANY < 4_000);
}

/// What `requests` paid requests leave, by few payers over a day.
fn spend(requests: usize) -> (u64, usize, usize) {
    let (disk, clock) = (Disk::default(), clock());
    let options = Options { settle_within: Some(Duration::from_millis(100)), ..options(&clock) };
    let ledger = open(&disk, options);
    let begun = clock.now();
    block_on(async {
        fund_all(&ledger, PAYERS).await;
        let price = usd!("0.0001").micros();
        for request in 0..requests {
            let hour = i64::try_from(request * HOURS / requests).unwrap();
            clock.set(begun.after(hour * 3_600_000));
            let (payer, id) = (payer(request % PAYERS), request as u128);
            ledger.apply(&payer, &reserve(id, price)).await.unwrap();
            let route = Route::new(ROUTES[request / PAYERS % ROUTES.len()]);
            let lines = vec![Line { route, spent: price }];
            let settle = Command::Settle { id: id.into(), claim: None, lines, then: Then::Close };
            let settled = ledger.apply(&payer, &settle).await.unwrap().outcome;
            assert!(matches!(settled, Outcome::Settled { .. }), "{settled:?}");
        }
        ledger.flush().await.unwrap();
        let audit = farebox_ledger::audit::audit(&*ledger, |_, _| ()).await.unwrap();
        assert!(audit.is_clean());
        let income = audit.totals.values().map(|sums| sums.income).sum::<i128>();
        assert_eq!(income, i128::from(price.get()) * requests as i128);
    });
    drop(ledger);
    stored(&disk)
}

#[test]
fn what_requests_leave_grows_with_hours_and_not_with_requests() {
    let requests = std::env::var("FAREBOX_REQUESTS").ok().and_then(|n| n.parse().ok());
    let requests = requests.unwrap_or(10_000);
    let (once, twice) = (spend(requests), spend(2 * requests));
    println!(
        "{requests} paid requests over {HOURS} hours, {PAYERS} payers and 3 routes: {} rows, {} \
         bytes, a file of {}; {} requests: {} rows, {} bytes, a file of {}",
        once.0,
        once.1,
        once.2,
        2 * requests,
        twice.0,
        twice.1,
        twice.2
    );
    // A head and a top-up for each payer, and one row for each payer, hour and route.
    assert_eq!(once.0, (PAYERS * (2 + HOURS * ROUTES.len())) as u64);
    assert_eq!(once.0, twice.0);
    assert!(twice.1 < once.1 + once.1 / 20, "only digits are added");
}
